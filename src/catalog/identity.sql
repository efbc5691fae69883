/* pgsluice: what things are called now */
SELECT pg_catalog.txid_current_if_assigned()::pg_catalog.text,
       CASE
         WHEN t.kind OPERATOR(pg_catalog.=) 'constraint' THEN (
           SELECT k.oid::pg_catalog.text FROM pg_catalog.pg_constraint k
            WHERE k.conrelid OPERATOR(pg_catalog.=) t.relation::pg_catalog.oid
              AND k.conname OPERATOR(pg_catalog.=) t.name::pg_catalog.name)
         WHEN t.kind OPERATOR(pg_catalog.=) 'column' THEN (
           SELECT a.attnum::pg_catalog.text FROM pg_catalog.pg_attribute a
            WHERE a.attrelid OPERATOR(pg_catalog.=) t.relation::pg_catalog.oid
              AND a.attname OPERATOR(pg_catalog.=) t.name::pg_catalog.name AND NOT a.attisdropped)
         WHEN t.kind OPERATOR(pg_catalog.=) 'default' THEN (
           SELECT d.oid::pg_catalog.text FROM pg_catalog.pg_attrdef d
             JOIN pg_catalog.pg_attribute a ON a.attrelid OPERATOR(pg_catalog.=) d.adrelid
              AND a.attnum OPERATOR(pg_catalog.=) d.adnum
            WHERE d.adrelid OPERATOR(pg_catalog.=) t.relation::pg_catalog.oid
              AND a.attname OPERATOR(pg_catalog.=) t.name::pg_catalog.name)
         WHEN t.kind OPERATOR(pg_catalog.=) 'index' THEN (
           SELECT i.indexrelid::pg_catalog.text FROM pg_catalog.pg_index i
             JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) i.indexrelid
            WHERE i.indrelid OPERATOR(pg_catalog.=) t.relation::pg_catalog.oid
              AND c.relname OPERATOR(pg_catalog.=) t.name::pg_catalog.name)
         WHEN t.kind OPERATOR(pg_catalog.=) 'notnull' THEN (
           SELECT a.attnum::pg_catalog.text FROM pg_catalog.pg_attribute a
            WHERE a.attrelid OPERATOR(pg_catalog.=) t.relation::pg_catalog.oid
              AND a.attname OPERATOR(pg_catalog.=) t.name::pg_catalog.name AND a.attnotnull AND NOT a.attisdropped)
         WHEN t.kind OPERATOR(pg_catalog.=) ANY (ARRAY['table', 'sequence']) THEN (
           SELECT c.oid::pg_catalog.text FROM pg_catalog.pg_class c
            WHERE c.oid OPERATOR(pg_catalog.=) pg_catalog.to_regclass(t.name)::pg_catalog.oid
              AND c.relkind::pg_catalog.text OPERATOR(pg_catalog.=)
                ANY (CASE WHEN t.kind OPERATOR(pg_catalog.=) 'table' THEN ARRAY['r', 'p'] ELSE ARRAY['S'] END))
         -- One that is none any more, of a table that is still there.
         WHEN t.kind OPERATOR(pg_catalog.=) 'partition' THEN (
           SELECT c.oid::pg_catalog.text FROM pg_catalog.pg_class c
            WHERE c.oid OPERATOR(pg_catalog.=) pg_catalog.to_regclass(t.name)::pg_catalog.oid AND NOT c.relispartition
              AND EXISTS (SELECT FROM pg_catalog.pg_class p WHERE p.oid OPERATOR(pg_catalog.=) t.relation::pg_catalog.oid))
       END,
       -- Steps of a plan may give rows too, of one value or two.
       'identity'::pg_catalog.text
  FROM (VALUES (1)) AS one(row)
  LEFT JOIN ROWS FROM (pg_catalog.unnest($1::pg_catalog.text::pg_catalog.text[]),
                       pg_catalog.unnest($2::pg_catalog.text::pg_catalog.text[]),
                       pg_catalog.unnest($3::pg_catalog.text::pg_catalog.text[]))
       WITH ORDINALITY AS t(kind, relation, name, place) ON true
 ORDER BY t.place
