/* pgsluice: first try */
SELECT CASE
  WHEN pg_catalog.concat(
    /* kept */
    pg_catalog.set_config('lock_timeout', $6::pg_catalog.text, true),
    CASE WHEN $5::pg_catalog.text OPERATOR(pg_catalog.=) '0' THEN NULL
         WHEN pg_catalog.current_setting('statement_timeout')::pg_catalog.interval
                OPERATOR(pg_catalog.>) '0'::pg_catalog.interval
          AND pg_catalog.current_setting('statement_timeout')::pg_catalog.interval
                OPERATOR(pg_catalog.<) pg_catalog.concat($5::pg_catalog.text, 'ms')::pg_catalog.interval THEN NULL
         ELSE pg_catalog.set_config('statement_timeout', $5::pg_catalog.text, true) END) OPERATOR(pg_catalog.=) '' THEN 0
  WHEN (SELECT pg_catalog.count(*) FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) i.indrelid
         WHERE $4::pg_catalog.text OPERATOR(pg_catalog.=) 'false'
           AND i.indexrelid OPERATOR(pg_catalog.=) ANY ($1::pg_catalog.text[]::pg_catalog.regclass[]::pg_catalog.oid[])
           AND c.relkind OPERATOR(pg_catalog.=) 'r' AND NOT c.relhassubclass AND NOT c.relispartition
           AND CASE WHEN $3::pg_catalog.text OPERATOR(pg_catalog.=) '-1' THEN true
                    ELSE pg_catalog.pg_table_size(c.oid::pg_catalog.regclass)
                           OPERATOR(pg_catalog.<=) $3::pg_catalog.text::pg_catalog.int8 END
           AND pg_catalog.pg_try_advisory_xact_lock(1885827948, (c.oid::pg_catalog.int8 OPERATOR(pg_catalog.-)
                 CASE WHEN c.oid::pg_catalog.int8 OPERATOR(pg_catalog.>) 2147483647 THEN 4294967296 ELSE 0 END)::pg_catalog.int4))
       OPERATOR(pg_catalog.=) $2::pg_catalog.text::pg_catalog.int8 THEN 1
  -- What the server's log then has says what it is about.
  ELSE pg_catalog.concat('pgsluice asks about ', $1::pg_catalog.text, ' before it goes on')::pg_catalog.int4 END
