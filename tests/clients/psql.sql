-- psql by the simple protocol: several statements, variables, COPY, large objects, LISTEN, errors.
\set ON_ERROR_STOP off
\set VERBOSITY sqlstate
\pset pager off
\timing off
\set column extra
ALTER TABLE big ADD COLUMN :"column" int;
ALTER TABLE big ADD COLUMN :"column" int;
SELECT :'column' AS name \gset
\echo :name
ALTER TABLE big ADD COLUMN one int\; ALTER TABLE big ADD COLUMN two int\; SELECT 1 AS number;
ALTER TABLE big ADD COLUMN three int\; SELECT 1/0\; SELECT 2;
CREATE INDEX big_n ON big (n);
CREATE INDEX CONCURRENTLY big_v ON big (v);
CREATE UNIQUE INDEX twice ON big (n);
DROP INDEX big_v;
DROP INDEX IF EXISTS big_v;
REINDEX TABLE big;
REINDEX INDEX big_n;
\d big
\copy small TO 'small.copied'
TRUNCATE small;
\copy small FROM 'small.copied'
COPY small FROM STDIN;
100	a hundred
101	\N
\.
COPY (SELECT * FROM small WHERE id > 90 ORDER BY id) TO STDOUT;
ALTER TABLE small ADD COLUMN after_copy int;
COPY small FROM STDIN;
not a number
\.
\set QUIET on
\lo_import 'small.copied' 'large'
\set QUIET off
ALTER TABLE small ADD COLUMN after_large int;
\lo_export :LASTOID 'large.copied'
\! cmp small.copied large.copied && echo alike
\lo_unlink :LASTOID
LISTEN news;
NOTIFY news;
PREPARE change AS SELECT count(*) FROM small;
EXECUTE change;
BEGIN;
ALTER TABLE small ADD COLUMN gone int;
SAVEPOINT s;
ALTER TABLE small ADD COLUMN gone int;
SELECT 1;
ROLLBACK TO s;
CREATE INDEX small_gone ON small (gone);
ROLLBACK;
BEGIN;
CREATE INDEX CONCURRENTLY small_v ON small (v);
COMMIT;
DO $$ BEGIN EXECUTE 'ALTER TABLE small ADD COLUMN done int'; END $$;
CREATE FUNCTION change() RETURNS void LANGUAGE sql AS 'ALTER TABLE small ADD COLUMN called int';
SELECT change();
CREATE TABLE copy AS SELECT * FROM small;
SELECT 'ALTER TABLE small ADD COLUMN g' || n || ' int' FROM generate_series(1, 3) n \gexec
SELECT * FROM small LIMIT 0 \gdesc
\set FETCH_COUNT 1000
SELECT id FROM big ORDER BY id OFFSET 19998;
\set FETCH_COUNT 0
\set AUTOCOMMIT off
ALTER TABLE small ADD COLUMN by_hand int;
COMMIT;
ALTER TABLE small ADD COLUMN undone int;
ROLLBACK;
\set AUTOCOMMIT on
\set ON_ERROR_ROLLBACK on
BEGIN;
ALTER TABLE small ADD COLUMN kept int;
ALTER TABLE small ADD COLUMN kept int;
COMMIT;
SELECT * FROM small ORDER BY id LIMIT 2;
PREPARE TRANSACTION 'nothing';
BEGIN;
ALTER TABLE small ADD COLUMN prepared int;
PREPARE TRANSACTION 'clients_psql';
COMMIT PREPARED 'clients_psql';
VACUUM small;
VACUUM FULL small;
CLUSTER big USING big_pkey;
\df change
EXPLAIN (COSTS off) SELECT * FROM big WHERE id = 1;
SET client_encoding = 'LATIN1';
ALTER TABLE big ADD COLUMN U&"gr\00fcn" int;
ALTER TABLE big ADD COLUMN latin1 int;
CREATE INDEX big_latin1 ON big (latin1);
ALTER TABLE small ADD COLUMN after_latin1 int;
DROP INDEX big_latin1;
ALTER TABLE big DROP COLUMN U&"gr\00fcn", ADD COLUMN U&"\65e5" int;
SET client_encoding = 'SJIS';
ALTER TABLE big ADD COLUMN sjis int;
ALTER TABLE small ADD COLUMN after_sjis int;
CREATE INDEX big_n_2 ON big (n);
RESET client_encoding;
