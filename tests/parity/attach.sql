-- ATTACH PARTITION of tables with rows: every kind of bounds, a default partition, indexes, keys and foreign keys.
CREATE TABLE r (id int NOT NULL, at date, note text) PARTITION BY RANGE (at);
CREATE TABLE r_20 PARTITION OF r FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
CREATE TABLE r_21 (note text, gone int, id int NOT NULL, at date);
ALTER TABLE r_21 DROP COLUMN gone;
INSERT INTO r_21 SELECT 'n', g, date '2021-01-01' + g % 300 FROM generate_series(1, 500) g;
CREATE TABLE r_min (LIKE r);
INSERT INTO r_min SELECT g, date '2019-01-01' + g % 300, 'n' FROM generate_series(1, 500) g;
ALTER TABLE r ATTACH PARTITION r_21 FOR VALUES FROM ('2021-01-01') TO ('2022-01-01');
ALTER TABLE r ATTACH PARTITION r_min FOR VALUES FROM (MINVALUE) TO ('2020-01-01');
-- part
CREATE TABLE r_22 (LIKE r);
INSERT INTO r_22 SELECT g, date '2022-01-01' + g % 400, 'n' FROM generate_series(1, 500) g;
ALTER TABLE r ATTACH PARTITION r_22 FOR VALUES FROM ('2022-01-01') TO ('2023-01-01');
-- part
ALTER TABLE r ATTACH PARTITION r_22 FOR VALUES FROM ('2021-06-01') TO ('2024-01-01');
-- part
ALTER TABLE r ATTACH PARTITION r_22 FOR VALUES FROM ('2022-01-01') TO ('2021-01-01');
-- part
ALTER TABLE r ATTACH PARTITION r_22 FOR VALUES IN (1);
-- part
ALTER TABLE r ATTACH PARTITION r_20 FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
-- part
ALTER TABLE r ATTACH PARTITION missing FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
-- part
CREATE TABLE child () INHERITS (r_22);
-- part
ALTER TABLE r ATTACH PARTITION child FOR VALUES FROM ('2022-01-01') TO ('2023-01-01');
-- part
ALTER TABLE r ATTACH PARTITION r_22 FOR VALUES FROM ('2022-01-01') TO ('2023-01-01');
-- part
CREATE TABLE r_24 (LIKE r);
INSERT INTO r_24 VALUES (1, NULL, 'null');
ALTER TABLE r ATTACH PARTITION r_24 FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
-- part
CREATE TABLE r_other (id int, at date, note text);
ALTER TABLE r ATTACH PARTITION r_other FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
-- part
CREATE TABLE r_own (LIKE r, CONSTRAINT own CHECK (at >= '2026-01-01' AND at < '2027-01-01' AND at IS NOT NULL));
INSERT INTO r_own VALUES (1, '2026-05-05', 'x');
ALTER TABLE r ATTACH PARTITION r_own FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
-- part
-- since: 11
CREATE TABLE r_rest PARTITION OF r DEFAULT;
-- since: 11
INSERT INTO r SELECT g, date '2030-01-01' + g % 300, 'n' FROM generate_series(1, 500) g;
CREATE TABLE r_31 (LIKE r);
INSERT INTO r_31 SELECT g, date '2031-01-01' + g % 300, 'n' FROM generate_series(1, 500) g;
ALTER TABLE r ATTACH PARTITION r_31 FOR VALUES FROM ('2031-01-01') TO ('2032-01-01');
-- part
CREATE TABLE r_30 (LIKE r);
-- since: 11
ALTER TABLE r ATTACH PARTITION r_30 FOR VALUES FROM ('2030-01-01') TO ('2031-01-01');
-- part
-- since: 11
CREATE TABLE r_32 PARTITION OF r FOR VALUES FROM ('2032-01-01') TO ('2033-01-01');
-- since: 11
CREATE TABLE r_33 PARTITION OF r (CONSTRAINT own_33 CHECK (id > 0), note DEFAULT 'x') FOR VALUES FROM ('2033-01-01') TO ('2034-01-01') PARTITION BY LIST (note);
-- since: 11
CREATE TABLE IF NOT EXISTS r_33 PARTITION OF r FOR VALUES FROM ('2033-01-01') TO ('2034-01-01');
-- part
-- since: 11
CREATE TABLE r_33 PARTITION OF r FOR VALUES FROM ('2034-01-01') TO ('2035-01-01');
-- part
-- since: 11
CREATE TABLE r_34 PARTITION OF r FOR VALUES FROM ('2033-06-01') TO ('2035-01-01');
-- part
-- since: 11
CREATE TABLE r_30x PARTITION OF r FOR VALUES FROM ('2030-01-01') TO ('2031-01-01');
-- part
-- since: 11
CREATE TABLE r_rest_2 PARTITION OF r DEFAULT;
-- part
CREATE TABLE m (a int, b text COLLATE "C", c int) PARTITION BY RANGE (a, b);
CREATE TABLE m_1 (LIKE m);
INSERT INTO m_1 SELECT 1 + g % 3, 'x' || g, g FROM generate_series(1, 500) g;
ALTER TABLE m ATTACH PARTITION m_1 FOR VALUES FROM (1, 'a') TO (3, 'z''z');
-- part
CREATE TABLE m_2 (LIKE m);
INSERT INTO m_2 SELECT 5, '', g FROM generate_series(1, 500) g;
ALTER TABLE m ATTACH PARTITION m_2 FOR VALUES FROM (4, MINVALUE) TO (5, MAXVALUE);
-- part
CREATE TABLE e (a int, "Odd ""key" text) PARTITION BY RANGE ((a % 100), lower("Odd ""key"));
CREATE TABLE "e ""1" (LIKE e);
INSERT INTO "e ""1" SELECT g, 'x' FROM generate_series(1, 500) g;
ALTER TABLE e ATTACH PARTITION "e ""1" FOR VALUES FROM (0, '') TO (100, 'z');
-- part
CREATE TABLE l (id int, kind text) PARTITION BY LIST (kind);
CREATE TABLE l_a (LIKE l);
INSERT INTO l_a SELECT g, (ARRAY['a', 'b', NULL])[1 + g % 3] FROM generate_series(1, 500) g;
ALTER TABLE l ATTACH PARTITION l_a FOR VALUES IN ('a', 'b', NULL);
-- part
CREATE TABLE l_c (LIKE l);
INSERT INTO l_c SELECT g, 'c' FROM generate_series(1, 500) g;
ALTER TABLE l ATTACH PARTITION l_c FOR VALUES IN ('c');
-- part
CREATE TABLE l_d (LIKE l);
INSERT INTO l_d VALUES (1, 'd'), (2, NULL);
ALTER TABLE l ATTACH PARTITION l_d FOR VALUES IN ('d');
-- part
CREATE TABLE l_rest (LIKE l);
INSERT INTO l_rest SELECT g, 'r' || g FROM generate_series(1, 500) g;
-- since: 11
ALTER TABLE l ATTACH PARTITION l_rest DEFAULT;
-- part
CREATE TABLE l_r1 (LIKE l);
-- since: 11
ALTER TABLE l ATTACH PARTITION l_r1 FOR VALUES IN ('r1', 'r2');
-- part
INSERT INTO l_r1 VALUES (1, 'y');
ALTER TABLE l ATTACH PARTITION l_r1 FOR VALUES IN ('y');
-- part
CREATE TABLE lb (b boolean) PARTITION BY LIST (b);
CREATE TABLE lb_t (LIKE lb);
INSERT INTO lb_t SELECT true FROM generate_series(1, 500);
ALTER TABLE lb ATTACH PARTITION lb_t FOR VALUES IN (true);
-- part
-- needs: 11
CREATE TABLE h (id int NOT NULL, name text) PARTITION BY HASH (id, name);
-- needs: 11
CREATE TABLE h_0 PARTITION OF h FOR VALUES WITH (MODULUS 2, REMAINDER 0);
-- needs: 11
CREATE TABLE h_1 (LIKE h);
-- needs: 11
INSERT INTO h_1 SELECT g, 'n' FROM generate_series(1, 500) g WHERE NOT satisfies_hash_partition('h'::regclass, 2, 0, g, 'n'::text);
-- needs: 11
ALTER TABLE h ATTACH PARTITION h_1 FOR VALUES WITH (MODULUS 2, REMAINDER 1);
-- part
-- needs: 11
ALTER TABLE h DETACH PARTITION h_0;
-- needs: 11
INSERT INTO h_0 SELECT * FROM h_1;
-- needs: 11
ALTER TABLE h ATTACH PARTITION h_0 FOR VALUES WITH (MODULUS 2, REMAINDER 0);
-- part
-- needs: 11
CREATE TABLE hi (id int, n bigint) PARTITION BY HASH (id, n);
-- needs: 11
CREATE TABLE hi_1 (LIKE hi);
-- needs: 11
INSERT INTO hi_1 SELECT g, g FROM generate_series(1, 500) g WHERE satisfies_hash_partition('hi'::regclass, 2, 1, g, g::bigint);
-- needs: 11
ALTER TABLE hi ATTACH PARTITION hi_1 FOR VALUES WITH (MODULUS 2, REMAINDER 1);
-- part
-- needs: 11
CREATE TABLE hi_0 (LIKE hi);
-- needs: 11
INSERT INTO hi_0 SELECT * FROM hi_1;
-- needs: 11
ALTER TABLE hi ATTACH PARTITION hi_0 FOR VALUES WITH (MODULUS 2, REMAINDER 0);
-- part
CREATE TABLE s (a int, b int) PARTITION BY RANGE (a);
CREATE TABLE s_1 PARTITION OF s FOR VALUES FROM (0) TO (100) PARTITION BY LIST (b);
CREATE TABLE s_1_1 (LIKE s);
INSERT INTO s_1_1 SELECT g % 100, 1 FROM generate_series(1, 500) g;
ALTER TABLE s_1 ATTACH PARTITION s_1_1 FOR VALUES IN (1);
-- part
CREATE TABLE s_1_2 (LIKE s);
INSERT INTO s_1_2 SELECT g, 2 FROM generate_series(1, 500) g;
ALTER TABLE s_1 ATTACH PARTITION s_1_2 FOR VALUES IN (2);
-- part
CREATE TABLE s_2 (a int, b int) PARTITION BY LIST (b);
CREATE TABLE s_2_1 PARTITION OF s_2 FOR VALUES IN (1);
INSERT INTO s_2 SELECT 100 + g % 100, 1 FROM generate_series(1, 500) g;
ALTER TABLE s ATTACH PARTITION s_2 FOR VALUES FROM (100) TO (200);
-- part
-- needs: 11
CREATE TABLE target (id int PRIMARY KEY);
-- needs: 11
INSERT INTO target SELECT generate_series(1, 500);
-- needs: 11
CREATE TABLE k (id int, at date, v int, w int REFERENCES target ON DELETE CASCADE, PRIMARY KEY (id, at), UNIQUE (at, v) DEFERRABLE INITIALLY DEFERRED) PARTITION BY RANGE (at);
-- needs: 11
CREATE INDEX ON k (v) WHERE v > 0;
-- needs: 11
CREATE INDEX "Odd ""index" ON k (lower(v::text), w) INCLUDE (at) WITH (fillfactor = 50);
-- needs: 11
CREATE INDEX twice ON k (w);
-- needs: 11
CREATE INDEX twice_again ON k (w);
-- needs: 11
CREATE TABLE k_1 (id int NOT NULL, at date NOT NULL, v int, w int);
-- needs: 11
INSERT INTO k_1 SELECT g, date '2021-01-01' + g % 300, g, g FROM generate_series(1, 500) g;
-- needs: 11
CREATE INDEX k_1_has ON k_1 (w DESC);
-- needs: 11
CREATE TABLE k_1_at_v_key ();
-- needs: 11
ALTER TABLE k ATTACH PARTITION k_1 FOR VALUES FROM ('2021-01-01') TO ('2022-01-01');
-- part
-- needs: 11
CREATE TABLE k_2 (LIKE k_1 INCLUDING INDEXES, UNIQUE (at, v) DEFERRABLE INITIALLY DEFERRED, CONSTRAINT fk FOREIGN KEY (w) REFERENCES target ON DELETE CASCADE);
-- needs: 11
INSERT INTO k_2 SELECT g, date '2022-01-01' + g % 300, g, g FROM generate_series(1, 500) g;
-- needs: 11
ALTER TABLE k ATTACH PARTITION k_2 FOR VALUES FROM ('2022-01-01') TO ('2023-01-01');
-- part
-- needs: 11
CREATE TABLE k_3 (id int NOT NULL, at date NOT NULL, v int, w int);
-- needs: 11
INSERT INTO k_3 SELECT g, date '2023-01-01' + g % 300, g, 999 FROM generate_series(1, 500) g;
-- needs: 11
ALTER TABLE k ATTACH PARTITION k_3 FOR VALUES FROM ('2023-01-01') TO ('2024-01-01');
-- part
-- needs: 11
UPDATE k_3 SET w = 1, id = 1, at = '2023-02-02' WHERE id < 5;
-- needs: 11
ALTER TABLE k ATTACH PARTITION k_3 FOR VALUES FROM ('2023-01-01') TO ('2024-01-01');
-- part
-- needs: 11
CREATE TABLE k_4 (id int, at date, v int, w int);
-- needs: 11
INSERT INTO k_4 SELECT g, date '2024-01-01' + g % 300, g, 1 FROM generate_series(1, 500) g;
-- needs: 11
ALTER TABLE k ATTACH PARTITION k_4 FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
-- part
-- needs: 12
CREATE TABLE refers (id int, at date, FOREIGN KEY (id, at) REFERENCES k);
-- needs: 12
DELETE FROM k_3 WHERE id < 5 OR w = 999;
-- needs: 12
INSERT INTO k_3 SELECT g, date '2023-01-01' + g % 300, g, 1 FROM generate_series(1, 500) g;
-- needs: 12
ALTER TABLE k ATTACH PARTITION k_3 FOR VALUES FROM ('2023-01-01') TO ('2024-01-01');
