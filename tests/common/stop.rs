//! Stopping a statement at a chosen step, by an event trigger, and what it has left.

/// Stops the statement whose text is like a row of `stop_at`, for as long as the test holds an advisory lock.
pub const STOPS: &str = "
    CREATE TABLE stop_at (pattern text);
    CREATE TABLE fail_at (pattern text);
    CREATE SEQUENCE failures;
    CREATE FUNCTION stop() RETURNS event_trigger LANGUAGE plpgsql AS $$
    BEGIN
      IF EXISTS (SELECT FROM public.stop_at WHERE current_query() LIKE pattern) THEN
        -- Not by waiting for the lock: lock_timeout would end that.
        WHILE NOT pg_try_advisory_xact_lock_shared(42) LOOP
          PERFORM pg_sleep(0.01);
        END LOOP;
      END IF;
      -- The first time alone: what undoes it may be alike. A sequence remembers, whatever is rolled back.
      IF EXISTS (SELECT FROM public.fail_at WHERE current_query() LIKE pattern) AND nextval('public.failures') = 1 THEN
        RAISE EXCEPTION 'could not extend file: no space left on device' USING ERRCODE = 'disk_full';
      END IF;
    END $$;
    CREATE DOMAIN dice AS int DEFAULT 1 + (random() * 5)::int;
    CREATE EVENT TRIGGER stop ON ddl_command_end EXECUTE PROCEDURE stop()";

/// Whether the backend sleeps in it. Its query is asked for, as `pg_stat_activity` may have that of one moment and the wait of
/// the next.
pub fn stopped(pid: i32, pattern: &str) -> String {
    format!(
        "SELECT count(*) FROM pg_stat_activity WHERE pid = {pid} AND wait_event = 'PgSleep' AND query LIKE '{pattern}'"
    )
}

/// Everything about the tables that a schema change could leave behind.
pub const STATE: &str = "
    SELECT string_agg(line, E'\n' ORDER BY line) FROM (
      SELECT format('%s %s %s %s', conrelid::regclass, conname, convalidated, pg_get_constraintdef(oid)) AS line
        FROM pg_constraint WHERE connamespace = 'public'::regnamespace
      UNION ALL SELECT format('%s %s %s', indexrelid::regclass, indisvalid, inhparent::regclass)
        FROM pg_index LEFT JOIN pg_inherits ON inhrelid = indexrelid
        JOIN pg_class c ON c.oid = indrelid AND relnamespace = 'public'::regnamespace
      UNION ALL SELECT format('%s.%s %s %s', attrelid::regclass, attname, attnotnull, attidentity) FROM pg_attribute
        JOIN pg_class c ON c.oid = attrelid AND relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')
        WHERE attnum > 0 AND NOT attisdropped
      UNION ALL SELECT format('%s in %s', inhrelid::regclass, inhparent::regclass) FROM pg_inherits
      UNION ALL SELECT format('sequence %s', oid::regclass) FROM pg_class WHERE relkind = 'S'
      UNION ALL SELECT format('default of %s %s', adrelid::regclass, adnum) FROM pg_attrdef) s";
