-- Statements that fail, of every form that runs in phases: each field of the error is the server's, its position the author's.
CREATE TABLE t (id int PRIMARY KEY, a int, b int, "é é" text, CONSTRAINT old CHECK (a > 0));
INSERT INTO t SELECT g, g, nullif(g % 7, 3), 'ä' || g FROM generate_series(1, 40) g;
INSERT INTO t VALUES (41, 5, 7, 'x');
CREATE TABLE o (id int PRIMARY KEY, w int, v text);
INSERT INTO o SELECT g, g, g FROM generate_series(1, 20) g;
CREATE TABLE p (id int NOT NULL, a int) PARTITION BY RANGE (id);
CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (50);
INSERT INTO p SELECT g, g % 7 FROM generate_series(1, 40) g;
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE VIEW view_of_t AS SELECT id, b FROM t;
-- part
/* ä */ ALTER TABLE t ADD CHECK ("é é" <> 'ä' AND missing > 0);
-- part
ALTER TABLE t ADD COLUMN c int, ADD /* é */ CHECK ("é é" <> 'ä' AND missing > 0);
-- part
ALTER TABLE t ADD COLUMN c int DEFAULT (random() * 9)::int, ADD CONSTRAINT "ä" CHECK ("é é" <> 'ä' AND missing > 0);
-- part
-- needs: 12
ALTER TABLE t ADD COLUMN c int DEFAULT (random() * 9)::int, ALTER a SET NOT NULL, ADD CONSTRAINT "ä" CHECK (a > 0 AND lower(a) > 'x');
-- part
ALTER TABLE t ADD COLUMN c int DEFAULT 4 CONSTRAINT "ä" CHECK (missing > 0 OR c > 0);
-- part
ALTER TABLE t ADD COLUMN c int CHECK (nothing(c) > 0) DEFAULT 4;
-- part
ALTER TABLE t ADD COLUMN c int DEFAULT 'ä' || random();
-- part
ALTER TABLE t ADD COLUMN c int DEFAULT nothing(random());
-- part
ALTER TABLE t ADD COLUMN c int DEFAULT random() + a;
-- part
ALTER TABLE t ADD COLUMN c int DEFAULT (SELECT 1) NOT NULL;
-- part
ALTER TABLE t ADD COLUMN c text DEFAULT random()::text COLLATE nowhere;
-- part
ALTER TABLE t ADD COLUMN c text COLLATE nowhere DEFAULT random()::text;
-- part
ALTER TABLE t ADD COLUMN d int, ADD COLUMN c nosuchtype DEFAULT random();
-- part
ALTER TABLE t ADD COLUMN d int, ADD COLUMN c nosuch.serial;
-- part
ALTER TABLE t ADD COLUMN c int DEFAULT 1 DEFAULT 2;
-- part
ALTER TABLE t ADD COLUMN c int NULL NOT NULL DEFAULT random();
-- part
ALTER TABLE t ADD COLUMN c serial DEFAULT 5;
-- part
ALTER TABLE t ADD COLUMN c serial NULL;
-- part
ALTER TABLE t ADD COLUMN c int GENERATED ALWAYS AS IDENTITY DEFAULT 5;
-- part
ALTER TABLE t ADD COLUMN c text GENERATED ALWAYS AS IDENTITY;
-- part
ALTER TABLE t ADD COLUMN c int GENERATED ALWAYS AS IDENTITY (MINVALUE 10 START 5);
-- part
ALTER TABLE t ADD COLUMN a int DEFAULT random();
-- part
ALTER TABLE t ADD COLUMN xmin int DEFAULT random();
-- part
ALTER TABLE t ADD COLUMN c int UNIQUE PRIMARY KEY;
-- part
ALTER TABLE t ADD COLUMN c int DEFAULT 5 UNIQUE;
-- part
ALTER TABLE t ADD COLUMN c int DEFAULT 5 CHECK (c > 5);
-- part
ALTER TABLE t ADD COLUMN c int DEFAULT 5 + (random() * 0)::int CHECK (c > 5);
-- part
ALTER TABLE t ADD COLUMN c int DEFAULT 5 + (random() * 0)::int UNIQUE;
-- part
ALTER TABLE t ADD COLUMN c int DEFAULT 99 REFERENCES o;
-- part
-- needs: 12
ALTER TABLE t ADD COLUMN c int DEFAULT 99 + (random() * 0)::int REFERENCES o NOT NULL;
-- part
-- needs: 12
ALTER TABLE t ADD COLUMN c int DEFAULT nullif((random() * 0)::int, 0) NOT NULL;
-- part
ALTER TABLE t ADD COLUMN c int DEFAULT 3 REFERENCES missing;
-- part
ALTER TABLE t ADD COLUMN c int DEFAULT 3 REFERENCES o (missing);
-- part
ALTER TABLE t ADD COLUMN c int DEFAULT 3 REFERENCES o (w);
-- part
ALTER TABLE t ADD COLUMN c date DEFAULT now() REFERENCES o;
-- part
ALTER TABLE t ADD COLUMN c int DEFAULT 3 REFERENCES view_of_t;
-- part
-- needs: 12
ALTER TABLE t ALTER COLUMN b SET NOT NULL;
-- part
ALTER TABLE t ALTER COLUMN missing SET NOT NULL;
-- part
ALTER TABLE t ALTER COLUMN ctid SET NOT NULL;
-- part
-- needs: 12
ALTER TABLE p ALTER COLUMN a SET NOT NULL, ADD CHECK (a < 3);
-- part
ALTER TABLE p ADD CHECK (a < 3);
-- part
ALTER TABLE view_of_t ALTER COLUMN id SET NOT NULL;
-- part
ALTER TABLE t ADD CHECK (a > 7);
-- part
ALTER TABLE t ADD CONSTRAINT "é" CHECK (a > 7);
-- part
ALTER TABLE t ADD CONSTRAINT "é" CHECK (a), ADD COLUMN c int;
-- part
ALTER TABLE t ADD CONSTRAINT "é" CHECK (count(*) > 0);
-- part
ALTER TABLE t ADD CONSTRAINT "é" CHECK (a > (SELECT 1));
-- part
ALTER TABLE t ADD CONSTRAINT "é" CHECK (a > $1);
-- part
ALTER TABLE t ADD CONSTRAINT old CHECK (a > 7);
-- part
ALTER TABLE t ADD FOREIGN KEY (b) REFERENCES o (w);
-- part
ALTER TABLE t ADD FOREIGN KEY (b) REFERENCES o;
-- part
ALTER TABLE t ADD CONSTRAINT "ä" FOREIGN KEY (a, b) REFERENCES o (id), ADD COLUMN c int;
-- part
ALTER TABLE t ADD FOREIGN KEY (missing) REFERENCES o;
-- part
ALTER TABLE t ADD FOREIGN KEY (a) REFERENCES missing;
-- part
ALTER TABLE t ADD FOREIGN KEY ("é é") REFERENCES o;
-- part
ALTER TABLE t ADD COLUMN c int, ADD FOREIGN KEY ("é é") REFERENCES o;
-- part
ALTER TABLE t ADD UNIQUE (a);
-- part
ALTER TABLE t ADD CONSTRAINT "ä" UNIQUE (missing);
-- part
ALTER TABLE t ADD CONSTRAINT "ä" UNIQUE (b, b);
-- part
ALTER TABLE t ADD CONSTRAINT old UNIQUE (a);
-- part
ALTER TABLE t ADD CONSTRAINT o UNIQUE (a);
-- part
ALTER TABLE t ADD UNIQUE (id) WITH (fillfactor = 5);
-- part
ALTER TABLE t ADD UNIQUE (id) WITH (nonsense = 5);
-- part
ALTER TABLE t ADD UNIQUE (id) USING INDEX TABLESPACE nowhere;
-- part
ALTER TABLE t ADD PRIMARY KEY (a);
-- part
ALTER TABLE o ADD PRIMARY KEY (w);
-- part
ALTER TABLE o DROP CONSTRAINT o_pkey, ADD PRIMARY KEY (v);
-- part
ALTER TABLE t DROP CONSTRAINT t_pkey, ADD CONSTRAINT t_pkey PRIMARY KEY (a);
-- part
ALTER TABLE t DROP CONSTRAINT old, ADD CONSTRAINT old CHECK (a > 7);
-- part
ALTER TABLE t DROP CONSTRAINT old, ADD CONSTRAINT old /* ä */ CHECK (missing > 7);
-- part
ALTER TABLE t VALIDATE CONSTRAINT missing;
-- part
ALTER TABLE t ADD CONSTRAINT later CHECK (a > 7) NOT VALID;
-- part
ALTER TABLE t VALIDATE CONSTRAINT later, ADD COLUMN c int;
-- part
ALTER TABLE t VALIDATE CONSTRAINT later;
-- part
ALTER TABLE t ALTER COLUMN a TYPE int USING (a + missing), ADD COLUMN z int;
-- part
ALTER TABLE t ALTER COLUMN a TYPE date;
-- part
-- needs: 12
ALTER TABLE t ALTER COLUMN a SET DEFAULT 'ä' || missing, ALTER COLUMN a SET NOT NULL;
-- part
ALTER TABLE t ALTER COLUMN a SET DEFAULT nothing(1), ADD COLUMN c int DEFAULT random();
-- part
ALTER TABLE t DROP COLUMN b, ADD CHECK (a > -9);
-- part
ALTER TABLE t DROP COLUMN missing, ADD CHECK (a > -9);
-- part
ALTER TABLE t DROP CONSTRAINT missing, ADD CHECK (a > -9);
-- part
CREATE INDEX ON t (missing);
-- part
CREATE /* ä */ INDEX "ä" ON t (lower("é é"), (a + missing));
-- part
CREATE UNIQUE INDEX "ä" ON t (a);
-- part
CREATE INDEX ON p (a, missing);
-- part
CREATE INDEX ON p ((a + missing)) WHERE a > 3;
-- part
ALTER TABLE p ADD UNIQUE (a);
-- part
ALTER TABLE p ADD CONSTRAINT "ä" UNIQUE (id, missing);
-- part
ALTER TABLE p ATTACH PARTITION t FOR VALUES FROM (100) TO (110);
-- part
CREATE TABLE loose (id int NOT NULL, a int);
INSERT INTO loose SELECT g, g FROM generate_series(90, 120) g;
-- part
ALTER TABLE p ATTACH PARTITION loose FOR VALUES FROM (100) TO (110);
-- part
ALTER TABLE p ATTACH PARTITION loose FOR VALUES FROM (40) TO (200);
-- part
ALTER TABLE p ATTACH PARTITION loose FOR VALUES FROM ('ä') TO (110);
-- part
ALTER TABLE p ATTACH PARTITION loose FOR VALUES IN (1);
-- part
CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (20) TO (110);
-- part
ALTER TABLE t ADD COLUMN c positive DEFAULT -3;
-- part
ALTER TABLE t ADD COLUMN c positive DEFAULT 'ä' || missing;
-- part
ALTER DOMAIN positive ADD CONSTRAINT "ä" CHECK (VALUE > missing);
-- part
REFRESH MATERIALIZED VIEW view_of_t;
-- part
REINDEX TABLE missing;
-- part
DROP INDEX t_pkey;
-- part
ALTER TABLE ONLY p ADD COLUMN c int DEFAULT random();
-- part
ALTER TABLE p1 ADD COLUMN c int DEFAULT random();
-- part
ALTER TABLE pg_class ADD COLUMN c int DEFAULT random();
-- part
ALTER TABLE t ALTER COLUMN a TYPE int USING (a / 0), ADD CHECK (a > -9);
-- part
ALTER TABLE t ADD COLUMN c int DEFAULT (random() * 0)::int, ADD COLUMN k int REFERENCES o DEFAULT 77;
-- part
ALTER TABLE t ADD COLUMN c int DEFAULT (random() * 0)::int UNIQUE, ADD COLUMN k int;
-- part
CREATE TABLE f (a int);
INSERT INTO f SELECT generate_series(1, 20);
ALTER TABLE f ADD CONSTRAINT unproven CHECK (a > 5) NOT VALID;
ALTER TABLE f ADD COLUMN c int DEFAULT (random() * 0)::int;
