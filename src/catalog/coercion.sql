/* pgsluice: what a column's type is, and would be. $1: the table's oid; $2: the column, or nothing of a new one; $3 and $4: the type */
WITH RECURSIVE wanted AS (
  SELECT t.oid, t.typname, t.typtype, t.typcollation, t.typnotnull, t.typdefaultbin, t.typbasetype, n.nspname
    FROM pg_catalog.unnest(CASE
           WHEN $3::pg_catalog.text OPERATOR(pg_catalog.=) '' THEN pg_catalog.current_schemas(true)
           ELSE ARRAY[$3::pg_catalog.text::pg_catalog.name] END) WITH ORDINALITY AS s(schema, place)
    JOIN pg_catalog.pg_namespace n ON n.nspname OPERATOR(pg_catalog.=) s.schema
    JOIN pg_catalog.pg_type t ON t.typnamespace OPERATOR(pg_catalog.=) n.oid
     AND t.typname OPERATOR(pg_catalog.=) $4::pg_catalog.text::pg_catalog.name
   ORDER BY s.place LIMIT 1
),
present AS (
  SELECT a.attrelid, a.attnum, a.attcollation, a.atttypid, a.atttypmod
    FROM pg_catalog.pg_attribute a
   WHERE a.attrelid OPERATOR(pg_catalog.=) $1::pg_catalog.text::pg_catalog.oid
     AND a.attname OPERATOR(pg_catalog.=) $2::pg_catalog.text::pg_catalog.name AND NOT a.attisdropped
),
-- Of a domain the type that it is over; the server does not count on the modifier that this has.
base(oid, modifier) AS (
  SELECT p.atttypid, p.atttypmod FROM present p
  UNION ALL
  SELECT t.typbasetype, -1
    FROM base b JOIN pg_catalog.pg_type t ON t.oid OPERATOR(pg_catalog.=) b.oid
   WHERE t.typtype::pg_catalog.text OPERATOR(pg_catalog.=) 'd'
),
source AS (
  SELECT b.oid, b.modifier, t.typname, n.nspname
    FROM base b JOIN pg_catalog.pg_type t ON t.oid OPERATOR(pg_catalog.=) b.oid
    JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) t.typnamespace
   WHERE t.typtype::pg_catalog.text OPERATOR(pg_catalog.<>) 'd'
)
SELECT pg_catalog.json_build_object(
         'kind', w.typtype::pg_catalog.text,
         'built_in', w.nspname OPERATOR(pg_catalog.=) 'pg_catalog',
         'constrained', w.typnotnull OR w.typdefaultbin IS NOT NULL
           OR EXISTS (SELECT FROM pg_catalog.pg_type d WHERE d.oid OPERATOR(pg_catalog.=) w.typbasetype
                        AND d.typtype::pg_catalog.text OPERATOR(pg_catalog.=) 'd')
           OR EXISTS (SELECT FROM pg_catalog.pg_constraint k WHERE k.contypid OPERATOR(pg_catalog.=) w.oid),
         'from', (SELECT pg_catalog.json_build_object(
           'name', CASE WHEN s.nspname OPERATOR(pg_catalog.=) 'pg_catalog' THEN s.typname::pg_catalog.text ELSE '' END,
           'modifier', s.modifier,
           'same', s.oid OPERATOR(pg_catalog.=) w.oid,
           'coerced', EXISTS (SELECT FROM pg_catalog.pg_cast c
             WHERE c.castsource OPERATOR(pg_catalog.=) s.oid AND c.casttarget OPERATOR(pg_catalog.=) w.oid
               AND c.castmethod::pg_catalog.text OPERATOR(pg_catalog.=) 'b'
               AND c.castcontext::pg_catalog.text OPERATOR(pg_catalog.<>) 'e'),
           'collation_stays', p.attcollation OPERATOR(pg_catalog.=) w.typcollation,
           'indexed', EXISTS (SELECT FROM pg_catalog.pg_index i
             WHERE i.indrelid OPERATOR(pg_catalog.=) p.attrelid
               AND p.attnum OPERATOR(pg_catalog.=) ANY (i.indkey::pg_catalog.int2[])),
           'computed', EXISTS (SELECT FROM pg_catalog.pg_index i
             JOIN pg_catalog.pg_depend d ON d.objid OPERATOR(pg_catalog.=) i.indexrelid
              AND d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
             WHERE i.indrelid OPERATOR(pg_catalog.=) p.attrelid AND (i.indexprs IS NOT NULL OR i.indpred IS NOT NULL)
               AND d.refobjid OPERATOR(pg_catalog.=) p.attrelid AND d.refobjsubid OPERATOR(pg_catalog.=) p.attnum))
           FROM present p CROSS JOIN source s))::pg_catalog.text
  FROM wanted w
