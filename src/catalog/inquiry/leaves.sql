/* pgsluice: leaves */
WITH RECURSIVE
-- The partitions of the table $1 and theirs, each behind its parent; none that is half detached (the column is new in 14).
tree(oid, path) AS (
  SELECT $1::pg_catalog.text::pg_catalog.oid, ARRAY[]::pg_catalog.oid[]
  UNION ALL
  SELECT i.inhrelid, t.path OPERATOR(pg_catalog.||) i.inhrelid
    FROM tree t JOIN pg_catalog.pg_inherits i ON i.inhparent OPERATOR(pg_catalog.=) t.oid
   WHERE COALESCE(pg_catalog.to_jsonb(i) OPERATOR(pg_catalog.->>) 'inhdetachpending', 'false')
         OPERATOR(pg_catalog.=) 'false'
)
SELECT pg_catalog.json_build_object(
  -- The first of the names $3 that no constraint of the schema has.
  'name', (
    SELECT x.name FROM pg_catalog.unnest($3::pg_catalog.text[]) WITH ORDINALITY AS x(name, place)
     WHERE NOT EXISTS (
       SELECT FROM pg_catalog.pg_constraint k
        WHERE k.connamespace OPERATOR(pg_catalog.=) (SELECT c.relnamespace FROM pg_catalog.pg_class c
                WHERE c.oid OPERATOR(pg_catalog.=) $1::pg_catalog.text::pg_catalog.oid)
          AND k.conname OPERATOR(pg_catalog.=) x.name::pg_catalog.name)
     ORDER BY x.place LIMIT 1),
  'leaves', (
    SELECT COALESCE(pg_catalog.json_agg(pg_catalog.json_build_object(
             'oid', c.oid::pg_catalog.int8, 'schema', n.nspname, 'name', c.relname,
             'kind', c.relkind::pg_catalog.text,
             'owned', pg_catalog.pg_has_role(c.relowner, 'USAGE'),
             'empty', CASE WHEN c.relkind::pg_catalog.text OPERATOR(pg_catalog.=) 'r'
                           THEN pg_catalog.pg_relation_size(c.oid::pg_catalog.regclass) OPERATOR(pg_catalog.=) 0
                           ELSE true END,
             'constraints', (SELECT COALESCE(pg_catalog.json_agg(k.conname), '[]') FROM pg_catalog.pg_constraint k
                              WHERE k.conrelid OPERATOR(pg_catalog.=) c.oid),
             'points', EXISTS (SELECT FROM pg_catalog.pg_constraint k
                                WHERE k.conrelid OPERATOR(pg_catalog.=) c.oid
                                  AND k.contype::pg_catalog.text OPERATOR(pg_catalog.=) 'f'
                                  AND k.coninhcount OPERATOR(pg_catalog.=) 0
                                  AND k.confrelid OPERATOR(pg_catalog.=) $2::pg_catalog.text::pg_catalog.oid))
           ORDER BY t.path), '[]')
      FROM tree t
      JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) t.oid
      JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
     WHERE t.path OPERATOR(pg_catalog.<>) ARRAY[]::pg_catalog.oid[])
)::pg_catalog.text
