-- Names beyond ASCII that both UTF-8 and LATIN1 have, on tables that are changed in phases, and of partitions and children.
CREATE TABLE "mère" (id int PRIMARY KEY, a int, "né" date, CONSTRAINT "vérifié" CHECK (a > 0));
CREATE TABLE "enfant_é" () INHERITS ("mère");
CREATE TABLE "enfant_Ã©" (id int, u int);
CREATE TABLE parts (id int, a int) PARTITION BY RANGE (id);
CREATE TABLE "part_é" PARTITION OF parts FOR VALUES FROM (0) TO (100);
CREATE TABLE "part_ü" PARTITION OF parts FOR VALUES FROM (100) TO (200);
INSERT INTO "mère" SELECT n, n, now() FROM generate_series(1, 30) n;
INSERT INTO "enfant_é" SELECT n, n, now() FROM generate_series(1, 30) n;
INSERT INTO "enfant_Ã©" SELECT n FROM generate_series(1, 30) n;
INSERT INTO parts SELECT n, n FROM generate_series(1, 150) n;
-- part
ALTER TABLE "mère" ADD COLUMN u int DEFAULT length(random()::text) * 0;
ALTER TABLE mère ADD COLUMN "été" int DEFAULT 7;
-- needs: 12
ALTER TABLE mère ALTER a SET NOT NULL;
ALTER TABLE mère ADD CONSTRAINT "à_vérifier" CHECK (a > 0);
ALTER TABLE mère ADD CONSTRAINT "à_vérifier" CHECK (a > 1);
CREATE INDEX "idx_é" ON mère ("né");
ALTER INDEX "idx_é" RENAME TO "idx_è";
DROP INDEX "idx_è";
COMMENT ON TABLE mère IS 'à vérifier';
CREATE INDEX ON parts (a);
ALTER TABLE parts ADD PRIMARY KEY (id);
ALTER TABLE parts ADD COLUMN "où" text DEFAULT 'là';
-- needs: 12
ALTER TABLE parts ALTER a SET NOT NULL;
CREATE TABLE IF NOT EXISTS mère (id int);
DROP TABLE IF EXISTS "pas là";
ALTER TABLE mère DROP COLUMN IF EXISTS "pas là";
-- part
DO $$ BEGIN RAISE NOTICE 'à %', 1; ALTER TABLE mère ADD w text DEFAULT 'é'; END $$;
-- part
ALTER TABLE mère ADD COLUMN "né" int;
-- part
CREATE INDEX ON mère (/* é */ "pas là");
-- part
ALTER TABLE parts ADD FOREIGN KEY (a) REFERENCES mère;
DROP TABLE "part_é";
TRUNCATE parts;
ALTER TABLE mère RENAME TO "père";
