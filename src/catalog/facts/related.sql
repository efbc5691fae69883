/* pgsluice: facts, relations that nobody has named */
SELECT COALESCE(pg_catalog.json_agg(pg_catalog.json_build_object(
         'relation', pg_catalog.json_build_object('oid', c.oid::pg_catalog.int8, 'schema', n.nspname, 'name', c.relname),
         'kind', c.relkind::pg_catalog.text, 'persistence', c.relpersistence::pg_catalog.text,
         'may_lock', COALESCE(pg_catalog.has_table_privilege(c.oid, 'UPDATE, DELETE, TRUNCATE'), false))
       ORDER BY c.oid), '[]')::pg_catalog.text
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
 WHERE c.oid OPERATOR(pg_catalog.=) ANY ($1::pg_catalog.text::pg_catalog.oid[])
