/* pgsluice: facts, columns */
SELECT COALESCE(pg_catalog.json_agg(pg_catalog.json_build_object(
         'of', a.attrelid::pg_catalog.int8,
         'name', a.attname, 'type_name', pg_catalog.format_type(a.atttypid, a.atttypmod),
         'not_null', a.attnotnull, 'has_default', a.atthasdef,
         'identity', a.attidentity::pg_catalog.text OPERATOR(pg_catalog.<>) '',
         -- The column does not exist before 12.
         'generated', COALESCE(pg_catalog.to_jsonb(a) OPERATOR(pg_catalog.->>) 'attgenerated', '')
                      OPERATOR(pg_catalog.<>) '',
         'computed', COALESCE(pg_catalog.to_jsonb(a) OPERATOR(pg_catalog.->>) 'attgenerated', '')
                     OPERATOR(pg_catalog.=) 'v',
         'row_type', COALESCE(t.typtype::pg_catalog.text OPERATOR(pg_catalog.=) ANY (ARRAY['c', 'd']), false),
         'custom_collation', a.attcollation OPERATOR(pg_catalog.<>) t.typcollation)
       ORDER BY a.attnum), '[]')::pg_catalog.text
  FROM pg_catalog.pg_attribute a
  LEFT JOIN pg_catalog.pg_type t ON t.oid OPERATOR(pg_catalog.=) a.atttypid
 WHERE a.attrelid OPERATOR(pg_catalog.=) ANY ($1::pg_catalog.text::pg_catalog.oid[])
   AND a.attnum OPERATOR(pg_catalog.>) 0 AND NOT a.attisdropped
