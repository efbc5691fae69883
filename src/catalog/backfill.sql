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
), leaf AS (
  -- The tables that are updated, and the columns by which a subscriber finds their rows.
  SELECT c.oid, c.relreplident, (SELECT pg_catalog.array_agg(a.attname) FROM pg_catalog.pg_index x
    JOIN pg_catalog.pg_attribute a ON a.attrelid OPERATOR(pg_catalog.=) x.indrelid
      AND a.attnum OPERATOR(pg_catalog.=) ANY (x.indkey::pg_catalog.int2[])
    WHERE x.indrelid OPERATOR(pg_catalog.=) c.oid AND x.indimmediate AND x.indisvalid
    AND CASE c.relreplident WHEN 'd' THEN x.indisprimary WHEN 'i' THEN x.indisreplident END) AS key
  FROM tree t JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) t.oid AND c.relkind OPERATOR(pg_catalog.=) 'r'
), published AS (
  -- Where partitions are published as their root, that alone is listed.
  SELECT c.oid, c.relkind OPERATOR(pg_catalog.=) 'p' AS is_root
  FROM tree t JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) t.oid
  JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
  JOIN pg_catalog.pg_publication_tables l ON l.schemaname OPERATOR(pg_catalog.=) n.nspname
    AND l.tablename OPERATOR(pg_catalog.=) c.relname
  JOIN pg_catalog.pg_publication p ON p.pubname OPERATOR(pg_catalog.=) l.pubname AND p.pubupdate
), narrowed AS (
  -- Publications of some rows or columns (15 on): the columns that the filter reads, and those that are listed.
  SELECT c.oid, c.relkind OPERATOR(pg_catalog.=) 'p' AS is_root,
    COALESCE((SELECT pg_catalog.array_agg(a.attname)
      FROM pg_catalog.regexp_matches(f.said OPERATOR(pg_catalog.->>) 'prqual', ':varattno ([0-9]+)', 'g') AS m(number)
      JOIN pg_catalog.pg_attribute a ON a.attrelid OPERATOR(pg_catalog.=) c.oid
        AND a.attnum OPERATOR(pg_catalog.=) m.number[1]::pg_catalog.int2), '{}') AS filtered,
    (SELECT pg_catalog.array_agg(a.attname)
      FROM pg_catalog.regexp_matches(f.said OPERATOR(pg_catalog.->>) 'prattrs', '[0-9]+', 'g') AS m(number)
      JOIN pg_catalog.pg_attribute a ON a.attrelid OPERATOR(pg_catalog.=) c.oid
        AND a.attnum OPERATOR(pg_catalog.=) m.number[1]::pg_catalog.int2) AS listed
  FROM tree t JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) t.oid
  JOIN pg_catalog.pg_publication_rel r ON r.prrelid OPERATOR(pg_catalog.=) c.oid
  JOIN pg_catalog.pg_publication p ON p.oid OPERATOR(pg_catalog.=) r.prpubid AND p.pubupdate
  CROSS JOIN LATERAL (SELECT pg_catalog.to_jsonb(r) AS said) f
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
    EXISTS (SELECT FROM leaf l JOIN published p ON p.oid OPERATOR(pg_catalog.=) l.oid OR p.is_root
      WHERE l.relreplident OPERATOR(pg_catalog.<>) 'f' AND l.key IS NULL) AS published,
    EXISTS (SELECT FROM leaf l JOIN narrowed r ON r.oid OPERATOR(pg_catalog.=) l.oid OR r.is_root
      WHERE (l.relreplident OPERATOR(pg_catalog.<>) 'f'
        AND NOT r.filtered OPERATOR(pg_catalog.<@) COALESCE(l.key, '{}'))
      OR (r.listed IS NOT NULL AND (l.relreplident OPERATOR(pg_catalog.=) 'f'
        OR NOT COALESCE(l.key, '{}') OPERATOR(pg_catalog.<@) r.listed))) AS published_in_part,
    -- An UPDATE checks the whole row, which a rewrite does not.
    (SELECT pg_catalog.min(k.conname::pg_catalog.text) FROM pg_catalog.pg_constraint k
      JOIN tree t ON k.conrelid OPERATOR(pg_catalog.=) t.oid
      WHERE k.contype::pg_catalog.text OPERATOR(pg_catalog.=) ANY (ARRAY['c', 'n']) AND NOT k.convalidated
      AND COALESCE(pg_catalog.to_jsonb(k) OPERATOR(pg_catalog.->>) 'conenforced', 'true') OPERATOR(pg_catalog.=) 'true')
      AS unproven,
    -- What was true when the row was written need not be now.
    (SELECT pg_catalog.min(k.conname::pg_catalog.text) FROM pg_catalog.pg_constraint k
      JOIN tree t ON k.conrelid OPERATOR(pg_catalog.=) t.oid
      WHERE k.contype OPERATOR(pg_catalog.=) 'c' AND k.convalidated
      AND (k.conbin::pg_catalog.text OPERATOR(pg_catalog.~) '[{]SQLVALUEFUNCTION ' OR EXISTS (
        SELECT FROM pg_catalog.regexp_matches(k.conbin::pg_catalog.text, 'funcid ([0-9]+)', 'g') AS m(number)
        JOIN pg_catalog.pg_proc f ON f.oid OPERATOR(pg_catalog.=) m.number[1]::pg_catalog.oid
        WHERE f.provolatile OPERATOR(pg_catalog.<>) 'i'))) AS changing,
    (SELECT pg_catalog.min(f.tgname::pg_catalog.text) FROM firing f
      WHERE f.enabled OPERATOR(pg_catalog.<>) 'D' AND (f.enabled OPERATOR(pg_catalog.<>) 'R'
        OR pg_catalog.current_setting('session_replication_role') OPERATOR(pg_catalog.=) 'replica')) AS trigger,
    EXISTS (SELECT FROM firing f WHERE f.enabled OPERATOR(pg_catalog.=) 'A' OR f.enabled OPERATOR(pg_catalog.=) 'R')
      AS fires_always,
    me.rolsuper OR may_set_role AS may_quiet
  FROM pg_catalog.pg_roles me WHERE me.rolname OPERATOR(pg_catalog.=) CURRENT_USER
), whose AS (
  -- The session's user is who may become another, whatever role he has taken.
  SELECT o.rolname AS owner, CASE
    WHEN o.oid OPERATOR(pg_catalog.=) me.oid THEN 'plain'
    WHEN pg_catalog.pg_has_role(SESSION_USER, o.oid, 'may_become')
      AND pg_catalog.has_schema_privilege(o.oid, c.relnamespace, 'CREATE')
      AND pg_catalog.has_schema_privilege(c.relnamespace, 'CREATE') THEN 'as_owner'
    WHEN me.rolsuper AND NOT EXISTS (SELECT FROM pg_catalog.pg_default_acl d
      WHERE d.defaclobjtype OPERATOR(pg_catalog.=) 'S' AND (d.defaclrole OPERATOR(pg_catalog.=) me.oid
        OR d.defaclrole OPERATOR(pg_catalog.=) o.oid) AND (d.defaclnamespace OPERATOR(pg_catalog.=) c.relnamespace
        OR d.defaclnamespace OPERATOR(pg_catalog.=) 0::pg_catalog.oid)) THEN 'given'
  END AS sequences
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_roles o ON o.oid OPERATOR(pg_catalog.=) c.relowner
  CROSS JOIN pg_catalog.pg_roles me WHERE c.oid OPERATOR(pg_catalog.=) $1::pg_catalog.text::pg_catalog.oid
  AND me.rolname OPERATOR(pg_catalog.=) CURRENT_USER
)
SELECT pg_catalog.jsonb_build_object('role', pg_catalog.quote_ident(CURRENT_USER), 'owner', pg_catalog.quote_ident(w.owner),
  'sequences', w.sequences, 'quiet', s.trigger IS NOT NULL, 'obstacle', CASE
  WHEN s.has_foreign THEN 'a foreign table is among its children'
  WHEN s.has_rule THEN 'it has rules, which change what an UPDATE does'
  WHEN s.has_policy THEN 'row security hides rows from this role'
  WHEN s.forbidden THEN 'this role may not read and update all its rows'
  WHEN s.published THEN 'it is published without a replica identity, so that it cannot be updated'
  WHEN s.published_in_part THEN
    'its publication''s row filter or column list does not go with its replica identity, so that it cannot be updated'
  WHEN s.unproven IS NOT NULL THEN pg_catalog.format(
    'its constraint %I is NOT VALID, and rows that break it cannot be updated; VALIDATE CONSTRAINT mends that', s.unproven)
  WHEN s.changing IS NOT NULL THEN pg_catalog.format(
    'an UPDATE would check its constraint %I again, which calls a function that is not IMMUTABLE', s.changing)
  WHEN s.trigger IS NOT NULL AND (s.fires_always OR NOT s.may_quiet) THEN pg_catalog.format(
    'its trigger %I would fire for every row; a role that may set session_replication_role can keep it from that', s.trigger)
  END)::pg_catalog.text
FROM said s, whose w
