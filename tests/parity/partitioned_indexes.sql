-- Indexes on partitioned tables: several levels, names, equal indexes that are there, errors. 10 has none.
CREATE TABLE p (id int NOT NULL, at date NOT NULL, note text, n int) PARTITION BY RANGE (at);
CREATE TABLE p_20 PARTITION OF p FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
CREATE TABLE p_21 (n int, dropped int, note text, at date NOT NULL, id int NOT NULL);
ALTER TABLE p_21 DROP COLUMN dropped;
ALTER TABLE p ATTACH PARTITION p_21 FOR VALUES FROM ('2021-01-01') TO ('2022-01-01');
CREATE SCHEMA other;
CREATE TABLE other."Sub ""level" PARTITION OF p FOR VALUES FROM ('2022-01-01') TO ('2023-01-01') PARTITION BY LIST (id);
CREATE TABLE other.sub_1 PARTITION OF other."Sub ""level" FOR VALUES IN (1, 2, 3);
-- since: 11
CREATE TABLE sub_rest PARTITION OF other."Sub ""level" DEFAULT;
-- needs: 11
INSERT INTO p SELECT g, date '2020-01-01' + g, 'n' || g, g FROM generate_series(1, 1000) g;
-- part
-- since: 11
CREATE INDEX ON p (note);
-- since: 11
CREATE INDEX ON p (note);
-- since: 11
CREATE INDEX named ON public.p USING btree (lower(note), id DESC, (n + 1)) WHERE n > 0;
-- since: 11
CREATE INDEX /* on */ "Named ""too" ON p(n) -- a comment ON t
WITH (fillfactor = 70) -- at the end
;
-- part
-- since: 11
CREATE INDEX ON p USING hash (note);
-- since: 11
CREATE INDEX ON p (note COLLATE "C" text_pattern_ops, note) INCLUDE (id, n);
-- part
CREATE INDEX there_a ON p_20 (id, n DESC);
CREATE INDEX there_b ON p_20 (id, n);
CREATE INDEX there_c ON other.sub_1 (id, n);
-- since: 11
CREATE INDEX there_p ON other."Sub ""level" (n, id);
-- since: 11
CREATE INDEX ON p (id, n);
-- since: 11
CREATE INDEX ON p (n, id);
-- part
CREATE INDEX p_20_lower_idx ON p_20 (n, note);
CREATE VIEW p_21_lower_idx AS SELECT 1;
CREATE TABLE p_lower_idx ();
CREATE TABLE other.sub_1_lower_idx ();
CREATE TABLE other.sub_1_lower_idx1 ();
-- since: 11
CREATE INDEX ON p (lower(note));
-- part
-- since: 11
CREATE UNIQUE INDEX p_unique ON p (id, at, note);
-- since: 11
CREATE UNIQUE INDEX p_twice ON p (id, at, note) INCLUDE (n);
-- since: 15
CREATE UNIQUE INDEX ON p (id, at, note) NULLS NOT DISTINCT;
-- part
-- since: 11
CREATE UNIQUE INDEX ON p (id, note);
-- part
-- since: 11
CREATE UNIQUE INDEX ON p (at, note);
-- part
CREATE UNIQUE INDEX ON p (missing);
-- part
-- since: 11
CREATE INDEX named ON p (id);
-- part
-- since: 11
CREATE INDEX IF NOT EXISTS named ON p (id);
-- part
-- since: 11
CREATE INDEX IF NOT EXISTS unnamed ON p (id);
-- part
-- since: 11
INSERT INTO p SELECT id, at, note, 0 FROM p WHERE id = 10;
-- since: 11
CREATE UNIQUE INDEX fails ON p (id, at, lower(note), (n * 0));
-- part
-- since: 11
CREATE UNIQUE INDEX fails ON p (at, id);
-- part
-- since: 11
CREATE TABLE p_23 PARTITION OF p FOR VALUES FROM ('2023-01-01') TO ('2024-01-01');
-- since: 11
CREATE TABLE a_table_with_a_name_as_long_as_names_of_tables_may_be_a_parent (a int, b int) PARTITION BY LIST (a);
-- since: 11
CREATE TABLE a_table_with_a_name_as_long_as_names_of_tables_may_be_a_pa_1 PARTITION OF a_table_with_a_name_as_long_as_names_of_tables_may_be_a_parent FOR VALUES IN (1);
-- since: 11
CREATE TABLE a_table_with_a_name_as_long_as_names_of_tables_may_be_a_pa_2 PARTITION OF a_table_with_a_name_as_long_as_names_of_tables_may_be_a_parent FOR VALUES IN (2);
-- since: 11
INSERT INTO a_table_with_a_name_as_long_as_names_of_tables_may_be_a_parent SELECT 1 + g % 2, g FROM generate_series(1, 100) g;
-- since: 11
CREATE INDEX ON a_table_with_a_name_as_long_as_names_of_tables_may_be_a_parent (b);
-- part
-- since: 11
CREATE TABLE other.p_24 PARTITION OF p FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
-- since: 11
DROP INDEX named;
-- since: 11
CREATE INDEX named ON p* (note, id);
