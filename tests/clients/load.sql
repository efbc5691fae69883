-- pgbench: an application that changes its schema as it goes; each client has a table of its own.
\set value random(1, 1000)
CREATE TABLE IF NOT EXISTS mine_:client_id (id int, v int);
INSERT INTO mine_:client_id VALUES (:value, :value);
ALTER TABLE mine_:client_id ADD COLUMN IF NOT EXISTS extra int;
SELECT count(*) FROM mine_:client_id WHERE v = :value;
ALTER TABLE small ALTER COLUMN v SET DEFAULT :value;
SELECT count(*) FROM small;
