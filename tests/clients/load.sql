-- pgbench: an application that changes its schema as it goes.
\set value random(1, 1000)
CREATE TABLE IF NOT EXISTS mine (id int, v int);
INSERT INTO mine VALUES (:value, :value);
ALTER TABLE mine ADD COLUMN IF NOT EXISTS extra int;
CREATE INDEX IF NOT EXISTS mine_v ON mine (v);
SELECT count(*) FROM mine WHERE v = :value;
ALTER TABLE small ALTER COLUMN v SET DEFAULT 'value';
SELECT count(*) FROM small;
