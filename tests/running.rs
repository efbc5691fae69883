//! What operators do with schema changes that run: THROTTLE, and HOLD between two phases or two batches.
//!
//! A test stops a backfill at a chosen moment by the throttle's condition (a flag in a table), and a phase by a lock.

mod common;
#[path = "running/cut_over.rs"]
mod cut_over;
#[path = "holds/stage.rs"]
#[allow(dead_code, reason = "each test binary uses a part of this")]
mod stage;

use common::{Client, wait_until};
use stage::{SERVER, Stage, error};

pub(crate) const ADD: &str = "ALTER TABLE plain ADD COLUMN r float8 DEFAULT random()";

/// A stage without rules, with a table of many rows and a switch that stops its backfill.
fn switched(name: &str) -> Stage {
    let mut stage = Stage::on(&SERVER, name, |config| {
        config.gate = Default::default();
        config.backfill.pause_ratio = 0.0;
        config.backfill.condition = Some("(SELECT go FROM public.switch)".to_owned());
    });
    stage.direct.ok("CREATE TABLE public.switch (go bool NOT NULL); INSERT INTO public.switch VALUES (false)");
    stage.direct.ok("INSERT INTO plain SELECT g, g FROM generate_series(1, 200000) g; ANALYZE plain");
    stage
}

/// Waits until a session's statement is like this.
pub(crate) fn until_runs(direct: &mut Client, client: &Client, pattern: &str) {
    let running = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE pid = {} AND query LIKE '/* pgsluice: {pattern}'",
        client.pid
    );
    wait_until(pattern, || direct.value(&running) == "1");
}

fn go(stage: &mut Stage) {
    stage.direct.ok("UPDATE switch SET go = true");
}

/// The number of the one change that runs.
fn the_change(stage: &Stage) -> u64 {
    stage.ann.rows("SHOW CHANGES")[0][0].parse().unwrap()
}

/// A backfill that its condition has stopped: the number of its change.
fn begun(stage: &mut Stage) -> u64 {
    stage.client.send_query(ADD);
    until_runs(&mut stage.direct, &stage.client, "backfill of %, paused: the condition%");
    the_change(stage)
}

pub(crate) fn state(stage: &Stage, number: u64) -> String {
    let rows = stage.ann.rows("SHOW CHANGES");
    rows.into_iter().find(|row| row[0] == number.to_string()).map(|mut row| row.swap_remove(11)).unwrap_or_default()
}

fn until_held(stage: &Stage, number: u64) {
    wait_until("it is held", || state(stage, number) == "held");
}

/// Nothing is left of a change that was undone, and no lane.
#[track_caller]
pub(crate) fn assert_nothing_left(stage: &mut Stage, columns: &str) {
    assert_eq!(stage.columns("plain"), columns);
    let left = "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database \
                WHERE d.datname = current_database() AND locktype = 'advisory'";
    assert_eq!(stage.direct.value(left), "0");
}

const FILLED: &str = "SELECT count(*) = 200000 FROM plain WHERE r IS NOT NULL";

#[test]
fn an_operator_slows_a_backfill_down() {
    let mut stage = switched("run_throttle");
    let number = begun(&mut stage);
    stage.ann.ok(&format!("THROTTLE {number} RATIO 0.99 REASON 'busy */ night'"));
    go(&mut stage);
    until_runs(
        &mut stage.direct,
        &stage.client,
        "backfill of %, paused: throttled by ann to ratio 0.99: busy * / night%",
    );
    let shown = stage.ann.of(number, "throttle");
    assert!(shown.starts_with("throttled by ann to ratio 0.99: busy */ night; from a Unix socket"), "{shown}");
    assert!(stage.ann.of(number, "waiting").contains("paused: throttled by ann"));
    // The rest behind a batch is ninety-nine times as long: at this pace it would not end soon.
    assert_eq!(stage.direct.value(FILLED), "f");
    stage.ann.ok(&format!("THROTTLE {number} RATIO 0.5"));
    assert!(stage.ann.of(number, "throttle").starts_with("throttled by ann to ratio 0.5; "));
    stage.ann.ok(&format!("UNTHROTTLE {number}"));
    assert_eq!(stage.ann.of(number, "throttle"), "");
    let outcome = stage.client.outcome();
    assert_eq!(outcome.error, None, "{outcome:?}");
    assert!(outcome.notices.iter().all(|notice| !notice.contains("WARNING")), "{outcome:?}");
    assert_eq!(stage.direct.value(FILLED), "t");
}

#[test]
fn orders_that_have_no_effect_are_errors() {
    let mut stage = switched("run_errors");
    assert_eq!(stage.ann.error("THROTTLE 999 RATIO 0.5"), "42704");
    assert_eq!(stage.ann.error("HOLD 999"), "42704");
    stage.direct.ok("BEGIN; LOCK TABLE plain");
    stage.client.send_query("ALTER TABLE plain ADD COLUMN b int");
    wait_until("it waits", || !stage.ann.rows("SHOW BLOCKERS").is_empty());
    let number = the_change(&stage);
    for verb in ["THROTTLE {} RATIO 0.5", "UNTHROTTLE {}", "RELEASE {}"] {
        assert_eq!(stage.ann.error(&verb.replace("{}", &number.to_string())), "55000", "{verb}");
    }
    stage.ann.ok(&format!("HOLD {number}"));
    assert_eq!(stage.ann.error(&format!("HOLD {number}")), "55000");
    stage.ann.ok(&format!("RELEASE {number}"));
    stage.direct.ok("COMMIT");
    assert_eq!(stage.client.outcome().error, None);
    // A statement in a transaction may have locks, and does not stop.
    stage.direct.ok("BEGIN; LOCK TABLE plain IN ACCESS SHARE MODE");
    stage.client.ok("BEGIN");
    stage.client.ok("SELECT * FROM held");
    stage.client.send_query("ALTER TABLE plain ADD COLUMN c int");
    wait_until("it waits", || !stage.ann.rows("SHOW BLOCKERS").is_empty());
    assert_eq!(stage.ann.error(&format!("HOLD {}", the_change(&stage))), "55000");
    stage.direct.ok("COMMIT");
    assert_eq!(stage.client.outcome().error, None);
}

#[test]
fn a_backfill_is_held_between_two_batches() {
    let mut stage = switched("run_batches");
    let number = begun(&mut stage);
    stage.ann.ok(&format!("HOLD {number} REASON 'lunch'"));
    go(&mut stage);
    until_held(&stage, number);
    until_runs(&mut stage.direct, &stage.client, &format!("change {number} is held by ann: lunch%"));
    assert!(stage.ann.of(number, "hold").starts_with("held by ann: lunch; from a Unix socket"));
    assert_eq!(stage.ann.of(number, "stopped"), "held by ann: lunch");
    // It has neither a lock nor a lane: another schema change of the table passes.
    assert!(stage.ann.rows("SHOW LANES").is_empty());
    let locks =
        format!("SELECT count(*) FROM pg_locks WHERE pid = {} AND relation = 'plain'::regclass", stage.client.pid);
    assert_eq!(stage.direct.value(&locks), "0");
    stage.client().ok("ALTER TABLE plain ADD COLUMN beside int");
    stage.client().ok("CREATE INDEX of_a ON plain (a)");
    assert_eq!(state(&stage, number), "held");
    assert_eq!(stage.direct.value(FILLED), "f");
    stage.ann.ok(&format!("RELEASE {number}"));
    let outcome = stage.client.outcome();
    assert_eq!(outcome.error, None, "{outcome:?}");
    assert!(outcome.notices.iter().any(|notice| notice.ends_with("ALTER TABLE is held by ann: lunch")), "{outcome:?}");
    assert_eq!(stage.direct.value(FILLED), "t");
    assert_nothing_left(&mut stage, "id,a,r,beside");
}

#[test]
fn a_held_backfill_is_cancelled_and_undone() {
    let mut stage = switched("run_cancel");
    let number = begun(&mut stage);
    stage.ann.ok(&format!("HOLD {number}"));
    go(&mut stage);
    until_held(&stage, number);
    stage.ann.ok(&format!("CANCEL {number}"));
    assert_eq!(error(&mut stage.client).field(b'C').as_deref(), Some("57014"));
    assert_nothing_left(&mut stage, "id,a");
    assert_eq!(stage.client.value("SELECT 1"), "1");
}

#[test]
fn what_is_held_more_widely_holds_what_runs() {
    let mut stage = switched("run_scopes");
    let number = begun(&mut stage);
    let database = stage.database.clone();
    stage.ann.ok("HOLD RELATION public.held");
    stage.ann.ok(&format!("HOLD DATABASE {database} REASON 'backup'"));
    go(&mut stage);
    until_held(&stage, number);
    assert_eq!(stage.ann.of(number, "stopped"), format!("held by HOLD DATABASE {database}, by ann: backup"));
    // It alone is let go on.
    stage.ann.ok(&format!("RELEASE {number}"));
    assert_eq!(stage.client.outcome().error, None);
    assert_eq!(stage.direct.value(FILLED), "t");
    stage.ann.ok(&format!("RELEASE DATABASE {database}"));
    // A scope that is taken back lets all go on.
    stage.direct.ok("UPDATE switch SET go = false; ALTER TABLE plain DROP r");
    let number = begun(&mut stage);
    stage.ann.ok("HOLD RELATION public.plain");
    go(&mut stage);
    until_held(&stage, number);
    stage.ann.ok("RELEASE RELATION public.plain");
    assert_eq!(stage.client.outcome().error, None);
    assert_eq!(stage.direct.value(FILLED), "t");
}

/// Held between two phases, a change looks again at what it has made.
#[test]
fn a_change_is_held_between_two_phases() {
    let mut stage = switched("run_phases");
    for changes in [false, true] {
        stage.direct.ok("BEGIN; LOCK TABLE plain IN ACCESS SHARE MODE");
        stage.client.send_query("ALTER TABLE plain ALTER a SET NOT NULL");
        wait_until("it waits", || !stage.ann.rows("SHOW BLOCKERS").is_empty());
        let number = the_change(&stage);
        stage.ann.ok(&format!("HOLD {number}"));
        stage.direct.ok("COMMIT");
        until_held(&stage, number);
        let rows = stage.ann.rows("SHOW CHANGES");
        assert_eq!(rows[0][6], "2", "{rows:?}");
        if changes {
            let made = "SELECT conname FROM pg_constraint WHERE conrelid = 'plain'::regclass AND NOT convalidated";
            let made = stage.direct.value(made);
            stage.direct.ok(&format!("ALTER TABLE plain DROP CONSTRAINT \"{made}\""));
        }
        stage.ann.ok(&format!("RELEASE {number}"));
        if changes {
            let error = error(&mut stage.client);
            assert_eq!(error.field(b'C').as_deref(), Some("40001"), "{error:?}");
            assert!(error.field(b'M').unwrap().starts_with("cannot go on after a hold: its constraints"), "{error:?}");
        } else {
            assert_eq!(stage.client.outcome().error, None);
        }
        let constraints = "SELECT count(*) FROM pg_constraint WHERE conrelid = 'plain'::regclass AND contype = 'c'";
        assert_eq!(stage.direct.value(constraints), "0");
        let not_null = "SELECT attnotnull FROM pg_attribute WHERE attrelid = 'plain'::regclass AND attname = 'a'";
        assert_eq!(stage.direct.value(not_null), if changes { "f" } else { "t" });
        stage.direct.ok("ALTER TABLE plain ALTER a DROP NOT NULL");
    }
    assert_nothing_left(&mut stage, "id,a");
}

/// A change that has done nothing yet is planned anew when it goes on.
#[test]
fn a_change_is_held_before_its_first_phase() {
    let mut stage = switched("run_first");
    begun(&mut stage);
    let mut second = stage.client();
    second.send_query("ALTER TABLE plain ADD COLUMN r2 float8 DEFAULT random()");
    wait_until("it waits for its turn", || stage.ann.rows("SHOW CHANGES").len() == 2);
    until_runs(&mut stage.direct, &second, "waiting for another schema change%");
    let number: u64 = stage.ann.rows("SHOW CHANGES")[1][0].parse().unwrap();
    stage.ann.ok(&format!("HOLD {number}"));
    go(&mut stage);
    assert_eq!(stage.client.outcome().error, None);
    until_held(&stage, number);
    assert_eq!(stage.columns("plain"), "id,a,r");
    assert!(stage.ann.rows("SHOW LANES").is_empty());
    // Its plan is made anew: now the column is there, and the server's own error says so.
    stage.direct.ok("ALTER TABLE plain ADD COLUMN r2 int");
    stage.ann.ok(&format!("RELEASE {number}"));
    assert_eq!(error(&mut second).field(b'C').as_deref(), Some("42701"));
    assert_nothing_left(&mut stage, "id,a,r,r2");
}
