//! Held schema changes through the proxy: waits, tickets, approvals and the other verbs of the console, against a server.
//!
//! An operator comes over the proxy's Unix socket, under a name of their own. The proxy is a part of the test's process, so both have the same user.

mod common;
#[path = "holds/stage.rs"]
mod stage;

use common::raw::{bind, execute, parse, sync};
use common::{Client, port, wait_until};
use pgsluice::config::Config;
use pgsluice::dev::{Options, Postgres};
use stage::{RULES, SERVER, Stage, error, number, rules};
use std::time::Duration;

#[test]
fn approved_while_the_client_waits() {
    let mut stage = Stage::new("hold_wait");
    stage.client.send_query("ALTER TABLE held ADD COLUMN b text DEFAULT 'hunter2'");
    let number = stage.ann.held();
    // The client hears of it at once, and what it waits for is visible in the server.
    let notice = stage.client.read();
    assert_eq!(notice.field(b'M').unwrap(), format!("ALTER TABLE is held: change {number}"));
    assert!(
        notice.field(b'D').unwrap().contains("Rule \"second pair of eyes\" matches: it is about public.held"),
        "{notice:?}"
    );
    assert!(notice.field(b'H').unwrap().contains(&format!("APPROVE {number}")));
    let shown = stage.direct.value(
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%is held by rule%' AND pid <> pg_backend_pid()",
    );
    assert!(shown.parse::<u32>().unwrap() >= 1);
    // It holds no lock and no lane.
    stage.direct.ok("BEGIN; LOCK TABLE held; COMMIT");
    assert!(stage.ann.rows("SHOW LANES").is_empty());
    assert_eq!(stage.ann.of(number, "state"), "held");
    assert_eq!(stage.ann.of(number, "approvals"), "0 of 1");
    let plan = stage.ann.of(number, "plan");
    assert!(plan.contains("ADD COLUMN b text DEFAULT '***'") && !plan.contains("hunter2"), "{plan}");
    stage.ann.ok(&format!("APPROVE {number} REASON 'looks fine'"));
    let outcome = stage.client.outcome();
    assert_eq!((outcome.error, outcome.tags), (None, vec!["ALTER TABLE".to_owned()]));
    assert_eq!(stage.columns("held"), "id,a,b");
    assert_eq!(stage.ann.of(number, "state"), "done");
    assert!(stage.ann.of(number, "decided").contains("APPROVE by ann from a Unix socket"));
    // The approval was for one statement.
    stage.direct.ok("ALTER TABLE held DROP b");
    stage.client.send_query("ALTER TABLE held ADD COLUMN b text DEFAULT 'hunter2'");
    assert_eq!(stage.ann.held(), number);
    stage.ann.ok(&format!("REJECT {number} REASON 'once is enough'"));
    let error = error(&mut stage.client);
    assert_eq!(error.field(b'M').unwrap(), "ALTER TABLE was rejected by ann: once is enough");
    assert!(error.field(b'D').unwrap().ends_with("state=rejected"));
    assert_eq!(stage.client.query("SELECT 1").error, None);
}

#[test]
fn every_way_of_sending_waits() {
    let mut stage = Stage::new("hold_ways");
    let mut check = |sql: &str, column: &str, send: &mut dyn FnMut(&mut Client)| {
        send(&mut stage.client);
        let number = stage.ann.held();
        stage.ann.ok(&format!("APPROVE {number}"));
        let outcome = stage.client.outcome();
        assert_eq!(outcome.error, None, "{sql}");
        if outcome.status == 'T' {
            stage.client.ok("COMMIT");
        }
        assert!(stage.columns("held").split(',').any(|one| one == column), "{sql}");
        assert_eq!(stage.ann.of(number, "state"), "done", "{sql}");
    };
    check("extended", "b", &mut |client| {
        let mut bytes = parse("", "ALTER TABLE held ADD b int");
        bytes.extend([bind("", "", &[]), execute("", 0), sync()].concat());
        client.send(&bytes);
    });
    check("string", "c", &mut |client| client.send_query("SELECT 1; ALTER TABLE held ADD c int; SELECT 2"));
    check("pipeline", "d", &mut |client| {
        let mut bytes = Client::extended("SELECT 1");
        bytes.extend_from_slice(&Client::extended("ALTER TABLE held ADD d int"));
        bytes.extend_from_slice(&sync());
        client.send(&bytes);
    });
    check("block", "e", &mut |client| {
        client.ok("BEGIN; SELECT 1");
        client.send_query("ALTER TABLE held ADD e int");
    });
    // In a transaction this goes ahead of it, and waits there without a lock.
    stage.client.ok("BEGIN");
    stage.client.ok("SELECT * FROM plain");
    stage.client.send_query("CREATE INDEX made ON held (a)");
    let number = stage.ann.held();
    stage.direct.ok("DROP TABLE plain");
    stage.ann.ok(&format!("APPROVE {number}"));
    let outcome = stage.client.outcome();
    assert_eq!((outcome.error.as_deref(), outcome.status), (None, 'T'), "{outcome:?}");
    stage.client.ok("COMMIT");
    assert_eq!(stage.direct.value("SELECT indisvalid FROM pg_index WHERE indexrelid = 'made'::regclass"), "t");
}

/// A statement that was approved goes ahead with a later one of its transaction, and is not asked about once more.
#[test]
fn a_statement_that_goes_ahead_with_another_is_asked_about_once() {
    let mut stage = Stage::new("hold_prefix");
    stage.client.ok("BEGIN");
    stage.client.send_query("ALTER TABLE held ADD b int");
    let number = stage.ann.held();
    stage.ann.ok(&format!("APPROVE {number}"));
    assert_eq!(stage.client.outcome().error, None);
    stage.client.send_query("CREATE INDEX of_b ON held (b)");
    // The statement before it is done ahead of the transaction already, and no lock is left of it.
    let number = stage.ann.held();
    stage.direct.ok("BEGIN; LOCK TABLE held; COMMIT");
    stage.ann.ok(&format!("APPROVE {number}"));
    assert_eq!(stage.client.outcome().error, None);
    stage.client.ok("COMMIT");
    assert_eq!(stage.columns("held"), "id,a,b");
    assert_eq!(stage.direct.value("SELECT indisvalid FROM pg_index WHERE indexrelid = 'of_b'::regclass"), "t");
    let states = stage.ann.rows("SHOW CHANGES").into_iter().map(|row| row[11].clone());
    assert_eq!(states.collect::<Vec<_>>(), ["done", "done"]);
}

#[test]
fn a_ticket_and_then_the_same_statement() {
    let mut stage = Stage::new("hold_ticket");
    let sql = "ALTER TABLE quick ADD b int";
    let error = stage.error(sql);
    assert_eq!(error.field(b'C').unwrap(), "55000");
    assert_eq!(error.field(b'M').unwrap(), "ALTER TABLE is held");
    let number = number(&error);
    let digest = stage.ann.of(number, "digest");
    let detail = error.field(b'D').unwrap();
    assert!(detail.starts_with(&format!("change={number} digest={digest} state=held Rule \"quick\"")), "{detail}");
    assert!(error.field(b'H').unwrap().starts_with(&format!("APPROVE {number} on the console")));
    // Blanks and comments are no other statement; another statement is another change.
    assert_eq!(self::number(&stage.error("ALTER  TABLE quick /* again */ ADD b int")), number);
    assert_ne!(self::number(&stage.error("ALTER TABLE quick ADD c int")), number);
    assert_eq!(stage.columns("quick"), "id,a");
    stage.ann.ok(&format!("APPROVE {number}"));
    assert_eq!(stage.ann.of(number, "state"), "approved");
    // Another search path is another meaning.
    stage.client.ok("SET search_path = public, pg_temp");
    stage.error(sql);
    stage.client.ok("RESET search_path");
    assert_eq!(stage.columns("quick"), "id,a");
    stage.client.ok(sql);
    assert_eq!(stage.columns("quick"), "id,a,b");
    stage.direct.ok("ALTER TABLE quick DROP b");
    assert_eq!(stage.error(sql).field(b'C').unwrap(), "55000");
}

#[test]
fn a_transaction_with_locks_gets_its_ticket_at_once() {
    let mut stage = Stage::new("hold_locks");
    stage.client.ok("BEGIN; INSERT INTO plain VALUES (1, 1)");
    let error = stage.error("ALTER TABLE held ADD b int");
    let said = [b'C', b'M', b'D', b'H'].map(|field| error.field(field).unwrap_or_default());
    assert!(said[2].contains("holds locks that make others wait"), "{said:?}");
    assert!(error.field(b'H').unwrap().starts_with("Ask #dba. APPROVE "), "{error:?}");
    let number = number(&error);
    stage.client.ok("ROLLBACK");
    stage.ann.ok(&format!("APPROVE {number}"));
    stage.client.ok("BEGIN; INSERT INTO plain VALUES (1, 1)");
    stage.client.ok("ALTER TABLE held ADD b int");
    stage.client.ok("COMMIT");
    assert_eq!(stage.columns("held"), "id,a,b");
    assert_eq!(stage.ann.of(number, "state"), "done");
}

#[test]
fn approvals_expire() {
    let mut stage = Stage::new("hold_expiry");
    let number = number(&stage.error("ALTER TABLE soon ADD b int"));
    stage.ann.ok(&format!("APPROVE {number}"));
    wait_until("the approval is over", || stage.ann.rows("SHOW CHANGES")[0][11] == "expired");
    assert_eq!(stage.ann.error(&format!("APPROVE {number}")), "55000");
    let again = stage.error("ALTER TABLE soon ADD b int");
    assert_eq!(self::number(&again), number);
    assert_eq!(stage.ann.of(number, "approvals"), "0 of 1");
    assert_eq!(stage.columns("soon"), "id,a");
}

#[test]
fn another_plan_voids_an_approval() {
    let mut stage = Stage::new("hold_plan");
    stage.direct.ok("INSERT INTO quick SELECT 1, 1; CREATE TABLE of_another (id int)");
    let sql = "DROP INDEX IF EXISTS some_index; ALTER TABLE quick ALTER a SET NOT NULL";
    let sql = sql.split("; ").last().unwrap();
    let number = number(&stage.error(sql));
    stage.ann.ok(&format!("APPROVE {number}"));
    // With this constraint the statement needs no check of its own.
    stage.direct.ok("ALTER TABLE quick ADD CONSTRAINT is_there CHECK (a IS NOT NULL)");
    let again = stage.error(sql);
    assert_eq!(self::number(&again), number);
    assert_eq!(stage.ann.of(number, "approvals"), "0 of 1");
    let difference = stage.ann.of(number, "difference");
    assert!(difference.contains("- ") && difference.contains("VALIDATE"), "{difference}");
    stage.ann.ok(&format!("APPROVE {number}"));
    stage.client.ok(sql);
    // While a client waits, the plan is made anew when it is approved.
    stage.client.send_query("ALTER TABLE held ALTER a SET NOT NULL");
    let number = stage.ann.held();
    stage.direct.ok("ALTER TABLE held ADD CONSTRAINT is_there_too CHECK (a IS NOT NULL)");
    stage.ann.ok(&format!("APPROVE {number}"));
    wait_until("it is asked about anew", || !stage.ann.of(number, "difference").is_empty());
    assert_eq!(stage.ann.of(number, "state"), "held");
    stage.ann.ok(&format!("APPROVE {number}"));
    assert_eq!(stage.client.outcome().error, None);
}

#[test]
fn who_may_approve() {
    let mut stage = Stage::new("hold_who");
    let (author, bob) = (stage.operator(&SERVER.user), stage.operator("bob"));
    stage.client.send_query("ALTER TABLE two ADD b int");
    let number = stage.ann.held();
    assert_eq!(author.error(&format!("APPROVE {number}")), "42501");
    stage.ann.ok(&format!("APPROVE {number}"));
    assert_eq!(stage.ann.error(&format!("APPROVE {number}")), "55000");
    assert_eq!(stage.ann.of(number, "approvals"), "1 of 2: ann");
    assert_eq!(stage.ann.of(number, "state"), "held");
    bob.ok(&format!("APPROVE {number}"));
    assert_eq!(stage.client.outcome().error, None);
    assert_eq!(stage.ann.error("APPROVE 4711"), "42704");
    // The glass is broken by whoever is there, and everybody sees it.
    stage.client.send_query("ALTER TABLE two ADD c int");
    let number = stage.ann.held();
    author.ok(&format!("FORCE {number} REASON 'the shop is down'"));
    assert_eq!(stage.client.outcome().error, None);
    assert_eq!(stage.ann.of(number, "state"), "done, forced");
    assert!(stage.ann.of(number, "decided").ends_with(": the shop is down"));
    let ticket = self::number(&stage.error("ALTER TABLE quick ADD b int"));
    author.ok(&format!("FORCE {ticket}"));
    bob.ok(&format!("UNFORCE {ticket}"));
    assert_eq!(self::number(&stage.error("ALTER TABLE quick ADD b int")), ticket);
    assert_eq!(stage.columns("quick"), "id,a");
}

#[test]
fn the_wait_ends_with_a_cancel_or_with_the_client() {
    let mut stage = Stage::new("hold_cancel");
    let sql = "ALTER TABLE held ADD b int";
    stage.client.send_query(sql);
    let number = stage.ann.held();
    stage.client.cancel(port(&stage.running));
    assert_eq!(error(&mut stage.client).field(b'C').unwrap(), "57014");
    assert_eq!(stage.ann.of(number, "state"), "cancelled");
    // pg_cancel_backend
    stage.client.send_query(sql);
    stage.ann.held();
    let cancel = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE '%is held by rule%' AND pid <> pg_backend_pid() AND state = 'active' AND datname = current_database()";
    wait_until("a nap is cancelled", || stage.direct.value(cancel) == "t");
    assert_eq!(error(&mut stage.client).field(b'C').unwrap(), "57014");
    // An operator.
    stage.client.send_query(sql);
    stage.ann.held();
    stage.ann.ok(&format!("CANCEL {number} REASON 'no time'"));
    let cancelled = error(&mut stage.client);
    assert_eq!(cancelled.field(b'M').unwrap(), "ALTER TABLE was cancelled by ann: no time");
    assert_eq!(cancelled.field(b'C').unwrap(), "57014");
    // The session's own timeout.
    stage.client.ok("SET statement_timeout = '200ms'");
    assert_eq!(stage.error(sql).field(b'C').unwrap(), "57014");
    // A client that leaves: its change waits for a decision, and for the same statement.
    let mut other = stage.client();
    other.send_query(sql);
    let number = stage.ann.held();
    drop(other);
    wait_until("the client is gone", || stage.ann.of(number, "clients_waiting") == "0");
    assert_eq!(stage.ann.of(number, "state"), "held");
    stage.ann.ok(&format!("APPROVE {number}"));
    stage.client.ok(sql);
    assert_eq!(stage.columns("held"), "id,a,b");
}

#[test]
fn what_runs_can_be_cancelled_by_its_number() {
    let mut stage = Stage::new("hold_running");
    stage.direct.ok("BEGIN; LOCK TABLE held IN ACCESS SHARE MODE");
    stage.client.send_query("ALTER TABLE held ADD b int");
    let number = stage.ann.held();
    stage.ann.ok(&format!("APPROVE {number}"));
    wait_until("it waits for its lock", || !stage.ann.rows("SHOW BLOCKERS").is_empty());
    assert_eq!(stage.ann.of(number, "state"), "running");
    assert_eq!(stage.ann.error(&format!("REJECT {number}")), "55000");
    stage.ann.ok(&format!("CANCEL {number}"));
    assert_eq!(error(&mut stage.client).field(b'C').unwrap(), "57014");
    assert_eq!(stage.ann.of(number, "state"), "failed");
    stage.ann.ok(&format!("RETRY {number}"));
    assert_eq!(stage.ann.of(number, "state"), "held");
}

#[test]
fn operators_hold_by_hand() {
    let mut stage = Stage::new("hold_hand");
    stage.client.ok("ALTER TABLE plain ADD b int");
    stage.ann.ok("HOLD ALL REASON 'an incident'");
    assert_eq!(stage.ann.error("HOLD ALL"), "55000");
    let holds = stage.ann.rows("SHOW HOLDS");
    assert_eq!((holds[0][0].as_str(), holds[0][1].as_str(), holds[0][4].as_str()), ("HOLD ALL", "ann", "an incident"));
    let explained = stage.client.ok("EXPLAIN ALTER TABLE plain ADD c int").rows;
    assert_eq!(explained[0][0].as_deref(), Some("gate     hold, by rule \"HOLD ALL\""));
    stage.client.send_query("ALTER TABLE plain ADD c int");
    let number = stage.ann.held();
    let mut other = stage.client();
    other.send_query("CREATE VIEW v AS SELECT 1");
    wait_until("both wait", || stage.ann.waiting().len() == 2);
    assert_eq!(stage.ann.rows("SHOW HOLDS")[0][5], "2");
    // One of them may pass.
    stage.ann.ok(&format!("APPROVE {number}"));
    assert_eq!(stage.client.outcome().error, None);
    stage.ann.ok("RELEASE ALL");
    assert_eq!(other.outcome().error, None);
    assert_eq!(stage.ann.error("RELEASE ALL"), "42704");
    stage.client.ok("ALTER TABLE plain ADD d int");
    // One relation, and one database.
    stage.ann.ok("HOLD RELATION public.plain");
    stage.client.send_query("ALTER TABLE plain ADD e int");
    stage.ann.held();
    stage.direct.ok("SELECT 1");
    stage.ann.ok("RELEASE RELATION public.plain");
    assert_eq!(stage.client.outcome().error, None);
    let database = stage.database.clone();
    stage.ann.ok(&format!("HOLD DATABASE {database}"));
    stage.client.send_query("ALTER TABLE plain ADD f int");
    stage.ann.held();
    stage.ann.ok(&format!("RELEASE DATABASE {database}"));
    assert_eq!(stage.client.outcome().error, None);
}

#[test]
fn a_rule_that_is_gone_holds_nothing() {
    let mut stage = Stage::new("hold_reload");
    stage.client.send_query("ALTER TABLE held ADD b int");
    let number = stage.ann.held();
    let mut config = Config { gate: rules(RULES), ..Config::default() };
    config.gate.rules.retain(|rule| rule.name != "second pair of eyes");
    stage.running.shared().set_rules(pgsluice::gate::Rules::new(&config).unwrap());
    assert_eq!(stage.client.outcome().error, None);
    assert_eq!(stage.ann.of(number, "state"), "released");
    assert_eq!(stage.columns("held"), "id,a,b");
}

/// Many clients wait: 200, or as many as `PGSLUICE_TEST_HELD` says. What a thousand cost is in docs/gate.md. Here a multiple of that is allowed.
#[test]
fn many_held_statements() {
    let asked: Option<usize> = std::env::var("PGSLUICE_TEST_HELD").ok().and_then(|count| count.parse().ok());
    let count = asked.unwrap_or(200);
    let server = Postgres::start(Options { max_connections: count as u32 + 30, ..Options::default() }).unwrap();
    let mut stage = Stage::on(&server, "hold_many", |config| config.proxy.max_clients = count + 30);
    // Each has a table of its own: statements about one table take turns until they are held.
    (0..count).for_each(|at| drop(stage.direct.ok(&format!("CREATE TABLE held_{at} (id int)"))));
    let before = stage.ann.rows("SHOW MEMORY LIKE 'resident'")[0][1].parse::<u64>().unwrap();
    let mut clients: Vec<Client> = (0..count).map(|_| stage.client()).collect();
    let connected = stage.ann.rows("SHOW MEMORY LIKE 'resident'")[0][1].parse::<u64>().unwrap();
    for (at, client) in clients.iter_mut().enumerate() {
        client.send_query(&format!("ALTER TABLE held_{at} ADD c int"));
    }
    wait_until("all wait", || stage.ann.waiting().len() == count);
    let held = stage.ann.rows("SHOW MEMORY LIKE 'resident'")[0][1].parse::<u64>().unwrap();
    if asked.is_some() {
        // The longest naps come after a hundred seconds.
        std::thread::sleep(Duration::from_secs(110));
    }
    let naps = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
        AND query LIKE '%is held by rule%' AND query_start > clock_timestamp() - interval '1 second'";
    let naps: usize = stage.direct.value(naps).parse().unwrap();
    println!("{count} held: {naps} naps began in a second, {connected} - {before} kB connected, {held} kB held");
    // A nap takes five seconds then.
    assert!(asked.is_none() || naps * 3 < count, "{naps}");
    assert!(held < connected + 200 * count as u64, "{before} {connected} {held}");
    for number in stage.ann.waiting() {
        stage.ann.ok(&format!("REJECT {number}"));
    }
    for client in &mut clients {
        assert_eq!(error(client).field(b'C').unwrap(), "55000");
    }
}
