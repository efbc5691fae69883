-- Where an UPDATE of every row is not what a rewrite is: what it checks again, what is published, which triggers fire.
CREATE FUNCTION seven() RETURNS int LANGUAGE sql VOLATILE AS 'SELECT 7';
CREATE TABLE late (a int, due timestamptz, day date);
INSERT INTO late SELECT g, '2020-01-01', '2020-01-01' FROM generate_series(1, 20) g;
-- As if the time had come since.
CREATE FUNCTION now_then() RETURNS timestamptz LANGUAGE sql STABLE AS $$ SELECT timestamptz '2019-01-01' $$;
ALTER TABLE late ADD CONSTRAINT in_time CHECK (due > now_then());
CREATE OR REPLACE FUNCTION now_then() RETURNS timestamptz LANGUAGE sql STABLE AS $$ SELECT now() $$;
CREATE TABLE in_time (a int, due date CHECK (due > CURRENT_DATE - 100000));
INSERT INTO in_time SELECT g, CURRENT_DATE FROM generate_series(1, 20) g;
CREATE TABLE identified (a int NOT NULL, b int);
CREATE UNIQUE INDEX identifies ON identified (a);
ALTER TABLE identified REPLICA IDENTITY USING INDEX identifies;
INSERT INTO identified SELECT g, g FROM generate_series(1, 20) g;
CREATE TABLE no_more (a int NOT NULL, b int);
CREATE UNIQUE INDEX no_more_identifies ON no_more (a);
ALTER TABLE no_more REPLICA IDENTITY USING INDEX no_more_identifies;
DROP INDEX no_more_identifies;
INSERT INTO no_more SELECT g, g FROM generate_series(1, 20) g;
CREATE PUBLICATION parity_identified FOR TABLE identified, no_more;
CREATE TABLE rooted (a int, b int) PARTITION BY RANGE (a);
ALTER TABLE rooted REPLICA IDENTITY FULL;
CREATE TABLE rooted_1 PARTITION OF rooted FOR VALUES FROM (0) TO (100);
INSERT INTO rooted SELECT g, g FROM generate_series(1, 20) g;
-- since: 13
CREATE PUBLICATION parity_rooted FOR TABLE rooted WITH (publish_via_partition_root = true);
CREATE TABLE filtered (a int, b int PRIMARY KEY);
CREATE TABLE filtered_by_key (a int, b int PRIMARY KEY);
CREATE TABLE listed (a int, b int PRIMARY KEY);
INSERT INTO filtered SELECT g, g FROM generate_series(1, 20) g;
INSERT INTO filtered_by_key SELECT g, g FROM generate_series(1, 20) g;
INSERT INTO listed SELECT g, g FROM generate_series(1, 20) g;
-- since: 15
CREATE PUBLICATION parity_filtered FOR TABLE filtered WHERE (a > 5), filtered_by_key WHERE (b > 5);
-- since: 15
CREATE PUBLICATION parity_listed FOR TABLE listed (a);
CREATE TABLE replicated (a int, n int DEFAULT 0);
INSERT INTO replicated SELECT generate_series(1, 20);
CREATE FUNCTION counts() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.n := NEW.n + 1; RETURN NEW; END';
CREATE TRIGGER counts BEFORE UPDATE ON replicated FOR EACH ROW EXECUTE PROCEDURE counts();
ALTER TABLE replicated ENABLE REPLICA TRIGGER counts;
CREATE TABLE several (a int);
INSERT INTO several SELECT generate_series(1, 20);
-- part
ALTER TABLE late ADD COLUMN v int DEFAULT seven();
ALTER TABLE in_time ADD COLUMN v int DEFAULT seven();
-- part
ALTER TABLE identified ADD COLUMN v int DEFAULT seven();
ALTER TABLE no_more ADD COLUMN v int DEFAULT seven();
ALTER TABLE rooted ADD COLUMN v int DEFAULT seven();
ALTER TABLE filtered ADD COLUMN v int DEFAULT seven();
ALTER TABLE filtered_by_key ADD COLUMN v int DEFAULT seven();
ALTER TABLE listed ADD COLUMN v int DEFAULT seven();
-- part
SET session_replication_role = replica;
ALTER TABLE replicated ADD COLUMN v int DEFAULT seven();
RESET session_replication_role;
-- part
-- The server drops a default before it sets one, in whatever order they are written.
-- needs: 12
ALTER TABLE several ALTER COLUMN a SET DEFAULT 5, ALTER COLUMN a SET NOT NULL, ALTER COLUMN a DROP DEFAULT;
