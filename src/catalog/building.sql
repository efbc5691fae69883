/* pgsluice: facts of a build */
SELECT pg_catalog.json_build_object(
  'session', pg_catalog.json_build_object(
    'server_version', pg_catalog.current_setting('server_version_num')::pg_catalog.int4,
    'backend_pid', pg_catalog.pg_backend_pid(),
    -- As in facts/head.sql.
    'lock_timeout_ms', (pg_catalog.date_part('epoch',
      pg_catalog.current_setting('lock_timeout')::pg_catalog.interval) OPERATOR(pg_catalog.*) 1000)::pg_catalog.int8,
    'statement_timeout_ms', (pg_catalog.date_part('epoch',
      pg_catalog.current_setting('statement_timeout')::pg_catalog.interval) OPERATOR(pg_catalog.*) 1000)::pg_catalog.int8,
    'deadlock_timeout_ms', (pg_catalog.date_part('epoch',
      pg_catalog.current_setting('deadlock_timeout')::pg_catalog.interval) OPERATOR(pg_catalog.*) 1000)::pg_catalog.int8,
    'may_probe', false,
    'hushed', pg_catalog.current_setting('client_min_messages')
              OPERATOR(pg_catalog.=) ANY (ARRAY['warning', 'error', 'fatal', 'panic'])),
  'table', pg_catalog.json_build_object('oid', c.oid::pg_catalog.int8, 'schema', n.nspname, 'name', c.relname),
  'invalid', (SELECT COALESCE(pg_catalog.json_agg(i.indexrelid::pg_catalog.int8), '[]') FROM pg_catalog.pg_index i
    WHERE i.indrelid OPERATOR(pg_catalog.=) c.oid AND NOT (i.indisvalid AND i.indisready AND i.indislive)))::pg_catalog.text
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
 WHERE c.oid OPERATOR(pg_catalog.=) pg_catalog.to_regclass($1::pg_catalog.text)::pg_catalog.oid
   AND c.relkind OPERATOR(pg_catalog.=) 'r' AND c.relpersistence OPERATOR(pg_catalog.<>) 't'
   -- Initdb's own are below that.
   AND c.oid::pg_catalog.int8 OPERATOR(pg_catalog.>=) 16384
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_class x
     WHERE x.relnamespace OPERATOR(pg_catalog.=) c.relnamespace AND x.relname OPERATOR(pg_catalog.=) $2::pg_catalog.text::pg_catalog.name)
