/* pgsluice: facts, sizes; $2: relations that opening would have to wait for, so that the catalogue's estimate must do */
SELECT COALESCE(pg_catalog.json_agg(pg_catalog.json_build_object(
         'of', s.root::pg_catalog.int8, 'relations', s.relations, 'bytes', s.bytes::pg_catalog.int8,
         'tuples', s.tuples)), '[]')::pg_catalog.text
  FROM (
    SELECT t.root, pg_catalog.count(*) AS relations,
           pg_catalog.sum(CASE
             WHEN NOT (c.relkind::pg_catalog.text OPERATOR(pg_catalog.=) ANY (ARRAY['r', 'm', 'i', 'S', 't'])) THEN 0
             WHEN c.oid OPERATOR(pg_catalog.=) ANY ($2::pg_catalog.text::pg_catalog.oid[])
             THEN GREATEST(c.relpages OPERATOR(pg_catalog.*) b.size,
                           COALESCE(pg_catalog.pg_stat_get_tuples_inserted(c.oid), 0) OPERATOR(pg_catalog.*) 64)
             ELSE COALESCE(pg_catalog.pg_relation_size(c.oid::pg_catalog.regclass, 'main'), 0) END
             OPERATOR(pg_catalog.+) CASE
             WHEN tc.oid IS NULL THEN 0
             WHEN tc.oid OPERATOR(pg_catalog.=) ANY ($2::pg_catalog.text::pg_catalog.oid[])
             THEN GREATEST(tc.relpages, 0) OPERATOR(pg_catalog.*) b.size
             ELSE COALESCE(pg_catalog.pg_relation_size(tc.oid::pg_catalog.regclass, 'main'), 0) END) AS bytes,
           pg_catalog.sum(GREATEST(c.reltuples, 0)) AS tuples
      FROM (SELECT pg_catalog.current_setting('block_size')::pg_catalog.int8 AS size) b
     CROSS JOIN tree t
      JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) t.oid
      LEFT JOIN pg_catalog.pg_class tc ON tc.oid OPERATOR(pg_catalog.=) c.reltoastrelid
     GROUP BY t.root) s
