/* pgsluice: facts, foreign keys from and to them, by the dependencies on columns: those of pg_constraint have no index */
SELECT COALESCE(pg_catalog.json_agg(pg_catalog.json_build_object(
         'from', k.conrelid::pg_catalog.int8, 'to', k.confrelid::pg_catalog.int8)), '[]')::pg_catalog.text
  FROM pg_catalog.pg_constraint k
 WHERE k.contype::pg_catalog.text OPERATOR(pg_catalog.=) 'f'
   AND k.oid OPERATOR(pg_catalog.=) ANY (ARRAY(
         SELECT d.objid FROM pg_catalog.pg_depend d
          WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_constraint'::pg_catalog.regclass
            AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
            AND d.refobjid OPERATOR(pg_catalog.=) ANY ($1::pg_catalog.text::pg_catalog.oid[])))
