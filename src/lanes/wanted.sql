SELECT DISTINCT c.oid
  FROM (
    SELECT pg_catalog.to_regclass(a.name)::pg_catalog.oid AS oid
      FROM pg_catalog.unnest($1::pg_catalog.text::pg_catalog.text[]) AS a(name)
    UNION ALL
    SELECT b.oid FROM pg_catalog.unnest($2::pg_catalog.text::pg_catalog.oid[]) AS b(oid)) AS n
  -- An index is changed in its table's lane.
  LEFT JOIN pg_catalog.pg_index i ON i.indexrelid OPERATOR(pg_catalog.=) n.oid
  JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) COALESCE(i.indrelid, n.oid)
 WHERE c.relpersistence OPERATOR(pg_catalog.<>) 't' AND c.oid::pg_catalog.int8 OPERATOR(pg_catalog.>=) 16384
 ORDER BY 1 OFFSET 0
