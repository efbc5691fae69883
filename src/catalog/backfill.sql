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
), published AS (
  -- Tables that publications watch for updates, and the columns of what identifies their rows there. A partition is published
  -- with its parent.
  SELECT c.oid, c.relreplident OPERATOR(pg_catalog.=) 'f' AS whole_row, (
      SELECT pg_catalog.to_jsonb(x.indkey) FROM pg_catalog.pg_index x
      WHERE x.indrelid OPERATOR(pg_catalog.=) c.oid AND x.indisvalid AND x.indimmediate
      AND ((c.relreplident OPERATOR(pg_catalog.=) 'd' AND x.indisprimary)
        OR (c.relreplident OPERATOR(pg_catalog.=) 'i' AND x.indisreplident))) AS identity
  FROM tree t JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) t.oid
  WHERE c.relkind OPERATOR(pg_catalog.=) 'r' AND EXISTS (SELECT FROM pg_catalog.pg_class s
    JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) s.relnamespace
    JOIN pg_catalog.pg_publication_tables l ON l.schemaname OPERATOR(pg_catalog.=) n.nspname
      AND l.tablename OPERATOR(pg_catalog.=) s.relname
    JOIN pg_catalog.pg_publication p ON p.pubname OPERATOR(pg_catalog.=) l.pubname AND p.pubupdate
    WHERE s.oid OPERATOR(pg_catalog.=) c.oid OR (c.relispartition AND s.oid OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT t.oid FROM tree t))))
), listed AS (
  -- What is published of them by name: some columns, some rows (15 on).
  SELECT p.oid, p.whole_row, p.identity, l.prrelid, l.row OPERATOR(pg_catalog.->) 'prattrs' AS columns,
    l.row OPERATOR(pg_catalog.->>) 'prqual' IS NOT NULL AS filtered
  FROM published p JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) p.oid
  JOIN (SELECT r.prrelid, pg_catalog.to_jsonb(r) AS row FROM pg_catalog.pg_publication_rel r
      JOIN pg_catalog.pg_publication b ON b.oid OPERATOR(pg_catalog.=) r.prpubid AND b.pubupdate) l
    ON l.prrelid OPERATOR(pg_catalog.=) p.oid OR (c.relispartition AND l.prrelid OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT t.oid FROM tree t)))
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
    EXISTS (SELECT FROM published p WHERE p.identity IS NULL AND NOT p.whole_row) AS unidentified,
    -- A part that lacks what identifies a row, or depends on more than that, forbids updates. Which columns a filter of rows
    -- depends on is not told; those of a parent's list are the parent's.
    EXISTS (SELECT FROM listed l WHERE (l.filtered AND NOT l.whole_row)
      OR (pg_catalog.jsonb_typeof(l.columns) OPERATOR(pg_catalog.=) 'array' AND (l.whole_row
        OR l.prrelid OPERATOR(pg_catalog.<>) l.oid OR NOT l.identity OPERATOR(pg_catalog.<@) l.columns)))
    -- So does a generated column in it (18 on), unless it is published.
    OR EXISTS (SELECT FROM published p JOIN pg_catalog.pg_attribute a ON a.attrelid OPERATOR(pg_catalog.=) p.oid
      WHERE a.attnum OPERATOR(pg_catalog.>) 0 AND pg_catalog.to_jsonb(a) OPERATOR(pg_catalog.->>) 'attgenerated' OPERATOR(pg_catalog.<>) ''
      AND pg_catalog.current_setting('server_version_num')::pg_catalog.int4 OPERATOR(pg_catalog.>=) 180000
      AND (p.whole_row OR p.identity OPERATOR(pg_catalog.@>) pg_catalog.to_jsonb(a.attnum))) AS in_part,
    -- A rewrite is refused where columns elsewhere are of its row type, or of a type made of that: the server says it.
    EXISTS (SELECT FROM tree t JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) t.oid
      JOIN pg_catalog.pg_type y ON y.oid OPERATOR(pg_catalog.=) c.reltype
      JOIN pg_catalog.pg_depend d ON d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_type'::pg_catalog.regclass
        AND d.refobjid OPERATOR(pg_catalog.=) ANY (ARRAY[y.oid, y.typarray])
        AND d.deptype::pg_catalog.text OPERATOR(pg_catalog.=) 'n'
      LEFT JOIN pg_catalog.pg_class u ON d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
        AND u.oid OPERATOR(pg_catalog.=) d.objid
      WHERE u.relkind::pg_catalog.text OPERATOR(pg_catalog.=) ANY (ARRAY['r', 'p', 'm', 'c'])
      OR d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_type'::pg_catalog.regclass) AS typed_after,
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
    me.rolsuper OR may_set_role AS may_quiet, whose_code AS code
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
  'sequences', w.sequences, 'quiet', s.trigger IS NOT NULL, 'watched', s.code OPERATOR(pg_catalog.<>) '',
  'distrust', CASE WHEN s.code OPERATOR(pg_catalog.<>) ALL (ARRAY['', '-']) THEN s.code END, 'obstacle', CASE
  WHEN s.has_foreign THEN 'a foreign table is among its children'
  WHEN s.has_rule THEN 'it has rules, which change what an UPDATE does'
  WHEN s.has_policy THEN 'row security hides rows from this role'
  WHEN s.forbidden THEN 'this role may not read and update all its rows'
  WHEN s.unidentified THEN 'it is published without a replica identity, and so its rows cannot be updated'
  WHEN s.in_part THEN 'it is published in part, and so its rows possibly cannot be updated'
  WHEN s.code OPERATOR(pg_catalog.<>) ALL (ARRAY['', '-']) THEN s.code
  WHEN s.typed_after THEN 'columns of other relations use its row type'
  WHEN s.unproven IS NOT NULL THEN pg_catalog.format(
    'its constraint %I is NOT VALID, and rows that violate it cannot be updated; VALIDATE CONSTRAINT mends that', s.unproven)
  WHEN s.changing IS NOT NULL THEN pg_catalog.format(
    'an UPDATE would check its constraint %I again, and that calls a function that is not IMMUTABLE', s.changing)
  WHEN s.trigger IS NOT NULL AND (s.fires_always OR NOT s.may_quiet) THEN pg_catalog.format(
    'its trigger %I would fire for every row; only a role that may set session_replication_role can prevent that', s.trigger)
  END)::pg_catalog.text
FROM said s, whose w
