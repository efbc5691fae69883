//! Tests of the cost of DDL for other sessions: the lock that each form takes, and how long a session waits while the proxy
//! runs the form behind a blocker.

mod common;
#[path = "locks/rows.rs"]
mod rows;

use common::{Client, new_database, port, postgres, proxy, wait_until};
use pgsluice::catalog::query::LANE_CLASS;
use pgsluice::config::Config;
use pgsluice::dev::{Options, Postgres};
use pgsluice::pg::LockMode;
use pgsluice::server::Running;
use pgsluice::sql::form::{ExecutionKind, FORMS, Form};
use rows::{Case, cases};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// One server for all; it ends with this process.
static SERVER: LazyLock<Postgres> = LazyLock::new(postgres);

/// The default of `locks.stall_budget`.
const STALL_BUDGET: Duration = Duration::from_millis(200);

fn direct(database: &str) -> Client {
    Client::connect(SERVER.port, &SERVER.user, database)
}

fn through(running: &Running, database: &str) -> Client {
    Client::connect(port(running), &SERVER.user, database)
}

fn is_safe(case: &Case) -> bool {
    matches!(
        case.form.row().way,
        ExecutionKind::Run
            | ExecutionKind::Concurrently
            | ExecutionKind::Probe
            | ExecutionKind::Fill
            | ExecutionKind::Phases
    ) && !matches!(case.form, Form::AddColumnGenerated | Form::SetExpression)
}

/// The relation where somebody stands in the way, and the weakest lock that does.
fn blocker(case: &Case) -> (&'static str, &'static str) {
    let (lock, other_lock) = case.form.locks(rows::number(SERVER.version));
    let (relation, mode) = match lock.filter(|_| !case.target.is_empty()) {
        Some(mode) => (case.target, mode),
        None => (case.other, other_lock.expect("a lock")),
    };
    let weakest = match mode {
        LockMode::AccessExclusive => "ACCESS SHARE",
        LockMode::Exclusive => "ROW SHARE",
        LockMode::Share | LockMode::ShareRowExclusive => "ROW EXCLUSIVE",
        _ => "SHARE UPDATE EXCLUSIVE",
    };
    (relation, weakest)
}

#[test]
fn every_form_takes_the_lock_of_its_row() {
    rows::check(&SERVER);
}

#[test]
fn every_safe_form_is_tried() {
    let tried: Vec<Form> = cases().iter().map(|case| case.form).collect();
    // These need a label provider, or never reach others.
    let not_here = [Form::SecurityLabel, Form::CreateTable];
    for row in FORMS {
        let locks = row.lock.is_some() || row.other_lock.is_some();
        let safe = matches!(
            row.way,
            ExecutionKind::Run
                | ExecutionKind::Probe
                | ExecutionKind::Fill
                | ExecutionKind::Concurrently
                | ExecutionKind::Phases
        );
        assert!(!locks || !safe || tried.contains(&row.form) || not_here.contains(&row.form), "{:?}", row.form);
    }
}

/// Reads and writes all the time, and remembers its longest wait.
fn application(mut client: Client, schema: &str, relation: &str, done: &AtomicBool) -> Duration {
    // Of a relation that is no table, what can be used of it; errors (a column that went) are answers too.
    let queries = [
        format!("SELECT * FROM {schema}.{relation} LIMIT 1"),
        format!("UPDATE {schema}.t SET v = v WHERE id = 1"),
        format!("SELECT count(*) FROM {schema}.o"),
    ];
    let mut longest = Duration::ZERO;
    while !done.load(Ordering::Relaxed) {
        for sql in &queries {
            let begun = Instant::now();
            client.query(sql);
            longest = longest.max(begun.elapsed());
        }
    }
    longest
}

/// The machine's own hiccups: the longest that a query on a table of nobody's takes meanwhile.
fn hiccups(mut client: Client, done: &AtomicBool) -> Duration {
    let mut longest = Duration::ZERO;
    while !done.load(Ordering::Relaxed) {
        let begun = Instant::now();
        client.query("SELECT count(*) FROM public.calm");
        longest = longest.max(begun.elapsed());
    }
    longest
}

/// Runs one case through the proxy with somebody in the way for `held`. Gives the longest wait of the
/// application, beyond the machine's own.
fn run_blocked(running: &Running, database: &str, schema: &str, case: &Case, held: Duration) -> Duration {
    let mut setup = direct(database);
    case.stage(&mut setup, schema, SERVER.version);
    let (relation, mode) = blocker(case);
    let mut blocker = direct(database);
    blocker.ok(&format!("SET search_path = {schema}; BEGIN"));
    // A lock on what LOCK TABLE does not take is had by using it.
    let locked = blocker.query(&format!("SAVEPOINT s; LOCK TABLE {relation} IN {mode} MODE"));
    if locked.error.is_some() {
        blocker.ok("ROLLBACK TO s");
        blocker.query(&format!("SELECT * FROM {relation} LIMIT 1"));
    }
    let mut ddl = through(running, database);
    ddl.ok(&format!("SET search_path = {schema}"));
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let application = scope.spawn(|| application(direct(database), schema, relation, &done));
        let hiccups = scope.spawn(|| hiccups(direct(database), &done));
        ddl.send_query(case.sql);
        thread::sleep(held);
        let released = Instant::now();
        blocker.ok("ROLLBACK");
        let outcome = ddl.outcome();
        // Before anything may fail: the others would go on for ever.
        done.store(true, Ordering::Relaxed);
        assert_eq!(outcome.error, None, "{}: {outcome:?}", case.sql);
        assert!(released.elapsed() < Duration::from_secs(5), "{}: {:?}", case.sql, released.elapsed());
        let (waited, own) = (application.join().unwrap(), hiccups.join().unwrap());
        waited.saturating_sub(own)
    })
}

#[test]
fn nobody_waits_longer_than_the_stall_budget() {
    const LANES: usize = 3;
    /// One DDL statement's own work on a busy machine, beside the lock attempt.
    const SLACK: Duration = Duration::from_millis(100);
    let running = proxy(&SERVER, common::no_table_is_small);
    let database = new_database(&SERVER, "stall");
    direct(&database).ok("CREATE TABLE calm (id int)");
    let cases: Vec<Case> = cases().into_iter().filter(|case| is_safe(case) && case.since() <= SERVER.version).collect();
    let next = AtomicUsize::new(0);
    let mut waits: Vec<(Duration, &str)> = Vec::new();
    thread::scope(|scope| {
        let lanes: Vec<_> = (0..LANES)
            .map(|lane| {
                let (running, database, cases, next) = (&running, &database, &cases, &next);
                scope.spawn(move || {
                    let mut waits = Vec::new();
                    while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                        // The plainest of all waits as long as people are told to expect.
                        let held = if case.form == Form::AddColumn { 3_000 } else { 700 };
                        let held = Duration::from_millis(held);
                        let schema = format!("lane{lane}");
                        // A stall of ours comes again each time; the machine's hiccups, which may strike one session
                        // and not the other, do not.
                        let mut tries = (0..3).map(|_| run_blocked(running, database, &schema, case, held));
                        let waited = tries
                            .find(|waited| *waited < STALL_BUDGET / 2)
                            .unwrap_or_else(|| run_blocked(running, database, &schema, case, held));
                        waits.push((waited, case.sql));
                    }
                    waits
                })
            })
            .collect();
        for lane in lanes {
            waits.extend(lane.join().unwrap());
        }
    });
    waits.sort();
    for (waited, sql) in waits.iter().rev().take(5) {
        println!("{waited:?} for {sql}");
    }
    let (longest, sql) = waits.last().unwrap();
    assert!(*longest < STALL_BUDGET + SLACK, "{longest:?} for {sql}");
    running.stop_now();
}

#[test]
fn many_short_transactions_do_not_starve_it() {
    let running = proxy(&SERVER, |_| {});
    let database = new_database(&SERVER, "starve");
    direct(&database).ok("CREATE TABLE t (id int); CREATE TABLE calm (id int); INSERT INTO t VALUES (1)");
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        // Always one of three holds the table, none for long.
        let readers: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = direct(&database);
                    let mut longest = Duration::ZERO;
                    while !done.load(Ordering::Relaxed) {
                        let begun = Instant::now();
                        client.ok("SELECT id, pg_sleep(0.03) FROM t");
                        longest = longest.max(begun.elapsed());
                    }
                    longest
                })
            })
            .collect();
        let hiccups = scope.spawn(|| hiccups(direct(&database), &done));
        let begun = Instant::now();
        let outcome = through(&running, &database).query("ALTER TABLE t ADD COLUMN a int");
        let took = begun.elapsed();
        done.store(true, Ordering::Relaxed);
        assert_eq!(outcome.error, None, "{outcome:?}");
        assert!(took < Duration::from_secs(20), "{took:?}");
        let longest = readers.into_iter().map(|reader| reader.join().unwrap()).max().unwrap();
        let own = hiccups.join().unwrap();
        assert!(longest < STALL_BUDGET + Duration::from_millis(130) + own, "{longest:?}, {own:?} of it the machine's");
    });
    running.stop_now();
}

/// Waits until the session of `pid` waits in the proxy for what is LIKE this.
fn wait_for(watcher: &mut Client, pid: i32, like: &str) {
    let sql =
        format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid} AND query LIKE '/* pgsluice: waiting {like}'");
    wait_until(like, || watcher.value(&sql) == "1");
}

#[test]
fn a_vacuum_is_waited_for_without_a_queue() {
    let running = proxy(&SERVER, |_| {});
    let database = new_database(&SERVER, "vacuum");
    let mut watcher = direct(&database);
    watcher.ok("CREATE TABLE t (id int, v text)");
    watcher.ok(
        "INSERT INTO t SELECT g, repeat('x', 500) FROM generate_series(1, 20000) g; DELETE FROM t WHERE id % 2 = 0",
    );
    let mut vacuum = direct(&database);
    // A page costs its limit, so that each is followed by a sleep.
    vacuum.ok("SET vacuum_cost_limit = 1");
    vacuum.ok("SET vacuum_cost_delay = 5");
    vacuum.send_query("VACUUM t");
    let at_work =
        format!("SELECT count(*) FROM pg_locks WHERE pid = {} AND mode = 'ShareUpdateExclusiveLock'", vacuum.pid);
    wait_until("the vacuum is at work", || watcher.value(&at_work) != "0");
    let mut ddl = through(&running, &database);
    ddl.send_query("ALTER TABLE t ADD COLUMN a int");
    let pid = vacuum.pid;
    wait_for(&mut watcher, ddl.pid, &format!("for ACCESS EXCLUSIVE on public.t, blocked by pid {pid} %"));
    assert_eq!(watcher.value("SELECT count(*) FROM pg_locks WHERE NOT granted"), "0");
    watcher.ok(&format!("SELECT pg_cancel_backend({pid})"));
    assert_eq!(ddl.outcome().error, None);
    running.stop_now();
}

/// ANALYZE waits for a transaction that has changed a row of `pg_class` which it updates, and keeps its locks meanwhile.
#[test]
fn an_autovacuum_that_waits_for_us_is_no_deadlock() {
    let options = Options::default().setting("autovacuum_naptime", "1s");
    let server = Postgres::start(options).expect("a throw-away server");
    let running = proxy(&server, |_| {});
    let [mut watcher, mut ddl] =
        [server.port, port(&running)].map(|port| Client::connect(port, &server.user, "postgres"));
    watcher.ok("CREATE TABLE t (id int) WITH (autovacuum_analyze_threshold = 1, autovacuum_analyze_scale_factor = 0)");
    watcher.ok("CREATE INDEX x ON t (id)");
    ddl.ok("BEGIN; ALTER INDEX x SET (fillfactor = 50)");
    watcher.ok("INSERT INTO t SELECT generate_series(1, 1000)");
    let waits = format!(
        "SELECT count(*) FROM pg_stat_activity a JOIN pg_locks l USING (pid) WHERE l.relation = 'x'::regclass
         AND backend_type = 'autovacuum worker' AND {} = ANY (pg_blocking_pids(pid))",
        ddl.pid
    );
    wait_until("an autovacuum waits for the transaction", || watcher.value(&waits) != "0");
    ddl.ok("ALTER TABLE x RENAME TO y");
    assert_eq!(ddl.ok("COMMIT").tags, ["COMMIT"]);
    running.stop_now();
}

#[test]
fn one_after_another_in_a_lane() {
    let running = proxy(&SERVER, common::no_table_is_small);
    let database = new_database(&SERVER, "lane");
    let mut watcher = direct(&database);
    watcher.ok("CREATE TABLE t (id int)");
    let mut blocker = direct(&database);
    blocker.ok("BEGIN; INSERT INTO t VALUES (1)");
    let [mut first, mut second] = [(); 2].map(|()| through(&running, &database));
    first.send_query("CREATE INDEX x ON t (id)");
    let builds =
        format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {} AND query LIKE 'CREATE INDEX%'", first.pid);
    wait_until("the first one builds", || watcher.value(&builds) == "1");
    second.send_query("ALTER TABLE t ALTER COLUMN id SET STATISTICS 10");
    // It says whom it waits for, and queues for nothing meanwhile.
    let named = format!("%pid {}%", first.pid);
    wait_for(&mut watcher, second.pid, &named);
    let queued = format!("SELECT count(*) FROM pg_locks WHERE NOT granted AND pid = {}", second.pid);
    assert_eq!(watcher.value(&queued), "0");
    blocker.ok("COMMIT");
    assert_eq!(first.outcome().error, None);
    assert_eq!(second.outcome().error, None);
    let lanes = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    assert_eq!(watcher.value(lanes), "0");
    running.stop_now();
}

/// A lane that is tried behind a nap is taken although a cancel strikes the nap; and of two lanes the first is held while
/// the second is waited for.
#[test]
fn a_cancel_in_the_wait_for_a_lane() {
    let running = proxy(&SERVER, common::no_table_is_small);
    let database = new_database(&SERVER, "lanes");
    let [mut watcher, mut holder] = [(); 2].map(|()| direct(&database));
    watcher.ok("CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child (id int);
        ALTER TABLE child ADD CONSTRAINT fk FOREIGN KEY (id) REFERENCES parent NOT VALID");
    // The two lanes are taken in the order of the oids.
    let lane = |function: &str, of: &str| {
        format!("SELECT {function}({LANE_CLASS}, {of}('parent'::regclass, 'child'::regclass)::int)")
    };
    for (what, of) in [("the first lane", "least"), ("the second lane", "greatest")] {
        holder.value(&lane("pg_advisory_lock", of));
        let mut client = through(&running, &database);
        client.send_query("ALTER TABLE child VALIDATE CONSTRAINT fk");
        wait_for(&mut watcher, client.pid, "%behind the DDL of%");
        let cancel = format!("{}, pg_cancel_backend({})", lane("pg_advisory_unlock", of), client.pid);
        holder.value(&cancel);
        assert_eq!(client.outcome().error.as_deref(), Some("57014"), "{what}");
        let held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()";
        assert_eq!(client.value(held), "0", "{what}");
        client.ok("ALTER TABLE child VALIDATE CONSTRAINT fk");
        watcher.ok("UPDATE pg_constraint SET convalidated = false WHERE conname = 'fk'");
    }
    running.stop_now();
}

/// While one of them is written to, nobody waits for the others.
#[test]
fn the_tables_of_a_domain_are_locked_at_once() {
    let running = proxy(&SERVER, common::no_table_is_small);
    let database = new_database(&SERVER, "domain");
    let mut watcher = direct(&database);
    watcher.ok("CREATE DOMAIN d AS int; CREATE DOMAIN dd AS d; CREATE TABLE first (a d); CREATE TABLE second (a dd)");
    let mut blocker = direct(&database);
    blocker.ok("BEGIN; INSERT INTO second VALUES (1)");
    let mut ddl = through(&running, &database);
    ddl.send_query("ALTER DOMAIN d ADD CHECK (VALUE > 0)");
    wait_for(&mut watcher, ddl.pid, "for SHARE on %second%");
    let locks = format!("SELECT count(*) FROM pg_locks WHERE relation = 'first'::regclass AND pid = {}", ddl.pid);
    assert_eq!(watcher.value(&locks), "0");
    watcher.ok("INSERT INTO first VALUES (1)");
    blocker.ok("COMMIT");
    assert_eq!(ddl.outcome().error, None);
    assert_eq!(watcher.query("INSERT INTO second VALUES (-1)").error.as_deref(), Some("23514"));
    running.stop_now();
}

/// The ErrorResponse that a statement ends with, and its detail.
fn refusal(client: &mut Client, sql: &str) -> (String, String, char) {
    client.send_query(sql);
    let messages = client.read_up_to(b"Z");
    let error = messages.iter().find(|m| m.tag == b'E').unwrap_or_else(|| panic!("{sql} was done"));
    let status = char::from(messages.last().unwrap().body[0]);
    (error.field(b'C').unwrap(), error.field(b'D').unwrap_or_default(), status)
}

fn quick(config: &mut Config) {
    config.locks.deadline = Duration::from_millis(500);
}

#[test]
fn who_waits_too_long_is_told_whom_for() {
    let running = proxy(&SERVER, quick);
    let database = new_database(&SERVER, "deadline");
    let mut blocker = direct(&database);
    blocker.ok("CREATE TABLE t (id int); CREATE TABLE u (id int)");
    let mut ddl = through(&running, &database);
    // A prepared transaction has no pid.
    blocker.ok("BEGIN; INSERT INTO t VALUES (1)");
    blocker.ok("PREPARE TRANSACTION 'forgotten one'");
    let (sqlstate, detail, _) = refusal(&mut ddl, "ALTER TABLE t ADD COLUMN a int");
    assert_eq!(sqlstate, "55P03");
    assert!(detail.contains("prepared transaction \"forgotten one\", which holds"), "{detail}");
    blocker.ok("ROLLBACK PREPARED 'forgotten one'");
    // A session has.
    blocker.ok("BEGIN; SELECT * FROM t");
    let begun = Instant::now();
    let (sqlstate, detail, status) = refusal(&mut ddl, "ALTER TABLE t ADD COLUMN a int");
    assert_eq!((sqlstate.as_str(), status), ("55P03", 'I'));
    assert!(detail.contains(&format!("pid {} (pgsluice test", blocker.pid)), "{detail}");
    assert!(begun.elapsed() >= Duration::from_millis(500) && begun.elapsed() < Duration::from_secs(3));
    // What the session has set for itself wins, and is PostgreSQL's to say.
    for (setting, sqlstate) in [("lock_timeout", "55P03"), ("statement_timeout", "57014")] {
        ddl.ok(&format!("SET {setting} = 100"));
        let begun = Instant::now();
        assert_eq!(refusal(&mut ddl, "ALTER TABLE t ADD COLUMN a int").0, sqlstate);
        assert!(begun.elapsed() < Duration::from_millis(450), "{setting}: {:?}", begun.elapsed());
        assert_eq!(ddl.value(&format!("SHOW {setting}")), "100ms");
        ddl.ok(&format!("RESET {setting}"));
    }
    running.stop_now();
}

#[test]
fn who_holds_a_strong_lock_does_not_wait() {
    let running = proxy(&SERVER, |config| config.locks.in_transaction_wait = STALL_BUDGET);
    let database = new_database(&SERVER, "strong");
    let mut blocker = direct(&database);
    blocker.ok("CREATE TABLE t (id int); CREATE TABLE u (id int)");
    blocker.ok("BEGIN; SELECT * FROM t");
    let mut ddl = through(&running, &database);
    ddl.ok("BEGIN");
    ddl.ok("ALTER TABLE u ADD COLUMN a int");
    let begun = Instant::now();
    let (sqlstate, detail, status) = refusal(&mut ddl, "ALTER TABLE t ADD COLUMN a int");
    assert_eq!((sqlstate.as_str(), status), ("55P03", 'E'), "{detail}");
    assert!(begun.elapsed() < STALL_BUDGET * 3, "{:?}", begun.elapsed());
    assert!(detail.contains(&format!("pid {}", blocker.pid)), "{detail}");
    assert_eq!(ddl.ok("COMMIT").tags, ["ROLLBACK"]);
    // Who holds nothing may wait, and the block goes on.
    ddl.ok("BEGIN; SELECT 1");
    ddl.send_query("ALTER TABLE t ADD COLUMN a int");
    wait_for(&mut direct(&database), ddl.pid, "%");
    blocker.ok("COMMIT");
    let outcome = ddl.outcome();
    assert_eq!((outcome.error.as_deref(), outcome.status), (None, 'T'));
    assert_eq!(ddl.value("SHOW lock_timeout"), "0");
    ddl.ok("COMMIT");
    running.stop_now();
}

#[test]
fn a_brief_step_that_is_not_brief_is_run_without_a_budget() {
    let running = proxy(&SERVER, |config| config.locks.hold_budget = Duration::from_millis(300));
    let database = new_database(&SERVER, "hold");
    let mut setup = direct(&database);
    setup
        .ok("CREATE TABLE t (id int); CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END'");
    setup.ok("CREATE FUNCTION dawdle() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(1); END';
         CREATE EVENT TRIGGER dawdles ON ddl_command_end WHEN TAG IN ('CREATE TRIGGER') EXECUTE FUNCTION dawdle()");
    for block in [false, true] {
        let mut ddl = through(&running, &database);
        if block {
            ddl.ok("BEGIN");
        }
        let begun = Instant::now();
        ddl.send_query("CREATE TRIGGER tr BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION f()");
        let outcome = ddl.outcome();
        assert_eq!((outcome.error.as_deref(), outcome.status), (None, if block { 'T' } else { 'I' }));
        let warning =
            "WARNING 01000 a step has held its lock for longer than 300 ms, and is run again without that limit";
        assert_eq!(outcome.notices, [warning]);
        assert!(begun.elapsed() >= Duration::from_millis(1300), "it was taken back once: {:?}", begun.elapsed());
        assert_eq!(running.shared().metrics.hold_budget_outlived.value(), if block { 2 } else { 1 });
        ddl.query("ROLLBACK");
        setup.ok("DROP TRIGGER IF EXISTS tr ON t");
        assert_eq!(ddl.value("SHOW statement_timeout"), "0");
        assert_eq!(setup.value("SELECT count(*) FROM pg_trigger WHERE tgrelid = 't'::regclass"), "0");
        assert_eq!(
            setup.value(&format!("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = {}", ddl.pid)),
            "0"
        );
    }
    running.stop_now();
}
