/* pgsluice: facts */
WITH RECURSIVE
me AS (
  SELECT pg_catalog.pg_backend_pid() AS pid,
         (SELECT d.oid FROM pg_catalog.pg_database d
           WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()) AS database,
         pg_catalog.txid_current_if_assigned() AS top,
         pg_catalog.txid_snapshot_xmax(pg_catalog.txid_current_snapshot()) AS next_txid,
         pg_catalog.current_setting('block_size')::pg_catalog.int8 AS block_size
),
modes(mode, strength, sql) AS (
  VALUES ('AccessShareLock'::pg_catalog.text, 1, 'ACCESS SHARE'::pg_catalog.text),
         ('RowShareLock', 2, 'ROW SHARE'),
         ('RowExclusiveLock', 3, 'ROW EXCLUSIVE'),
         ('ShareUpdateExclusiveLock', 4, 'SHARE UPDATE EXCLUSIVE'),
         ('ShareLock', 5, 'SHARE'),
         ('ShareRowExclusiveLock', 6, 'SHARE ROW EXCLUSIVE'),
         ('ExclusiveLock', 7, 'EXCLUSIVE'),
         ('AccessExclusiveLock', 8, 'ACCESS EXCLUSIVE')
),
-- pg_locks is read once, before anything that could itself wait is called.
locks AS (
  SELECT l.locktype, l.relation, l.classid, l.objid, l.objsubid, l.pid, l.granted, m.strength,
         -- A prepared transaction holds locks without a pid.
         COALESCE(l.pid OPERATOR(pg_catalog.=) me.pid, false) AS mine
    FROM me
    JOIN pg_catalog.pg_locks l ON l.database OPERATOR(pg_catalog.=) me.database
    JOIN modes m ON m.mode OPERATOR(pg_catalog.=) l.mode
),
-- Opening one of these, even with ACCESS SHARE, could wait.
contended AS (
  SELECT DISTINCT l.relation AS oid FROM locks l
   WHERE l.locktype OPERATOR(pg_catalog.=) 'relation' AND NOT l.mine AND l.strength OPERATOR(pg_catalog.=) 8
),
held AS (
  SELECT l.relation AS oid, pg_catalog.max(l.strength) AS strength FROM locks l
   WHERE l.locktype OPERATOR(pg_catalog.=) 'relation' AND l.mine AND l.granted
   GROUP BY l.relation
),
-- At work on a table or an index with SHARE UPDATE EXCLUSIVE or stronger; a vacuum builds nothing.
busy AS (
  SELECT DISTINCT l.relation AS oid FROM locks l
   WHERE l.locktype OPERATOR(pg_catalog.=) 'relation' AND NOT l.mine AND l.granted
     AND l.strength OPERATOR(pg_catalog.>=) 4
     AND NOT EXISTS (SELECT FROM pg_catalog.pg_stat_progress_vacuum v
                      WHERE v.pid OPERATOR(pg_catalog.=) l.pid)
),
-- Created in this transaction: what made its first row is still running, and the row is visible, so it is ours.
created AS (
  SELECT c.oid
    FROM me CROSS JOIN held h
    JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) h.oid
   CROSS JOIN LATERAL (
     SELECT pg_catalog.age(COALESCE(
              (SELECT a.xmin FROM pg_catalog.pg_attribute a
                WHERE a.attrelid OPERATOR(pg_catalog.=) c.oid AND a.attnum OPERATOR(pg_catalog.=) -1),
              c.xmin))::pg_catalog.int8 AS age) x
   WHERE h.strength OPERATOR(pg_catalog.=) 8
     AND CASE WHEN me.top IS NULL THEN false
              WHEN x.age OPERATOR(pg_catalog.>) 0 OR x.age OPERATOR(pg_catalog.<) -1000000 THEN false
              WHEN x.age OPERATOR(pg_catalog.=) 0 THEN true
              WHEN (me.top OPERATOR(pg_catalog.-) x.age) OPERATOR(pg_catalog.>=) me.next_txid THEN true
              ELSE COALESCE(pg_catalog.txid_status(me.top OPERATOR(pg_catalog.-) x.age)
                            OPERATOR(pg_catalog.=) 'in progress', false)
         END
),
asked AS (
  SELECT a.schema, a.name, a.place
    FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.text[]), pg_catalog.unnest($2::pg_catalog.text[]))
         WITH ORDINALITY AS a(schema, name, place)
),
resolved AS (
  SELECT a.schema, a.name, a.place, r.oid,
         CASE WHEN a.schema IS NULL THEN pg_catalog.current_schema()
              ELSE a.schema::pg_catalog.name END AS schema_for_new
    FROM asked a
    LEFT JOIN LATERAL (
      SELECT c.oid
        FROM (SELECT n.oid AS namespace, p.place
                FROM pg_catalog.unnest(pg_catalog.current_schemas(true)) WITH ORDINALITY AS p(schema, place)
                JOIN pg_catalog.pg_namespace n ON n.nspname OPERATOR(pg_catalog.=) p.schema
               WHERE a.schema IS NULL
              UNION ALL
              SELECT n.oid, 0 FROM pg_catalog.pg_namespace n
               WHERE n.nspname OPERATOR(pg_catalog.=) a.schema::pg_catalog.name
              UNION ALL
              SELECT pg_catalog.pg_my_temp_schema(), 0 WHERE a.schema OPERATOR(pg_catalog.=) 'pg_temp') s
        JOIN pg_catalog.pg_class c
          ON c.relnamespace OPERATOR(pg_catalog.=) s.namespace
         AND c.relname OPERATOR(pg_catalog.=) a.name::pg_catalog.name
       WHERE c.relkind::pg_catalog.text OPERATOR(pg_catalog.=) ANY (ARRAY['r','p','i','I','S','v','m','f','c','t'])
       ORDER BY s.place LIMIT 1) r ON true
),
found AS (
  SELECT DISTINCT r.oid FROM resolved r WHERE r.oid IS NOT NULL
),
-- An index's or a sequence's table.
owner_table AS (
  SELECT i.indexrelid AS oid, i.indrelid AS table_oid
    FROM found f JOIN pg_catalog.pg_index i ON i.indexrelid OPERATOR(pg_catalog.=) f.oid
  UNION ALL
  SELECT c.oid, d.refobjid
    FROM found f
    JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) f.oid
     AND c.relkind::pg_catalog.text OPERATOR(pg_catalog.=) 'S'
    JOIN pg_catalog.pg_depend d
      ON d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
     AND d.objid OPERATOR(pg_catalog.=) c.oid
     AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
     AND d.deptype::pg_catalog.text OPERATOR(pg_catalog.=) ANY (ARRAY['a', 'i'])
),
parents AS (
  SELECT i.inhrelid AS oid, i.inhparent AS parent
    FROM found f
    JOIN pg_catalog.pg_inherits i ON i.inhrelid OPERATOR(pg_catalog.=) f.oid AND i.inhseqno OPERATOR(pg_catalog.=) 1
),
-- Default partitions, of what was asked for and of its parent (the column does not exist on 10).
defaults AS (
  SELECT p.partrelid AS oid, (pg_catalog.to_jsonb(p) OPERATOR(pg_catalog.->>) 'partdefid')::pg_catalog.oid AS partition
    FROM pg_catalog.pg_partitioned_table p
   WHERE p.partrelid OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT f.oid FROM found f UNION SELECT p.parent FROM parents p))
),
every_fk AS (
  SELECT k.conrelid, k.confrelid, k.coninhcount OPERATOR(pg_catalog.>) 0 AS of_parent
    FROM pg_catalog.pg_constraint k
   WHERE k.contype::pg_catalog.text OPERATOR(pg_catalog.=) 'f'
),
fks AS (
  SELECT DISTINCT k.conrelid, k.confrelid FROM every_fk k
   WHERE k.conrelid OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT f.oid FROM found f))
      OR k.confrelid OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT f.oid FROM found f))
),
-- What TRUNCATE … CASCADE goes through.
reaching(root, oid) AS (
  SELECT f.oid, f.oid FROM found f
  UNION
  SELECT r.root, k.conrelid
    FROM reaching r JOIN every_fk k ON k.confrelid OPERATOR(pg_catalog.=) r.oid
),
tree(root, oid) AS (
  SELECT f.oid, f.oid FROM found f
  UNION SELECT o.table_oid, o.table_oid FROM owner_table o
  UNION
  SELECT t.root, i.inhrelid
    FROM tree t JOIN pg_catalog.pg_inherits i ON i.inhparent OPERATOR(pg_catalog.=) t.oid
),
-- Foreign keys of its partitions alone: where they point to.
pointed(root, oid) AS (
  SELECT DISTINCT t.root, k.confrelid
    FROM tree t JOIN every_fk k ON k.conrelid OPERATOR(pg_catalog.=) t.oid
   WHERE t.oid OPERATOR(pg_catalog.<>) t.root AND NOT k.of_parent
),
-- Every relation that the document names beside those asked for.
named AS (
  SELECT o.table_oid AS oid FROM owner_table o
  UNION SELECT p.parent FROM parents p
  UNION SELECT d.partition FROM defaults d
  UNION SELECT k.conrelid FROM fks k
  UNION SELECT k.confrelid FROM fks k
  UNION SELECT r.oid FROM reaching r
  UNION SELECT p.oid FROM pointed p
),
ref AS (
  SELECT c.oid, c.relkind, c.relpersistence, c.relowner, c.relispartition,
         pg_catalog.json_build_object('oid', c.oid::pg_catalog.int8, 'schema', n.nspname, 'name', c.relname) AS json
    FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
   WHERE c.oid OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT n.oid FROM named n UNION SELECT f.oid FROM found f))
),
-- pg_relation_size opens the relation; where that could wait, the catalogue's own estimate must do.
size AS (
  SELECT t.root,
         pg_catalog.sum(main.bytes OPERATOR(pg_catalog.+) COALESCE(toast.bytes, 0)) AS bytes,
         pg_catalog.sum(GREATEST(c.reltuples, 0)) AS tuples
    FROM me CROSS JOIN tree t
    JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) t.oid
   CROSS JOIN LATERAL (
     SELECT CASE
       WHEN NOT (c.relkind::pg_catalog.text OPERATOR(pg_catalog.=) ANY (ARRAY['r', 'm', 'i', 'S', 't'])) THEN 0
       WHEN c.oid OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT x.oid FROM contended x))
       THEN GREATEST(c.relpages OPERATOR(pg_catalog.*) me.block_size,
                     COALESCE(pg_catalog.pg_stat_get_tuples_inserted(c.oid), 0) OPERATOR(pg_catalog.*) 64)
       ELSE COALESCE(pg_catalog.pg_relation_size(c.oid::pg_catalog.regclass, 'main'), 0) END AS bytes) main
    LEFT JOIN LATERAL (
     SELECT CASE
       WHEN tc.oid OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT x.oid FROM contended x))
       THEN GREATEST(tc.relpages, 0) OPERATOR(pg_catalog.*) me.block_size
       ELSE COALESCE(pg_catalog.pg_relation_size(tc.oid::pg_catalog.regclass, 'main'), 0) END AS bytes
       FROM pg_catalog.pg_class tc WHERE tc.oid OPERATOR(pg_catalog.=) c.reltoastrelid) toast ON true
   GROUP BY t.root
),
index_json AS (
  SELECT i.indexrelid AS oid, i.indrelid AS table_oid, c.relname,
         pg_catalog.json_build_object(
           'oid', c.oid::pg_catalog.int8, 'schema', n.nspname, 'name', c.relname,
           'unique', i.indisunique,
           'valid', i.indisvalid AND i.indisready AND i.indislive,
           'of_constraint', EXISTS (
             SELECT FROM pg_catalog.pg_depend d
              WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
                AND d.objid OPERATOR(pg_catalog.=) c.oid
                AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_constraint'::pg_catalog.regclass
                AND d.deptype::pg_catalog.text OPERATOR(pg_catalog.=) 'i'),
           'in_progress', i.indrelid OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT b.oid FROM busy b))
                       OR i.indexrelid OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT b.oid FROM busy b)),
           'definition', CASE
             WHEN i.indrelid OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT x.oid FROM contended x))
               OR i.indexrelid OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT x.oid FROM contended x)) THEN ''
             ELSE COALESCE(pg_catalog.pg_get_indexdef(i.indexrelid), '') END) AS json
    FROM pg_catalog.pg_index i
    JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) i.indexrelid
    JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
   WHERE i.indrelid OPERATOR(pg_catalog.=)
         ANY (ARRAY(SELECT f.oid FROM found f UNION SELECT o.table_oid FROM owner_table o))
),
relation_json AS (
  SELECT c.oid, pg_catalog.json_build_object(
    'oid', c.oid::pg_catalog.int8, 'schema', n.nspname, 'name', c.relname,
    'kind', c.relkind::pg_catalog.text,
    'persistence', c.relpersistence::pg_catalog.text,
    'bytes', COALESCE(s.bytes, 0)::pg_catalog.int8,
    'table_bytes', COALESCE((SELECT z.bytes FROM size z
                              WHERE z.root OPERATOR(pg_catalog.=) o.table_oid), 0)::pg_catalog.int8,
    'rows', CASE WHEN c.relhassubclass THEN s.tuples ELSE c.reltuples END,
    'has_children', EXISTS (SELECT FROM pg_catalog.pg_inherits i
                             WHERE i.inhparent OPERATOR(pg_catalog.=) c.oid),
    -- Of partitions there are none.
    'child_columns', CASE WHEN c.relhassubclass AND c.relkind::pg_catalog.text OPERATOR(pg_catalog.=) 'r' THEN (
      SELECT COALESCE(pg_catalog.json_agg(DISTINCT a.attname::pg_catalog.text), '[]')
        FROM tree t JOIN pg_catalog.pg_attribute a ON a.attrelid OPERATOR(pg_catalog.=) t.oid
       WHERE t.root OPERATOR(pg_catalog.=) c.oid AND t.oid OPERATOR(pg_catalog.<>) c.oid
         AND a.attnum OPERATOR(pg_catalog.>) 0 AND NOT a.attisdropped
         AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute own
           WHERE own.attrelid OPERATOR(pg_catalog.=) c.oid AND own.attname OPERATOR(pg_catalog.=) a.attname)
    ) ELSE '[]' END,
    'is_partition', c.relispartition,
    -- The column does not exist before 14.
    'detach_pending', EXISTS (SELECT FROM pg_catalog.pg_inherits i
                               WHERE i.inhrelid OPERATOR(pg_catalog.=) c.oid
                                 AND (pg_catalog.to_jsonb(i) OPERATOR(pg_catalog.->>) 'inhdetachpending')
                                     OPERATOR(pg_catalog.=) 'true'),
    -- Since 14 only one partition at a time can be on its way off.
    'detaching', EXISTS (SELECT FROM pg_catalog.pg_inherits i
                          WHERE i.inhparent OPERATOR(pg_catalog.=) c.oid
                            AND (pg_catalog.to_jsonb(i) OPERATOR(pg_catalog.->>) 'inhdetachpending')
                                OPERATOR(pg_catalog.=) 'true'),
    -- Partitioned tables have no access method before 17.
    'passes_storage', c.relkind::pg_catalog.text OPERATOR(pg_catalog.=) 'p'
                      AND NOT (c.reltablespace OPERATOR(pg_catalog.=) 0::pg_catalog.oid
                               AND c.relam OPERATOR(pg_catalog.=) 0::pg_catalog.oid),
    'typed', c.reloftype OPERATOR(pg_catalog.<>) 0::pg_catalog.oid,
    'owned', pg_catalog.pg_has_role(c.relowner, 'USAGE'),
    'may_lock', COALESCE(pg_catalog.has_table_privilege(c.oid, 'UPDATE, DELETE, TRUNCATE'), false),
    'parent', (SELECT r.json FROM parents p JOIN ref r ON r.oid OPERATOR(pg_catalog.=) p.parent
                WHERE p.oid OPERATOR(pg_catalog.=) c.oid),
    'default_partition', (SELECT r.json FROM defaults d JOIN ref r ON r.oid OPERATOR(pg_catalog.=) d.partition
                WHERE d.oid OPERATOR(pg_catalog.=) c.oid
                   OR d.oid OPERATOR(pg_catalog.=) (SELECT p.parent FROM parents p
                                                     WHERE p.oid OPERATOR(pg_catalog.=) c.oid)
                ORDER BY d.oid OPERATOR(pg_catalog.<>) c.oid LIMIT 1),
    'table', (SELECT r.json FROM ref r WHERE r.oid OPERATOR(pg_catalog.=) o.table_oid),
    'index', (SELECT x.json FROM index_json x WHERE x.oid OPERATOR(pg_catalog.=) c.oid),
    'own_lock', (SELECT m.sql FROM held h JOIN modes m ON m.strength OPERATOR(pg_catalog.=) h.strength
                  WHERE h.oid OPERATOR(pg_catalog.=) c.oid),
    'created_here', EXISTS (SELECT FROM created k WHERE k.oid OPERATOR(pg_catalog.=) c.oid),
    'lane_holder', (SELECT pg_catalog.min(l.pid) FROM locks l
                     WHERE l.locktype OPERATOR(pg_catalog.=) 'advisory' AND l.granted AND NOT l.mine
                       AND l.classid OPERATOR(pg_catalog.=) 1885827948::pg_catalog.oid
                       AND l.objid OPERATOR(pg_catalog.=) c.oid
                       AND l.objsubid OPERATOR(pg_catalog.=) 2),
    'is_system', n.nspname OPERATOR(pg_catalog.=)
                 ANY (ARRAY['pg_catalog', 'information_schema', 'pg_toast']::pg_catalog.name[]),
    'columns', (
      SELECT COALESCE(pg_catalog.json_agg(pg_catalog.json_build_object(
               'name', a.attname, 'type_name', pg_catalog.format_type(a.atttypid, a.atttypmod),
               'not_null', a.attnotnull, 'has_default', a.atthasdef,
               'identity', a.attidentity::pg_catalog.text OPERATOR(pg_catalog.<>) '',
               'generated', COALESCE(pg_catalog.to_jsonb(a) OPERATOR(pg_catalog.->>) 'attgenerated', '')
                            OPERATOR(pg_catalog.<>) '',
               'computed', COALESCE(pg_catalog.to_jsonb(a) OPERATOR(pg_catalog.->>) 'attgenerated', '')
                            OPERATOR(pg_catalog.=) 'v',
               'row_type', COALESCE(t.typtype::pg_catalog.text OPERATOR(pg_catalog.=) ANY (ARRAY['c', 'd']), false),
               'custom_collation', a.attcollation OPERATOR(pg_catalog.<>) t.typcollation)
             ORDER BY a.attnum), '[]')
        FROM pg_catalog.pg_attribute a
        LEFT JOIN pg_catalog.pg_type t ON t.oid OPERATOR(pg_catalog.=) a.atttypid
       WHERE a.attrelid OPERATOR(pg_catalog.=) c.oid AND a.attnum OPERATOR(pg_catalog.>) 0 AND NOT a.attisdropped
         AND c.relkind::pg_catalog.text OPERATOR(pg_catalog.=) ANY (ARRAY['r', 'p', 'v', 'm', 'f', 'c'])),
    'constraints', (
      SELECT COALESCE(pg_catalog.json_agg(pg_catalog.json_build_object(
               'name', k.conname, 'kind', k.contype::pg_catalog.text, 'validated', k.convalidated,
               -- The column does not exist on 10.
               'of_parent', COALESCE(pg_catalog.to_jsonb(k) OPERATOR(pg_catalog.->>) 'conparentid', '0')
                            OPERATOR(pg_catalog.<>) '0',
               'columns', (SELECT COALESCE(pg_catalog.json_agg(a.attname ORDER BY a.attnum), '[]')
                             FROM pg_catalog.pg_attribute a
                            WHERE a.attrelid OPERATOR(pg_catalog.=) k.conrelid
                              AND a.attnum OPERATOR(pg_catalog.=) ANY (k.conkey)),
               'references', (SELECT r.json FROM ref r WHERE r.oid OPERATOR(pg_catalog.=) k.confrelid),
               'commented', EXISTS (SELECT FROM pg_catalog.pg_description d
                 WHERE d.classoid OPERATOR(pg_catalog.=) 'pg_catalog.pg_constraint'::pg_catalog.regclass
                   AND d.objoid OPERATOR(pg_catalog.=) k.oid),
               'definition', CASE
                 WHEN k.conrelid OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT x.oid FROM contended x)) THEN ''
                 WHEN k.conindid OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT x.oid FROM contended x)) THEN ''
                 ELSE COALESCE(pg_catalog.pg_get_constraintdef(k.oid), '') END)
             ORDER BY k.conname), '[]')
        FROM pg_catalog.pg_constraint k WHERE k.conrelid OPERATOR(pg_catalog.=) c.oid),
    'indexes', (SELECT COALESCE(pg_catalog.json_agg(x.json ORDER BY x.relname, x.oid), '[]') FROM index_json x
                 WHERE x.table_oid OPERATOR(pg_catalog.=) COALESCE(o.table_oid, c.oid)),
    'referenced_by', (
      SELECT COALESCE(pg_catalog.json_agg(r.json ORDER BY r.oid), '[]') FROM ref r
       WHERE r.oid OPERATOR(pg_catalog.<>) c.oid
         AND EXISTS (SELECT FROM fks k WHERE k.confrelid OPERATOR(pg_catalog.=) c.oid
                                         AND k.conrelid OPERATOR(pg_catalog.=) r.oid)),
    'reached_by', (
      SELECT COALESCE(pg_catalog.json_agg(r.json ORDER BY r.oid), '[]')
        FROM ref r JOIN reaching x ON x.oid OPERATOR(pg_catalog.=) r.oid
       WHERE x.root OPERATOR(pg_catalog.=) c.oid AND r.oid OPERATOR(pg_catalog.<>) c.oid),
    'partitions_reference', (
      SELECT COALESCE(pg_catalog.json_agg(r.json ORDER BY r.oid), '[]')
        FROM ref r JOIN pointed x ON x.oid OPERATOR(pg_catalog.=) r.oid
       WHERE x.root OPERATOR(pg_catalog.=) c.oid)
  ) AS json
    FROM found f
    JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) f.oid
    JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
    LEFT JOIN size s ON s.root OPERATOR(pg_catalog.=) c.oid
    LEFT JOIN LATERAL (SELECT w.table_oid FROM owner_table w
                        WHERE w.oid OPERATOR(pg_catalog.=) c.oid LIMIT 1) o ON true
)
SELECT pg_catalog.json_build_object(
  'session', pg_catalog.json_build_object(
    'server_version', pg_catalog.current_setting('server_version_num')::pg_catalog.int4,
    'backend_pid', me.pid,
    -- "200ms", "5s", "1min": the words of timeouts are words of intervals too.
    'lock_timeout_ms', (pg_catalog.date_part('epoch',
      pg_catalog.current_setting('lock_timeout')::pg_catalog.interval) OPERATOR(pg_catalog.*) 1000)::pg_catalog.int8,
    'statement_timeout_ms', (pg_catalog.date_part('epoch',
      pg_catalog.current_setting('statement_timeout')::pg_catalog.interval) OPERATOR(pg_catalog.*) 1000)::pg_catalog.int8,
    'deadlock_timeout_ms', (pg_catalog.date_part('epoch',
      pg_catalog.current_setting('deadlock_timeout')::pg_catalog.interval) OPERATOR(pg_catalog.*) 1000)::pg_catalog.int8,
    'may_probe', pg_catalog.has_database_privilege(me.database, 'TEMP')
                 AND NOT pg_catalog.current_setting('transaction_read_only')::pg_catalog.bool,
    'frozen_snapshot', pg_catalog.current_setting('transaction_isolation')
                       OPERATOR(pg_catalog.=) ANY (ARRAY['repeatable read', 'serializable']),
    'read_only', pg_catalog.current_setting('transaction_read_only')::pg_catalog.bool,
    'hushed', pg_catalog.current_setting('client_min_messages')
              OPERATOR(pg_catalog.=) ANY (ARRAY['warning', 'error', 'fatal', 'panic']),
    'event_triggers', EXISTS (SELECT FROM pg_catalog.pg_event_trigger e
                               WHERE e.evtenabled::pg_catalog.text OPERATOR(pg_catalog.<>) 'D'),
    'current_schema', pg_catalog.current_schema(),
    'strongest_lock', (
      SELECT m.sql
        FROM held h
        JOIN modes m ON m.strength OPERATOR(pg_catalog.=) h.strength
        JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) h.oid
        JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
       WHERE h.strength OPERATOR(pg_catalog.>=) 4
         AND NOT (n.nspname OPERATOR(pg_catalog.=) ANY (ARRAY['pg_catalog', 'pg_toast']::pg_catalog.name[]))
         AND c.relpersistence::pg_catalog.text OPERATOR(pg_catalog.<>) 't'
         AND NOT EXISTS (SELECT FROM created k WHERE k.oid OPERATOR(pg_catalog.=) h.oid)
       ORDER BY h.strength DESC LIMIT 1)),
  'relations', (
    SELECT COALESCE(pg_catalog.json_agg(pg_catalog.json_build_object(
             'name', pg_catalog.json_build_object('schema', r.schema, 'name', r.name),
             'schema_usable', CASE WHEN r.schema OPERATOR(pg_catalog.=) 'pg_temp' THEN true
               ELSE COALESCE((SELECT pg_catalog.has_schema_privilege(n.oid, 'USAGE') FROM pg_catalog.pg_namespace n
                               WHERE n.nspname OPERATOR(pg_catalog.=) r.schema_for_new), false) END,
             'may_create', CASE WHEN r.schema OPERATOR(pg_catalog.=) 'pg_temp' THEN false
               ELSE COALESCE((SELECT pg_catalog.has_schema_privilege(n.oid, 'CREATE') FROM pg_catalog.pg_namespace n
                               WHERE n.nspname OPERATOR(pg_catalog.=) r.schema_for_new), false) END,
             'found', j.json) ORDER BY r.place), '[]')
      FROM resolved r LEFT JOIN relation_json j ON j.oid OPERATOR(pg_catalog.=) r.oid),
  'related', (
    SELECT COALESCE(pg_catalog.json_agg(pg_catalog.json_build_object(
             'relation', r.json, 'kind', r.relkind::pg_catalog.text,
             'persistence', r.relpersistence::pg_catalog.text,
             'may_lock', COALESCE(pg_catalog.has_table_privilege(r.oid, 'UPDATE, DELETE, TRUNCATE'), false),
             'own_lock', (SELECT m.sql FROM held h JOIN modes m ON m.strength OPERATOR(pg_catalog.=) h.strength
                           WHERE h.oid OPERATOR(pg_catalog.=) r.oid),
             'created_here', EXISTS (SELECT FROM created k WHERE k.oid OPERATOR(pg_catalog.=) r.oid))
           ORDER BY r.oid), '[]')
      FROM ref r JOIN named n ON n.oid OPERATOR(pg_catalog.=) r.oid)
)::pg_catalog.text
FROM me
