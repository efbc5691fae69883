/* pgsluice: facts, what this transaction holds and has made */
WITH me AS (
  SELECT pg_catalog.txid_current_if_assigned() AS top,
         pg_catalog.txid_snapshot_xmax(pg_catalog.txid_current_snapshot()) AS next_txid
),
modes(mode, strength, sql) AS (
  VALUES ('AccessShareLock'::pg_catalog.text, 1, 'ACCESS SHARE'::pg_catalog.text),
         ('RowShareLock', 2, 'ROW SHARE'),
         ('RowExclusiveLock', 3, 'ROW EXCLUSIVE'),
         ('ShareUpdateExclusiveLock', 4, 'SHARE UPDATE EXCLUSIVE'),
         ('ShareLock', 5, 'SHARE'),
         ('ShareRowExclusiveLock', 6, 'SHARE ROW EXCLUSIVE'),
         ('ExclusiveLock', 7, 'EXCLUSIVE'),
         ('AccessExclusiveLock', 8, 'ACCESS EXCLUSIVE')
),
held AS (
  SELECT l.relation AS oid, pg_catalog.max(m.strength) AS strength
    FROM pg_catalog.pg_locks l
    JOIN modes m ON m.mode OPERATOR(pg_catalog.=) l.mode
   WHERE l.locktype OPERATOR(pg_catalog.=) 'relation' AND l.granted
     AND l.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()
     AND l.database OPERATOR(pg_catalog.=) (SELECT d.oid FROM pg_catalog.pg_database d
           WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database())
   GROUP BY l.relation
),
-- Created in this transaction: what made its first row is still running, and the row is visible, so it is ours.
created AS (
  SELECT c.oid
    FROM me CROSS JOIN held h
    JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) h.oid
   CROSS JOIN LATERAL (
     SELECT pg_catalog.age(COALESCE(
              (SELECT a.xmin FROM pg_catalog.pg_attribute a
                WHERE a.attrelid OPERATOR(pg_catalog.=) c.oid AND a.attnum OPERATOR(pg_catalog.=) -1),
              c.xmin))::pg_catalog.int8 AS age) x
   WHERE h.strength OPERATOR(pg_catalog.=) 8
     AND CASE WHEN me.top IS NULL THEN false
              WHEN x.age OPERATOR(pg_catalog.>) 0 OR x.age OPERATOR(pg_catalog.<) -1000000 THEN false
              WHEN x.age OPERATOR(pg_catalog.=) 0 THEN true
              WHEN (me.top OPERATOR(pg_catalog.-) x.age) OPERATOR(pg_catalog.>=) me.next_txid THEN true
              ELSE COALESCE(pg_catalog.txid_status(me.top OPERATOR(pg_catalog.-) x.age)
                            OPERATOR(pg_catalog.=) 'in progress', false)
         END
)
SELECT pg_catalog.json_build_object(
  'held', (
    SELECT COALESCE(pg_catalog.json_agg(pg_catalog.json_build_object(
             'oid', h.oid::pg_catalog.int8, 'mode', m.sql,
             'created', EXISTS (SELECT FROM created k WHERE k.oid OPERATOR(pg_catalog.=) h.oid))), '[]')
      FROM held h JOIN modes m ON m.strength OPERATOR(pg_catalog.=) h.strength
     WHERE h.oid OPERATOR(pg_catalog.=) ANY ($1::pg_catalog.text::pg_catalog.oid[])),
  'strongest', (
    SELECT m.sql
      FROM held h
      JOIN modes m ON m.strength OPERATOR(pg_catalog.=) h.strength
      JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) h.oid
      JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
     WHERE h.strength OPERATOR(pg_catalog.>=) 4
       AND NOT (n.nspname OPERATOR(pg_catalog.=) ANY (ARRAY['pg_catalog', 'pg_toast']::pg_catalog.name[]))
       AND c.relpersistence::pg_catalog.text OPERATOR(pg_catalog.<>) 't'
       AND NOT EXISTS (SELECT FROM created k WHERE k.oid OPERATOR(pg_catalog.=) h.oid)
     ORDER BY h.strength DESC LIMIT 1)
)::pg_catalog.text
