/* pgsluice: facts */
WITH me AS (
  SELECT pg_catalog.pg_backend_pid() AS pid,
         (SELECT d.oid FROM pg_catalog.pg_database d
           WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()) AS database
),
-- Read once, before anything that could itself wait is called. The statement's own locks are no news.
locks AS (
  SELECT l.locktype, l.relation, l.objid, l.pid, l.mode, l.granted,
         -- A prepared transaction holds locks without a pid.
         COALESCE(l.pid OPERATOR(pg_catalog.=) me.pid, false) AS mine
    FROM me JOIN pg_catalog.pg_locks l ON l.database OPERATOR(pg_catalog.=) me.database
   WHERE CASE
     WHEN l.locktype OPERATOR(pg_catalog.=) 'advisory'
     THEN l.granted AND l.classid OPERATOR(pg_catalog.=) 1885827948::pg_catalog.oid
      AND l.objsubid OPERATOR(pg_catalog.=) 2 AND l.pid OPERATOR(pg_catalog.<>) me.pid
     WHEN l.locktype OPERATOR(pg_catalog.<>) 'relation' THEN false
     WHEN l.pid OPERATOR(pg_catalog.=) me.pid
     THEN l.mode OPERATOR(pg_catalog.<>) 'AccessShareLock' OR l.relation::pg_catalog.int8 OPERATOR(pg_catalog.>=) 16384
     ELSE l.mode OPERATOR(pg_catalog.=) ANY (ARRAY['ShareUpdateExclusiveLock', 'ShareLock',
            'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock'])
   END
),
asked AS (
  SELECT a.schema, a.name, a.place,
         pg_catalog.to_regnamespace(pg_catalog.quote_ident(
           COALESCE(a.schema::pg_catalog.name, pg_catalog.current_schema())))::pg_catalog.oid AS home
    FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.text::pg_catalog.text[]),
                    pg_catalog.unnest($2::pg_catalog.text::pg_catalog.text[]))
         WITH ORDINALITY AS a(schema, name, place)
)
SELECT pg_catalog.json_build_object(
  'session', pg_catalog.json_build_object(
    'server_version', pg_catalog.current_setting('server_version_num')::pg_catalog.int4,
    'backend_pid', me.pid,
    -- "200ms", "5s", "1min": the words of timeouts are words of intervals too.
    'lock_timeout_ms', (pg_catalog.date_part('epoch',
      pg_catalog.current_setting('lock_timeout')::pg_catalog.interval) OPERATOR(pg_catalog.*) 1000)::pg_catalog.int8,
    'statement_timeout_ms', (pg_catalog.date_part('epoch',
      pg_catalog.current_setting('statement_timeout')::pg_catalog.interval) OPERATOR(pg_catalog.*) 1000)::pg_catalog.int8,
    'deadlock_timeout_ms', (pg_catalog.date_part('epoch',
      pg_catalog.current_setting('deadlock_timeout')::pg_catalog.interval) OPERATOR(pg_catalog.*) 1000)::pg_catalog.int8,
    'may_probe', pg_catalog.has_database_privilege(me.database, 'TEMP')
                 AND NOT pg_catalog.current_setting('transaction_read_only')::pg_catalog.bool,
    'frozen_snapshot', pg_catalog.current_setting('transaction_isolation')
                       OPERATOR(pg_catalog.=) ANY (ARRAY['repeatable read', 'serializable']),
    'read_only', pg_catalog.current_setting('transaction_read_only')::pg_catalog.bool,
    'hushed', pg_catalog.current_setting('client_min_messages')
              OPERATOR(pg_catalog.=) ANY (ARRAY['warning', 'error', 'fatal', 'panic']),
    'event_triggers', EXISTS (SELECT FROM pg_catalog.pg_event_trigger e
                               WHERE e.evtenabled::pg_catalog.text OPERATOR(pg_catalog.<>) 'D'),
    'current_schema', pg_catalog.current_schema()),
  'holds', EXISTS (SELECT FROM locks l WHERE l.mine),
  'others', (
    SELECT COALESCE(pg_catalog.json_agg(pg_catalog.json_build_object(
             'oid', COALESCE(l.relation, l.objid)::pg_catalog.int8, 'pid', l.pid, 'mode', l.mode,
             'granted', l.granted, 'lane', l.locktype OPERATOR(pg_catalog.=) 'advisory')), '[]')
      FROM locks l WHERE NOT l.mine),
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
)::pg_catalog.text
FROM me
