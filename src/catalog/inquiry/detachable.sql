/* pgsluice: detachable */
WITH RECURSIVE
asked AS (
  SELECT i.inhrelid AS part, i.inhparent AS parent
    FROM pg_catalog.pg_inherits i
   WHERE i.inhrelid OPERATOR(pg_catalog.=) $1::pg_catalog.text::pg_catalog.oid
),
tree(oid) AS (
  SELECT a.parent FROM asked a
  UNION ALL
  SELECT i.inhrelid FROM tree t JOIN pg_catalog.pg_inherits i ON i.inhparent OPERATOR(pg_catalog.=) t.oid
),
-- All that DROP TABLE drops with it. Its type, its indexes and constraints, its partitions and theirs depend on it so.
gone(classid, objid) AS (
  SELECT 'pg_catalog.pg_class'::pg_catalog.regclass::pg_catalog.oid, a.part FROM asked a
  UNION
  SELECT d.classid, d.objid
    FROM gone g
    JOIN pg_catalog.pg_depend d ON d.refclassid OPERATOR(pg_catalog.=) g.classid
                               AND d.refobjid OPERATOR(pg_catalog.=) g.objid
   WHERE NOT (d.deptype::pg_catalog.text OPERATOR(pg_catalog.=) ANY (ARRAY['n', 'e', 'x']))
)
SELECT pg_catalog.json_build_object(
  'parent', pg_catalog.json_build_object('oid', c.oid::pg_catalog.int8, 'schema', n.nspname, 'name', c.relname),
  'owned', pg_catalog.pg_has_role(c.relowner, 'USAGE'),
  'bytes', (SELECT pg_catalog.sum(GREATEST(t.relpages, 0)) OPERATOR(pg_catalog.*)
                   pg_catalog.current_setting('block_size')::pg_catalog.int8
              FROM tree x JOIN pg_catalog.pg_class t ON t.oid OPERATOR(pg_catalog.=) x.oid)::pg_catalog.int8,
  'bound', pg_catalog.pg_get_expr(p.relpartbound, p.oid),
  'hash', (SELECT k.partstrat::pg_catalog.text FROM pg_catalog.pg_partitioned_table k
            WHERE k.partrelid OPERATOR(pg_catalog.=) c.oid) OPERATOR(pg_catalog.=) 'h',
  'another', EXISTS (SELECT FROM pg_catalog.pg_inherits i
                      WHERE i.inhparent OPERATOR(pg_catalog.=) c.oid AND i.inhrelid OPERATOR(pg_catalog.<>) p.oid
                        AND i.inhdetachpending),
  'needed', EXISTS (
    SELECT FROM gone g
      JOIN pg_catalog.pg_depend d ON d.refclassid OPERATOR(pg_catalog.=) g.classid
                                 AND d.refobjid OPERATOR(pg_catalog.=) g.objid
     WHERE d.deptype::pg_catalog.text OPERATOR(pg_catalog.=) 'n'
       AND NOT EXISTS (SELECT FROM gone x WHERE x.classid OPERATOR(pg_catalog.=) d.classid
                                            AND x.objid OPERATOR(pg_catalog.=) d.objid))
    OR EXISTS (
    SELECT FROM gone g
      JOIN pg_catalog.pg_depend d ON d.classid OPERATOR(pg_catalog.=) g.classid
                                 AND d.objid OPERATOR(pg_catalog.=) g.objid
     WHERE d.deptype::pg_catalog.text OPERATOR(pg_catalog.=) 'e'),
  'own_triggers', EXISTS (
    SELECT FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_trigger o ON o.oid OPERATOR(pg_catalog.=) t.tgparentid
     WHERE t.tgrelid OPERATOR(pg_catalog.=) p.oid AND t.tgenabled OPERATOR(pg_catalog.<>) o.tgenabled)
)::pg_catalog.text
FROM asked a
JOIN pg_catalog.pg_class p ON p.oid OPERATOR(pg_catalog.=) a.part
JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) a.parent
JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
WHERE p.relispartition
