/* pgsluice: what tables are to be filled */
WITH RECURSIVE tree(oid) AS (
  SELECT $1::pg_catalog.text::pg_catalog.oid
  UNION
  SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN tree t ON i.inhparent OPERATOR(pg_catalog.=) t.oid
), leaf AS (
  SELECT c.oid, n.nspname, c.relname, c.reltuples, c.relpages, (pg_catalog.pg_relation_size(c.oid::pg_catalog.regclass, 'main')
    OPERATOR(pg_catalog./) pg_catalog.current_setting('block_size')::pg_catalog.int8) AS pages
  FROM tree t JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) t.oid
  JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
  WHERE c.relkind OPERATOR(pg_catalog.=) 'r'
)
SELECT pg_catalog.jsonb_build_object(
  'block_size', pg_catalog.current_setting('block_size')::pg_catalog.int8,
  'leaves', COALESCE(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
    'oid', l.oid::pg_catalog.int8, 'schema', l.nspname, 'name', l.relname, 'pages', COALESCE(l.pages, 0),
    'file', COALESCE(pg_catalog.pg_relation_filenode(l.oid::pg_catalog.regclass)::pg_catalog.int8, 0),
    -- As the planner does: as dense as it was when the statistics were made.
    'rows', CASE WHEN l.pages OPERATOR(pg_catalog.=) 0 THEN 0
      WHEN l.relpages OPERATOR(pg_catalog.>) 0 AND l.reltuples OPERATOR(pg_catalog.>=) 0 THEN
      pg_catalog.round((l.reltuples::pg_catalog.float8 OPERATOR(pg_catalog./) l.relpages::pg_catalog.float8)
        OPERATOR(pg_catalog.*) l.pages::pg_catalog.float8) END
  ) ORDER BY l.oid), '[]'))::pg_catalog.text
FROM leaf l
