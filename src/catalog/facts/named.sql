-- The part of head.sql about relations, if any are named.
  'relations', (
    SELECT COALESCE(pg_catalog.json_agg(pg_catalog.json_build_object(
             'name', pg_catalog.json_build_object('schema', a.schema, 'name', a.name),
             'schema_usable', CASE WHEN a.schema OPERATOR(pg_catalog.=) 'pg_temp' THEN true
               ELSE COALESCE(pg_catalog.has_schema_privilege(a.home, 'USAGE'), false) END,
             'may_create', CASE WHEN a.schema OPERATOR(pg_catalog.=) 'pg_temp' THEN false
               ELSE COALESCE(pg_catalog.has_schema_privilege(a.home, 'CREATE'), false) END,
             'found', r.json, 'has', r.has) ORDER BY a.place), '[]')
      FROM asked a
      LEFT JOIN LATERAL (
        SELECT pg_catalog.json_build_object(
                 'oid', c.oid::pg_catalog.int8, 'schema', n.nspname, 'name', c.relname,
                 'kind', c.relkind::pg_catalog.text, 'persistence', c.relpersistence::pg_catalog.text,
                 'bytes', CASE
                   WHEN w.waits OR NOT (c.relkind::pg_catalog.text OPERATOR(pg_catalog.=) ANY (ARRAY['r', 'm', 'i', 'S', 't']))
                   THEN 0
                   ELSE COALESCE(pg_catalog.pg_relation_size(c.oid::pg_catalog.regclass, 'main'), 0)
                        OPERATOR(pg_catalog.+) CASE
                          WHEN c.reltoastrelid OPERATOR(pg_catalog.=) 0::pg_catalog.oid THEN 0
                          ELSE COALESCE(pg_catalog.pg_relation_size(c.reltoastrelid::pg_catalog.regclass, 'main'), 0) END
                   END,
                 'rows', c.reltuples, 'has_children', c.relhassubclass,
                 'is_partition', c.relispartition,
                 -- Partitioned tables have no access method before 17.
                 'passes_storage', c.relkind::pg_catalog.text OPERATOR(pg_catalog.=) 'p'
                   AND NOT (c.reltablespace OPERATOR(pg_catalog.=) 0::pg_catalog.oid
                            AND c.relam OPERATOR(pg_catalog.=) 0::pg_catalog.oid),
                 'typed', c.reloftype OPERATOR(pg_catalog.<>) 0::pg_catalog.oid,
                 'owned', pg_catalog.pg_has_role(c.relowner, 'USAGE'),
                 'may_lock', COALESCE(pg_catalog.has_table_privilege(c.oid, 'UPDATE, DELETE, TRUNCATE'), false),
                 -- As record.sql has it.
                 'recorded', EXISTS (SELECT FROM pg_catalog.pg_description d
                   WHERE d.objoid OPERATOR(pg_catalog.=) c.reltype AND d.objsubid OPERATOR(pg_catalog.=) 0
                     AND d.classoid OPERATOR(pg_catalog.=) 'pg_catalog.pg_type'::pg_catalog.regclass
                     AND pg_catalog.left(d.description, 9) OPERATOR(pg_catalog.=) 'pgsluice '),
                 'is_system', n.nspname OPERATOR(pg_catalog.=)
                              ANY (ARRAY['pg_catalog', 'information_schema', 'pg_toast']::pg_catalog.name[])) AS json,
               pg_catalog.json_build_object(
                 'indexes', c.relhasindex, 'triggers', c.relhastriggers, 'waits', w.waits,
                 'parent', EXISTS (SELECT FROM pg_catalog.pg_inherits i
                                    WHERE i.inhrelid OPERATOR(pg_catalog.=) c.oid)) AS has
          FROM pg_catalog.unnest(CASE
                 WHEN a.schema IS NULL THEN pg_catalog.current_schemas(true)
                 ELSE ARRAY[a.schema::pg_catalog.name] END) WITH ORDINALITY AS s(schema, place)
          JOIN pg_catalog.pg_class c
            ON c.relname OPERATOR(pg_catalog.=) a.name::pg_catalog.name
           AND c.relnamespace OPERATOR(pg_catalog.=) CASE
                 WHEN a.schema OPERATOR(pg_catalog.=) 'pg_temp' THEN pg_catalog.pg_my_temp_schema()
                 ELSE pg_catalog.to_regnamespace(pg_catalog.quote_ident(s.schema))::pg_catalog.oid END
          JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
         -- To open it, or its TOAST table, for its size could wait.
         CROSS JOIN LATERAL (
           SELECT EXISTS (SELECT FROM locks l
                           WHERE NOT l.mine AND l.mode OPERATOR(pg_catalog.=) 'AccessExclusiveLock'
                             AND l.relation OPERATOR(pg_catalog.=) ANY (ARRAY[c.oid, c.reltoastrelid])) AS waits) w
         WHERE c.relkind::pg_catalog.text OPERATOR(pg_catalog.=) ANY (ARRAY['r','p','i','I','S','v','m','f','c','t'])
         ORDER BY s.place LIMIT 1) r ON true)
