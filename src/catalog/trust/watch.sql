  -- What has come since the plan was made would fire in an UPDATE of these columns.
  UNION ALL
  SELECT pg_catalog.format('its trigger %I would fire', g.tgname)
    FROM other o JOIN pg_catalog.pg_trigger g ON g.tgrelid OPERATOR(pg_catalog.=) o.oid
   WHERE NOT g.tgisinternal AND (g.tgtype::pg_catalog.int4 OPERATOR(pg_catalog.&) 16) OPERATOR(pg_catalog.<>) 0
     AND g.tgenabled::pg_catalog.text OPERATOR(pg_catalog.=) ANY (the_states)
     AND (g.tgattr::pg_catalog.text OPERATOR(pg_catalog.=) '' OR EXISTS (
       SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid OPERATOR(pg_catalog.=) o.oid
          AND a.attnum OPERATOR(pg_catalog.=) ANY (g.tgattr::pg_catalog.int2[])
          AND a.attname::pg_catalog.text OPERATOR(pg_catalog.=) ANY (the_columns)))
  UNION ALL
  SELECT pg_catalog.format('its rule %I would change what an UPDATE does', r.rulename)
    FROM other o JOIN pg_catalog.pg_rewrite r ON r.ev_class OPERATOR(pg_catalog.=) o.oid
   WHERE r.ev_enabled OPERATOR(pg_catalog.<>) 'D'
     AND r.ev_type::pg_catalog.text OPERATOR(pg_catalog.=) ANY (ARRAY['1', '2'])
  UNION ALL
  SELECT 'its row security would apply its policies' FROM other o WHERE pg_catalog.row_security_active(o.oid)
  UNION ALL
  SELECT pg_catalog.format('its column %I has another type now', a.attname)
    FROM other o JOIN pg_catalog.pg_attribute a ON a.attrelid OPERATOR(pg_catalog.=) o.oid
   WHERE a.attname::pg_catalog.text OPERATOR(pg_catalog.=) ANY (the_columns) AND NOT a.attisdropped
     AND a.atttypid::pg_catalog.int8 OPERATOR(pg_catalog.>=) 16384
