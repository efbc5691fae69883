/* pgsluice: facts */
WITH me AS (
  SELECT pg_catalog.pg_backend_pid() AS pid,
         (SELECT d.oid FROM pg_catalog.pg_database d
           WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()) AS database
),
-- Read once, before anything that could itself wait is called. The statement's own locks are no news.
locks AS (
  SELECT l.locktype, l.relation, l.objid, l.pid, l.mode, l.granted,
         -- A prepared transaction holds locks without a pid.
         COALESCE(l.pid OPERATOR(pg_catalog.=) me.pid, false) AS mine
    FROM me JOIN pg_catalog.pg_locks l ON l.database OPERATOR(pg_catalog.=) me.database
   WHERE CASE
     WHEN l.locktype OPERATOR(pg_catalog.=) 'advisory'
     THEN l.granted AND l.classid OPERATOR(pg_catalog.=) 1885827948::pg_catalog.oid
      AND l.objsubid OPERATOR(pg_catalog.=) 2 AND l.pid OPERATOR(pg_catalog.<>) me.pid
     WHEN l.locktype OPERATOR(pg_catalog.<>) 'relation' THEN false
     WHEN l.pid OPERATOR(pg_catalog.=) me.pid
     THEN l.mode OPERATOR(pg_catalog.<>) 'AccessShareLock' OR l.relation::pg_catalog.int8 OPERATOR(pg_catalog.>=) 16384
     ELSE l.mode OPERATOR(pg_catalog.=) ANY (ARRAY['ShareUpdateExclusiveLock', 'ShareLock',
            'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock'])
   END
),
asked AS (
  SELECT a.schema, a.name, a.place,
         pg_catalog.to_regnamespace(pg_catalog.quote_ident(
           COALESCE(a.schema::pg_catalog.name, pg_catalog.current_schema())))::pg_catalog.oid AS home
    FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.text::pg_catalog.text[]),
                    pg_catalog.unnest($2::pg_catalog.text::pg_catalog.text[]))
         WITH ORDINALITY AS a(schema, name, place)
)
SELECT pg_catalog.json_build_object(
  'session', pg_catalog.json_build_object(
    'server_version', pg_catalog.current_setting('server_version_num')::pg_catalog.int4,
    'backend_pid', me.pid,
    -- "200ms", "5s", "1min": the words of timeouts are words of intervals too.
    'lock_timeout_ms', (pg_catalog.date_part('epoch',
      pg_catalog.current_setting('lock_timeout')::pg_catalog.interval) OPERATOR(pg_catalog.*) 1000)::pg_catalog.int8,
    'statement_timeout_ms', (pg_catalog.date_part('epoch',
      pg_catalog.current_setting('statement_timeout')::pg_catalog.interval) OPERATOR(pg_catalog.*) 1000)::pg_catalog.int8,
    'deadlock_timeout_ms', (pg_catalog.date_part('epoch',
      pg_catalog.current_setting('deadlock_timeout')::pg_catalog.interval) OPERATOR(pg_catalog.*) 1000)::pg_catalog.int8,
    'may_probe', pg_catalog.has_database_privilege(me.database, 'TEMP')
                 AND NOT pg_catalog.current_setting('transaction_read_only')::pg_catalog.bool,
    'frozen_snapshot', pg_catalog.current_setting('transaction_isolation')
                       OPERATOR(pg_catalog.=) ANY (ARRAY['repeatable read', 'serializable']),
    'read_only', pg_catalog.current_setting('transaction_read_only')::pg_catalog.bool,
    'hushed', pg_catalog.current_setting('client_min_messages')
              OPERATOR(pg_catalog.=) ANY (ARRAY['warning', 'error', 'fatal', 'panic']),
    'event_triggers', EXISTS (SELECT FROM pg_catalog.pg_event_trigger e
                               WHERE e.evtenabled::pg_catalog.text OPERATOR(pg_catalog.<>) 'D'),
    'current_schema', pg_catalog.current_schema()),
  'holds', EXISTS (SELECT FROM locks l WHERE l.mine),
  'others', (
    SELECT COALESCE(pg_catalog.json_agg(pg_catalog.json_build_object(
             'oid', COALESCE(l.relation, l.objid)::pg_catalog.int8, 'pid', l.pid, 'mode', l.mode,
             'granted', l.granted, 'lane', l.locktype OPERATOR(pg_catalog.=) 'advisory')), '[]')
      FROM locks l WHERE NOT l.mine),
