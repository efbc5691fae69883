-- Privileges, search_path, temporary tables, and settings that change what DDL does.
CREATE SCHEMA app AUTHORIZATION parity_owner;
CREATE SCHEMA other;
GRANT USAGE ON SCHEMA other TO parity_joe;
CREATE TABLE public.t (id int PRIMARY KEY, a int);
CREATE TABLE app.t (id int PRIMARY KEY, only_in_app int);
ALTER TABLE app.t OWNER TO parity_owner;
GRANT SELECT, INSERT ON public.t TO parity_none;
CREATE TABLE public.referenced (id int PRIMARY KEY);
GRANT REFERENCES ON public.referenced TO parity_owner;
-- part
SET ROLE parity_none;
ALTER TABLE t ADD COLUMN b int;
-- part
SET ROLE parity_none;
ALTER TABLE t ADD COLUMN IF NOT EXISTS a int;
-- part
SET ROLE parity_none;
CREATE INDEX ON t (a);
-- part
SET ROLE parity_none;
CREATE INDEX IF NOT EXISTS t_pkey ON t (a);
-- part
SET ROLE parity_none;
DROP TABLE t;
-- part
SET ROLE parity_none;
TRUNCATE t;
-- part
SET ROLE parity_none;
DROP TABLE IF EXISTS app.t;
-- part
SET ROLE parity_none;
DROP TABLE IF EXISTS app.missing;
-- part
SET ROLE parity_none;
CREATE TABLE IF NOT EXISTS t (id int);
-- part
SET ROLE parity_none;
CREATE TABLE other.x (id int REFERENCES public.t);
-- part
SET ROLE parity_none;
ALTER TABLE app.t ADD COLUMN b int;
-- part
SET ROLE parity_none;
COMMENT ON TABLE t IS 'mine';
-- part
SET ROLE parity_none;
REINDEX TABLE t;
-- part
RESET ROLE;
SET ROLE parity_joe;
ALTER TABLE app.t ADD COLUMN b int;
CREATE INDEX ON app.t (b);
ALTER TABLE app.t ADD COLUMN r int REFERENCES public.referenced;
CREATE TABLE app.child (id int REFERENCES public.referenced, own int REFERENCES app.t);
RESET ROLE;
-- part
SET search_path = app, public;
ALTER TABLE t ADD COLUMN found_in_app int;
CREATE TABLE unqualified (id int);
CREATE TABLE IF NOT EXISTS referenced (here int);
CREATE INDEX ON t (found_in_app);
DROP INDEX t_found_in_app_idx;
ALTER TABLE referenced ADD COLUMN more int;
RESET search_path;
-- part
SET search_path = '';
ALTER TABLE t ADD COLUMN z int;
-- part
SET search_path = '';
ALTER TABLE public.t ADD COLUMN with_empty_path int;
CREATE INDEX ON public.t (with_empty_path);
CREATE TABLE nowhere (id int);
-- part
RESET search_path;
CREATE TEMP TABLE tmp (id int PRIMARY KEY, a int);
CREATE TEMP TABLE t (temporary int);
ALTER TABLE t ADD COLUMN also_temporary int;
CREATE INDEX ON t (temporary);
ALTER TABLE tmp ADD COLUMN IF NOT EXISTS a int;
CREATE TABLE IF NOT EXISTS tmp (id int);
DROP TABLE pg_temp.t;
ALTER TABLE t ADD COLUMN permanent int;
CREATE TEMP TABLE gone (id int) ON COMMIT DROP;
DROP TABLE IF EXISTS gone;
-- part
SET lock_timeout = '3s';
SET statement_timeout = '20s';
ALTER TABLE public.t ADD COLUMN under_timeouts int;
CREATE INDEX under_timeouts ON public.t (under_timeouts);
SHOW lock_timeout;
SHOW statement_timeout;
DROP INDEX under_timeouts;
RESET lock_timeout;
RESET statement_timeout;
-- part
SET LOCAL lock_timeout = '4s';
ALTER TABLE public.t ADD COLUMN under_local int;
SHOW lock_timeout;
SHOW statement_timeout;
-- part
SET default_transaction_isolation = 'serializable';
ALTER TABLE public.t ADD COLUMN serializable int;
CREATE INDEX serializable ON public.t (serializable);
DROP INDEX serializable;
ALTER TABLE public.t ADD COLUMN IF NOT EXISTS serializable int;
RESET default_transaction_isolation;
-- part
SET default_transaction_read_only = on;
ALTER TABLE public.t ADD COLUMN read_only int;
-- part
CREATE INDEX read_only ON public.t (a);
-- part
ALTER TABLE public.t ADD COLUMN IF NOT EXISTS a int;
-- part
DROP TABLE IF EXISTS missing;
-- part
CREATE TABLE IF NOT EXISTS public.t (id int);
-- part
DROP INDEX public.t_pkey;
-- part
CREATE TEMP TABLE read_only_temp (id int);
-- part
SET default_transaction_read_only = off;
SET client_min_messages = warning;
DROP TABLE IF EXISTS missing;
ALTER TABLE public.t ADD COLUMN IF NOT EXISTS a int;
CREATE TABLE IF NOT EXISTS public.t (id int);
SET client_min_messages = debug1;
RESET client_min_messages;
SET standard_conforming_strings = off;
COMMENT ON TABLE public.t IS 'a \' quote; DROP TABLE t';
RESET standard_conforming_strings;
SET default_transaction_deferrable = on;
ALTER TABLE public.t ADD COLUMN deferrable_too int;
RESET default_transaction_deferrable;
-- part
-- The sequence behind serial has the privileges that its owner gives to new ones, whoever makes it.
CREATE TABLE app.given (id int);
ALTER TABLE app.given OWNER TO parity_owner;
INSERT INTO app.given SELECT generate_series(1, 30);
ALTER DEFAULT PRIVILEGES FOR ROLE parity_owner IN SCHEMA app GRANT USAGE ON SEQUENCES TO parity_none;
-- part
-- Before 12 a CHECK stands in place of NOT NULL.
-- needs: 12
ALTER TABLE app.given ADD COLUMN by_another serial;
SET ROLE parity_owner;
-- needs: 12
ALTER TABLE app.given ADD COLUMN by_its_owner serial;
RESET ROLE;
-- part
ALTER TABLE pg_class ADD COLUMN x int;
-- part
CREATE INDEX ON pg_class (relname);
-- part
CREATE TABLE pg_catalog.x (id int);
