-- Tables that publications watch, whose rows cannot be updated, or only while the publication names enough of them: a rewrite may go on.
CREATE TABLE keyed (id int PRIMARY KEY, a int NOT NULL);
CREATE TABLE nothing (id int PRIMARY KEY, a int);
CREATE TABLE by_index (id int, a int NOT NULL UNIQUE);
CREATE TABLE late (id int PRIMARY KEY DEFERRABLE, a int);
INSERT INTO keyed SELECT g, g FROM generate_series(1, 20) g;
INSERT INTO nothing SELECT g, g FROM generate_series(1, 20) g;
INSERT INTO by_index SELECT g, g FROM generate_series(1, 20) g;
INSERT INTO late SELECT g, g FROM generate_series(1, 20) g;
ALTER TABLE nothing REPLICA IDENTITY NOTHING;
ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_a_key;
CREATE PUBLICATION whole FOR TABLE keyed, nothing, by_index, late;
-- part
ALTER TABLE keyed ADD COLUMN v int DEFAULT (random() * 0)::int;
ALTER TABLE nothing ADD COLUMN v int DEFAULT (random() * 0)::int;
ALTER TABLE by_index ADD COLUMN v int DEFAULT (random() * 0)::int;
ALTER TABLE late ADD COLUMN v int DEFAULT (random() * 0)::int;
-- part
-- The index that identifies rows is gone: nothing does.
ALTER TABLE by_index DROP CONSTRAINT by_index_a_key;
ALTER TABLE by_index ADD COLUMN w int DEFAULT (random() * 0)::int;
-- part
-- needs: 15
CREATE TABLE some (id int PRIMARY KEY, a int);
-- needs: 15
INSERT INTO some SELECT g, g FROM generate_series(1, 20) g;
-- needs: 15
CREATE PUBLICATION columns FOR TABLE some (a);
-- part
-- needs: 15
ALTER TABLE some ADD COLUMN v int DEFAULT (random() * 0)::int;
-- part
-- needs: 15
ALTER PUBLICATION columns SET TABLE some (id, a);
-- needs: 15
ALTER TABLE some ADD COLUMN w int DEFAULT (random() * 0)::int;
-- needs: 15
ALTER PUBLICATION columns SET TABLE some WHERE (a > 5);
-- needs: 15
ALTER TABLE some ADD COLUMN x int DEFAULT (random() * 0)::int;
-- needs: 15
ALTER TABLE some REPLICA IDENTITY FULL;
-- needs: 15
ALTER TABLE some ADD COLUMN y int DEFAULT (random() * 0)::int;
-- needs: 15
ALTER PUBLICATION columns SET TABLE some (id, a);
-- needs: 15
ALTER TABLE some ADD COLUMN z int DEFAULT (random() * 0)::int;
-- part
-- A partition is published with its parent, with what identifies rows of its own.
-- needs: 13
CREATE TABLE parted (id int PRIMARY KEY, a int) PARTITION BY RANGE (id);
-- needs: 13
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (10);
-- needs: 13
CREATE TABLE parted_2 PARTITION OF parted FOR VALUES FROM (10) TO (100);
-- needs: 13
INSERT INTO parted SELECT g, g FROM generate_series(1, 20) g;
-- needs: 13
CREATE PUBLICATION roots FOR TABLE parted WITH (publish_via_partition_root = true);
-- part
-- needs: 13
ALTER TABLE parted ADD COLUMN v int DEFAULT (random() * 0)::int;
-- needs: 13
ALTER TABLE parted_2 REPLICA IDENTITY NOTHING;
-- needs: 13
ALTER TABLE parted ADD COLUMN w int DEFAULT (random() * 0)::int;
-- part
-- needs: 18
CREATE TABLE computed (id int PRIMARY KEY, a int NOT NULL GENERATED ALWAYS AS (id + 1) STORED UNIQUE);
-- needs: 18
INSERT INTO computed SELECT generate_series(1, 20);
-- needs: 18
ALTER TABLE computed REPLICA IDENTITY USING INDEX computed_a_key;
-- needs: 18
CREATE PUBLICATION computed FOR TABLE computed;
-- part
-- needs: 18
ALTER TABLE computed ADD COLUMN v int DEFAULT (random() * 0)::int;
-- part
SELECT * FROM keyed ORDER BY id;
DROP PUBLICATION whole;
