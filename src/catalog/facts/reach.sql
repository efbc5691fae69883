/* pgsluice: facts, how far foreign keys reach: what TRUNCATE ... CASCADE goes through, and where those of its partitions alone point to */
WITH RECURSIVE root(oid) AS (
  SELECT f.oid FROM pg_catalog.unnest($1::pg_catalog.text::pg_catalog.oid[]) AS f(oid)
),
every_fk AS (
  SELECT k.conrelid, k.confrelid, k.coninhcount OPERATOR(pg_catalog.>) 0 AS of_parent
    FROM pg_catalog.pg_constraint k
   WHERE k.contype::pg_catalog.text OPERATOR(pg_catalog.=) 'f'
),
reaching(root, oid) AS (
  SELECT r.oid, r.oid FROM root r
  UNION
  SELECT r.root, k.conrelid
    FROM reaching r JOIN every_fk k ON k.confrelid OPERATOR(pg_catalog.=) r.oid
),
tree(root, oid) AS (
  SELECT r.oid, r.oid FROM root r
  UNION
  SELECT t.root, i.inhrelid
    FROM tree t JOIN pg_catalog.pg_inherits i ON i.inhparent OPERATOR(pg_catalog.=) t.oid
)
SELECT COALESCE(pg_catalog.json_agg(pg_catalog.json_build_object(
         'of', f.oid::pg_catalog.int8,
         'reached', (SELECT COALESCE(pg_catalog.json_agg(r.oid::pg_catalog.int8 ORDER BY r.oid), '[]')
                       FROM reaching r
                      WHERE r.root OPERATOR(pg_catalog.=) f.oid AND r.oid OPERATOR(pg_catalog.<>) f.oid),
         'pointed', (SELECT COALESCE(pg_catalog.json_agg(DISTINCT k.confrelid::pg_catalog.int8), '[]')
                       FROM tree t JOIN every_fk k ON k.conrelid OPERATOR(pg_catalog.=) t.oid
                      WHERE t.root OPERATOR(pg_catalog.=) f.oid AND t.oid OPERATOR(pg_catalog.<>) f.oid
                        AND NOT k.of_parent))), '[]')::pg_catalog.text
  FROM root f
