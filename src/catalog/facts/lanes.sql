/* pgsluice: facts, who has the lanes of relations; anybody can take any advisory lock, but whose role may not change a relation is not at work on it */
SELECT COALESCE(pg_catalog.json_agg(pg_catalog.json_build_object('oid', l.objid::pg_catalog.int8, 'pid', l.pid)), '[]')
         ::pg_catalog.text
  FROM pg_catalog.pg_locks l
  JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) l.objid
 CROSS JOIN LATERAL pg_catalog.pg_stat_get_activity(l.pid) a
 WHERE l.locktype OPERATOR(pg_catalog.=) 'advisory' AND l.granted
   AND l.classid OPERATOR(pg_catalog.=) 1885827948::pg_catalog.oid AND l.objsubid OPERATOR(pg_catalog.=) 2
   AND l.objid OPERATOR(pg_catalog.=) ANY ($1::pg_catalog.text::pg_catalog.oid[])
   AND l.pid OPERATOR(pg_catalog.<>) pg_catalog.pg_backend_pid()
   AND l.database OPERATOR(pg_catalog.=) (SELECT d.oid FROM pg_catalog.pg_database d
         WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database())
   AND holder_counts
