/* pgsluice: partitions */
WITH RECURSIVE
-- The partitions of the table $1 and theirs, each behind its parent; none that is half detached (the column is new in 14).
tree(oid, parent, path) AS (
  SELECT $1::pg_catalog.text::pg_catalog.oid, NULL::pg_catalog.oid, ARRAY[]::pg_catalog.oid[]
  UNION ALL
  SELECT i.inhrelid, i.inhparent, t.path OPERATOR(pg_catalog.||) i.inhrelid
    FROM tree t JOIN pg_catalog.pg_inherits i ON i.inhparent OPERATOR(pg_catalog.=) t.oid
   WHERE COALESCE(pg_catalog.to_jsonb(i) OPERATOR(pg_catalog.->>) 'inhdetachpending', 'false')
         OPERATOR(pg_catalog.=) 'false'
),
-- At work on a table with SHARE UPDATE EXCLUSIVE or stronger; a vacuum builds nothing.
busy AS (
  SELECT DISTINCT l.relation AS oid FROM pg_catalog.pg_locks l
   WHERE l.locktype OPERATOR(pg_catalog.=) 'relation' AND l.granted
     AND NOT (l.mode OPERATOR(pg_catalog.=) ANY (ARRAY['AccessShareLock', 'RowShareLock', 'RowExclusiveLock']))
     AND l.database OPERATOR(pg_catalog.=) (SELECT d.oid FROM pg_catalog.pg_database d
           WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database())
     AND COALESCE(l.pid OPERATOR(pg_catalog.<>) pg_catalog.pg_backend_pid(), true)
     AND NOT EXISTS (SELECT FROM pg_catalog.pg_stat_progress_vacuum v
                      WHERE v.pid OPERATOR(pg_catalog.=) l.pid)
),
-- The index that was just built on the empty copy: the newest one there.
wanted AS (
  SELECT i.indexrelid FROM pg_catalog.pg_index i
   WHERE i.indrelid OPERATOR(pg_catalog.=) 'pg_temp.pgsluice_probe'::pg_catalog.regclass
   ORDER BY i.indexrelid DESC LIMIT 1
),
-- All that PostgreSQL compares (CompareIndexInfo): neither the order of a column nor the options of an index.
shape AS (
  SELECT i.indexrelid AS oid, i.indrelid AS table_oid, c.relname, n.nspname,
         i.indisvalid AND i.indisready AND i.indislive AS valid,
         ARRAY[i.indisunique, i.indisexclusion,
               COALESCE(pg_catalog.to_jsonb(i) OPERATOR(pg_catalog.->>) 'indnullsnotdistinct', 'false')
                 OPERATOR(pg_catalog.=) 'true'] AS flags,
         ARRAY[i.indnatts, i.indnkeyatts] AS sizes,
         c.relam,
         i.indcollation::pg_catalog.oid[] AS collations,
         ARRAY(SELECT o.opcfamily FROM pg_catalog.unnest(i.indclass::pg_catalog.oid[]) WITH ORDINALITY AS k(oid, place)
                 JOIN pg_catalog.pg_opclass o ON o.oid OPERATOR(pg_catalog.=) k.oid ORDER BY k.place) AS families,
         ARRAY(SELECT COALESCE(a.attname, '')::pg_catalog.text
                 FROM pg_catalog.unnest(i.indkey::pg_catalog.int2[]) WITH ORDINALITY AS k(number, place)
                 LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid OPERATOR(pg_catalog.=) i.indrelid
                   AND a.attnum OPERATOR(pg_catalog.=) k.number ORDER BY k.place) AS columns,
         CASE WHEN i.indexprs IS NULL THEN ''
              ELSE pg_catalog.pg_get_expr(i.indexprs, i.indrelid) END AS expressions,
         CASE WHEN i.indpred IS NULL THEN ''
              ELSE pg_catalog.pg_get_expr(i.indpred, i.indrelid) END AS predicate
    FROM pg_catalog.pg_index i
    JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) i.indexrelid
    JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
   WHERE i.indislive
     AND (i.indexrelid OPERATOR(pg_catalog.=) (SELECT w.indexrelid FROM wanted w)
       OR i.indrelid OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT t.oid FROM tree t WHERE t.parent IS NOT NULL)))
),
-- The columns that the wanted index is ordered by.
keys(name) AS (
  SELECT pg_catalog.unnest(x.columns[1:x.sizes[2]])
    FROM wanted w JOIN shape x ON x.oid OPERATOR(pg_catalog.=) w.indexrelid
),
-- Of each partition the index that PostgreSQL would attach: the first that is the same and has no parent yet; for a
-- constraint, one that belongs to a constraint.
equal AS (
  SELECT DISTINCT ON (x.table_oid) x.table_oid, x.oid, x.nspname, x.relname, x.valid
    FROM shape x JOIN shape w ON w.oid OPERATOR(pg_catalog.=) (SELECT w.indexrelid FROM wanted w)
   WHERE x.oid OPERATOR(pg_catalog.<>) w.oid
     AND x.flags OPERATOR(pg_catalog.=) w.flags AND x.sizes OPERATOR(pg_catalog.=) w.sizes
     AND x.relam OPERATOR(pg_catalog.=) w.relam
     AND x.collations OPERATOR(pg_catalog.=) w.collations AND x.families OPERATOR(pg_catalog.=) w.families
     AND x.columns OPERATOR(pg_catalog.=) w.columns
     AND x.expressions OPERATOR(pg_catalog.=) w.expressions AND x.predicate OPERATOR(pg_catalog.=) w.predicate
     AND NOT EXISTS (SELECT FROM pg_catalog.pg_inherits i WHERE i.inhrelid OPERATOR(pg_catalog.=) x.oid)
     AND ($2::pg_catalog.text OPERATOR(pg_catalog.=) 'index'
       OR EXISTS (SELECT FROM pg_catalog.pg_constraint k WHERE k.conindid OPERATOR(pg_catalog.=) x.oid
                   AND k.conrelid OPERATOR(pg_catalog.=) x.table_oid
                   AND k.contype::pg_catalog.text OPERATOR(pg_catalog.=) ANY (ARRAY['p', 'u', 'x'])))
   ORDER BY x.table_oid, x.oid
)
SELECT pg_catalog.json_build_object(
  'columns', (SELECT COALESCE(pg_catalog.json_agg(a.attname ORDER BY a.attnum), '[]')
                FROM wanted w JOIN pg_catalog.pg_attribute a ON a.attrelid OPERATOR(pg_catalog.=) w.indexrelid
               WHERE a.attnum OPERATOR(pg_catalog.>) 0),
  'unique', (SELECT i.indisunique FROM wanted w
               JOIN pg_catalog.pg_index i ON i.indexrelid OPERATOR(pg_catalog.=) w.indexrelid),
  'keys', ARRAY(SELECT k.name FROM keys k),
  'members', (
    SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
             'oid', c.oid::pg_catalog.int8, 'schema', n.nspname, 'name', c.relname,
             'kind', c.relkind::pg_catalog.text,
             'parent', t.parent::pg_catalog.int8,
             'key', (SELECT pg_catalog.json_agg(a.attname ORDER BY k.place)
                       FROM pg_catalog.pg_partitioned_table p
                      CROSS JOIN LATERAL pg_catalog.unnest(p.partattrs::pg_catalog.int2[])
                            WITH ORDINALITY AS k(number, place)
                       LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid OPERATOR(pg_catalog.=) p.partrelid
                         AND a.attnum OPERATOR(pg_catalog.=) k.number
                      WHERE p.partrelid OPERATOR(pg_catalog.=) c.oid),
             'owned', pg_catalog.pg_has_role(c.relowner, 'USAGE'),
             'busy', c.oid OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT b.oid FROM busy b)),
             'invalid', (SELECT COALESCE(pg_catalog.json_agg(i.indexrelid::pg_catalog.int8), '[]')
                           FROM pg_catalog.pg_index i
                          WHERE i.indrelid OPERATOR(pg_catalog.=) c.oid AND NOT i.indisvalid),
             'nullable', (SELECT COALESCE(pg_catalog.json_agg(a.attname ORDER BY a.attnum), '[]')
                            FROM pg_catalog.pg_attribute a
                           WHERE a.attrelid OPERATOR(pg_catalog.=) c.oid AND NOT a.attisdropped AND NOT a.attnotnull
                             AND a.attname::pg_catalog.text OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT k.name FROM keys k))),
             'inherits_not_null', EXISTS (
               SELECT FROM pg_catalog.pg_constraint n
                 JOIN pg_catalog.pg_attribute a ON a.attrelid OPERATOR(pg_catalog.=) c.oid
                  AND a.attnum OPERATOR(pg_catalog.=) ANY (n.conkey)
                WHERE n.conrelid OPERATOR(pg_catalog.=) c.oid AND n.contype::pg_catalog.text OPERATOR(pg_catalog.=) 'n'
                  AND NOT n.conislocal
                  AND a.attname::pg_catalog.text OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT k.name FROM keys k))),
             'equal', (SELECT pg_catalog.json_build_object('oid', e.oid::pg_catalog.int8, 'schema', e.nspname,
                                                           'name', e.relname, 'valid', e.valid)
                         FROM equal e WHERE e.table_oid OPERATOR(pg_catalog.=) c.oid))
           ORDER BY t.path)
      FROM tree t
      JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) t.oid
      JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace)
)::pg_catalog.text
