//! Clients that leave while their schema changes run (`on_disconnect`): what goes on, what is undone, who joins it, and what ends it.

mod common;
#[path = "on_disconnect/stage.rs"]
mod stage;

use common::end::End;
use common::raw::{bind, execute, parse, q, sync};
use common::stop::{DROPS, STATE, STATEMENTS, STOPS, TABLES, send_and_stop};
use common::{Client, new_database, no_table_is_small, port, proxy, wait_until};
use pgsluice::config::{Config, OnDisconnect, Overrides};
use pgsluice::session::Drain;
use stage::{INDEX, SERVER, Stage};
use std::thread;

fn stage(name: &str) -> Stage {
    Stage::new(name, |_| {})
}

fn with(name: &str, word: OnDisconnect) -> Stage {
    Stage::new(name, |config| config.ddl.on_disconnect = word)
}

fn with_rules(name: &str, text: &str) -> Stage {
    Stage::new(name, |config| config.gate = Config::parse(text, Overrides::default()).unwrap().gate)
}

#[test]
fn a_build_goes_on_to_its_end() {
    let mut stage = stage("left_build");
    for (end, extended) in [(End::Close, false), (End::Reset, false), (End::Close, true)] {
        stage.hold();
        let mut client = stage.client();
        match extended {
            true => client.send(&[parse("", INDEX), bind("", "", &[]), execute("", 0), sync()].concat()),
            false => client.send_query(INDEX),
        }
        stage.wait_until_slow(&client);
        let pid = client.pid;
        match end {
            End::Reset => client.reset(),
            _ => drop(client),
        }
        wait_until("the proxy knows that the client has left", || stage.left().len() == 1);
        // It is the same backend, and it is at work.
        let working = format!("SELECT state FROM pg_stat_activity WHERE pid = {pid}");
        assert_eq!(stage.direct.value(&working), "active");
        stage.release();
        stage.assert_clean(pid);
        assert_eq!(stage.indexes(), "i t", "{end:?} {extended}");
        stage.direct.ok("DROP INDEX i");
    }
}

/// As directly, the schema is the same, whether the client is there or not.
#[test]
fn validations_go_on() {
    const SCHEMA: &str = "SELECT string_agg(line, E'\\n' ORDER BY line) FROM (
        SELECT format('%s %s %s', conname, convalidated, pg_get_constraintdef(oid)) AS line FROM pg_constraint WHERE conrelid = 't'::regclass
        UNION ALL SELECT format('%s %s %s', attname, attnotnull, atthasdef) FROM pg_attribute WHERE attrelid = 't'::regclass AND attnum > 0
        UNION ALL SELECT format('%s %s', pg_get_indexdef(indexrelid), indisvalid) FROM pg_index WHERE indrelid = 't'::regclass) s";
    for (number, sql) in [
        "ALTER TABLE t ADD CONSTRAINT positive CHECK (slow(a) >= 0)",
        "ALTER TABLE t ADD CONSTRAINT other CHECK (slow(a) >= 0), ADD COLUMN c int NOT NULL DEFAULT 7 + (random() * 0)::int",
        INDEX,
    ]
    .into_iter()
    .enumerate()
    {
        let (mut here, mut there) = (stage(&format!("left_here_{number}")), stage(&format!("left_there_{number}")));
        there.direct.ok(sql);
        let client = here.begun(sql);
        here.leave(&client);
        here.release();
        here.assert_clean(client.pid);
        assert_eq!(here.direct.value(SCHEMA), there.direct.value(SCHEMA), "{sql}");
        let rows = "SELECT string_agg(t::text, ',' ORDER BY id) FROM t";
        assert_eq!(here.direct.value(rows), there.direct.value(rows), "{sql}");
    }
}

/// Each step of each kind of plan. Nothing is left, and the schema is that of an undisturbed run.
#[test]
fn a_client_that_leaves_at_any_step() {
    let running = proxy(&SERVER, |config| {
        no_table_is_small(config);
        config.ddl.on_disconnect = OnDisconnect::Continue;
    });
    let database = new_database(&SERVER, "left_steps");
    let connect = |port| Client::connect(port, &SERVER.user, &database);
    let mut watcher = connect(SERVER.port);
    watcher.ok(STOPS);
    for (sql, patterns) in STATEMENTS {
        watcher.ok(TABLES);
        connect(port(&running)).ok(sql);
        let wanted = watcher.value(STATE);
        for pattern in patterns {
            watcher.ok(DROPS);
            watcher.ok(TABLES);
            let (mut holder, mut client) = (connect(SERVER.port), connect(port(&running)));
            send_and_stop(&mut client, sql, pattern, &mut watcher, &mut holder);
            let pid = client.pid;
            drop(client);
            let registry = &running.shared().registry;
            wait_until("the proxy knows it", || registry.changes().iter().any(|change| change.client_has_left()));
            holder.goodbye();
            let gone = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}");
            wait_until(sql, || watcher.value(&gone) == "0");
            assert_eq!(watcher.value(STATE), wanted, "{sql}, at {pattern}");
        }
        watcher.ok(DROPS);
    }
    running.stop_now();
}

#[test]
fn a_backfill_goes_on() {
    const ROWS: &str = "SELECT count(c) FROM big";
    let mut stage = stage("left_backfill");
    stage.direct.ok("CREATE TABLE big (id int PRIMARY KEY); INSERT INTO big SELECT generate_series(1, 200000)");
    let mut client = stage.client();
    client.send_query("ALTER TABLE big ADD COLUMN c int NOT NULL DEFAULT 7 + (random() * 0)::int");
    let column = "SELECT count(*) FROM pg_attribute WHERE attrelid = 'big'::regclass AND attname = 'c'";
    wait_until("the column is there", || stage.direct.value(column) == "1");
    wait_until("rows are filled", || stage.direct.value(ROWS) != "0");
    stage.leave(&client);
    assert_ne!(stage.direct.value(ROWS), "200000", "the client has left too late");
    stage.assert_clean(client.pid);
    assert_eq!(stage.direct.value("SELECT format('%s %s', count(*), sum(c)) FROM big"), "200000 1400000");
    let not_null = "SELECT attnotnull FROM pg_attribute WHERE attrelid = 'big'::regclass AND attname = 'c'";
    assert_eq!(stage.direct.value(not_null), "t");
}

#[test]
fn a_setting_and_a_rule_say_what_is_undone() {
    let rule = "[[rule]]\nname = \"r\"\nmatch = { relation = \"t\" }\nverdict = \"allow\"\non_disconnect = \"undo\"\n";
    for mut stage in [with("left_undo", OnDisconnect::Undo), with_rules("left_rule", rule)] {
        let client = stage.begun(INDEX);
        let pid = client.pid;
        drop(client);
        stage.assert_clean(pid);
        assert_eq!(stage.indexes(), "");
        stage.release();
    }
    // A rule says the contrary of the setting.
    let rule = rule.replace("undo", "continue");
    let mut stage = Stage::new("left_contrary", |config| {
        config.gate = Config::parse(&rule, Overrides::default()).unwrap().gate;
        config.ddl.on_disconnect = OnDisconnect::Undo;
    });
    let client = stage.begun(INDEX);
    stage.leave(&client);
    stage.release();
    stage.assert_clean(client.pid);
    assert_eq!(stage.indexes(), "i t");
}

/// A statement that has done nothing yet is not worth more than its client, unless a setting says so.
#[test]
fn a_brief_statement_goes_on_only_if_it_is_told_to() {
    let column = "SELECT count(*) FROM pg_attribute WHERE attrelid = 't'::regclass AND attname = 'c'";
    for (word, columns) in [(OnDisconnect::Auto, "0"), (OnDisconnect::Continue, "1")] {
        let mut stage = with("left_brief", word);
        let mut reader = stage.client();
        reader.ok("BEGIN; SELECT FROM t");
        let mut client = stage.client();
        client.send_query("ALTER TABLE t ADD COLUMN c int");
        wait_until("it waits for its lock", || !stage.console("SHOW BLOCKERS").is_empty());
        let pid = client.pid;
        drop(client);
        match word {
            OnDisconnect::Auto => stage.wait_until_gone(pid),
            _ => wait_until("the proxy knows that the client has left", || stage.left().len() == 1),
        }
        reader.ok("COMMIT");
        stage.assert_clean(pid);
        assert_eq!(stage.direct.value(column), columns, "{word}");
    }
}

#[test]
fn in_a_transaction_everything_ends_with_the_client() {
    let mut stage = with("left_block", OnDisconnect::Continue);
    for sql in [format!("BEGIN; {INDEX}"), format!("{INDEX}; SELECT 1")] {
        let client = stage.begun(&sql);
        let pid = client.pid;
        drop(client);
        stage.assert_clean(pid);
        assert_eq!(stage.indexes(), "", "{sql}");
        stage.release();
    }
}

#[test]
fn a_cancel_undoes_it() {
    let mut stage = stage("left_cancel");
    type Cancel = fn(&mut Stage, &Client);
    let cancels: [(&str, Cancel); 4] = [
        ("CancelRequest", |stage, client| client.cancel(port(&stage.running))),
        ("pg_cancel_backend", |stage, client| {
            stage.direct.ok(&format!("SELECT pg_cancel_backend({})", client.pid));
        }),
        ("CANCEL", |stage, _| {
            let number = stage.left()[0].number;
            stage.console(&format!("CANCEL {number}"));
        }),
        ("KILL", |stage, _| {
            let session = stage.left()[0].session;
            stage.console(&format!("KILL {session}"));
        }),
    ];
    for (name, cancel) in cancels {
        let client = stage.begun(INDEX);
        stage.leave(&client);
        cancel(&mut stage, &client);
        stage.assert_clean(client.pid);
        assert_eq!(stage.indexes(), "", "{name}");
        stage.release();
    }
    // A driver with a timeout cancels first, and leaves then.
    let client = stage.begun(INDEX);
    client.cancel(port(&stage.running));
    let pid = client.pid;
    drop(client);
    stage.assert_clean(pid);
    assert_eq!(stage.indexes(), "");
}

/// A client that has sent the statement anew, and waits for the one that runs.
fn join(stage: &mut Stage, sql: &str) -> Client {
    let mut client = stage.client();
    client.send_query(sql);
    let notice = client.read();
    let number = stage.left()[0].number;
    assert_eq!(notice.field(b'M'), Some(format!("joined change {number}, which runs already")));
    let shown = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE pid = {} AND query LIKE '%joined change {number}, whose client has left%'",
        client.pid
    );
    wait_until("the wait is visible", || stage.direct.value(&shown) == "1");
    client
}

#[test]
fn the_same_statement_joins_it_and_gets_its_tag() {
    let mut stage = stage("left_join");
    let client = stage.begun(INDEX);
    stage.leave(&client);
    let mut joined = [INDEX, "/* again */ CREATE  INDEX i ON t (slow(a))"].map(|sql| join(&mut stage, sql));
    let rows = stage.console("SHOW CHANGES");
    assert_eq!(rows.len(), 3, "{rows:?}");
    stage.release();
    for client in &mut joined {
        let outcome = client.outcome();
        assert_eq!((outcome.error, outcome.tags), (None, vec!["CREATE INDEX".to_owned()]));
        assert_eq!(client.value("SELECT 1"), "1");
    }
    stage.assert_clean(client.pid);
    assert_eq!(stage.indexes(), "i t");
    // It is over, so the next one is answered as directly.
    assert_eq!(joined[0].query(INDEX).error.as_deref(), Some("42P07"));
    assert_eq!(joined[0].query(&INDEX.replace("INDEX i", "INDEX IF NOT EXISTS i")).error, None);
}

#[test]
fn the_extended_protocol_joins_too() {
    let mut stage = stage("left_join_extended");
    let client = stage.begun(INDEX);
    stage.leave(&client);
    let mut joined = stage.client();
    joined.send(&[parse("", INDEX), bind("", "", &[]), execute("", 0), sync()].concat());
    let seen = joined.read_up_to(b"N");
    assert!(seen.last().unwrap().field(b'M').unwrap().starts_with("joined change"), "{seen:?}");
    stage.release();
    let outcome = joined.outcome();
    assert_eq!((outcome.error, outcome.tags), (None, vec!["CREATE INDEX".to_owned()]));
    stage.assert_clean(client.pid);
}

#[test]
fn who_joins_gets_the_error() {
    let mut stage = stage("left_join_error");
    let sql = "CREATE UNIQUE INDEX i ON t (slow(a))";
    let client = stage.begun(sql);
    stage.leave(&client);
    let mut joined = join(&mut stage, sql);
    stage.release();
    let outcome = joined.outcome();
    assert_eq!(outcome.error.as_deref(), Some("23505"), "{outcome:?}");
    stage.assert_clean(client.pid);
    assert_eq!(stage.indexes(), "");
}

#[test]
fn a_cancel_of_a_join_ends_only_the_join() {
    let mut stage = stage("left_join_cancel");
    let client = stage.begun(INDEX);
    stage.leave(&client);
    let mut joined = join(&mut stage, INDEX);
    joined.cancel(port(&stage.running));
    assert_eq!(joined.outcome().error.as_deref(), Some("57014"));
    joined.ok("SET statement_timeout = '300ms'");
    assert_eq!(joined.query(INDEX).error.as_deref(), Some("57014"));
    // A client that leaves while it has joined.
    let second = join(&mut stage, INDEX);
    let pid = second.pid;
    drop(second);
    stage.wait_until_gone(pid);
    assert_eq!(stage.left().len(), 1);
    stage.release();
    stage.assert_clean(client.pid);
    assert_eq!(stage.indexes(), "i t");
}

/// What is not the same statement of a client that has left waits its turn, as before.
#[test]
fn others_do_not_join() {
    let mut stage = stage("left_others");
    let first = stage.begun(INDEX);
    // Its client is there.
    let mut second = stage.client();
    second.send_query(INDEX);
    let waits = |stage: &mut Stage, pid: i32| {
        let lane = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid} AND query LIKE '/* pgsluice: %'");
        wait_until("it waits its turn", || stage.direct.value(&lane) == "1");
    };
    waits(&mut stage, second.pid);
    stage.leave(&first);
    // Other words, and other settings.
    let mut other = stage.client();
    other.send_query("CREATE INDEX IF NOT EXISTS i ON t (slow(a))");
    waits(&mut stage, other.pid);
    let mut elsewhere = stage.client();
    elsewhere.ok("SET search_path = public");
    elsewhere.send_query(INDEX);
    waits(&mut stage, elsewhere.pid);
    stage.release();
    assert_eq!(second.outcome().error.as_deref(), Some("42P07"));
    assert_eq!(other.outcome().tags, ["CREATE INDEX"]);
    let outcome = elsewhere.outcome();
    assert!(!outcome.notices.iter().any(|notice| notice.contains("joined")), "{outcome:?}");
    assert_eq!(outcome.error.as_deref(), Some("42P07"));
    stage.assert_clean(first.pid);
}

/// If the session of a change is lost, whoever has joined it does it himself.
#[test]
fn who_has_joined_a_session_that_is_lost_goes_on_alone() {
    let mut stage = stage("left_lost");
    let client = stage.begun(INDEX);
    stage.leave(&client);
    let mut joined = join(&mut stage, INDEX);
    stage.direct.ok(&format!("SELECT pg_terminate_backend({})", client.pid));
    stage.wait_until_gone(client.pid);
    stage.release();
    let outcome = joined.outcome();
    assert_eq!((outcome.error, outcome.tags), (None, vec!["CREATE INDEX".to_owned()]));
    stage.assert_clean(client.pid);
    assert_eq!(stage.indexes(), "i t");
}

#[test]
fn a_drain_waits_for_it() {
    let mut stage = stage("left_drain");
    let client = stage.begun(INDEX);
    stage.leave(&client);
    stage.running.shared().asked().send_replace(Drain::Idle);
    // Idle sessions end, and this one does not.
    let registry = std::sync::Arc::clone(&stage.running.shared().registry);
    wait_until("the others have ended", || {
        registry.sessions().iter().all(|session| session.backend() == Some(client.pid))
    });
    assert_eq!(stage.left().len(), 1);
    stage.release();
    stage.wait_until_gone(client.pid);
    assert_eq!(stage.indexes(), "i t");
    wait_until("the proxy has no session", || registry.session_count() == 0);
}

#[test]
fn a_stop_that_does_not_wait_undoes_it() {
    let mut stage = stage("left_stop");
    let client = stage.begun(INDEX);
    stage.leave(&client);
    // SHUTDOWN on the console ends the session of the console, too.
    stage.running.shared().asked().send_replace(Drain::Now);
    stage.wait_until_gone(client.pid);
    assert_eq!(stage.indexes(), "");
}

#[test]
fn operators_see_that_the_client_has_left() {
    let mut stage = stage("left_shown");
    let client = stage.begun(INDEX);
    let shown = |stage: &Stage| {
        let last =
            |rows: Vec<Vec<String>>| rows.into_iter().map(|row| row.last().cloned().unwrap()).collect::<Vec<_>>();
        let sessions = stage.console("SHOW SESSIONS").into_iter().filter(|row| row[6] == client.pid.to_string());
        (last(sessions.collect()), last(stage.console("SHOW CHANGES")))
    };
    assert_eq!(shown(&stage), (vec!["here".to_owned()], vec!["here".to_owned()]));
    stage.leave(&client);
    assert_eq!(shown(&stage), (vec!["left".to_owned()], vec!["left".to_owned()]));
    stage.release();
    stage.assert_clean(client.pid);
}

/// The server reads what a client had sent before it died, and so does the proxy. A schema change that has not begun does not begin.
#[test]
fn a_client_that_dies_amid_its_messages() {
    let mut stage = stage("left_pipeline");
    let insert = "INSERT INTO log VALUES ('behind')";
    let extended = |sql: &str| [parse("", sql), bind("", "", &[]), execute("", 0), sync()].concat();
    let half = &q("SELECT 1")[..6];
    for (way, bytes) in [
        ("simple", [q(INDEX), q(insert), half.to_vec()].concat()),
        ("extended", [extended(INDEX), extended(insert), half.to_vec()].concat()),
        ("schema changes", [q(INDEX), q(insert), q("ALTER TABLE t ADD COLUMN late int")].concat()),
    ] {
        let mut found = Vec::new();
        for directly in [true, false] {
            // Directly, the server does not know that the client has left, and goes on.
            let to = if directly { SERVER.port } else { port(&stage.running) };
            stage.hold();
            let mut client = Client::connect(to, &SERVER.user, &stage.database);
            client.send(&bytes);
            stage.wait_until_slow(&client);
            let pid = client.pid;
            drop(client);
            if !directly {
                wait_until("the proxy knows that the client has left", || stage.left().len() == 1);
            }
            stage.release();
            stage.wait_until_gone(pid);
            found.push((stage.indexes(), stage.direct.value("SELECT count(*) FROM log")));
            let late = stage
                .direct
                .value("SELECT count(*) FROM pg_attribute WHERE attrelid = 't'::regclass AND attname = 'late'");
            assert!(directly || late == "0", "{way}");
            stage.direct.ok("DROP INDEX i; TRUNCATE log; ALTER TABLE t DROP COLUMN IF EXISTS late");
        }
        assert_eq!(found[0], found[1], "{way}");
        assert_eq!(found[1], ("i t".to_owned(), "1".to_owned()), "{way}");
    }
}

/// Who works on the table beside it does not wait for it.
#[test]
fn the_application_does_not_wait() {
    let mut stage = stage("left_locks");
    let sql = "ALTER TABLE t ADD CONSTRAINT positive CHECK (slow(a) >= 0), ADD COLUMN c int NOT NULL DEFAULT (random() * 9)::int";
    let client = stage.begun(sql);
    stage.leave(&client);
    let mut application = Client::connect(SERVER.port, &SERVER.user, &stage.database);
    application.ok("SET lock_timeout = '1s'; SET slow.off = 'on'");
    let mut work = |round: i32| {
        application.ok(&format!("UPDATE t SET id = id WHERE id = {}", round % 100 + 1));
        application.ok("SELECT count(*) FROM t");
        application.ok("BEGIN; SELECT FROM t WHERE id = 1 FOR UPDATE; COMMIT");
    };
    (0..20).for_each(&mut work);
    // The holder is a session of the stage's, and ends its hold while the application goes on.
    let goes_on = thread::scope(|scope| {
        let worker = scope.spawn(|| (20..200).for_each(&mut work));
        stage.release();
        worker.join()
    });
    assert!(goes_on.is_ok());
    stage.assert_clean(client.pid);
    let valid = "SELECT string_agg(format('%s %s', conname, convalidated), ',') FROM pg_constraint WHERE conrelid = 't'::regclass AND contype = 'c'";
    assert_eq!(stage.direct.value(valid), "positive t");
}

/// Many clients that send one statement and die: it is done once.
#[test]
fn a_crash_loop_builds_once() {
    let mut stage = stage("left_loop");
    let client = stage.begun(INDEX);
    stage.leave(&client);
    let oid = "SELECT indexrelid FROM pg_index WHERE indexrelid = 'i'::regclass";
    let before = stage.direct.value(oid);
    for _ in 0..5 {
        let again = join(&mut stage, INDEX);
        let pid = again.pid;
        drop(again);
        stage.wait_until_gone(pid);
    }
    stage.release();
    stage.assert_clean(client.pid);
    assert_eq!((stage.direct.value(oid), stage.indexes()), (before, "i t".to_owned()));
}
