/* pgsluice: facts, constraints; $2: relations that opening would have to wait for */
SELECT COALESCE(pg_catalog.json_agg(pg_catalog.json_build_object(
         'of', k.conrelid::pg_catalog.int8,
         'name', k.conname, 'kind', k.contype::pg_catalog.text, 'validated', k.convalidated,
         'local', k.conislocal, 'no_inherit', k.connoinherit,
         'columns', (SELECT COALESCE(pg_catalog.json_agg(a.attname ORDER BY a.attnum), '[]')
                       FROM pg_catalog.pg_attribute a
                      WHERE a.attrelid OPERATOR(pg_catalog.=) k.conrelid
                        AND a.attnum OPERATOR(pg_catalog.=) ANY (k.conkey)),
         -- The column does not exist on 10.
         'of_parent', COALESCE(pg_catalog.to_jsonb(k) OPERATOR(pg_catalog.->>) 'conparentid', '0')
                      OPERATOR(pg_catalog.<>) '0',
         'commented', EXISTS (SELECT FROM pg_catalog.pg_description d
           WHERE d.classoid OPERATOR(pg_catalog.=) 'pg_catalog.pg_constraint'::pg_catalog.regclass
             AND d.objoid OPERATOR(pg_catalog.=) k.oid),
         'to', k.confrelid::pg_catalog.int8,
         'definition', CASE
           WHEN ARRAY[k.conrelid, k.conindid] OPERATOR(pg_catalog.&&) $2::pg_catalog.text::pg_catalog.oid[] THEN ''
           ELSE COALESCE(pg_catalog.pg_get_constraintdef(k.oid), '') END)
       ORDER BY k.conname), '[]')::pg_catalog.text
  FROM pg_catalog.pg_constraint k
 WHERE k.conrelid OPERATOR(pg_catalog.=) ANY ($1::pg_catalog.text::pg_catalog.oid[])
