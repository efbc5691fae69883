-- DETACH PARTITION of partitions with rows: every kind of bounds, several levels, keys, foreign keys, triggers, CHECKs.
CREATE TABLE customers (id int PRIMARY KEY);
INSERT INTO customers SELECT generate_series(1, 20);
CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
CREATE TABLE r (id int NOT NULL, at date, c int, note text DEFAULT 'n') PARTITION BY RANGE (at);
-- since: 11
ALTER TABLE r ADD PRIMARY KEY (id, at), ADD FOREIGN KEY (c) REFERENCES customers, ADD CHECK (id > 0);
CREATE TABLE apart (id int);
CREATE TABLE r_20 PARTITION OF r FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
CREATE TABLE r_21 PARTITION OF r FOR VALUES FROM ('2021-01-01') TO ('2022-01-01');
CREATE TABLE "r 22" PARTITION OF r (CONSTRAINT "own check" CHECK (note <> '')) FOR VALUES FROM ('2022-01-01') TO ('2023-01-01');
CREATE TABLE r_23 PARTITION OF r FOR VALUES FROM ('2023-01-01') TO ('2024-01-01');
-- since: 11
CREATE INDEX ON r (note);
-- since: 13
CREATE TRIGGER noted BEFORE INSERT ON r FOR EACH ROW EXECUTE FUNCTION noted();
INSERT INTO r SELECT g, date '2020-01-01' + g, g % 20 + 1 FROM generate_series(1, 1400) g;
-- part
ALTER TABLE r DETACH PARTITION r_20;
-- part
ALTER TABLE r DETACH PARTITION r_20;
-- part
ALTER TABLE IF EXISTS r DETACH PARTITION "r 22";
-- part
INSERT INTO r VALUES (1, '2022-02-02', 1);
-- part
INSERT INTO r_20 VALUES (1, '2029-02-02', 1);
-- part
ALTER TABLE r_20 DROP CONSTRAINT r_20_at_check;
-- part
ALTER TABLE r ATTACH PARTITION "r 22" FOR VALUES FROM ('2022-01-01') TO ('2023-01-01');
-- part
-- The CHECK that proves its bounds is its own, and stays.
ALTER TABLE r_21 ADD CONSTRAINT r_21_at_check CHECK (at IS NOT NULL AND at >= '2021-01-01' AND at < '2022-01-01');
ALTER TABLE r DETACH PARTITION r_21;
-- part
BEGIN;
ALTER TABLE r DETACH PARTITION r_23;
ROLLBACK;
-- part
ALTER TABLE r DETACH PARTITION missing;
-- part
-- Nothing references it: before 14 the server looks for such rows first, and names any of them.
ALTER TABLE r DETACH PARTITION apart;
-- part
ALTER TABLE customers DETACH PARTITION r_23;
-- part
ALTER TABLE r_21 ADD CONSTRAINT r_23_at_check CHECK (true);
ALTER TABLE r DETACH PARTITION r_23;
-- part
CREATE TABLE l (id int, code text) PARTITION BY LIST (code);
CREATE TABLE l_a PARTITION OF l FOR VALUES IN ('a', 'b');
CREATE TABLE l_null PARTITION OF l FOR VALUES IN ('c', NULL) PARTITION BY RANGE (id);
CREATE TABLE l_null_1 PARTITION OF l_null FOR VALUES FROM (0) TO (10);
CREATE TABLE l_null_2 PARTITION OF l_null FOR VALUES FROM (10) TO (20);
CREATE TABLE l_expression PARTITION OF l FOR VALUES IN ('e') PARTITION BY RANGE ((id % 10), code);
CREATE TABLE l_expression_1 PARTITION OF l_expression FOR VALUES FROM (0, MINVALUE) TO (10, MAXVALUE);
INSERT INTO l VALUES (1, 'a'), (2, NULL), (12, 'c'), (7, 'e');
-- part
ALTER TABLE l_null DETACH PARTITION l_null_1;
-- part
ALTER TABLE l DETACH PARTITION l_null;
-- part
ALTER TABLE l DETACH PARTITION l_a;
-- part
ALTER TABLE l_expression DETACH PARTITION l_expression_1;
-- part
CREATE TABLE a_table_with_a_name_as_long_as_a_name_of_postgresql_may_be_ever (éééééééééééééééééééééééééééé int) PARTITION BY RANGE (éééééééééééééééééééééééééééé);
CREATE TABLE a_partition_with_a_name_as_long_as_a_name_of_postgresql_may_be_ PARTITION OF a_table_with_a_name_as_long_as_a_name_of_postgresql_may_be_ever FOR VALUES FROM (0) TO (10);
INSERT INTO a_table_with_a_name_as_long_as_a_name_of_postgresql_may_be_ever VALUES (1);
ALTER TABLE a_table_with_a_name_as_long_as_a_name_of_postgresql_may_be_ever DETACH PARTITION a_partition_with_a_name_as_long_as_a_name_of_postgresql_may_be_;
-- part
-- since: 11
CREATE TABLE h (id int) PARTITION BY HASH (id);
-- since: 11
CREATE TABLE h_0 PARTITION OF h FOR VALUES WITH (MODULUS 2, REMAINDER 0);
-- since: 11
INSERT INTO h SELECT g FROM generate_series(1, 40) g WHERE satisfies_hash_partition('h'::regclass, 2, 0, g);
-- since: 11
ALTER TABLE h DETACH PARTITION h_0;
-- part
-- since: 12
CREATE TABLE keyed (id int PRIMARY KEY) PARTITION BY RANGE (id);
-- since: 12
CREATE TABLE keyed_1 PARTITION OF keyed FOR VALUES FROM (0) TO (10);
-- since: 12
CREATE TABLE keyed_2 PARTITION OF keyed FOR VALUES FROM (10) TO (20);
-- since: 12
CREATE TABLE pointing (id int REFERENCES keyed);
-- since: 12
INSERT INTO keyed VALUES (1), (11);
-- since: 12
INSERT INTO pointing VALUES (1);
-- part
-- since: 12
ALTER TABLE keyed DETACH PARTITION keyed_1;
-- part
-- since: 12
ALTER TABLE keyed DETACH PARTITION keyed_2;
-- part
-- since: 17
CREATE TABLE counted (id int GENERATED ALWAYS AS IDENTITY, a int) PARTITION BY RANGE (a);
-- since: 17
CREATE TABLE counted_1 PARTITION OF counted FOR VALUES FROM (0) TO (10);
-- since: 17
INSERT INTO counted (a) VALUES (1);
-- since: 17
ALTER TABLE counted DETACH PARTITION counted_1;
-- part
-- DROP TABLE of partitions.
CREATE TABLE d (a int, b text CHECK (b <> '')) PARTITION BY RANGE (a);
CREATE TABLE d_1 PARTITION OF d FOR VALUES FROM (0) TO (10);
CREATE TABLE d_2 PARTITION OF d FOR VALUES FROM (10) TO (20) PARTITION BY LIST (b);
CREATE TABLE d_2_x PARTITION OF d_2 FOR VALUES IN ('x');
CREATE TABLE d_3 PARTITION OF d FOR VALUES FROM (20) TO (30);
CREATE TABLE "D 4" PARTITION OF d FOR VALUES FROM (30) TO (40);
CREATE TABLE d_5 PARTITION OF d FOR VALUES FROM (40) TO (50);
CREATE VIEW v AS SELECT * FROM d_3;
CREATE VIEW v_x AS SELECT * FROM d_2_x;
INSERT INTO d SELECT g, 'x' FROM generate_series(1, 49) g;
-- part
DROP TABLE d_1;
-- part
DROP TABLE d_2;
-- part
DROP TABLE d_3;
-- part
DROP TABLE d_3 CASCADE;
-- part
DROP TABLE IF EXISTS "D 4";
-- part
BEGIN;
DROP TABLE d_5;
ROLLBACK;
-- part
DROP VIEW v_x;
DROP TABLE d_2;
-- part
DROP TABLE d_5, l_a;
-- part
DROP TABLE r_23;
