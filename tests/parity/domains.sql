-- Types that are not PostgreSQL's own: domains with and without constraints and values, enums, row types.
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE DOMAIN plain AS int;
CREATE DOMAIN named AS text COLLATE "C";
CREATE DOMAIN five AS int DEFAULT 5;
CREATE DOMAIN small AS int DEFAULT (random() * 0)::int + 3;
CREATE DOMAIN never AS int NOT NULL;
CREATE DOMAIN below AS positive DEFAULT 7;
CREATE TYPE mood AS ENUM ('sad', 'ok');
CREATE TYPE place AS (x int, y int);
CREATE FUNCTION some_mood() RETURNS mood LANGUAGE sql VOLATILE AS 'SELECT ''ok''::mood';
CREATE FUNCTION some_place() RETURNS place LANGUAGE sql VOLATILE AS 'SELECT ROW(1, NULL)::place';
CREATE FUNCTION no_place() RETURNS place LANGUAGE sql VOLATILE AS 'SELECT ROW(NULL, NULL)::place';
CREATE TABLE t (id int PRIMARY KEY, w place);
INSERT INTO t SELECT g, ROW(g, nullif(g, 3)) FROM generate_series(1, 30) g;
CREATE TABLE o (id int PRIMARY KEY);
INSERT INTO o SELECT generate_series(0, 10);
ALTER TABLE t ADD COLUMN a1 plain;
-- needs: 12
ALTER TABLE t ADD COLUMN a2 plain DEFAULT (random() * 0)::int + 2 NOT NULL CHECK (a2 > 0) REFERENCES o;
ALTER TABLE t ADD COLUMN a3 five;
ALTER TABLE t ADD COLUMN a4 small;
ALTER TABLE t ADD COLUMN a5 small CONSTRAINT a5_is NOT NULL;
ALTER TABLE t ADD COLUMN a6 small DEFAULT NULL;
ALTER TABLE t ADD COLUMN a7 small DEFAULT 8, ADD COLUMN a8 small DEFAULT (random() * 0)::int + 9, ADD COLUMN a9 int DEFAULT (random() * 0)::int;
ALTER TABLE t ADD COLUMN b1 positive;
-- needs: 11
ALTER TABLE t ADD COLUMN b2 positive DEFAULT 4 NOT NULL;
ALTER TABLE t ADD COLUMN b3 below CHECK (b3 < 9);
ALTER TABLE t ADD COLUMN b4 never DEFAULT 4;
-- needs: 11
ALTER TABLE t ADD COLUMN c1 mood DEFAULT some_mood() NOT NULL;
ALTER TABLE t ADD COLUMN c2 mood DEFAULT 'sad';
ALTER TABLE t ADD COLUMN c3 named COLLATE "C" DEFAULT 'x' || (random() * 0)::int;
-- needs: 12
ALTER TABLE t ADD COLUMN d1 place DEFAULT some_place() NOT NULL;
-- needs: 12
ALTER TABLE t ADD COLUMN d2 place DEFAULT no_place() NOT NULL, ADD COLUMN d3 place DEFAULT some_place();
-- needs: 12
ALTER TABLE t ALTER COLUMN w SET NOT NULL;
-- needs: 12
ALTER TABLE t ALTER COLUMN d3 SET NOT NULL;
-- part
ALTER TABLE t ADD COLUMN wrong never;
-- part
ALTER TABLE t ADD COLUMN wrong positive DEFAULT 0;
-- part
ALTER TABLE t ADD COLUMN wrong small CHECK (wrong < 0);
-- part
ALTER TABLE t ADD COLUMN wrong mood DEFAULT 'missing';
-- part
ALTER TABLE t ADD COLUMN wrong missing DEFAULT 3;
-- part
ALTER TABLE t ADD COLUMN wrong place DEFAULT NULL::place NOT NULL;
-- part
CREATE TABLE q (a positive, b below, c five);
INSERT INTO q SELECT g, g, g FROM generate_series(1, 20) g;
CREATE TABLE r (e int) INHERITS (q);
INSERT INTO r VALUES (3, 3, 3, 3);
CREATE MATERIALIZED VIEW mq AS SELECT a FROM q;
ALTER DOMAIN positive ADD CHECK (VALUE < 1000);
ALTER DOMAIN positive ADD CONSTRAINT later CHECK (VALUE < 999) NOT VALID;
ALTER DOMAIN positive VALIDATE CONSTRAINT later;
ALTER DOMAIN five SET NOT NULL;
ALTER DOMAIN named SET NOT NULL;
-- part
ALTER DOMAIN positive ADD CONSTRAINT "not so" CHECK (VALUE > 5);
-- part
ALTER DOMAIN positive ADD CONSTRAINT later CHECK (VALUE > 0);
-- part
ALTER DOMAIN positive VALIDATE CONSTRAINT missing;
-- part
ALTER DOMAIN missing ADD CHECK (VALUE > 5);
-- part
ALTER DOMAIN public.small SET NOT NULL;
-- part
ALTER DOMAIN mood SET NOT NULL;
-- part
CREATE TABLE s (a five[]);
-- part
ALTER DOMAIN five ADD CHECK (VALUE > 0);
