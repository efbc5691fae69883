-- Names that must be quoted, that are long, that are many bytes; texts with comments in odd places.
CREATE SCHEMA "Sché ma";
CREATE TABLE "Sché ma"."T ""quoted"" 世界" (id int PRIMARY KEY, "Col umn" text, "select" int, "é" int);
INSERT INTO "Sché ma"."T ""quoted"" 世界" VALUES (1, 'x', 1, 1), (2, 'y', 2, 1);
CREATE TABLE "UPPER" (id int);
CREATE TABLE upper (id int);
CREATE TABLE a_name_of_exactly_sixty_three_bytes_which_is_the_most_there_is_ (id int);
-- part
ALTER TABLE "Sché ma"."T ""quoted"" 世界" ADD COLUMN "世界" int DEFAULT 1;
CREATE INDEX ON "Sché ma"."T ""quoted"" 世界" ("世界", "select");
CREATE UNIQUE INDEX "i 世界" ON "Sché ma"."T ""quoted"" 世界" ("select");
ALTER INDEX "Sché ma"."i 世界" RENAME TO "i ""2""";
DROP INDEX "Sché ma"."i ""2""";
ALTER TABLE "Sché ma"."T ""quoted"" 世界" RENAME COLUMN "é" TO "É";
ALTER TABLE "UPPER" ADD COLUMN a int;
ALTER TABLE UPPER ADD COLUMN b int;
CREATE/*x*/INDEX/* y /* nested */ */ON -- here
  upper (b);
/* before */ alter /* amid */ table upper -- a comment; with a semicolon
  add column c int /* after */;
CREATE TABLE IF NOT EXISTS "UPPER" (id int);
DROP TABLE IF EXISTS "Sché ma"."missing 世界";
ALTER TABLE "UPPER" DROP COLUMN IF EXISTS "mis sing";
-- part
-- only: simple extended pipeline block block-extended block-pipeline
-- As one string the server tells at once of all names that it cuts; the proxy tells of each with its statement.
ALTER TABLE a_name_of_exactly_sixty_three_bytes_which_is_the_most_there_is_and_beyond ADD COLUMN a int;
CREATE INDEX a_name_of_exactly_sixty_three_bytes_which_is_the_most_for_an_index_too ON upper (b);
DROP INDEX a_name_of_exactly_sixty_three_bytes_which_is_the_most_for_an_index_too;
-- part
CREATE UNIQUE INDEX "viol 世界" ON "Sché ma"."T ""quoted"" 世界" ("É");
-- part
ALTER TABLE "Sché ma"."T ""quoted"" 世界" ADD COLUMN "世界" int;
-- part
/* 世界 */ CREATE INDEX "世界" ON "Sché ma"."T ""quoted"" 世界" ("世界", "mis sing");
-- part
CREATE INDEX ON upper (b, /* é */ nothing);
-- part
CREATE INDEX ON upper (b) WHERE é > 1;
-- part
CREATE INDEX
  -- é
  IF NOT EXISTS x ON upper (b, nothing);
-- part
ALTER TABLE U&"\0055PPER" ADD COLUMN d int;
-- part
CREATE INDEX "UPPER index" ON "UPPER" (id);
REINDEX TABLE "UPPER";
REINDEX INDEX /* é */ missing;
-- part
DROP TABLE "upper ";
-- part
ALTER TABLE nosuchdb.public.upper ADD COLUMN x int;
-- part
ALTER TABLE public."UPPER" ADD COLUMN x int; ALTER TABLE upper ADD COLUMN y nonsense;
-- part
ALTER TABLE upper ADD COLUMN x int DEFAULT (;
-- part
CREATE INDEX ON upper (b;
-- part
DROP SCHEMA "Sché ma" CASCADE;
