/* pgsluice: may it be filled in batches */
WITH RECURSIVE tree(oid) AS (
  SELECT $1::pg_catalog.text::pg_catalog.oid
  UNION
  SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN tree t ON i.inhparent OPERATOR(pg_catalog.=) t.oid
), firing AS (
  -- Triggers that an UPDATE of a new column fires: none that names columns.
  SELECT g.tgname, g.tgenabled::pg_catalog.text AS enabled FROM pg_catalog.pg_trigger g
  JOIN tree t ON g.tgrelid OPERATOR(pg_catalog.=) t.oid
  WHERE NOT g.tgisinternal AND (g.tgtype::pg_catalog.int4 OPERATOR(pg_catalog.&) 16) OPERATOR(pg_catalog.<>) 0
  AND g.tgattr::pg_catalog.text OPERATOR(pg_catalog.=) ''
), said AS (
  SELECT
    EXISTS (SELECT FROM tree t JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) t.oid
      WHERE c.relkind OPERATOR(pg_catalog.=) 'f') AS has_foreign,
    EXISTS (SELECT FROM tree t JOIN pg_catalog.pg_rewrite r ON r.ev_class OPERATOR(pg_catalog.=) t.oid
      WHERE r.ev_type OPERATOR(pg_catalog.=) '2' AND r.ev_enabled OPERATOR(pg_catalog.<>) 'D') AS has_rule,
    EXISTS (SELECT FROM tree t JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) t.oid
      WHERE c.relrowsecurity AND NOT me.rolsuper AND NOT me.rolbypassrls
      AND (c.relforcerowsecurity OR NOT pg_catalog.pg_has_role(c.relowner, 'USAGE'))) AS has_policy,
    EXISTS (SELECT FROM tree t WHERE NOT pg_catalog.has_table_privilege(t.oid, 'SELECT')
      OR NOT pg_catalog.has_table_privilege(t.oid, 'UPDATE')) AS forbidden,
    EXISTS (SELECT FROM tree t JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) t.oid
      JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
      JOIN pg_catalog.pg_publication_tables l ON l.schemaname OPERATOR(pg_catalog.=) n.nspname
        AND l.tablename OPERATOR(pg_catalog.=) c.relname
      JOIN pg_catalog.pg_publication p ON p.pubname OPERATOR(pg_catalog.=) l.pubname AND p.pubupdate
      WHERE c.relreplident OPERATOR(pg_catalog.=) 'n' OR (c.relreplident OPERATOR(pg_catalog.=) 'd' AND NOT EXISTS (
        SELECT FROM pg_catalog.pg_index x WHERE x.indrelid OPERATOR(pg_catalog.=) c.oid
        AND x.indisprimary AND x.indimmediate AND x.indisvalid))) AS published,
    -- An UPDATE checks the whole row, which a rewrite does not.
    (SELECT pg_catalog.min(k.conname::pg_catalog.text) FROM pg_catalog.pg_constraint k
      JOIN tree t ON k.conrelid OPERATOR(pg_catalog.=) t.oid
      WHERE k.contype::pg_catalog.text OPERATOR(pg_catalog.=) ANY (ARRAY['c', 'n']) AND NOT k.convalidated
      AND COALESCE(pg_catalog.to_jsonb(k) OPERATOR(pg_catalog.->>) 'conenforced', 'true') OPERATOR(pg_catalog.=) 'true')
      AS unproven,
    (SELECT pg_catalog.min(f.tgname::pg_catalog.text) FROM firing f
      WHERE f.enabled OPERATOR(pg_catalog.<>) 'D' AND f.enabled OPERATOR(pg_catalog.<>) 'R') AS trigger,
    EXISTS (SELECT FROM firing f WHERE f.enabled OPERATOR(pg_catalog.=) 'A' OR f.enabled OPERATOR(pg_catalog.=) 'R')
      AS fires_always,
    me.rolsuper OR may_set_role AS may_quiet
  FROM pg_catalog.pg_roles me WHERE me.rolname OPERATOR(pg_catalog.=) CURRENT_USER
)
SELECT pg_catalog.jsonb_build_object('owner', (SELECT pg_catalog.quote_ident(o.rolname) FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_roles o ON o.oid OPERATOR(pg_catalog.=) c.relowner
    WHERE c.oid OPERATOR(pg_catalog.=) $1::pg_catalog.text::pg_catalog.oid), 'quiet', s.trigger IS NOT NULL, 'obstacle', CASE
  WHEN s.has_foreign THEN 'a foreign table is among its children'
  WHEN s.has_rule THEN 'it has rules, which change what an UPDATE does'
  WHEN s.has_policy THEN 'row security hides rows from this role'
  WHEN s.forbidden THEN 'this role may not read and update all its rows'
  WHEN s.published THEN 'it is published without a replica identity, so that it cannot be updated'
  WHEN s.unproven IS NOT NULL THEN pg_catalog.format(
    'its constraint %I is NOT VALID, and rows that break it cannot be updated; VALIDATE CONSTRAINT mends that', s.unproven)
  WHEN s.trigger IS NOT NULL AND (s.fires_always OR NOT s.may_quiet) THEN pg_catalog.format(
    'its trigger %I would fire for every row; a role that may set session_replication_role can keep it from that', s.trigger)
  END)::pg_catalog.text
FROM said s
