WITH RECURSIVE need(oid, mode, alone) AS (
  SELECT o::pg_catalog.oid, m, a::pg_catalog.bool
    FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.text[]), pg_catalog.unnest($2::pg_catalog.text[]),
                    pg_catalog.unnest($4::pg_catalog.text[])) AS n(o, m, a)
), tree(root, oid) AS (
  SELECT DISTINCT n.oid, n.oid FROM need n
  UNION
  SELECT t.root, i.inhrelid FROM tree t JOIN pg_catalog.pg_inherits i ON i.inhparent OPERATOR(pg_catalog.=) t.oid
), blocker AS (
  SELECT DISTINCT ON (l.pid, l.virtualtransaction)
         l.pid, l.virtualtransaction, l.mode, l.relation AS oid,
         pg_catalog.concat(ns.nspname, '.', c.relname) AS relation,
         a.application_name, a.usename, a.state,
         (pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) a.xact_start)
            OPERATOR(pg_catalog.*) 1000::pg_catalog.float8)::pg_catalog.int8 AS age_ms,
         (a.backend_type OPERATOR(pg_catalog.=) 'autovacuum worker'
            OR a.pid IS NOT NULL AND a.usesysid IS NULL AND EXISTS (
                 SELECT FROM pg_catalog.pg_stat_progress_vacuum v WHERE v.pid OPERATOR(pg_catalog.=) a.pid)) IS TRUE AS autovacuum,
         (a.query OPERATOR(pg_catalog.~~) '%(to prevent wraparound)%') IS TRUE AS wraparound,
         CASE WHEN l.pid IS NULL THEN (
           -- It keeps the virtual transaction of the session that prepared it, until the server is restarted.
           SELECT x.gid FROM pg_catalog.pg_prepared_xacts x
             JOIN pg_catalog.pg_locks lx ON lx.transactionid OPERATOR(pg_catalog.=) x.transaction
            WHERE lx.locktype OPERATOR(pg_catalog.=) 'transactionid' AND lx.pid IS NULL
              AND lx.virtualtransaction OPERATOR(pg_catalog.=) l.virtualtransaction LIMIT 1) END AS prepared,
         (l.pid IS NOT NULL AND pg_catalog.pg_backend_pid() OPERATOR(pg_catalog.=)
            ANY (pg_catalog.pg_blocking_pids(l.pid))) AS waits_for_us
    FROM need n
    JOIN tree t ON t.root OPERATOR(pg_catalog.=) n.oid AND (t.oid OPERATOR(pg_catalog.=) n.oid OR NOT n.alone)
    JOIN pg_catalog.pg_locks l
      ON l.locktype OPERATOR(pg_catalog.=) 'relation'
     AND l.granted
     AND l.relation OPERATOR(pg_catalog.=) t.oid
     AND l.mode OPERATOR(pg_catalog.=) n.mode
     AND l.database OPERATOR(pg_catalog.=) (SELECT d.oid FROM pg_catalog.pg_database d
                                             WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database())
    JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) l.relation
    JOIN pg_catalog.pg_namespace ns ON ns.oid OPERATOR(pg_catalog.=) c.relnamespace
    LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid OPERATOR(pg_catalog.=) l.pid
   WHERE (l.pid IS NULL OR l.pid OPERATOR(pg_catalog.<>) pg_catalog.pg_backend_pid())
   ORDER BY l.pid, l.virtualtransaction
)
SELECT pg_catalog.json_build_object(
  'blockers', (
    SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_object(
             'pid', b.pid, 'oid', b.oid::pg_catalog.int8, 'transaction', b.virtualtransaction, 'application', b.application_name,
             'user', b.usename, 'state', b.state, 'age_ms', b.age_ms, 'autovacuum', b.autovacuum,
             'to_prevent_wraparound', b.wraparound, 'prepared', b.prepared, 'relation', b.relation,
             'mode', b.mode, 'waits_for_us', b.waits_for_us)
             ORDER BY b.age_ms DESC NULLS LAST), '[]'::pg_catalog.json)
      FROM blocker b),
  'lane_holder', (
    SELECT l.pid FROM pg_catalog.pg_locks l
     WHERE l.locktype OPERATOR(pg_catalog.=) 'advisory' AND l.granted
       AND l.classid OPERATOR(pg_catalog.=) 1885827948::pg_catalog.oid
       AND l.objsubid OPERATOR(pg_catalog.=) 2::pg_catalog.int2
       AND l.objid OPERATOR(pg_catalog.=) ANY ($3::pg_catalog.text[]::pg_catalog.oid[])
       AND l.database OPERATOR(pg_catalog.=) (SELECT d.oid FROM pg_catalog.pg_database d
                                               WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database())
       AND l.pid OPERATOR(pg_catalog.<>) pg_catalog.pg_backend_pid()
     LIMIT 1),
  'may_cancel', (
    SELECT r.rolsuper OR EXISTS (
             SELECT FROM pg_catalog.pg_roles s
              WHERE s.rolname OPERATOR(pg_catalog.=) 'pg_signal_autovacuum_worker'
                AND pg_catalog.pg_has_role(r.oid, s.oid, 'USAGE'))
      FROM pg_catalog.pg_roles r WHERE r.rolname OPERATOR(pg_catalog.=) CURRENT_USER)
)::pg_catalog.text
