/* pgsluice: facts, parents, children and default partitions */
SELECT COALESCE(pg_catalog.json_agg(pg_catalog.json_build_object(
         'of', f.oid::pg_catalog.int8, 'parent', i.inhparent::pg_catalog.int8,
         'has_children', EXISTS (SELECT FROM pg_catalog.pg_inherits h
                                  WHERE h.inhparent OPERATOR(pg_catalog.=) f.oid),
         -- The columns do not exist before 14, and before 11.
         'detach_pending', COALESCE(pg_catalog.to_jsonb(i) OPERATOR(pg_catalog.->>) 'inhdetachpending', 'false')
                           OPERATOR(pg_catalog.=) 'true',
         'defaults', (
           SELECT COALESCE(pg_catalog.json_agg(
                    (pg_catalog.to_jsonb(p) OPERATOR(pg_catalog.->>) 'partdefid')::pg_catalog.int8
                    ORDER BY p.partrelid OPERATOR(pg_catalog.<>) f.oid), '[]')
             FROM pg_catalog.pg_partitioned_table p
            WHERE p.partrelid OPERATOR(pg_catalog.=) ANY (ARRAY[f.oid, i.inhparent])))), '[]')::pg_catalog.text
  FROM pg_catalog.unnest($1::pg_catalog.text::pg_catalog.oid[]) AS f(oid)
  LEFT JOIN pg_catalog.pg_inherits i
    ON i.inhrelid OPERATOR(pg_catalog.=) f.oid AND i.inhseqno OPERATOR(pg_catalog.=) 1
