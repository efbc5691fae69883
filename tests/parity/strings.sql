-- Strings of several statements, errors amid them, transactions that begin and end inside, comments, COPY.
CREATE TABLE t (id int PRIMARY KEY, a int);
-- part
-- only: simple block
INSERT INTO t VALUES (1, 1); ALTER TABLE t ADD COLUMN b int; INSERT INTO t VALUES (2, 2, 2);
INSERT INTO t VALUES (3, 3); ALTER TABLE t ADD COLUMN b int; SELECT 'never';
ALTER TABLE t ADD COLUMN c int; SELECT 1 / 0; ALTER TABLE t ADD COLUMN d int;
SELECT count(*) FROM t;
-- part
-- only: simple block
SELECT 'é 世界' AS x; ALTER TABLE t ADD COLUMN c nonsense;
-- part
-- only: simple block
ALTER TABLE t ADD COLUMN e int; SELECT 'é 世界' AS x; SELECT missing FROM t;
-- part
-- only: simple block
/* é世界 */ ALTER TABLE t ADD COLUMN f int; SELEC 1; SELECT 2;
-- part
-- only: simple block
ALTER TABLE t ADD COLUMN g int;; ; /* nothing */ ; -- the end
;
-- part
/* é世界 é世界 */ ALTER TABLE t ADD COLUMN h nonsense;
-- part
-- only a comment
;
-- part
-- only: simple
BEGIN; ALTER TABLE t ADD COLUMN i int; COMMIT; ALTER TABLE t ADD COLUMN i2 int;
ALTER TABLE t ADD COLUMN j int; BEGIN; ALTER TABLE t ADD COLUMN k int; ROLLBACK; SELECT count(*) FROM t;
ALTER TABLE t ADD COLUMN l int; COMMIT; ALTER TABLE t ADD COLUMN m int;
ALTER TABLE t ADD COLUMN n int; ROLLBACK; ALTER TABLE t ADD COLUMN n2 int;
INSERT INTO t (id) VALUES (50); CREATE TABLE u (id int); ABORT; SELECT count(*) FROM t WHERE id = 50;
BEGIN; BEGIN; ALTER TABLE t ADD COLUMN o int; COMMIT; COMMIT;
BEGIN; ALTER TABLE t ADD COLUMN p int; SELECT 1 / 0; COMMIT;
SELECT 'still in a failed block';
COMMIT;
ALTER TABLE t ADD COLUMN p int; START TRANSACTION ISOLATION LEVEL SERIALIZABLE; ALTER TABLE t ADD COLUMN q int; COMMIT;
-- needs: 11
-- 10 ends the session, for a state that it does not expect of itself.
ALTER TABLE t ADD COLUMN r int; SAVEPOINT s; ALTER TABLE t ADD COLUMN s int;
-- needs: 11
ALTER TABLE t ADD COLUMN r int; ROLLBACK TO s;
-- needs: 11
ALTER TABLE t ADD COLUMN r int; RELEASE s;
-- needs: 12
-- What an old grammar refuses amid a string the proxy hears of when it comes to it.
ALTER TABLE t ADD COLUMN r int; COMMIT AND CHAIN; ALTER TABLE t ADD COLUMN s int;
-- needs: 12
ALTER TABLE t ADD COLUMN r2 int; ROLLBACK AND CHAIN; ALTER TABLE t ADD COLUMN s int;
-- needs: 11
-- 10 does not prepare what no BEGIN began, and goes on; the proxy's block is prepared.
ALTER TABLE t ADD COLUMN r3 int; PREPARE TRANSACTION 'parity_strings'; SELECT 5;
-- needs: 11
ROLLBACK PREPARED 'parity_strings';
-- needs: 11
-- 10 has other words for the same error.
SELECT 1; CREATE INDEX CONCURRENTLY ON t (a);
-- needs: 11
CREATE INDEX CONCURRENTLY ON t (a); SELECT 1;
BEGIN; SAVEPOINT s; ALTER TABLE t ADD COLUMN t1 int; ROLLBACK TO s; ALTER TABLE t ADD COLUMN t2 int; RELEASE s; COMMIT;
BEGIN; SAVEPOINT s; ALTER TABLE t ADD COLUMN t2 int; ROLLBACK TO s; ALTER TABLE t ADD COLUMN t3 int; COMMIT;
BEGIN; SAVEPOINT s; ALTER TABLE t ADD COLUMN t2 int;
ROLLBACK TO s; ALTER TABLE t ADD COLUMN t4 int; COMMIT;
SET LOCAL work_mem = '1MB'; ALTER TABLE t ADD COLUMN t5 int; SHOW work_mem;
SET work_mem = '2MB'; ALTER TABLE t ADD COLUMN t6 int; SELECT 1 / 0;
SHOW work_mem;
-- needs: 11
ALTER TABLE t ADD COLUMN t7 int; VACUUM t;
-- needs: 11
VACUUM t; ALTER TABLE t ADD COLUMN t8 int;
SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; ALTER TABLE t ADD COLUMN t9 int; SHOW transaction_isolation;
SELECT 1; SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; ALTER TABLE t ADD COLUMN t10 int;
ALTER TABLE t ADD COLUMN t11 int; DECLARE c CURSOR FOR SELECT 1; FETCH c;
LOCK TABLE t; ALTER TABLE t ADD COLUMN t12 int;
ALTER TABLE t ADD COLUMN t13 int; LOCK TABLE t;
-- part
-- only: simple block
COPY t (id, a) FROM STDIN; ALTER TABLE t ADD COLUMN copied int; SELECT count(*) FROM t;
--< 100\t1|101\t2
CREATE TABLE loaded (id int); COPY loaded FROM STDIN; CREATE INDEX ON loaded (id); COPY loaded TO STDOUT;
--< 1|2|3
COPY loaded FROM STDIN; ALTER TABLE loaded ADD COLUMN more int;
--< no number
-- part
-- only: simple extended
COPY t (id, a) FROM STDIN;
--< 200\t1|201\t2
ALTER TABLE t ADD COLUMN copied2 int;
-- part
-- only: simple block block-extended
SAVEPOINT a;
ALTER TABLE t ADD COLUMN z int;
ROLLBACK TO a;
ALTER TABLE t ADD COLUMN z int;
RELEASE a;
SAVEPOINT b;
ALTER TABLE t ADD COLUMN z int;
SELECT 1;
ROLLBACK TO b;
CREATE INDEX ON t (z);
-- part
INSERT INTO t (id) VALUES (300);
ALTER TABLE t ADD COLUMN zz int;
INSERT INTO t (id) VALUES (300);
-- part
EXPLAIN SELECT 1;
PREPARE q AS SELECT * FROM t WHERE id = 1;
ALTER TABLE t DROP COLUMN zz;
DEALLOCATE ALL;
-- part
LISTEN parity;
ALTER TABLE t ADD COLUMN heard int;
NOTIFY parity, 'hello';
UNLISTEN *;
