/* pgsluice: attach */
WITH RECURSIVE
asked AS (
  SELECT $1::pg_catalog.text::pg_catalog.oid AS parent, $2::pg_catalog.text::pg_catalog.oid AS part
),
-- The default partition, if there is one (the column does not exist on 10), with what is under it.
defaults(root, oid) AS (
  SELECT x.oid, x.oid
    FROM asked a
    JOIN pg_catalog.pg_partitioned_table p ON p.partrelid OPERATOR(pg_catalog.=) a.parent
   CROSS JOIN LATERAL (
     SELECT (pg_catalog.to_jsonb(p) OPERATOR(pg_catalog.->>) 'partdefid')::pg_catalog.oid AS oid) x
   WHERE x.oid OPERATOR(pg_catalog.<>) 0::pg_catalog.oid
  UNION ALL
  SELECT d.root, i.inhrelid
    FROM defaults d JOIN pg_catalog.pg_inherits i ON i.inhparent OPERATOR(pg_catalog.=) d.oid
),
-- All that PostgreSQL compares (CompareIndexInfo): neither the order of a column nor the options of an index.
shape AS (
  SELECT i.indexrelid AS oid, i.indrelid AS table_oid, c.relname, c.reltablespace, i.indisprimary, i.indisexclusion,
         k.conname, k.condeferrable, k.condeferred,
         pg_catalog.row_to_json(ROW(
           i.indisunique, COALESCE(pg_catalog.to_jsonb(i) OPERATOR(pg_catalog.->>) 'indnullsnotdistinct', 'false'),
           i.indnatts, pg_catalog.to_jsonb(i) OPERATOR(pg_catalog.->>) 'indnkeyatts', c.relam,
           i.indcollation::pg_catalog.oid[],
           ARRAY(SELECT o.opcfamily FROM pg_catalog.unnest(i.indclass::pg_catalog.oid[]) WITH ORDINALITY AS q(oid, place)
                   JOIN pg_catalog.pg_opclass o ON o.oid OPERATOR(pg_catalog.=) q.oid ORDER BY q.place),
           ARRAY(SELECT COALESCE(a.attname, '')::pg_catalog.text
                   FROM pg_catalog.unnest(i.indkey::pg_catalog.int2[]) WITH ORDINALITY AS q(number, place)
                   LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid OPERATOR(pg_catalog.=) i.indrelid
                     AND a.attnum OPERATOR(pg_catalog.=) q.number ORDER BY q.place),
           CASE WHEN i.indexprs IS NULL THEN ''
                ELSE pg_catalog.pg_get_expr(i.indexprs, i.indrelid) END,
           CASE WHEN i.indpred IS NULL THEN ''
                ELSE pg_catalog.pg_get_expr(i.indpred, i.indrelid) END))::pg_catalog.text AS form
    FROM asked q
    JOIN pg_catalog.pg_index i ON i.indrelid OPERATOR(pg_catalog.=) q.parent
                               OR i.indrelid OPERATOR(pg_catalog.=) q.part
    JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) i.indexrelid
    LEFT JOIN pg_catalog.pg_constraint k ON k.conindid OPERATOR(pg_catalog.=) i.indexrelid
      AND k.conrelid OPERATOR(pg_catalog.=) i.indrelid
      AND k.contype::pg_catalog.text OPERATOR(pg_catalog.=) ANY (ARRAY['p', 'u', 'x'])
   WHERE i.indislive
),
-- Indexes of the parent for which the partition has none: its nth of one form needs an nth one there.
missing AS (
  SELECT w.*
    FROM asked q JOIN shape w ON w.table_oid OPERATOR(pg_catalog.=) q.parent
   WHERE (SELECT pg_catalog.count(*) FROM shape x
           WHERE x.table_oid OPERATOR(pg_catalog.=) q.part AND x.form OPERATOR(pg_catalog.=) w.form
             AND NOT x.indisexclusion AND (w.conname IS NULL OR x.conname IS NOT NULL))
         OPERATOR(pg_catalog.<)
         (SELECT pg_catalog.count(*) FROM shape x
           WHERE x.table_oid OPERATOR(pg_catalog.=) q.parent AND x.form OPERATOR(pg_catalog.=) w.form
             AND x.oid OPERATOR(pg_catalog.<=) w.oid AND (x.conname IS NULL) OPERATOR(pg_catalog.=) (w.conname IS NULL))
)
SELECT pg_catalog.json_build_object(
  'key', pg_catalog.pg_get_partkeydef(q.parent),
  'parent', q.parent::pg_catalog.int8,
  'code', the_code,
  'constraint', CASE WHEN (SELECT c.relispartition FROM pg_catalog.pg_class c
                            WHERE c.oid OPERATOR(pg_catalog.=) q.parent)
                     THEN pg_catalog.pg_get_partition_constraintdef(q.parent) END,
  'siblings', CASE WHEN $3::pg_catalog.text OPERATOR(pg_catalog.=) 'siblings' THEN (
    SELECT pg_catalog.json_agg(pg_catalog.pg_get_expr(c.relpartbound, c.oid))
      FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) i.inhrelid
     WHERE i.inhparent OPERATOR(pg_catalog.=) q.parent) END,
  'default', (
    SELECT pg_catalog.json_build_object('oid', c.oid::pg_catalog.int8, 'schema', n.nspname, 'name', c.relname,
             'kind', c.relkind::pg_catalog.text,
             'bytes', (SELECT COALESCE(pg_catalog.sum(pg_catalog.pg_relation_size(d.oid::pg_catalog.regclass)), 0)
                         FROM defaults d
                         JOIN pg_catalog.pg_class k ON k.oid OPERATOR(pg_catalog.=) d.oid
                        WHERE k.relkind::pg_catalog.text OPERATOR(pg_catalog.=) 'r')::pg_catalog.int8,
             'owned', pg_catalog.pg_has_role(c.relowner, 'USAGE'),
             'checks', (SELECT COALESCE(pg_catalog.json_agg(pg_catalog.pg_get_constraintdef(k.oid) ORDER BY k.oid), '[]')
                          FROM pg_catalog.pg_constraint k
                         WHERE k.conrelid OPERATOR(pg_catalog.=) c.oid AND k.convalidated
                           AND k.contype::pg_catalog.text OPERATOR(pg_catalog.=) 'c'))
      FROM defaults d
      JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) d.oid
      JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
     WHERE d.oid OPERATOR(pg_catalog.=) d.root),
  'missing', (
    SELECT COALESCE(pg_catalog.json_agg(pg_catalog.json_build_object(
             'definition', pg_catalog.pg_get_indexdef(m.oid),
             'columns', (SELECT pg_catalog.json_agg(a.attname ORDER BY a.attnum) FROM pg_catalog.pg_attribute a
                          WHERE a.attrelid OPERATOR(pg_catalog.=) m.oid AND a.attnum OPERATOR(pg_catalog.>) 0),
             'plain', m.reltablespace OPERATOR(pg_catalog.=) 0::pg_catalog.oid AND NOT m.indisexclusion,
             'constraint', CASE WHEN m.conname IS NULL THEN NULL
                                WHEN m.indisprimary THEN 'PRIMARY KEY' ELSE 'UNIQUE' END,
             'deferral', CASE WHEN m.condeferred THEN ' DEFERRABLE INITIALLY DEFERRED'
                              WHEN m.condeferrable THEN ' DEFERRABLE' ELSE '' END) ORDER BY m.oid), '[]')
      FROM missing m),
  'foreign_keys', (
    SELECT COALESCE(pg_catalog.json_agg(pg_catalog.json_build_object(
             'name', k.conname, 'definition', pg_catalog.pg_get_constraintdef(k.oid),
             'taken', EXISTS (SELECT FROM pg_catalog.pg_constraint x
                               WHERE x.conrelid OPERATOR(pg_catalog.=) q.part
                                 AND x.conname OPERATOR(pg_catalog.=) k.conname)) ORDER BY k.oid), '[]')
      FROM pg_catalog.pg_constraint k
     WHERE k.conrelid OPERATOR(pg_catalog.=) q.parent AND k.contype::pg_catalog.text OPERATOR(pg_catalog.=) 'f'
       -- Not those behind one that points to a partitioned table, one for each of its partitions.
       AND NOT EXISTS (
         SELECT FROM pg_catalog.pg_constraint x
          WHERE x.conrelid OPERATOR(pg_catalog.=) q.parent
            AND x.oid OPERATOR(pg_catalog.=)
                COALESCE(pg_catalog.to_jsonb(k) OPERATOR(pg_catalog.->>) 'conparentid', '0')::pg_catalog.oid)
       AND NOT EXISTS (
         SELECT FROM pg_catalog.pg_constraint x
          WHERE x.conrelid OPERATOR(pg_catalog.=) q.part AND x.contype::pg_catalog.text OPERATOR(pg_catalog.=) 'f'
            AND x.convalidated AND x.confrelid OPERATOR(pg_catalog.=) k.confrelid
            AND pg_catalog.pg_get_constraintdef(x.oid) OPERATOR(pg_catalog.=) pg_catalog.pg_get_constraintdef(k.oid)))
)::pg_catalog.text
FROM asked q
