-- Foreign keys of partitioned tables: names, several levels, columns in another order, keys that are there, errors. 10 has none.
CREATE TABLE o (id int PRIMARY KEY, k int, l int, UNIQUE (k, l));
INSERT INTO o SELECT g, g, g % 10 FROM generate_series(1, 1000) g;
CREATE TABLE p (gone int, id int NOT NULL, v int, w int) PARTITION BY RANGE (id);
CREATE TABLE p_1 PARTITION OF p FOR VALUES FROM (0) TO (100);
CREATE TABLE p_2 (w int, dropped int, v int, gone int, id int NOT NULL);
ALTER TABLE p_2 DROP COLUMN dropped;
ALTER TABLE p ATTACH PARTITION p_2 FOR VALUES FROM (100) TO (200);
CREATE TABLE "Sub ""p" PARTITION OF p FOR VALUES FROM (200) TO (400) PARTITION BY LIST (w);
CREATE TABLE sub_1 PARTITION OF "Sub ""p" FOR VALUES IN (0, 1, 2, 3, 4, 5, 6, 7, 8, 9);
CREATE TABLE p_empty PARTITION OF p FOR VALUES FROM (400) TO (500);
ALTER TABLE p DROP COLUMN gone;
INSERT INTO p SELECT g, g, g % 10 FROM generate_series(1, 399) g;
-- part
-- since: 12
ALTER TABLE p ADD FOREIGN KEY (v) REFERENCES o;
-- since: 12
ALTER TABLE p ADD FOREIGN KEY (v) REFERENCES o (id) ON DELETE CASCADE;
-- part
-- since: 12
ALTER TABLE p ADD CONSTRAINT "Odd ""key" FOREIGN KEY (v, w) REFERENCES public.o (k, l) MATCH FULL ON UPDATE SET NULL DEFERRABLE INITIALLY DEFERRED;
-- since: 12
DELETE FROM o WHERE id = 150;
-- part
-- since: 12
ALTER TABLE p ADD CONSTRAINT p_v_fkey FOREIGN KEY (v) REFERENCES o;
-- part
-- since: 12
ALTER TABLE p DROP CONSTRAINT p_v_fkey;
-- since: 12
ALTER TABLE p_1 ADD FOREIGN KEY (v) REFERENCES o;
-- since: 12
ALTER TABLE p ADD FOREIGN KEY (v) REFERENCES o;
-- part
-- Which of several partitions is named depends on the places of their rows in the catalogue: one alone has no fitting key.
DELETE FROM p WHERE w = 0 AND id >= 100;
ALTER TABLE p_1 ADD CONSTRAINT p_w_fkey CHECK (w >= 0);
-- since: 12
ALTER TABLE p ADD FOREIGN KEY (w) REFERENCES o;
-- part
UPDATE p SET w = 2, v = 1000 + v WHERE id = 251;
-- part
-- since: 12
ALTER TABLE p ADD CONSTRAINT broken FOREIGN KEY (v, w) REFERENCES o (k, l);
-- part
-- since: 12
ALTER TABLE p ADD FOREIGN KEY (v) REFERENCES o (l);
-- part
-- since: 12
ALTER TABLE p ADD FOREIGN KEY (missing) REFERENCES o;
-- part
-- since: 12
ALTER TABLE p ADD FOREIGN KEY (v) REFERENCES missing;
-- part
-- since: 12
ALTER TABLE ONLY p ADD FOREIGN KEY (v) REFERENCES o;
-- part
-- since: 12
ALTER TABLE "Sub ""p" ADD FOREIGN KEY (id) REFERENCES o;
-- part
-- since: 12
CREATE TABLE keyed (id int PRIMARY KEY) PARTITION BY RANGE (id);
-- since: 12
CREATE TABLE keyed_1 PARTITION OF keyed FOR VALUES FROM (0) TO (1000);
-- since: 12
INSERT INTO keyed SELECT generate_series(1, 500);
-- part
-- since: 12
ALTER TABLE p ADD CONSTRAINT to_parted FOREIGN KEY (id) REFERENCES keyed;
-- part
-- since: 12
BEGIN;
-- since: 12
ALTER TABLE p ADD CONSTRAINT inside FOREIGN KEY (id) REFERENCES o;
-- since: 12
COMMIT;
