/* pgsluice: facts, the tables of indexes and sequences */
SELECT COALESCE(pg_catalog.json_agg(pg_catalog.json_build_object(
         'of', o.oid::pg_catalog.int8,
         'relation', pg_catalog.json_build_object('oid', c.oid::pg_catalog.int8, 'schema', n.nspname, 'name', c.relname),
         'kind', c.relkind::pg_catalog.text, 'persistence', c.relpersistence::pg_catalog.text,
         'may_lock', COALESCE(pg_catalog.has_table_privilege(c.oid, 'UPDATE, DELETE, TRUNCATE'), false))), '[]')
         ::pg_catalog.text
  FROM (SELECT i.indexrelid AS oid, i.indrelid AS table_oid
          FROM pg_catalog.pg_index i
         WHERE i.indexrelid OPERATOR(pg_catalog.=) ANY ($1::pg_catalog.text::pg_catalog.oid[])
        UNION ALL
        SELECT d.objid, d.refobjid
          FROM pg_catalog.pg_depend d
          JOIN pg_catalog.pg_class s ON s.oid OPERATOR(pg_catalog.=) d.objid
           AND s.relkind::pg_catalog.text OPERATOR(pg_catalog.=) 'S'
         WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
           AND d.objid OPERATOR(pg_catalog.=) ANY ($1::pg_catalog.text::pg_catalog.oid[])
           AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
           AND d.deptype::pg_catalog.text OPERATOR(pg_catalog.=) ANY (ARRAY['a', 'i'])) o
  JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) o.table_oid
  JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
