-- Statements under one Sync are one transaction, DDL among them too.
\set value random(1, 1000)
\startpipeline
SELECT count(*) FROM small WHERE id = :value;
ALTER TABLE small ALTER COLUMN v SET DEFAULT 'value';
INSERT INTO pgbench_history (tid, bid, aid, delta) VALUES (1, 1, 1, :value);
\endpipeline
