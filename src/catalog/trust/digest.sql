-- All that code.sql goes by of one relation, as far as it may change: one text.
(SELECT pg_catalog.concat_ws(' ', c.relowner, c.relrowsecurity, c.relforcerowsecurity,
   (SELECT pg_catalog.array_agg(a.atttypid ORDER BY a.attnum) FROM pg_catalog.pg_attribute a
     WHERE a.attrelid OPERATOR(pg_catalog.=) c.oid AND a.attnum OPERATOR(pg_catalog.>) 0),
   'd', (SELECT pg_catalog.array_agg(d.oid ORDER BY d.oid) FROM pg_catalog.pg_attrdef d
     WHERE d.adrelid OPERATOR(pg_catalog.=) c.oid),
   'i', (SELECT pg_catalog.array_agg(i.indexrelid ORDER BY i.indexrelid) FROM pg_catalog.pg_index i
     WHERE i.indrelid OPERATOR(pg_catalog.=) c.oid),
   'c', (SELECT pg_catalog.array_agg(k.oid ORDER BY k.oid) FROM pg_catalog.pg_constraint k
     WHERE k.conrelid OPERATOR(pg_catalog.=) c.oid),
   't', (SELECT pg_catalog.array_agg(pg_catalog.concat(g.oid, g.tgenabled) ORDER BY g.oid) FROM pg_catalog.pg_trigger g
     WHERE g.tgrelid OPERATOR(pg_catalog.=) c.oid),
   'r', (SELECT pg_catalog.array_agg(pg_catalog.concat(r.oid, r.ev_enabled) ORDER BY r.oid) FROM pg_catalog.pg_rewrite r
     WHERE r.ev_class OPERATOR(pg_catalog.=) c.oid),
   's', (SELECT pg_catalog.array_agg(s.oid ORDER BY s.oid) FROM pg_catalog.pg_statistic_ext s
     WHERE s.stxrelid OPERATOR(pg_catalog.=) c.oid))
  FROM pg_catalog.pg_class c WHERE c.oid OPERATOR(pg_catalog.=) the_relation)
