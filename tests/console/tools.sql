-- DBeaver (pgjdbc): the connection
SET extra_float_digits = 3
SET application_name = 'DBeaver 25.1.0 - Main <pgsluice>'
SELECT version()
SELECT current_schema(),session_user
SHOW search_path
SELECT db.oid,db.* FROM pg_catalog.pg_database db WHERE datname=current_database()
SELECT db.oid,db.* FROM pg_catalog.pg_database db WHERE NOT datistemplate AND datallowconn ORDER BY db.datname
select * from pg_catalog.pg_settings where name='standard_conforming_strings'
select string_agg(word, ',') from pg_catalog.pg_get_keywords() where word <> ALL ('{a,abs,absolute}'::text[])
SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE
SHOW TRANSACTION ISOLATION LEVEL
SELECT n.oid,n.*,d.description FROM pg_catalog.pg_namespace n LEFT OUTER JOIN pg_catalog.pg_description d ON d.objoid=n.oid AND d.objsubid=0 AND d.classoid='pg_namespace'::regclass ORDER BY nspname
SELECT t.oid,t.*,c.relkind,format_type(nullif(t.typbasetype, 0), t.typtypmod) as base_type_name, d.description FROM pg_catalog.pg_type t LEFT OUTER JOIN pg_catalog.pg_type et ON et.oid=t.typelem LEFT OUTER JOIN pg_catalog.pg_class c ON c.oid=t.typrelid LEFT OUTER JOIN pg_catalog.pg_description d ON t.oid=d.objoid WHERE t.typname IS NOT NULL AND (c.relkind IS NULL OR c.relkind = 'c') AND (et.typcategory IS NULL OR et.typcategory <> 'C')
SELECT c.oid,c.*,d.description,pg_catalog.pg_get_expr(c.relpartbound, c.oid) as partition_expr, pg_catalog.pg_get_partkeydef(c.oid) as partition_key FROM pg_catalog.pg_class c LEFT OUTER JOIN pg_catalog.pg_description d ON d.objoid=c.oid AND d.objsubid=0 AND d.classoid='pg_class'::regclass WHERE c.relnamespace=2200 AND c.relkind not in ('i','I','c')
SELECT x.oid,x.* FROM pg_catalog.pg_roles x ORDER BY x.rolname
SELECT e.oid,e.* FROM pg_catalog.pg_extension e
SELECT reset_val FROM pg_settings WHERE name = 'search_path'
SELECT db.oid,db.* FROM pg_catalog.pg_database db WHERE 1 = 1 AND datallowconn AND NOT datistemplate OR db.datname ='pgsluice' ORDER BY db.datname
SELECT 1 FROM pg_catalog.pg_attribute s JOIN pg_catalog.pg_class p ON s.attrelid = p.oid JOIN pg_catalog.pg_namespace n ON p.relnamespace = n.oid WHERE p.relname = 'pg_type' AND n.nspname = 'pg_catalog' AND s.attname = 'typcategory'
SELECT a.oid,a.* FROM pg_catalog.pg_roles a ORDER BY a.rolname
SELECT am.oid,am.* FROM pg_catalog.pg_am am
SELECT c.relname,a.*,pg_catalog.pg_get_expr(ad.adbin, ad.adrelid, true) as def_value,dsc.description,dep.objid FROM pg_catalog.pg_attribute a INNER JOIN pg_catalog.pg_class c ON (a.attrelid=c.oid) LEFT OUTER JOIN pg_catalog.pg_attrdef ad ON (a.attrelid=ad.adrelid AND a.attnum = ad.adnum) LEFT OUTER JOIN pg_catalog.pg_description dsc ON (c.oid=dsc.objoid AND a.attnum = dsc.objsubid) LEFT OUTER JOIN pg_depend dep on dep.refobjid = a.attrelid AND dep.deptype = 'i' and dep.refobjsubid = a.attnum and dep.classid = dep.refclassid WHERE NOT a.attisdropped AND c.relkind not in ('i','I','c') AND c.relnamespace=2200 ORDER BY a.attnum
-- Metabase (pgjdbc): the connection and the sync of the schema
SET extra_float_digits = 3
SET application_name = 'Metabase v1.56.0 [0]'
SET SESSION TIMEZONE TO 'UTC'
SHOW TRANSACTION ISOLATION LEVEL
SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY
SELECT 1
SELECT current_database() AS "catalog", current_schema() AS "schema"
SELECT TRUE AS "_"
select current_setting('TIMEZONE')
SELECT nspname AS TABLE_SCHEM, current_database() AS TABLE_CATALOG FROM pg_catalog.pg_namespace WHERE nspname <> 'pg_toast' AND (nspname !~ '^pg_temp_' OR nspname = (pg_catalog.current_schemas(true))[1]) AND (nspname !~ '^pg_toast_temp_' OR nspname = replace((pg_catalog.current_schemas(true))[1], 'pg_temp_', 'pg_toast_temp_')) ORDER BY TABLE_SCHEM
with table_privileges as (select NULL as role, t.schemaname as schema, t.objectname as table, pg_catalog.has_any_column_privilege(current_user, '"' || t.schemaname || '"' || '.' || '"' || t.objectname || '"', 'update') as update from (select schemaname, tablename as objectname from pg_catalog.pg_tables) t where t.schemaname !~ '^pg_' and t.schemaname <> 'information_schema') select t.* from table_privileges t
SELECT n.nspname AS schema, c.relname AS name, d.description AS description, c.reltuples AS estimated_row_count FROM pg_catalog.pg_class AS c INNER JOIN pg_catalog.pg_namespace AS n ON c.relnamespace = n.oid LEFT JOIN pg_catalog.pg_description AS d ON c.oid = d.objoid AND d.objsubid = 0 WHERE c.relnamespace = n.oid AND n.nspname !~ '^pg_' AND c.relkind IN ('r', 'p', 'v', 'f', 'm')
SELECT nspname, typname FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace WHERE t.oid IN (SELECT DISTINCT e.enumtypid FROM pg_enum e)
-- Grafana (pgx): the health check and the query builder
SELECT 1
SELECT current_setting('server_version_num')::int/100 as version
SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'
select quote_ident(table_name) as "table" from information_schema.tables where table_schema not in ('information_schema', 'pg_catalog', '_timescaledb_cache') and quote_ident(table_schema) in (select CASE WHEN trim(s[i]) = '"$user"' THEN user ELSE trim(s[i]) END from generate_series(array_lower(string_to_array(current_setting('search_path'),','),1), array_upper(string_to_array(current_setting('search_path'),','),1)) as i, string_to_array(current_setting('search_path'),',') s)
select quote_ident(column_name) as "column", data_type as "type" from information_schema.columns where quote_ident(table_name) = 'orders'
SHOW STATS
-- pgAdmin and SQLAlchemy
SELECT CASE WHEN usesuper THEN pg_catalog.pg_is_in_recovery() ELSE FALSE END as inrecovery, CASE WHEN usesuper AND pg_catalog.pg_is_in_recovery() THEN pg_is_wal_replay_paused() ELSE FALSE END as isreplaypaused FROM pg_catalog.pg_user WHERE usename=current_user
select pg_catalog.version()
select current_schema()
show standard_conforming_strings
SELECT t.oid, typarray FROM pg_type t JOIN pg_namespace ns ON typnamespace = ns.oid WHERE typname = 'hstore'
SELECT EXISTS (SELECT FROM pg_catalog.pg_class WHERE relname = 'orders')
SELECT count(*) FROM pg_catalog.pg_stat_activity
SELECT pg_catalog.set_config('search_path', '', false)
SELECT pg_advisory_unlock_all()
