/* pgsluice: facts, parents, children and default partitions */
SELECT COALESCE(pg_catalog.json_agg(pg_catalog.json_build_object(
         'of', f.oid::pg_catalog.int8, 'parent', i.inhparent::pg_catalog.int8,
         'has_children', EXISTS (SELECT FROM pg_catalog.pg_inherits h
                                  WHERE h.inhparent OPERATOR(pg_catalog.=) f.oid),
         -- The columns do not exist before 14, and before 11.
         'detach_pending', COALESCE(pg_catalog.to_jsonb(i) OPERATOR(pg_catalog.->>) 'inhdetachpending', 'false')
                           OPERATOR(pg_catalog.=) 'true',
         -- Since 14 only one partition at a time can be on its way off.
         'detaching', EXISTS (SELECT FROM pg_catalog.pg_inherits h
                               WHERE h.inhparent OPERATOR(pg_catalog.=) f.oid
                                 AND (pg_catalog.to_jsonb(h) OPERATOR(pg_catalog.->>) 'inhdetachpending')
                                     OPERATOR(pg_catalog.=) 'true'),
         -- Of partitions there are none.
         'child_columns', (
           WITH RECURSIVE under(oid) AS (
             SELECT c.oid FROM pg_catalog.pg_class c
              WHERE c.oid OPERATOR(pg_catalog.=) f.oid
                AND c.relkind::pg_catalog.text OPERATOR(pg_catalog.=) 'r' AND c.relhassubclass
             UNION
             SELECT h.inhrelid
               FROM under u JOIN pg_catalog.pg_inherits h ON h.inhparent OPERATOR(pg_catalog.=) u.oid
           )
           SELECT COALESCE(pg_catalog.json_agg(DISTINCT a.attname::pg_catalog.text), '[]')
             FROM under u JOIN pg_catalog.pg_attribute a ON a.attrelid OPERATOR(pg_catalog.=) u.oid
            WHERE u.oid OPERATOR(pg_catalog.<>) f.oid
              AND a.attnum OPERATOR(pg_catalog.>) 0 AND NOT a.attisdropped
              AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute own
                WHERE own.attrelid OPERATOR(pg_catalog.=) f.oid AND own.attname OPERATOR(pg_catalog.=) a.attname)),
         'defaults', (
           SELECT COALESCE(pg_catalog.json_agg(
                    (pg_catalog.to_jsonb(p) OPERATOR(pg_catalog.->>) 'partdefid')::pg_catalog.int8
                    ORDER BY p.partrelid OPERATOR(pg_catalog.<>) f.oid), '[]')
             FROM pg_catalog.pg_partitioned_table p
            WHERE p.partrelid OPERATOR(pg_catalog.=) ANY (ARRAY[f.oid, i.inhparent])))), '[]')::pg_catalog.text
  FROM pg_catalog.unnest($1::pg_catalog.text::pg_catalog.oid[]) AS f(oid)
  LEFT JOIN pg_catalog.pg_inherits i
    ON i.inhrelid OPERATOR(pg_catalog.=) f.oid AND i.inhseqno OPERATOR(pg_catalog.=) 1
