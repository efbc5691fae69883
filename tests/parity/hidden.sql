-- DDL that hides in DO and CALL, and event triggers that see it.
CREATE TABLE t (id int PRIMARY KEY, a int);
INSERT INTO t VALUES (1, 1), (2, 1);
-- part
DO $$ BEGIN ALTER TABLE t ADD COLUMN b int; END $$;
DO $$ BEGIN ALTER TABLE t ADD COLUMN b int; EXCEPTION WHEN duplicate_column THEN RAISE NOTICE 'it is there'; END $$;
DO $$ BEGIN ALTER TABLE t ADD COLUMN b int; EXCEPTION WHEN OTHERS THEN RAISE NOTICE 'caught %', sqlerrm; END $$;
DO $$ BEGIN CREATE INDEX t_a ON t (a); RAISE WARNING 'built'; END $$;
DO $$ DECLARE c text; BEGIN FOREACH c IN ARRAY ARRAY['x', 'y'] LOOP EXECUTE format('ALTER TABLE t ADD COLUMN %I int', c); END LOOP; END $$;
-- part
DO $$ BEGIN CREATE UNIQUE INDEX t_u ON t (a); END $$;
-- part
DO $$ BEGIN RAISE EXCEPTION 'DROP TABLE is not for you' USING ERRCODE = 'P1234', HINT = 'no', DETAIL = 'none'; END $$;
-- part
DO $$ BEGIN ALTER TABLE missing ADD COLUMN b int; END $$;
-- part
DO $$ BEGIN DROP TABLE t END $$;
-- part
DO $$ BEGIN CREATE TABLE committed (id int); COMMIT; CREATE TABLE rolled (id int); ROLLBACK; END $$;
-- part
-- since: 11
CREATE PROCEDURE create_it() LANGUAGE plpgsql AS $$ BEGIN CREATE TABLE made (id int); COMMIT; DROP TABLE made; END $$;
-- since: 11
CREATE PROCEDURE alter_it(n int) LANGUAGE plpgsql AS $$ BEGIN EXECUTE format('ALTER TABLE t ADD COLUMN n%s int', n); END $$;
-- since: 11
CALL alter_it(1);
-- part
-- since: 11
CALL create_it();
-- part
-- since: 11
CALL alter_it(1);
-- part
-- since: 11
CREATE PROCEDURE "drop table"() LANGUAGE plpgsql AS $$ BEGIN CREATE TABLE made2 (id int); COMMIT; END $$;
-- part
-- since: 11
CALL "drop table"();
-- part
SELECT 'DROP TABLE t', $$ALTER TABLE$$;
SELECT set_config('lock_timeout', '0', false);
DO $$ BEGIN PERFORM set_config('work_mem', '3MB', false); ALTER TABLE t ADD COLUMN configured int; END $$;
SHOW work_mem;
-- part
CREATE TABLE log (event text, tag text, object text);
CREATE FUNCTION note() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO log (event, tag) VALUES (tg_event, tg_tag); END $$;
CREATE FUNCTION note_end() RETURNS event_trigger LANGUAGE plpgsql AS $$ DECLARE o record; BEGIN FOR o IN SELECT * FROM pg_event_trigger_ddl_commands() LOOP INSERT INTO log (event, tag, object) VALUES (tg_event, o.command_tag, o.object_identity); END LOOP; END $$;
CREATE FUNCTION note_drop() RETURNS event_trigger LANGUAGE plpgsql AS $$ DECLARE o record; BEGIN FOR o IN SELECT * FROM pg_event_trigger_dropped_objects() WHERE object_type <> 'trigger' LOOP INSERT INTO log (event, tag, object) VALUES (tg_event, tg_tag, o.object_identity); END LOOP; END $$;
-- since: 11
CREATE EVENT TRIGGER starts ON ddl_command_start EXECUTE FUNCTION note();
-- before: 11
CREATE EVENT TRIGGER starts ON ddl_command_start EXECUTE PROCEDURE note();
-- since: 11
CREATE EVENT TRIGGER ends ON ddl_command_end EXECUTE FUNCTION note_end();
-- before: 11
CREATE EVENT TRIGGER ends ON ddl_command_end EXECUTE PROCEDURE note_end();
-- since: 11
CREATE EVENT TRIGGER drops ON sql_drop EXECUTE FUNCTION note_drop();
-- before: 11
CREATE EVENT TRIGGER drops ON sql_drop EXECUTE PROCEDURE note_drop();
-- since: 11
CREATE EVENT TRIGGER rewrites ON table_rewrite EXECUTE FUNCTION note();
-- before: 11
CREATE EVENT TRIGGER rewrites ON table_rewrite EXECUTE PROCEDURE note();
-- part
ALTER TABLE t ADD COLUMN evented int;
CREATE INDEX t_evented ON t (evented);
ALTER TABLE t ALTER COLUMN a TYPE bigint;
DROP INDEX t_evented;
ALTER TABLE t ADD COLUMN IF NOT EXISTS evented int;
DROP TABLE IF EXISTS missing;
CREATE TABLE IF NOT EXISTS t (id int);
CREATE TABLE evented (id int REFERENCES t);
DROP TABLE evented;
ALTER TABLE t ALTER COLUMN id TYPE bigint;
-- part
CREATE FUNCTION forbid() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no % here', tg_tag; END $$;
-- since: 11
CREATE EVENT TRIGGER forbids ON ddl_command_start WHEN TAG IN ('DROP TABLE', 'CREATE INDEX') EXECUTE FUNCTION forbid();
-- before: 11
CREATE EVENT TRIGGER forbids ON ddl_command_start WHEN TAG IN ('DROP TABLE', 'CREATE INDEX') EXECUTE PROCEDURE forbid();
-- part
DROP TABLE t;
-- part
CREATE INDEX ON t (a);
-- part
ALTER EVENT TRIGGER forbids DISABLE;
DROP EVENT TRIGGER forbids;
DROP EVENT TRIGGER starts;
DROP EVENT TRIGGER ends;
DROP EVENT TRIGGER drops;
