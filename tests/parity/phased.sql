-- Constraints on tables that are not small: added in phases, with PostgreSQL's own names and errors.
-- SET NOT NULL leaves a CHECK on 10 and 11, which the proxy says: there it is not the same.
CREATE TABLE target (id int PRIMARY KEY);
INSERT INTO target SELECT generate_series(1, 50);
CREATE TABLE t (a int, b int, c text, "odd ""Name" int, d int);
INSERT INTO t SELECT g, g, 'x' || g, g, nullif(g, 7) FROM generate_series(1, 50) g;
-- part
-- needs: 12
ALTER TABLE t ALTER COLUMN a SET NOT NULL;
-- needs: 12
ALTER TABLE t ALTER "odd ""Name" SET NOT NULL;
-- part
-- needs: 12
ALTER TABLE t ALTER COLUMN d SET NOT NULL;
-- part
ALTER TABLE t ALTER COLUMN missing SET NOT NULL;
-- part
ALTER TABLE t ADD CHECK (a > 0);
ALTER TABLE t ADD CHECK (a > 0 AND b > 0);
ALTER TABLE t ADD CHECK (a > -1) -- a comment at the end
;
ALTER TABLE t ADD CONSTRAINT "Odd ""check" CHECK ("odd ""Name" > 0) NO INHERIT;
-- part
ALTER TABLE t ADD CHECK (a < 50);
-- part
ALTER TABLE t ADD CONSTRAINT t_a_check CHECK (a > 0);
-- part
ALTER TABLE t ADD FOREIGN KEY (a) REFERENCES target;
ALTER TABLE t ADD FOREIGN KEY (a) REFERENCES target ON DELETE SET NULL DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE t ADD CONSTRAINT fk FOREIGN KEY ("odd ""Name") REFERENCES target (id) MATCH FULL;
-- part
UPDATE t SET b = 99 WHERE a = 3;
-- part
ALTER TABLE t ADD FOREIGN KEY (b) REFERENCES target;
-- part
ALTER TABLE t ADD FOREIGN KEY (b) REFERENCES missing;
-- part
ALTER TABLE t ADD FOREIGN KEY (c) REFERENCES target;
-- part
ALTER TABLE t ADD UNIQUE (a);
ALTER TABLE t ADD UNIQUE (a);
-- since: 11
ALTER TABLE t ADD UNIQUE (a, c) INCLUDE (b) WITH (fillfactor = 70);
ALTER TABLE t ADD CONSTRAINT "Odd ""unique" UNIQUE ("odd ""Name") DEFERRABLE INITIALLY DEFERRED;
CREATE TABLE t_b_key (id int);
ALTER TABLE t ADD UNIQUE (b);
-- part
ALTER TABLE t ADD CONSTRAINT t_a_key UNIQUE (b);
-- part
ALTER TABLE t ADD CONSTRAINT t_b_key UNIQUE (b);
-- part
ALTER TABLE t ADD UNIQUE (missing);
-- part
ALTER TABLE t ADD UNIQUE (a, a);
-- part
ALTER TABLE t ADD PRIMARY KEY (d);
-- part
ALTER TABLE t ADD PRIMARY KEY (c, b);
-- part
ALTER TABLE t ADD PRIMARY KEY (a);
-- part
CREATE TABLE twice (a int, b int);
INSERT INTO twice VALUES (1, 1), (1, 2);
-- part
ALTER TABLE twice ADD UNIQUE (a);
-- part
ALTER TABLE twice ADD PRIMARY KEY (a);
-- part
-- Names that must be cut, or that are taken.
CREATE TABLE "größter Name einer Tabelle, den PostgreSQL noch gerade so äe" (
    "eine Spalte, deren Name ebenfalls sehr lang ist äöü" int, "ü" int);
ALTER TABLE "größter Name einer Tabelle, den PostgreSQL noch gerade so äe"
    ADD UNIQUE ("eine Spalte, deren Name ebenfalls sehr lang ist äöü", "ü");
ALTER TABLE "größter Name einer Tabelle, den PostgreSQL noch gerade so äe"
    ADD UNIQUE ("eine Spalte, deren Name ebenfalls sehr lang ist äöü", "ü");
ALTER TABLE "größter Name einer Tabelle, den PostgreSQL noch gerade so äe"
    ADD PRIMARY KEY ("eine Spalte, deren Name ebenfalls sehr lang ist äöü");
-- needs: 12
ALTER TABLE "größter Name einer Tabelle, den PostgreSQL noch gerade so äe" ALTER "ü" SET NOT NULL;
ALTER TABLE "größter Name einer Tabelle, den PostgreSQL noch gerade so äe" ADD CHECK ("ü" > 0);
-- part
-- Parents and partitions.
CREATE TABLE mother (id int, v int);
CREATE TABLE kid (w int) INHERITS (mother);
INSERT INTO mother VALUES (1, 1);
INSERT INTO kid VALUES (2, 2, 2);
-- needs: 12
ALTER TABLE mother ALTER v SET NOT NULL;
ALTER TABLE mother ADD CHECK (v > 0);
ALTER TABLE mother ADD UNIQUE (id);
-- part
-- needs: 12
ALTER TABLE ONLY mother ALTER id SET NOT NULL;
-- part
ALTER TABLE mother ADD CHECK (v < 2);
-- part
CREATE TABLE parted (id int, v int, r int) PARTITION BY RANGE (id);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (10);
CREATE TABLE parted_2 PARTITION OF parted FOR VALUES FROM (10) TO (20);
INSERT INTO parted VALUES (1, 1, 1), (11, NULL, 11);
-- part
-- needs: 12
ALTER TABLE parted ALTER id SET NOT NULL;
ALTER TABLE parted ADD CHECK (r > 0);
ALTER TABLE parted_1 ADD CHECK (v > 0);
-- needs: 12
ALTER TABLE parted_1 ALTER v SET NOT NULL;
ALTER TABLE parted ADD FOREIGN KEY (r) REFERENCES target;
ALTER TABLE parted ADD UNIQUE (id);
-- part
-- needs: 12
ALTER TABLE parted ALTER v SET NOT NULL;
-- part
ALTER TABLE parted ADD CHECK (v IS NOT NULL);
-- part
-- A column with a CHECK.
CREATE TABLE checked (id int);
INSERT INTO checked SELECT generate_series(1, 20);
-- part
ALTER TABLE checked ADD COLUMN a int CHECK (a >= 0);
-- needs: 11
ALTER TABLE checked ADD COLUMN "B b" integer DEFAULT 7 NOT NULL CHECK ("B b" >= 0);
ALTER TABLE checked ADD d text COLLATE "C" DEFAULT 'x' CONSTRAINT "odd ""c" CHECK (length(checked.d) < 9 AND id > 0);
ALTER TABLE checked ADD e numeric(5, 2) CHECK (e BETWEEN 0 AND 1 OR e IS NULL OR e IN (3, 4)) NULL;
ALTER TABLE checked ADD f interval DEFAULT '1 day' CHECK (f > interval '0' AND f < '2 years'::interval) NO INHERIT;
ALTER TABLE checked ADD g int DEFAULT 3 CHECK (g > 0) CHECK (g < 9);
ALTER TABLE checked ADD COLUMN IF NOT EXISTS h int CHECK (h > 0);
-- part
ALTER TABLE checked ADD a int CHECK (a > 1);
-- part
ALTER TABLE checked ADD j int DEFAULT random() * 0 CHECK (j >= 0);
ALTER TABLE checked ADD k int CHECK (missing > 1);
-- part
ALTER TABLE checked ADD l int CHECK (l > 'x');
-- part
SELECT count(*), min(a), min("B b"), min(d), min(f) FROM checked;
SELECT * FROM t ORDER BY a;
-- part
-- NOT VALID, and checked by the same statement.
CREATE TABLE at_once (id int, parent int, PRIMARY KEY (id));
INSERT INTO at_once SELECT g, g / 2 FROM generate_series(1, 20) g;
-- part
ALTER TABLE at_once ADD CONSTRAINT parents FOREIGN KEY (parent) REFERENCES at_once NOT VALID, VALIDATE CONSTRAINT parents;
-- part
ALTER TABLE at_once VALIDATE CONSTRAINT whole, ADD CONSTRAINT whole CHECK (parent >= 0) NOT VALID, ADD CONSTRAINT later CHECK (id > 1) NOT VALID;
-- part
ALTER TABLE at_once ADD CONSTRAINT positive CHECK (parent > 0) NOT VALID, VALIDATE CONSTRAINT positive;
-- part
ALTER TABLE at_once ADD CONSTRAINT whole CHECK (parent >= 0) NOT VALID, VALIDATE CONSTRAINT whole;
-- part
-- needs: 18
ALTER TABLE at_once ADD CONSTRAINT there NOT NULL parent NOT VALID, VALIDATE CONSTRAINT there;
