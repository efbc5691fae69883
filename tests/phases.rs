//! Plans of several phases, stopped at each of their steps by each kind of end: the table is as it was before.
//!
//! An event trigger stops a chosen step until the test lets it go, so that no moment is left to chance.

mod common;

use common::end::End;
use common::{Client, new_database, port, postgres, proxy, wait_until};

/// Stops the statement whose text is like a row of `stop_at`, for as long as the test holds an advisory lock.
const STOPS: &str = "
    CREATE TABLE stop_at (pattern text);
    CREATE FUNCTION stop() RETURNS event_trigger LANGUAGE plpgsql AS $$
    BEGIN
      IF EXISTS (SELECT FROM public.stop_at WHERE current_query() LIKE pattern) THEN
        -- Not by waiting for the lock: lock_timeout would end that.
        WHILE NOT pg_try_advisory_xact_lock_shared(42) LOOP
          PERFORM pg_sleep(0.01);
        END LOOP;
      END IF;
    END $$;
    CREATE DOMAIN dice AS int DEFAULT 1 + (random() * 5)::int;
    CREATE EVENT TRIGGER stop ON ddl_command_end EXECUTE FUNCTION stop()";

const TABLES: &str = "
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
const DROPS: &str = "DROP TABLE IF EXISTS t, keyless, o, p, keyed, loose, q, q1, q2";

/// Everything about the tables that a schema change could leave behind.
const STATE: &str = "
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
      UNION ALL SELECT format('sequence %s', oid::regclass) FROM pg_class WHERE relkind = 'S') s";

/// A statement, and what its steps are like.
const STATEMENTS: [(&str, &[&str]); 20] = [
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
        &["%OWNER TO%", "%ADD CHECK%", "%ADD FOREIGN KEY%", "%VALIDATE CONSTRAINT%", "%DROP COLUMN%"],
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
        &["%within_bounds CHECK%", "%VALIDATE%within%", "%outside_bounds CHECK%", "%VALIDATE%outside%", "%ATTACH%"],
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
            "%ATTACH%",
        ],
    ),
    (
        "ALTER TABLE p ADD UNIQUE (id, i)",
        &["CREATE UNIQUE%\"p1\"%", "%\"p1\"%USING INDEX%", "%\"p2_rest\"%USING INDEX%", "%ADD UNIQUE (id, i)"],
    ),
    ("CREATE INDEX ON p (i, id)", &["CREATE INDEX%\"p2_rest\"%", "%ON p (i, id)"]),
    ("DROP TABLE q2", &["%DETACH PARTITION%CONCURRENTLY", "DROP TABLE%"]),
];

#[test]
fn an_end_at_any_step_leaves_nothing() {
    let postgres = postgres();
    let running = proxy(&postgres, |config| config.ddl.small_table = 0);
    let database = new_database(&postgres, "phases");
    let connect = |port| Client::connect(port, &postgres.user, &database);
    let mut watcher = connect(postgres.port);
    watcher.ok(STOPS);
    watcher.ok(TABLES);
    let before = watcher.value(STATE);
    for (sql, patterns) in STATEMENTS {
        for pattern in patterns {
            for end in [End::Cancel, End::CancelBackend, End::Reset, End::Close] {
                let what = format!("{sql}, stopped at {pattern} by {end:?}");
                let (mut holder, mut client) = (connect(postgres.port), connect(port(&running)));
                holder.ok("SELECT pg_advisory_lock(42)");
                watcher.ok(&format!("INSERT INTO stop_at VALUES ('{pattern}')"));
                client.send_query(sql);
                let pid = client.pid;
                let stopped = format!(
                    "SELECT count(*) FROM pg_stat_activity WHERE pid = {pid} AND wait_event = 'PgSleep'
                     AND query NOT LIKE '/* pgsluice%'"
                );
                wait_until(&what, || watcher.value(&stopped) == "1");
                // What follows is not stopped: nor is what undoes it.
                watcher.ok("DELETE FROM stop_at");
                let left = end.come(client, &mut watcher, port(&running));
                if let Some((mut client, outcome)) = left.and_then(|client| end.heard(client)) {
                    assert_eq!(outcome.status, 'I', "{what}");
                    assert_eq!(watcher.value(STATE), before, "{what}");
                    // The session goes on as if nothing had been.
                    assert_eq!(client.value("SHOW lock_timeout"), "0", "{what}");
                    client.goodbye();
                }
                let gone = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}");
                wait_until(&what, || watcher.value(&gone) == "0");
                assert_eq!(watcher.value(STATE), before, "{what}");
                holder.goodbye();
            }
        }
        // And with nobody in the way it comes to its end.
        let mut client = connect(port(&running));
        client.ok(sql);
        assert_ne!(watcher.value(STATE), before, "{sql}");
        watcher.ok(DROPS);
        watcher.ok(TABLES);
        assert_eq!(watcher.value(STATE), before, "{sql}");
        client.goodbye();
    }
    running.stop_now();
}

/// PostgreSQL's own error; the column is gone again, but for its number, which is not given twice.
#[test]
fn a_column_whose_check_fails_is_taken_back() {
    let postgres = postgres();
    let running = proxy(&postgres, |config| config.ddl.small_table = 0);
    let mut client = Client::connect(port(&running), &postgres.user, "postgres");
    client.ok("CREATE TABLE t (id int); INSERT INTO t VALUES (1)");
    let outcome = client.query("ALTER TABLE t ADD COLUMN c int DEFAULT 1 CHECK (c > 1)");
    assert_eq!((outcome.error.as_deref(), outcome.status), (Some("23514"), 'I'));
    assert_eq!(client.value("SELECT * FROM t"), "1");
    assert_eq!(client.value("SELECT count(*) FROM pg_constraint WHERE conrelid = 't'::regclass"), "0");
    running.stop_now();
}

/// What a proxy that died has left under its own name is made anew, and goes.
#[test]
fn a_check_that_was_left_is_made_anew() {
    let postgres = postgres();
    let running = proxy(&postgres, |config| config.ddl.small_table = 0);
    let mut client = Client::connect(port(&running), &postgres.user, "postgres");
    client
        .ok("CREATE TABLE died (a int CONSTRAINT pgsluice1_a_is_not_null CHECK (a > 5)); INSERT INTO died VALUES (9)");
    client.ok("ALTER TABLE died ALTER a SET NOT NULL");
    let left = "SELECT count(*) FROM pg_constraint WHERE conrelid = 'died'::regclass AND contype = 'c'";
    assert_eq!(client.value(left), "0");
    running.stop_now();
}
