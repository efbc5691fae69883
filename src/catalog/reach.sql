/* pgsluice: what statements of the transaction touch */
WITH RECURSIVE asked AS (
  SELECT a.schema, a.name, a.place
    FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.text::pg_catalog.text[]),
                    pg_catalog.unnest($2::pg_catalog.text::pg_catalog.text[])) WITH ORDINALITY AS a(schema, name, place)
), root AS (
  SELECT a.place, r.oid
    FROM asked a CROSS JOIN LATERAL (
      SELECT c.oid
        FROM pg_catalog.unnest(CASE
               WHEN a.schema IS NULL THEN pg_catalog.current_schemas(true)
               ELSE ARRAY[a.schema::pg_catalog.name] END) WITH ORDINALITY AS s(schema, place)
        JOIN pg_catalog.pg_class c
          ON c.relname OPERATOR(pg_catalog.=) a.name::pg_catalog.name
         AND c.relnamespace OPERATOR(pg_catalog.=) CASE
               WHEN a.schema OPERATOR(pg_catalog.=) 'pg_temp' THEN pg_catalog.pg_my_temp_schema()
               ELSE (SELECT n.oid FROM pg_catalog.pg_namespace n WHERE n.nspname OPERATOR(pg_catalog.=) s.schema) END
       ORDER BY s.place LIMIT 1) r
-- The way tells where the family is followed: from a relation up and down, from its parent only further up, so that siblings are left out.
), reach(place, oid, way) AS (
  SELECT r.place, r.oid, 'any'::pg_catalog.text FROM root r
  UNION
  SELECT r.place, x.oid, x.way
    FROM reach r CROSS JOIN LATERAL (
      SELECT i.inhrelid, 'down'::pg_catalog.text FROM pg_catalog.pg_inherits i
       WHERE i.inhparent OPERATOR(pg_catalog.=) r.oid AND r.way OPERATOR(pg_catalog.<>) 'up'
      UNION ALL
      SELECT i.inhparent, 'up' FROM pg_catalog.pg_inherits i
       WHERE i.inhrelid OPERATOR(pg_catalog.=) r.oid AND r.way OPERATOR(pg_catalog.<>) 'down'
      UNION ALL
      -- The relations that a view or a rule names.
      SELECT d.refobjid, 'any' FROM pg_catalog.pg_rewrite w
        JOIN pg_catalog.pg_depend d ON d.objid OPERATOR(pg_catalog.=) w.oid
         AND d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_rewrite'::pg_catalog.regclass
         AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
         AND d.refobjid OPERATOR(pg_catalog.<>) w.ev_class
       WHERE w.ev_class OPERATOR(pg_catalog.=) r.oid
      UNION ALL
      -- The table of a sequence.
      SELECT d.refobjid, 'any' FROM pg_catalog.pg_class c
        JOIN pg_catalog.pg_depend d ON d.objid OPERATOR(pg_catalog.=) c.oid
         AND d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
         AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
         AND d.deptype::pg_catalog.text OPERATOR(pg_catalog.=) ANY (ARRAY['a', 'i'])
       WHERE c.oid OPERATOR(pg_catalog.=) r.oid AND c.relkind::pg_catalog.text OPERATOR(pg_catalog.=) 'S'
      UNION ALL
      SELECT i.indrelid, 'any' FROM pg_catalog.pg_index i WHERE i.indexrelid OPERATOR(pg_catalog.=) r.oid
      UNION ALL
      -- The tables whose rows change with the rows that they reference.
      SELECT k.conrelid, 'any' FROM pg_catalog.pg_class c
        JOIN pg_catalog.pg_constraint k ON k.confrelid OPERATOR(pg_catalog.=) c.oid
       WHERE c.oid OPERATOR(pg_catalog.=) r.oid AND c.relhastriggers AND r.way OPERATOR(pg_catalog.<>) 'down'
         AND k.contype::pg_catalog.text OPERATOR(pg_catalog.=) 'f'
         AND (k.confdeltype::pg_catalog.text OPERATOR(pg_catalog.=) ANY (ARRAY['c', 'n', 'd'])
           OR k.confupdtype::pg_catalog.text OPERATOR(pg_catalog.=) ANY (ARRAY['c', 'n', 'd']))) x(oid, way)
)
SELECT COALESCE(pg_catalog.json_agg(
         (SELECT COALESCE(pg_catalog.json_agg(DISTINCT r.oid::pg_catalog.int8), '[]')
            FROM reach r WHERE r.place OPERATOR(pg_catalog.=) a.place) ORDER BY a.place), '[]')::pg_catalog.text
  FROM asked a
