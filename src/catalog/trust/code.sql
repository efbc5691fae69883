-- Whose code an UPDATE or a copy of some relations would run, as one text. Empty: all belong to who may act as the session's
-- user anyway. '-': some do not, and nothing but PostgreSQL's own and what such roles wrote would run. Else what would.
(WITH RECURSIVE me AS (
  -- Who logged in: whatever SET ROLE and SET SESSION AUTHORIZATION have said, any code can take back.
  SELECT (SELECT a.usesysid FROM pg_catalog.pg_stat_get_activity(pg_catalog.pg_backend_pid()) a) AS login
), tree(oid) AS (
  the_tree
), other AS (
  SELECT c.oid FROM me CROSS JOIN tree t JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) t.oid
   WHERE NOT COALESCE(pg_catalog.pg_has_role(c.relowner, me.login, 'USAGE'), false)
), thing(what, relation, tree, classid, objid, objsubid) AS (
  -- What is evaluated, or folded as soon as a statement is planned.
  SELECT pg_catalog.format('its index %I', c.relname), i.indrelid, pg_catalog.concat(i.indexprs, i.indpred),
         'pg_catalog.pg_class'::pg_catalog.regclass, c.oid, 0
    FROM other o JOIN pg_catalog.pg_index i ON i.indrelid OPERATOR(pg_catalog.=) o.oid
    JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) i.indexrelid
  UNION ALL
  SELECT pg_catalog.format('its constraint %I', k.conname), o.oid, k.conbin::pg_catalog.text,
         'pg_catalog.pg_constraint'::pg_catalog.regclass, k.oid, 0
    FROM other o JOIN pg_catalog.pg_constraint k ON k.conrelid OPERATOR(pg_catalog.=) o.oid
   WHERE k.contype::pg_catalog.text OPERATOR(pg_catalog.=) 'c'
  UNION ALL
  -- Up to 14 it is the column that depends on what generates it.
  SELECT pg_catalog.format('its column %I', a.attname), o.oid, d.adbin::pg_catalog.text, x.classid, x.objid, x.objsubid
    FROM other o JOIN pg_catalog.pg_attribute a ON a.attrelid OPERATOR(pg_catalog.=) o.oid
    JOIN pg_catalog.pg_attrdef d ON d.adrelid OPERATOR(pg_catalog.=) o.oid AND d.adnum OPERATOR(pg_catalog.=) a.attnum
   CROSS JOIN LATERAL (VALUES ('pg_catalog.pg_attrdef'::pg_catalog.regclass, d.oid, 0),
     ('pg_catalog.pg_class'::pg_catalog.regclass, o.oid, a.attnum::pg_catalog.int4)) AS x(classid, objid, objsubid)
   WHERE COALESCE(pg_catalog.to_jsonb(a) OPERATOR(pg_catalog.->>) 'attgenerated', '') OPERATOR(pg_catalog.<>) ''
  UNION ALL
  SELECT pg_catalog.format('its statistics %I', s.stxname), o.oid, pg_catalog.to_jsonb(s) OPERATOR(pg_catalog.->>) 'stxexprs',
         'pg_catalog.pg_statistic_ext'::pg_catalog.regclass, s.oid, 0
    FROM other o JOIN pg_catalog.pg_statistic_ext s ON s.stxrelid OPERATOR(pg_catalog.=) o.oid
  UNION ALL
  SELECT 'the key of its partitions', o.oid, p.partexprs::pg_catalog.text,
         'pg_catalog.pg_class'::pg_catalog.regclass, o.oid, 0
    FROM other o JOIN pg_catalog.pg_partitioned_table p ON p.partrelid OPERATOR(pg_catalog.=) o.oid
), used(what, classid, oid) AS (
  SELECT th.what, d.refclassid, d.refobjid FROM thing th
    JOIN pg_catalog.pg_depend d ON d.classid OPERATOR(pg_catalog.=) th.classid::pg_catalog.oid
     AND d.objid OPERATOR(pg_catalog.=) th.objid AND d.objsubid OPERATOR(pg_catalog.=) th.objsubid
), calls(what, oid) AS (
  SELECT u.what, u.oid FROM used u WHERE u.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass
  UNION ALL
  SELECT u.what, p.oprcode FROM used u JOIN pg_catalog.pg_operator p ON p.oid OPERATOR(pg_catalog.=) u.oid
   WHERE u.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_operator'::pg_catalog.regclass
  UNION ALL
  SELECT u.what, f.oid FROM used u JOIN pg_catalog.pg_opclass k ON k.oid OPERATOR(pg_catalog.=) u.oid
   CROSS JOIN LATERAL (
     SELECT s.amproc::pg_catalog.oid AS oid FROM pg_catalog.pg_amproc s WHERE s.amprocfamily OPERATOR(pg_catalog.=) k.opcfamily
     UNION ALL
     SELECT p.oprcode FROM pg_catalog.pg_amop s JOIN pg_catalog.pg_operator p ON p.oid OPERATOR(pg_catalog.=) s.amopopr
      WHERE s.amopfamily OPERATOR(pg_catalog.=) k.opcfamily) f
   WHERE u.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_opclass'::pg_catalog.regclass
), types(what, oid, compared) AS (
  SELECT u.what, u.oid, false FROM used u WHERE u.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_type'::pg_catalog.regclass
  UNION
  -- What JSON_VALUE returns depends on nothing, for the catalogue.
  SELECT th.what, m.number[1]::pg_catalog.oid, false FROM thing th
   CROSS JOIN LATERAL pg_catalog.regexp_matches(th.tree, 'type?id ([0-9]+)', 'g') AS m(number)
  UNION
  -- Values of an index are compared as what they are made of.
  SELECT th.what, a.atttypid, true FROM thing th JOIN pg_catalog.pg_index i ON i.indexrelid OPERATOR(pg_catalog.=) th.objid
    JOIN pg_catalog.pg_attribute a ON a.attrelid OPERATOR(pg_catalog.=) i.indexrelid
   WHERE th.classid::pg_catalog.oid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass::pg_catalog.oid
  UNION
  SELECT 'the key of its partitions', a.atttypid, false FROM other o
    JOIN pg_catalog.pg_partitioned_table p ON p.partrelid OPERATOR(pg_catalog.=) o.oid
    JOIN pg_catalog.pg_attribute a ON a.attrelid OPERATOR(pg_catalog.=) o.oid
     AND a.attnum OPERATOR(pg_catalog.=) ANY (p.partattrs::pg_catalog.int2[])
  UNION
  SELECT y.what, CASE WHEN b.typtype OPERATOR(pg_catalog.=) 'd' THEN b.typbasetype ELSE b.typelem END, y.compared
    FROM types y JOIN pg_catalog.pg_type b ON b.oid OPERATOR(pg_catalog.=) y.oid
   WHERE (y.compared AND b.typtype OPERATOR(pg_catalog.=) 'd')
      OR (b.typelem OPERATOR(pg_catalog.<>) 0::pg_catalog.oid AND b.typlen OPERATOR(pg_catalog.=) -1)
), reason(words) AS (
  SELECT pg_catalog.format('%s calls the function %s of the role %I', c.what, c.oid::pg_catalog.regprocedure,
           pg_catalog.pg_get_userbyid(p.proowner))
    FROM me CROSS JOIN calls c JOIN pg_catalog.pg_proc p ON p.oid OPERATOR(pg_catalog.=) c.oid
   WHERE NOT COALESCE(pg_catalog.pg_has_role(p.proowner, me.login, 'USAGE'), false)
  UNION ALL
  -- An enum calls nothing; a domain that is only compared is what it is made of; an array what its elements are.
  SELECT pg_catalog.format('%s uses the type %s of the role %I', y.what, pg_catalog.format_type(y.oid, NULL),
           pg_catalog.pg_get_userbyid(b.typowner))
    FROM me CROSS JOIN types y JOIN pg_catalog.pg_type b ON b.oid OPERATOR(pg_catalog.=) y.oid
   WHERE b.typtype OPERATOR(pg_catalog.<>) 'e' AND NOT (y.compared AND b.typtype OPERATOR(pg_catalog.=) 'd')
     AND NOT (b.typelem OPERATOR(pg_catalog.<>) 0::pg_catalog.oid AND b.typlen OPERATOR(pg_catalog.=) -1)
     AND NOT COALESCE(pg_catalog.pg_has_role(b.typowner, me.login, 'USAGE'), false)
  UNION ALL
  -- PostgreSQL's own functions do much, too, with the rights of who calls them, but for those that are IMMUTABLE.
  SELECT pg_catalog.format('its constraint %I calls the function %s, which is not IMMUTABLE', k.conname,
           f.oid::pg_catalog.regprocedure)
    FROM other o JOIN pg_catalog.pg_constraint k ON k.conrelid OPERATOR(pg_catalog.=) o.oid
   CROSS JOIN LATERAL pg_catalog.regexp_matches(k.conbin::pg_catalog.text, 'funcid ([0-9]+)', 'g') AS m(number)
    JOIN pg_catalog.pg_proc f ON f.oid OPERATOR(pg_catalog.=) m.number[1]::pg_catalog.oid
   WHERE k.contype::pg_catalog.text OPERATOR(pg_catalog.=) 'c' AND f.provolatile OPERATOR(pg_catalog.<>) 'i'
  UNION ALL
  -- A key of another type than the one it points to is compared by way of a cast, which anybody may make who owns the type.
  SELECT pg_catalog.format('its foreign key %I compares values of the type %s of the role %I', k.conname,
           pg_catalog.format_type(b.oid, NULL), pg_catalog.pg_get_userbyid(b.typowner))
    FROM me CROSS JOIN other o JOIN pg_catalog.pg_constraint k ON k.conrelid OPERATOR(pg_catalog.=) o.oid
     AND k.contype::pg_catalog.text OPERATOR(pg_catalog.=) 'f'
   CROSS JOIN LATERAL ROWS FROM (pg_catalog.unnest(k.conkey), pg_catalog.unnest(k.confkey)) AS n(here, there)
    JOIN pg_catalog.pg_attribute h ON h.attrelid OPERATOR(pg_catalog.=) k.conrelid AND h.attnum OPERATOR(pg_catalog.=) n.here
    JOIN pg_catalog.pg_attribute r ON r.attrelid OPERATOR(pg_catalog.=) k.confrelid AND r.attnum OPERATOR(pg_catalog.=) n.there
    JOIN pg_catalog.pg_type y ON y.oid OPERATOR(pg_catalog.=) h.atttypid
    JOIN pg_catalog.pg_type b ON b.oid OPERATOR(pg_catalog.=)
         CASE WHEN y.typtype OPERATOR(pg_catalog.=) 'd' THEN y.typbasetype ELSE y.oid END
   WHERE h.atttypid OPERATOR(pg_catalog.<>) r.atttypid
     AND NOT COALESCE(pg_catalog.pg_has_role(b.typowner, me.login, 'USAGE'), false)
  and_more
)
SELECT CASE WHEN NOT EXISTS (SELECT FROM other) THEN ''
            ELSE COALESCE((SELECT r.words FROM reason r ORDER BY r.words LIMIT 1), '-') END)
