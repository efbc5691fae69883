//! The ledger: what operators decide in SQL, several proxies, restarts, and a ledger that cannot be asked.
//!
//! The roles that decide log in to the ledger's database as themselves. The author of every statement is the superuser of the throw-away server.

mod common;
#[path = "holds/stage.rs"]
#[allow(dead_code, reason = "each test binary uses a part of this")]
mod stage;
#[path = "ledger/found.rs"]
mod found;
#[path = "ledger/two.rs"]
mod two;

use common::{Client, new_database, port, proxy, wait_until};
use pgsluice::config::Config;
use pgsluice::session::Drain;
use stage::{Operator, RULES, SERVER, Stage, error, number, rules};
use two::{Two, pgsluice_install, state, with_ledger};

#[test]
fn approved_in_sql_while_the_client_waits() {
    let mut two = Two::new("sql");
    two.first.client.send_query("ALTER TABLE two ADD COLUMN b text DEFAULT 'hunter2'");
    let number = two.first.ann.held();
    // The other proxy shows it, with its plan, and so does the ledger, without what the client has written between quotes.
    let other = two.console();
    wait_until("the other proxy shows it", || other.of(number, "state") == "held");
    assert_eq!(other.of(number, "approvals"), "0 of 2");
    assert_eq!(other.of(number, "plan"), two.first.ann.of(number, "plan"));
    let (mut olga, mut otto, mut vera) = (two.sql("olga"), two.sql("otto"), two.sql("vera"));
    assert_eq!(
        vera.value(&format!("SELECT state || ' ' || clients_waiting FROM pgsluice.changes WHERE id = {number}")),
        "held 1"
    );
    assert_eq!(vera.query(&format!("SELECT pgsluice.approve({number}, 'no')")).error.unwrap(), "42501");
    let said = olga.value(&format!("SELECT pgsluice.approve({number}, 'looks fine')"));
    assert_eq!(said, format!("schema change {number} is held with 1 of 2 approvals"));
    assert_eq!(olga.query(&format!("SELECT pgsluice.approve({number})")).error.unwrap(), "55000");
    let author = two.first.user.clone();
    assert_eq!(two.sql(&author).query(&format!("SELECT pgsluice.approve({number})")).error.unwrap(), "42501");
    otto.ok(&format!("SELECT pgsluice.approve({number}, 'me too')"));
    let outcome = two.first.client.outcome();
    assert_eq!((outcome.error, outcome.tags), (None, vec!["ALTER TABLE".to_owned()]));
    wait_until("the end is taken down", || two.state(number) == "done");
    assert_eq!(two.events(number), "held, approve, approve, started, done");
    let trail = vera.value(&format!(
        "SELECT string_agg(concat_ws(' ', by, why), ', ' ORDER BY id) FROM pgsluice.events WHERE change = {number} AND by IS NOT NULL"
    ));
    assert_eq!(trail, "olga looks fine, otto me too");
    let all = two.direct.value("SELECT coalesce(string_agg(c::text, ''), '') || (SELECT string_agg(e::text, '') FROM pgsluice.event e) FROM pgsluice.change c");
    assert!(!all.contains("hunter2"));
    wait_until("the other proxy knows", || other.of(number, "state") == "done");
}

#[test]
fn a_ticket_is_good_at_every_proxy_and_once() {
    let mut two = Two::new("ticket");
    let number = number(&two.first.error("ALTER TABLE quick ADD b int"));
    let console = two.console();
    console.ok(&format!("APPROVE {number} REASON 'from the other proxy'"));
    assert_eq!(two.state(number), "approved");
    let mut client = two.client();
    client.ok("ALTER TABLE quick ADD b int");
    wait_until("the end is taken down", || two.state(number) == "done");
    assert_eq!(two.first.columns("quick"), "id,a,b");
    // It was for one statement, wherever it is sent.
    two.direct = two.sql(&two.first.user.clone());
    two.first.direct.ok("ALTER TABLE quick DROP b");
    let again = stage::number(&two.first.error("ALTER TABLE quick ADD b int"));
    assert_eq!((again, two.state(number)), (number, "held".to_owned()));
    // The console tells who has no right as SQL does, and a change that is not there.
    assert_eq!(console.error("APPROVE 4711"), "42704");
    let own = Operator::new(&two.folder, &two.first.user);
    assert_eq!(own.error(&format!("APPROVE {number}")), "42501");
    console.ok(&format!("REJECT {number} REASON 'once is enough'"));
    client.send_query("ALTER TABLE quick ADD b int");
    assert_eq!(error(&mut client).field(b'M').unwrap(), "ALTER TABLE was rejected by ann: once is enough");
}

#[test]
fn a_restart_forgets_nothing() {
    let mut two = Two::new("restart");
    let number = number(&two.first.error("ALTER TABLE quick ADD b int"));
    let (ledger, user) = (two.ledger.clone(), two.first.user.clone());
    // Both proxies end. Somebody approves, and another proxy begins.
    // SHUTDOWN on the console may end the session of the console before its answer.
    two.first.running.shared().asked().send_replace(Drain::Now);
    two.second.stop_now();
    let mut olga = Client::connect(SERVER.port, "olga", &ledger);
    olga.ok(&format!("SELECT pgsluice.approve({number}, 'while nobody was there')"));
    let third = proxy(&SERVER, |config| {
        common::no_table_is_small(config);
        config.gate = rules(RULES);
        with_ledger(config, &ledger, &SERVER.user);
    });
    let mut client = Client::connect(port(&third), &user, &two.first.database);
    client.ok("ALTER TABLE quick ADD b int");
    assert_eq!(two.first.columns("quick"), "id,a,b");
    wait_until("the end is taken down", || {
        olga.value(&format!("SELECT state FROM pgsluice.changes WHERE id = {number}")) == "done"
    });
}

#[test]
fn another_plan_is_asked_about_anew() {
    let mut two = Two::new("plan");
    // Without rows a column of this kind is added at once; with a unique index on it there is more to do.
    let sql = "ALTER TABLE quick ALTER a SET NOT NULL";
    let number = number(&two.first.error(sql));
    two.sql("olga").ok(&format!("SELECT pgsluice.approve({number})"));
    two.first.direct.ok("ALTER TABLE quick ADD CONSTRAINT quick_a CHECK (a IS NOT NULL)");
    let mut client = two.client();
    client.send_query(sql);
    let again = stage::number(&error(&mut client));
    assert_eq!((again, two.state(number)), (number, "held".to_owned()));
    assert_eq!(two.events(number), "held, approve, held anew");
    let difference = two.direct.value(&format!("SELECT difference FROM pgsluice.changes WHERE id = {number}"));
    assert!(difference.starts_with("- "), "{difference}");
}

#[test]
fn holds_by_hand_are_everybodys() {
    let mut two = Two::new("hand");
    let mut olga = two.sql("olga");
    assert_eq!(two.sql("vera").query("SELECT pgsluice.hold('all')").error.unwrap(), "42501");
    olga.ok("SELECT pgsluice.hold('relation public.plain', 'the release is at noon')");
    let consoles = [Operator::new(&two.first.folder, "ann"), two.console()];
    for console in &consoles {
        wait_until("the proxy knows", || {
            console.rows("SHOW HOLDS").iter().any(|row| row[0] == "HOLD RELATION public.plain" && row[1] == "olga")
        });
    }
    let mut client = two.client();
    client.send_query("ALTER TABLE plain ADD b int");
    let number = consoles[1].held();
    assert_eq!(consoles[1].error("HOLD RELATION public.plain"), "55000");
    consoles[0].ok("RELEASE RELATION public.plain REASON 'it is over'");
    assert_eq!(client.outcome().error, None);
    wait_until("it is released", || two.state(number) == "released");
    assert_eq!(olga.query("SELECT pgsluice.release('relation public.plain')").error.unwrap(), "42704");
    assert_eq!(olga.query("SELECT pgsluice.hold('plain')").error.unwrap(), "22023");
    let trail = two.direct.value("SELECT string_agg(concat_ws(' ', what, by, why), '; ' ORDER BY id) FROM pgsluice.events WHERE change IS NULL AND by IS NOT NULL");
    assert!(trail.contains("hold relation public.plain olga the release is at noon"), "{trail}");
    assert!(trail.contains("release relation public.plain ann it is over"), "{trail}");
}

#[test]
fn a_change_that_runs_is_seen_and_cancelled_from_elsewhere() {
    let mut two = Two::new("runs");
    let mut holder = Client::connect(SERVER.port, &two.first.user, &two.first.database);
    holder.ok("BEGIN; SELECT * FROM plain");
    two.first.client.send_query("ALTER TABLE plain ADD b int");
    let other = two.console();
    let running =
        || other.rows("SHOW CHANGES").into_iter().find(|row| row[5].contains("plain") && row[11] == "running");
    wait_until("the other proxy shows it", || running().is_some_and(|row| row[9].contains("lock")));
    let number: u64 = running().unwrap()[0].parse().unwrap();
    two.sql("olga").ok(&format!("SELECT pgsluice.cancel({number}, 'not now')"));
    let outcome = two.first.client.outcome();
    assert_eq!(outcome.error.as_deref(), Some("57014"));
    holder.ok("COMMIT");
    wait_until("the end is taken down", || two.state(number) == "failed");
    assert_eq!(two.events(number), "cancel, failed");
    // A change that nobody holds has its event, too.
    two.first.client.ok("ALTER TABLE plain ADD c int");
    wait_until("the event is there", || {
        two.direct.value("SELECT count(*) FROM pgsluice.events WHERE what = 'done' AND statement LIKE '%ADD c int%'")
            == "1"
    });
}

#[test]
fn a_ledger_that_cannot_be_asked_allows_nothing() {
    let server = &SERVER;
    let ledger = new_database(server, "ledger_lost");
    let mut direct = Client::connect(server.port, &server.user, &ledger);
    direct.ok("CREATE ROLE sluice LOGIN");
    pgsluice_install(&mut direct, "sluice");
    let stage = Stage::on(server, "lost", |config| with_ledger(config, &ledger, "sluice"));
    let mut stage = stage;
    wait_until("the ledger is kept", || state(&stage.ann) == "kept");
    let first = number(&stage.error("ALTER TABLE quick ADD b int"));
    // What is approved while the proxy cannot see it is not lost either.
    direct.ok(
        "ALTER ROLE sluice NOLOGIN; SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'sluice'",
    );
    wait_until("the proxy knows", || state(&stage.ann).starts_with("lost since"));
    let lost = stage.error("ALTER TABLE quick ADD b int");
    assert!(lost.field(b'D').unwrap().contains("The ledger of pgsluice cannot be reached"), "{lost:?}");
    assert_eq!(lost.field(b'C').unwrap(), "55000");
    assert_eq!(stage.ann.error(&format!("APPROVE {first}")), "08006");
    assert_eq!(stage.ann.error("HOLD ALL"), "08006");
    // What no rule holds goes on.
    stage.client.ok("ALTER TABLE plain ADD b int");
    // A client that waits goes on when the ledger is back.
    stage.client.send_query("ALTER TABLE held ADD b int");
    let notice = stage.client.read();
    assert_eq!(notice.field(b'M').unwrap(), "ALTER TABLE is held");
    direct.ok(&format!("SELECT pgsluice.decide({first}, 'approve', 'olga', 'here', '', NULL)"));
    direct.ok("ALTER ROLE sluice LOGIN");
    wait_until("the ledger is kept again", || state(&stage.ann) == "kept");
    let number = stage.ann.held();
    stage.ann.ok(&format!("APPROVE {number}"));
    assert_eq!(stage.client.outcome().error, None);
    stage.client.ok("ALTER TABLE quick ADD b int");
    assert_eq!(stage.columns("quick"), "id,a,b");
    // The event of the change that ran meanwhile was kept.
    wait_until("the event is there", || {
        direct.value("SELECT count(*) FROM pgsluice.events WHERE what = 'done' AND statement LIKE '%plain%'") == "1"
    });
}

#[test]
fn a_proxy_that_dies_leaves_nothing_open() {
    let mut two = Two::new("dies");
    let number = number(&two.first.error("ALTER TABLE quick ADD b int"));
    two.sql("olga").ok(&format!("SELECT pgsluice.approve({number})"));
    // It runs in a proxy of which nothing is heard any more.
    two.direct.ok("INSERT INTO pgsluice.proxy (id, name, seen) OVERRIDING SYSTEM VALUE VALUES (99, 'gone', now() - interval '2 minutes')");
    two.direct.ok(&format!("SELECT pgsluice.step({number}, 'start', NULL, NULL, NULL, NULL, NULL, NULL, 99)"));
    two.direct.ok(&format!("INSERT INTO pgsluice.waiter VALUES ({number}, 99, 1)"));
    wait_until("the others find out", || two.state(number) == "failed");
    assert_eq!(two.direct.value("SELECT count(*) FROM pgsluice.waiter"), "0", "it waits for nobody");
    let why = two.direct.value(&format!("SELECT why FROM pgsluice.events WHERE change = {number} AND what = 'failed'"));
    assert_eq!(why, "its proxy has ended");
}

#[test]
fn a_thousand_quick_changes_have_a_thousand_events() {
    let mut two = Two::new("many");
    two.first.client.ok("CREATE TABLE many (a int)");
    for n in 0..500 {
        two.first.client.ok(&format!("ALTER TABLE many ADD c{n} int"));
        two.first.client.ok(&format!("ALTER TABLE many DROP c{n}"));
    }
    let count = "SELECT count(*) FROM pgsluice.events WHERE what = 'done' AND statement LIKE 'ALTER TABLE many %'";
    wait_until("all events are there", || two.direct.value(count) == "1000");
    // No number was given twice.
    let twice = two.direct.value("SELECT count(*) FROM (SELECT FROM pgsluice.events WHERE what = 'done' GROUP BY change HAVING count(*) > 1 AND change IS NOT NULL) AS t");
    assert_eq!(twice, "0");
}

/// A backfill that runs in the first proxy, and the number of its change.
fn backfill(two: &mut Two) -> u64 {
    two.first.direct.ok("CREATE TABLE public.switch (go bool NOT NULL); INSERT INTO public.switch VALUES (false)");
    two.first.direct.ok("INSERT INTO plain SELECT g, g FROM generate_series(1, 200000) g; ANALYZE plain");
    two.first.client.send_query("ALTER TABLE plain ADD COLUMN r float8 DEFAULT random()");
    let sql = "SELECT coalesce(max(id), 0) FROM pgsluice.changes WHERE state = 'running' AND waiting LIKE '%paused: the condition%'";
    wait_until("the backfill is in the ledger", || two.direct.value(sql) != "0");
    two.direct.value(sql).parse().unwrap()
}

fn with_switch(config: &mut Config) {
    config.backfill.pause_ratio = 0.0;
    config.backfill.condition = Some("(SELECT go FROM public.switch)".to_owned());
}

#[test]
fn a_backfill_is_slowed_down_and_held_from_elsewhere() {
    let mut two = Two::with("steer", with_switch);
    let number = backfill(&mut two);
    let (mut olga, other) = (two.sql("olga"), two.console());
    assert_eq!(two.sql("vera").query(&format!("SELECT pgsluice.throttle({number}, 0.5)")).error.unwrap(), "42501");
    for wrong in ["1", "0.995", "-0.5", "NULL", "'NaN'"] {
        let error = olga.query(&format!("SELECT pgsluice.throttle({number}, {wrong})")).error;
        assert_eq!(error.as_deref(), Some("22023"), "{wrong}");
    }
    assert_eq!(olga.query("SELECT pgsluice.throttle(4711, 0.5)").error.unwrap(), "42704");
    olga.ok(&format!("SELECT pgsluice.throttle({number}, 0.9, 'busy')"));
    let throttle = |two: &Two| two.first.ann.of(number, "throttle");
    wait_until("it is slower", || throttle(&two).starts_with("throttled by olga to ratio 0.9: busy"));
    other.ok(&format!("UNTHROTTLE {number}"));
    wait_until("it is not", || throttle(&two).is_empty());
    olga.ok(&format!("SELECT pgsluice.hold({number}, 'lunch')"));
    wait_until("it is held", || two.first.ann.of(number, "hold").starts_with("held by olga: lunch"));
    two.first.direct.ok("UPDATE switch SET go = true");
    wait_until("it stops", || two.first.ann.of(number, "stopped") == "held by olga: lunch");
    wait_until("the ledger shows it", || {
        two.direct
            .value(&format!("SELECT waiting FROM pgsluice.changes WHERE id = {number}"))
            .contains("held by olga: lunch")
    });
    other.ok(&format!("RELEASE {number} REASON 'lunch is over'"));
    assert_eq!(two.first.client.outcome().error, None);
    wait_until("the end is taken down", || two.state(number) == "done");
    assert_eq!(two.events(number), "throttle 0.9, unthrottle, hold, release, done");
    // It does not run any more.
    assert_eq!(olga.query(&format!("SELECT pgsluice.hold({number})")).error.unwrap(), "55000");
}

const TWO_GATES: &str = r#"
[[rule]]
name = "both gates"
match = { relation = "plain" }
verdict = "hold"
gate = "both"
wait_for = "0"
"#;

#[test]
fn the_second_gate_is_asked_in_the_ledger_too() {
    let mut two = Two::with("gates", |config| config.gate = rules(TWO_GATES));
    two.first.direct.ok("INSERT INTO plain SELECT g, g FROM generate_series(1, 1000) g; ANALYZE plain");
    two.first.client.send_query("ALTER TABLE plain ALTER a SET NOT NULL");
    let number = two.first.ann.held();
    two.sql("olga").ok(&format!("SELECT pgsluice.approve({number}, 'begin')"));
    let asked = |two: &mut Two| two.events(number) == "held, approve, started, held anew";
    wait_until("it is asked about again", || asked(&mut two));
    assert_eq!(
        two.first
            .direct
            .value("SELECT attnotnull FROM pg_attribute WHERE attrelid = 'plain'::regclass AND attname = 'a'"),
        "f"
    );
    two.console().ok(&format!("APPROVE {number} REASON 'and end'"));
    assert_eq!(two.first.client.outcome().error, None);
    wait_until("the end is taken down", || two.state(number) == "done");
    assert_eq!(two.events(number), "held, approve, started, held anew, approve, started, done");
}
