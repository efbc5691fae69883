/* pgsluice: facts, indexes; $2: relations that opening would have to wait for. An index's schema is its table's. */
SELECT COALESCE(pg_catalog.json_agg(pg_catalog.json_build_object(
         'of', i.indrelid::pg_catalog.int8,
         'oid', c.oid::pg_catalog.int8, 'schema', '', 'name', c.relname,
         'unique', i.indisunique,
         'valid', i.indisvalid AND i.indisready AND i.indislive,
         'of_constraint', EXISTS (
           SELECT FROM pg_catalog.pg_depend d
            WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
              AND d.objid OPERATOR(pg_catalog.=) c.oid
              AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_constraint'::pg_catalog.regclass
              AND d.deptype::pg_catalog.text OPERATOR(pg_catalog.=) 'i'),
         'in_progress', false,
         'definition', CASE
           WHEN ARRAY[i.indrelid, i.indexrelid] OPERATOR(pg_catalog.&&) $2::pg_catalog.text::pg_catalog.oid[] THEN ''
           ELSE COALESCE(pg_catalog.pg_get_indexdef(i.indexrelid), '') END)
       ORDER BY c.relname, c.oid), '[]')::pg_catalog.text
  FROM pg_catalog.pg_index i
  JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) i.indexrelid
 WHERE i.indrelid OPERATOR(pg_catalog.=) ANY ($1::pg_catalog.text::pg_catalog.oid[])
