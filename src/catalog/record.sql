/* pgsluice: how far a schema change is */
SELECT pg_catalog.jsonb_build_object(
  'schema', n.nspname, 'name', c.relname,
  'now', pg_catalog.to_char(pg_catalog.timezone('UTC', pg_catalog.now()), 'YYYY-MM-DD HH24:MI:SS "UTC"'),
  'text', d.description,
  -- COMMENT is the owner's, and names the type by its schema. An event trigger would take it for the client's.
  'may', pg_catalog.pg_has_role(c.relowner, 'USAGE') AND pg_catalog.has_schema_privilege(c.relnamespace, 'USAGE')
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_event_trigger e
      WHERE e.evtevent::pg_catalog.text OPERATOR(pg_catalog.~) '^ddl_command'
      AND (e.evttags IS NULL OR 'COMMENT' OPERATOR(pg_catalog.=) ANY (e.evttags))
      AND (e.evtenabled::pg_catalog.text OPERATOR(pg_catalog.=) 'A'
        OR e.evtenabled::pg_catalog.text OPERATOR(pg_catalog.=) (CASE WHEN me.rolsuper OR may_set_role THEN 'R' ELSE 'O' END))),
  'quiet', me.rolsuper OR may_set_role,
  -- Nobody does what the words of others say: the owner may act as who has logged in, or only such as may can act as the owner.
  'trusted', COALESCE(pg_catalog.pg_has_role(o.oid, login.oid, 'USAGE'), false)
    OR (NOT o.rolcanlogin AND login.oid IS NOT NULL AND NOT EXISTS (SELECT FROM pg_catalog.pg_roles r
      WHERE r.rolcanlogin AND pg_catalog.pg_has_role(r.oid, o.oid, 'MEMBER')
      AND NOT pg_catalog.pg_has_role(r.oid, login.oid, 'USAGE'))),
  'owner', pg_catalog.quote_ident(o.rolname),
  'holder', (SELECT pg_catalog.min(l.pid) FROM pg_catalog.pg_locks l
    JOIN LATERAL pg_catalog.pg_stat_get_activity(l.pid) a ON true
    WHERE holder_counts AND l.locktype OPERATOR(pg_catalog.=) 'advisory' AND l.granted
    AND l.classid OPERATOR(pg_catalog.=) 1885827946::pg_catalog.oid AND l.objid OPERATOR(pg_catalog.=) c.oid
    AND l.objsubid OPERATOR(pg_catalog.=) 2
    AND l.database OPERATOR(pg_catalog.=) (SELECT b.oid FROM pg_catalog.pg_database b
      WHERE b.datname OPERATOR(pg_catalog.=) pg_catalog.current_database())))::pg_catalog.text
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
  JOIN pg_catalog.pg_roles o ON o.oid OPERATOR(pg_catalog.=) c.relowner
  CROSS JOIN (SELECT (SELECT a.usesysid FROM pg_catalog.pg_stat_get_activity(pg_catalog.pg_backend_pid()) a) AS oid) login
  JOIN pg_catalog.pg_roles me ON me.rolname OPERATOR(pg_catalog.=) CURRENT_USER
  LEFT JOIN pg_catalog.pg_description d ON d.objoid OPERATOR(pg_catalog.=) c.reltype
   AND d.classoid OPERATOR(pg_catalog.=) 'pg_catalog.pg_type'::pg_catalog.regclass AND d.objsubid OPERATOR(pg_catalog.=) 0
 WHERE c.oid OPERATOR(pg_catalog.=) $1::pg_catalog.text::pg_catalog.oid AND c.reltype OPERATOR(pg_catalog.<>) 0::pg_catalog.oid
