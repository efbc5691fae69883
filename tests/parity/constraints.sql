-- Constraints: made, validated, renamed, dropped; and what is violated.
CREATE TABLE parent (id int PRIMARY KEY, code text UNIQUE);
INSERT INTO parent SELECT g, 'c' || g FROM generate_series(1, 10) g;
CREATE TABLE child (id int, parent_id int, v int, w int);
INSERT INTO child SELECT g, g % 10 + 1, g, g FROM generate_series(1, 100) g;
-- part
ALTER TABLE child ADD CHECK (v > 0);
ALTER TABLE child ADD CONSTRAINT k CHECK (v < 1000) NOT VALID, ADD CONSTRAINT l CHECK (w IS NOT NULL) NOT VALID;
ALTER TABLE child VALIDATE CONSTRAINT k;
ALTER TABLE child VALIDATE CONSTRAINT k;
-- part
-- What an old server's grammar refuses, a new one's does not; amid a string the proxy hears of it late.
ALTER TABLE child ADD CONSTRAINT n NOT NULL w;
-- part
ALTER TABLE child ADD CONSTRAINT n NOT NULL w NOT VALID;
-- part
ALTER TABLE child ADD CONSTRAINT fk FOREIGN KEY (parent_id) REFERENCES parent (id) ON DELETE CASCADE;
ALTER TABLE child ADD CONSTRAINT fk2 FOREIGN KEY (v) REFERENCES parent NOT VALID;
ALTER TABLE child ADD UNIQUE (v);
ALTER TABLE child ADD CONSTRAINT pk PRIMARY KEY (id);
ALTER TABLE child DROP CONSTRAINT pk;
CREATE UNIQUE INDEX child_id ON child (id);
ALTER TABLE child ADD CONSTRAINT pk PRIMARY KEY USING INDEX child_id;
ALTER TABLE child ADD CONSTRAINT x EXCLUDE USING btree (w WITH =);
ALTER TABLE child ALTER CONSTRAINT fk DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE child RENAME CONSTRAINT l TO ll;
ALTER TABLE child DROP CONSTRAINT ll, DROP CONSTRAINT IF EXISTS missing;
ALTER TABLE child DROP CONSTRAINT IF EXISTS missing;
-- part
ALTER TABLE child VALIDATE CONSTRAINT fk2;
-- part
ALTER TABLE child ADD CONSTRAINT k CHECK (v > 0);
-- part
ALTER TABLE child ADD CONSTRAINT bad CHECK (v < 50);
-- part
ALTER TABLE child ADD CONSTRAINT bad CHECK (missing < 50);
-- part
ALTER TABLE child ADD CONSTRAINT bad FOREIGN KEY (v) REFERENCES parent (id);
-- part
ALTER TABLE child ADD CONSTRAINT bad FOREIGN KEY (v) REFERENCES parent (code);
-- part
ALTER TABLE child ADD CONSTRAINT bad UNIQUE (parent_id);
-- part
ALTER TABLE child ADD CONSTRAINT bad EXCLUDE USING btree (parent_id WITH =);
-- part
ALTER TABLE child ADD PRIMARY KEY (v);
-- part
ALTER TABLE parent DROP CONSTRAINT parent_pkey;
-- part
ALTER TABLE parent DROP CONSTRAINT parent_pkey CASCADE;
-- part
ALTER TABLE child VALIDATE CONSTRAINT missing;
-- part
ALTER TABLE child DROP CONSTRAINT missing;
-- part
-- An error that comes at COMMIT.
CREATE TABLE later (id int PRIMARY KEY);
CREATE TABLE sooner (id int REFERENCES later DEFERRABLE INITIALLY DEFERRED);
-- part
INSERT INTO sooner VALUES (7);
ALTER TABLE later ADD COLUMN note text;
-- part
INSERT INTO later VALUES (1);
INSERT INTO sooner VALUES (1);
ALTER TABLE sooner ADD COLUMN note text;
-- part
-- only: simple
BEGIN; INSERT INTO sooner VALUES (9); ALTER TABLE parent ADD COLUMN at_commit text; COMMIT;
SELECT count(*) FROM sooner;
-- part
SELECT pg_sleep(0);
INSERT INTO sooner VALUES (8);
ALTER TABLE parent ADD COLUMN pending int;
-- only: simple whole extended block block-extended block-pipeline
-- In a pipeline that the proxy keeps in a block, the server does not warn that there is none.
SET CONSTRAINTS ALL IMMEDIATE;
-- part
-- since: 18
ALTER TABLE child ADD CONSTRAINT slack FOREIGN KEY (v) REFERENCES parent NOT ENFORCED;
-- since: 18
ALTER TABLE child ADD CONSTRAINT slack_check CHECK (v < 0) NOT ENFORCED;
-- since: 18
ALTER TABLE child ALTER CONSTRAINT fk NOT ENFORCED;
-- since: 18
ALTER TABLE child ALTER CONSTRAINT fk ENFORCED;
-- part
ALTER TABLE child ALTER CONSTRAINT slack ENFORCED;
-- part
ALTER TABLE child VALIDATE CONSTRAINT slack;
-- part
ALTER TABLE child ALTER CONSTRAINT slack_check ENFORCED;
