-- Keys of partitioned tables: names, several levels, keys that are there, errors. 10 has none.
CREATE TABLE p (id int NOT NULL, at date NOT NULL, v int, w text) PARTITION BY RANGE (at);
CREATE TABLE p_20 PARTITION OF p FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
CREATE TABLE p_21 (w text, dropped int, v int, at date NOT NULL, id int NOT NULL);
ALTER TABLE p_21 DROP COLUMN dropped;
ALTER TABLE p ATTACH PARTITION p_21 FOR VALUES FROM ('2021-01-01') TO ('2022-01-01');
CREATE TABLE "Sub ""p" PARTITION OF p FOR VALUES FROM ('2022-01-01') TO ('2023-01-01') PARTITION BY LIST (id);
CREATE TABLE sub_1 PARTITION OF "Sub ""p" FOR VALUES IN (901, 902, 903);
-- since: 11
CREATE TABLE sub_rest PARTITION OF "Sub ""p" DEFAULT;
-- needs: 11
INSERT INTO p SELECT g, date '2020-01-01' + g, g, 'w' || g FROM generate_series(1, 1000) g;
-- part
-- since: 11
ALTER TABLE p ADD UNIQUE (id, at);
-- since: 11
ALTER TABLE p ADD UNIQUE (id, at);
-- since: 11
ALTER TABLE p ADD CONSTRAINT "Odd ""key" UNIQUE (at, v, id) DEFERRABLE INITIALLY DEFERRED;
-- since: 11
ALTER TABLE p ADD UNIQUE (id, at) INCLUDE (v) WITH (fillfactor = 70);
-- since: 15
ALTER TABLE p ADD UNIQUE NULLS NOT DISTINCT (id, at, v);
-- part
-- since: 11
ALTER TABLE p ADD PRIMARY KEY (id, at, v);
-- part
-- since: 11
ALTER TABLE p ADD PRIMARY KEY (at, id);
-- since: 11
ALTER TABLE p ADD PRIMARY KEY (id, at);
-- part
-- since: 11
ALTER TABLE p ADD CONSTRAINT p_pkey UNIQUE (id, at, w);
-- part
-- since: 11
ALTER TABLE p ADD UNIQUE (id);
-- part
-- since: 11
ALTER TABLE p ADD UNIQUE (at, w);
-- part
-- since: 11
ALTER TABLE p ADD UNIQUE (missing);
-- part
ALTER TABLE p_20 ADD CONSTRAINT own UNIQUE (w, at, id);
CREATE UNIQUE INDEX p_21_own ON p_21 (w, at, id);
CREATE TABLE sub_1_w_at_id_key ();
-- since: 11
ALTER TABLE p ADD UNIQUE (w, at, id);
-- part
-- since: 11
ALTER TABLE p DROP CONSTRAINT "Odd ""key";
-- since: 11
ALTER TABLE p DROP CONSTRAINT p_pkey;
-- part
-- since: 11
CREATE TABLE q (id int NOT NULL, v int) PARTITION BY LIST (v);
-- since: 11
CREATE TABLE q_1 PARTITION OF q FOR VALUES IN (1);
-- since: 11
CREATE TABLE q_2 PARTITION OF q FOR VALUES IN (2);
-- since: 11
INSERT INTO q SELECT g, 1 FROM generate_series(1, 500) g;
-- since: 11
INSERT INTO q SELECT 7, 2 FROM generate_series(1, 2) g;
-- since: 11
ALTER TABLE q ADD UNIQUE (id, v);
-- part
-- since: 11
ALTER TABLE q ADD CHECK (id > 0);
-- since: 11
DELETE FROM q WHERE v = 2;
-- needs: 12
ALTER TABLE q ALTER v SET NOT NULL;
-- needs: 12
ALTER TABLE q ADD PRIMARY KEY (id, v);
-- part
-- since: 11
CREATE TABLE n (a int, "B b" int, c text) PARTITION BY RANGE (a);
-- since: 11
CREATE TABLE n_1 PARTITION OF n FOR VALUES FROM (0) TO (100);
-- since: 11
CREATE TABLE n_2 PARTITION OF n ("B b" NOT NULL) FOR VALUES FROM (100) TO (200) PARTITION BY LIST ("B b");
-- since: 11
CREATE TABLE n_21 PARTITION OF n_2 FOR VALUES IN (150, 151, 152);
-- since: 11
CREATE TABLE n_22 PARTITION OF n_2 DEFAULT;
-- since: 11
CREATE TABLE n_3 PARTITION OF n (a NOT NULL, "B b" NOT NULL) FOR VALUES FROM (200) TO (300);
-- since: 11
INSERT INTO n SELECT g, g, 'n' || g FROM generate_series(1, 299) g;
-- part
-- since: 11
UPDATE n SET "B b" = NULL WHERE a = 50;
-- part
-- since: 11
ALTER TABLE n ADD PRIMARY KEY (a, "B b");
-- part
-- since: 11
UPDATE n SET "B b" = 1 WHERE a = 50;
-- since: 11
INSERT INTO n VALUES (250, 250, 'twice');
-- part
-- since: 11
ALTER TABLE n ADD PRIMARY KEY (a, "B b");
-- part
-- since: 11
DELETE FROM n WHERE c = 'twice';
-- since: 11
CREATE TABLE before AS SELECT attrelid::regclass::text, attname, attnotnull FROM pg_attribute WHERE attrelid::regclass::text ~ '^n(_\d+)?$' AND attnum > 0;
-- part
-- since: 11
ALTER TABLE n ADD CONSTRAINT "key of n" PRIMARY KEY (a, "B b");
-- part
-- since: 11
CREATE TABLE own (a int NOT NULL, b int) PARTITION BY RANGE (a);
-- since: 11
CREATE TABLE own_1 PARTITION OF own (a NOT NULL, b NOT NULL) FOR VALUES FROM (0) TO (100);
-- since: 11
INSERT INTO own SELECT g, g FROM generate_series(1, 99) g;
-- part
-- since: 11
ALTER TABLE own ADD PRIMARY KEY (a, b);
-- part
-- A partition's NOT NULL is its parent's, and becomes its own too (18).
-- since: 11
ALTER TABLE p_20 ALTER id SET NOT NULL;
-- since: 11
ALTER TABLE sub_1 ALTER at SET NOT NULL;
-- since: 18
-- needs: 12
ALTER TABLE p ALTER v SET NOT NULL;
-- since: 18
-- needs: 12
ALTER TABLE p_21 ALTER v SET NOT NULL;
-- since: 18
-- needs: 12
ALTER TABLE p ALTER v DROP NOT NULL;
