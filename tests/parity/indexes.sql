-- Indexes: built, dropped, rebuilt, renamed; by name, without one, unique and violated.
CREATE TABLE t (id int PRIMARY KEY, a int, b text, c int[]);
INSERT INTO t SELECT g, g % 10, 'b' || g, ARRAY[g] FROM generate_series(1, 500) g;
CREATE SCHEMA "Other";
CREATE TABLE "Other"."T" (id int, "Mixed" text);
-- part
CREATE INDEX ON t (a);
CREATE INDEX ON t (a);
-- since: 11
CREATE INDEX t_b ON t USING btree (b DESC NULLS LAST) INCLUDE (a) WITH (fillfactor = 70);
-- before: 11
CREATE INDEX t_b ON t USING btree (b DESC NULLS LAST) WITH (fillfactor = 70);
CREATE UNIQUE INDEX t_lower ON t (lower(b)) WHERE a > 0;
CREATE INDEX IF NOT EXISTS t_b ON t (b);
CREATE INDEX IF NOT EXISTS t_new ON public.t USING gin (c);
create index "Ünï 世界" on "Other"."T" using hash ("Mixed");
CREATE INDEX ON "Other"."T" ("Mixed", (id + 1), upper("Mixed") text_pattern_ops);
-- part
CREATE INDEX t_b ON t (b);
-- part
CREATE UNIQUE INDEX t_violated ON t (a);
-- part
CREATE UNIQUE INDEX ON t (a);
-- part
CREATE INDEX t_x ON missing (a);
-- part
CREATE INDEX t_x ON t (missing);
-- part
SELECT 'é', '世界'; CREATE INDEX t_x ON t (a, missing);
-- part
CREATE INDEX t_x ON t USING nonsense (a);
-- part
CREATE INDEX t_x ON t ((random()));
-- part
CREATE INDEX t_x ON t (a) WHERE a / 0 > 1;
-- part
CREATE INDEX ON t ((1 / (a - 3)));
-- part
CREATE INDEX CONCURRENTLY t_cic ON t (a, c);
-- part
-- since: 11
-- Amid a string, 10 has other words for the same error.
CREATE INDEX CONCURRENTLY IF NOT EXISTS t_b ON t (a, c);
DROP INDEX CONCURRENTLY IF EXISTS t_none;
-- part
DROP INDEX CONCURRENTLY t_cic;
-- part
DROP INDEX t_new;
DROP INDEX IF EXISTS t_new;
DROP INDEX IF EXISTS t_new, t_b;
DROP INDEX IF EXISTS nowhere.t_new;
DROP INDEX public.t_a_idx, t_a_idx1;
-- part
DROP INDEX t_pkey;
-- part
DROP INDEX missing;
-- part
DROP INDEX t;
-- part
REINDEX INDEX t_lower;
REINDEX TABLE t;
-- since: 14
REINDEX (VERBOSE false) TABLE t;
-- part
REINDEX INDEX missing;
-- part
REINDEX SCHEMA "Other";
-- part
REINDEX TABLE CONCURRENTLY t;
-- part
REINDEX INDEX CONCURRENTLY t_lower;
-- part
REINDEX SYSTEM nonsense;
-- part
ALTER INDEX t_lower RENAME TO "T Lower";
ALTER INDEX IF EXISTS missing RENAME TO x;
ALTER INDEX "T Lower" SET (fillfactor = 50);
ALTER INDEX "T Lower" RESET (fillfactor);
-- since: 11
ALTER INDEX "T Lower" ALTER COLUMN 1 SET STATISTICS 50;
ALTER TABLE "T Lower" RENAME TO t_lower;
ALTER INDEX t_lower SET TABLESPACE pg_default;
-- part
ALTER INDEX missing RENAME TO x;
-- part
ALTER INDEX t RENAME TO t_by_index;
ALTER INDEX t_by_index RENAME TO t;
ALTER INDEX IF EXISTS t SET (fillfactor = 90);
-- part
CREATE STATISTICS st (dependencies) ON a, b FROM t;
CREATE STATISTICS IF NOT EXISTS st ON a, id FROM t;
COMMENT ON INDEX t_lower IS 'an index';
-- part
-- only: simple extended pipeline
BEGIN; CREATE INDEX CONCURRENTLY nope ON t (a); COMMIT;
ROLLBACK;
-- part
-- since: 11
CREATE INDEX t_last ON ONLY t (a);
ANALYZE t;
