//! Stops a statement at a chosen step, by an event trigger, and lists what the statement has left behind.

use super::{Client, wait_until};

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
fn stopped(pid: i32, pattern: &str) -> String {
    format!(
        "SELECT count(*) FROM pg_stat_activity WHERE pid = {pid} AND wait_event = 'PgSleep' AND query LIKE '{pattern}'"
    )
}

/// Sends a statement and waits until it has stopped at its first step that is like this; it goes on when `holder`, a session of its
/// own, has ended. What follows is not stopped.
pub fn send_and_stop(client: &mut Client, sql: &str, pattern: &str, watcher: &mut Client, holder: &mut Client) {
    holder.ok("SELECT pg_advisory_lock(42)");
    watcher.ok(&format!("INSERT INTO stop_at VALUES ('{pattern}')"));
    client.send_query(sql);
    let stopped = stopped(client.pid, pattern);
    wait_until(&format!("{sql} at {pattern}"), || watcher.value(&stopped) == "1");
    watcher.ok("DELETE FROM stop_at");
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

/// One of each kind.
pub const TABLES: &str = "
    CREATE TABLE o (id int PRIMARY KEY);
    INSERT INTO o SELECT generate_series(1, 100);
    CREATE TABLE t (id int PRIMARY KEY, v text, i int CONSTRAINT old CHECK (i > 0), j int);
    INSERT INTO t SELECT g, 'x', g, g FROM generate_series(1, 100) g;
    CREATE TABLE keyless (LIKE t, CONSTRAINT one UNIQUE (i));
    INSERT INTO keyless SELECT * FROM t;
    CREATE TABLE p (id int NOT NULL, i int) PARTITION BY RANGE (id);
    CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (50);
    CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (50) TO (500) PARTITION BY LIST (i);
    CREATE TABLE p2_rest PARTITION OF p2 DEFAULT;
    CREATE INDEX there ON p1 (i, id);
    CREATE TABLE p_rest PARTITION OF p DEFAULT;
    INSERT INTO p SELECT g, g FROM generate_series(1, 100) g;
    INSERT INTO p_rest VALUES (700, 1);
    CREATE TABLE keyed (id int NOT NULL, i int REFERENCES o, UNIQUE (id)) PARTITION BY RANGE (id);
    CREATE TABLE keyed_rest PARTITION OF keyed DEFAULT;
    INSERT INTO keyed VALUES (7, 7);
    CREATE TABLE loose (id int NOT NULL, i int);
    INSERT INTO loose SELECT 500 + g, g FROM generate_series(1, 50) g;
    CREATE TABLE q (id int PRIMARY KEY, i int CHECK (i > 0), v text DEFAULT 'x') PARTITION BY RANGE (id);
    CREATE TABLE q1 PARTITION OF q FOR VALUES FROM (0) TO (50);
    CREATE TABLE q2 PARTITION OF q FOR VALUES FROM (50) TO (500);
    CREATE INDEX ON q (i);
    INSERT INTO q SELECT g, g FROM generate_series(1, 100) g";

/// Every table that a statement changes.
pub const DROPS: &str = "DROP TABLE IF EXISTS t, keyless, o, p, keyed, loose, q, q1, q2";

/// A statement, and what its steps are like.
pub const STATEMENTS: [(&str, &[&str]); 22] = [
    (
        "ALTER TABLE t ALTER COLUMN v SET NOT NULL",
        &["%IS NOT NULL) NOT VALID", "%VALIDATE CONSTRAINT%", "%SET NOT NULL", "%DROP CONSTRAINT%"],
    ),
    ("ALTER TABLE t ADD COLUMN c int DEFAULT 1 NOT NULL CHECK (c > 0)", &["%NOT VALID", "%VALIDATE CONSTRAINT%"]),
    (
        "ALTER TABLE t ADD COLUMN c int DEFAULT 1 + random() * 1e9 NOT NULL CHECK (c > 0) UNIQUE",
        &["%ADD COLUMN \"c\"%", "%IS NOT NULL) NOT VALID", "CREATE UNIQUE INDEX%", "%SET NOT NULL", "%USING INDEX%"],
    ),
    (
        "ALTER TABLE keyless ADD COLUMN c bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
        &["CREATE SEQUENCE%", "%OWNED BY %.%", "CREATE UNIQUE INDEX%", "%AS IDENTITY%", "DROP SEQUENCE%"],
    ),
    (
        "ALTER TABLE t ADD COLUMN c serial, ALTER v SET NOT NULL, ADD CHECK (i > 0), ADD FOREIGN KEY (i) REFERENCES o, DROP COLUMN j",
        &["%OWNED BY%", "%ADD CHECK%", "%ADD FOREIGN KEY%", "%VALIDATE CONSTRAINT%", "%DROP COLUMN%"],
    ),
    (
        "ALTER TABLE t ADD COLUMN c dice NOT NULL",
        &["%DROP DEFAULT", "%IS DISTINCT FROM NULL) NOT VALID", "%SET NOT NULL"],
    ),
    (
        "ALTER TABLE t DROP CONSTRAINT old, ADD CONSTRAINT old CHECK (i > -1)",
        &["%NOT VALID", "%VALIDATE CONSTRAINT%", "%DROP CONSTRAINT old", "%RENAME CONSTRAINT%"],
    ),
    (
        "ALTER TABLE keyless DROP CONSTRAINT one, ADD CONSTRAINT one PRIMARY KEY (j) DEFERRABLE",
        &["%IS NOT NULL) NOT VALID", "CREATE UNIQUE INDEX%", "%DROP CONSTRAINT one%", "%USING INDEX%"],
    ),
    ("ALTER TABLE t ADD CHECK (i > 0)", &["%NOT VALID", "%VALIDATE CONSTRAINT%"]),
    ("ALTER TABLE t ADD CONSTRAINT named CHECK (i > 0)", &["%NOT VALID", "%VALIDATE CONSTRAINT%"]),
    ("ALTER TABLE t ADD FOREIGN KEY (i) REFERENCES o", &["%NOT VALID", "%VALIDATE CONSTRAINT%"]),
    ("ALTER TABLE t ADD UNIQUE (i)", &["CREATE UNIQUE INDEX%", "%USING INDEX%"]),
    (
        "ALTER TABLE keyless ADD PRIMARY KEY (i, j)",
        &[
            "%IS NOT NULL) NOT VALID",
            "%VALIDATE CONSTRAINT%",
            "CREATE UNIQUE INDEX%",
            "%USING INDEX%",
            "%DROP CONSTRAINT%",
        ],
    ),
    ("CREATE INDEX ON p (i)", &["CREATE INDEX%\"p1\"%", "CREATE INDEX%\"p2_rest\"%", "%ON p (i)"]),
    (
        "ALTER TABLE p ATTACH PARTITION loose FOR VALUES FROM (501) TO (600)",
        &[
            "%within_bounds CHECK%",
            "%VALIDATE%within%",
            "%outside_bounds CHECK%",
            "%VALIDATE%outside%",
            "%ATTACH PARTITION loose%",
        ],
    ),
    (
        "CREATE TABLE p_new PARTITION OF p FOR VALUES FROM (800) TO (900)",
        &["%outside_bounds CHECK%", "%VALIDATE%outside%", "CREATE TABLE p_new%"],
    ),
    (
        "ALTER TABLE keyed ATTACH PARTITION loose FOR VALUES FROM (501) TO (600)",
        &[
            "CREATE UNIQUE%",
            "%USING INDEX%",
            "%FOREIGN KEY%NOT VALID",
            "%VALIDATE%_fkey%",
            "%VALIDATE%outside%",
            "%ATTACH PARTITION loose%",
        ],
    ),
    (
        "ALTER TABLE p ADD UNIQUE (id, i)",
        &["CREATE UNIQUE%\"p1\"%", "%\"p1\"%USING INDEX%", "%\"p2_rest\"%USING INDEX%", "%ADD UNIQUE (id, i)"],
    ),
    (
        "ALTER TABLE p ADD PRIMARY KEY (id, i)",
        &[
            "%IS NOT NULL) NOT VALID",
            "%VALIDATE CONSTRAINT%",
            "CREATE UNIQUE%\"p2_rest\"%",
            "%\"p1\"%USING INDEX%",
            "%\"p2_rest\"%USING INDEX%",
            "%p ADD PRIMARY KEY (id, i)",
            "%\"p\" DROP CONSTRAINT%",
        ],
    ),
    ("CREATE INDEX ON p (i, id)", &["CREATE INDEX%\"p2_rest\"%", "%ON p (i, id)"]),
    (
        "ALTER TABLE q ADD FOREIGN KEY (id) REFERENCES o",
        &[
            "%\"q1\"%NOT VALID",
            "%\"q1\" VALIDATE%",
            "%\"q2\"%NOT VALID",
            "%\"q2\" VALIDATE%",
            "%q ADD CONSTRAINT%FOREIGN KEY%",
        ],
    ),
    ("DROP TABLE q2", &["%DETACH PARTITION%CONCURRENTLY", "DROP TABLE%"]),
];
