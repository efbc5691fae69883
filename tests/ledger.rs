//! The ledger: what operators decide in SQL, several proxies, restarts, and a ledger that cannot be asked.
//!
//! The roles that decide log in to the ledger's database as themselves. The author of every statement is the superuser of the throw-away server.

mod common;
#[path = "holds/stage.rs"]
mod stage;

use common::{Client, new_database, port, proxy, wait_until};
use pgsluice::config::{Config, Operator as OperatorSettings};
use pgsluice::server::Running;
use stage::{Operator, RULES, SERVER, Stage, error, number, rules};
use std::time::Duration;

/// A stage whose decisions are in a ledger, with another proxy beside it.
struct Two {
    first: Stage,
    second: Running,
    folder: std::path::PathBuf,
    ledger: String,
    /// The ledger's database, as the superuser.
    direct: Client,
}

fn with_ledger(config: &mut Config, database: &str, user: &str) {
    config.operator = OperatorSettings {
        user: Some(user.to_owned()),
        dbname: Some(database.to_owned()),
        ledger: true,
        ..OperatorSettings::default()
    };
}

impl Two {
    fn new(name: &str) -> Self {
        let ledger = new_database(&SERVER, &format!("ledger_{name}"));
        let first = Stage::on(&SERVER, name, |config| with_ledger(config, &ledger, &SERVER.user));
        let folder = first.folder.join("second");
        std::fs::create_dir_all(&folder).unwrap();
        let second = proxy(&SERVER, |config| {
            common::no_table_is_small(config);
            config.proxy.listen.push(pgsluice::config::Address::Unix { dir: folder.clone(), port: 6432 });
            config.gate = rules(RULES);
            with_ledger(config, &ledger, &SERVER.user);
        });
        let mut direct = Client::connect(SERVER.port, &SERVER.user, &ledger);
        for console in [&first.ann, &Operator::new(&folder, "ann")] {
            kept(console);
        }
        roles(&mut direct);
        Self { first, second, folder, ledger, direct }
    }

    fn client(&self) -> Client {
        Client::connect(port(&self.second), &self.first.user, &self.first.database)
    }

    fn console(&self) -> Operator {
        Operator::new(&self.folder, "ann")
    }

    /// The ledger as a role that decides.
    fn sql(&self, role: &str) -> Client {
        Client::connect(SERVER.port, role, &self.ledger)
    }

    /// The state of a change in the ledger.
    fn state(&mut self, number: u64) -> String {
        self.direct.value(&format!("SELECT state FROM pgsluice.changes WHERE id = {number}"))
    }

    /// The events of a change, the oldest first.
    fn events(&mut self, number: u64) -> String {
        self.direct
            .value(&format!("SELECT string_agg(what, ', ' ORDER BY id) FROM pgsluice.events WHERE change = {number}"))
    }
}

/// Waits until the ledger answers.
#[track_caller]
fn kept(console: &Operator) {
    let mut last = String::new();
    let until = std::time::Instant::now() + Duration::from_secs(20);
    while last != "kept" {
        assert!(std::time::Instant::now() < until, "{last}");
        last = state(console);
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn roles(direct: &mut Client) {
    for (name, role) in [("olga", "operator"), ("otto", "operator"), ("vera", "viewer")] {
        // The roles are the server's, and the tests share it.
        direct.ok(&format!(
            "SELECT pg_advisory_lock(42); DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{name}') THEN CREATE ROLE {name} LOGIN; END IF; \
             GRANT pgsluice_{role} TO {name}; END $$; SELECT pg_advisory_unlock(42)"
        ));
    }
}

/// What SHOW STATE says of the ledger.
fn state(console: &Operator) -> String {
    console.rows("SHOW STATE").into_iter().find(|row| row[0] == "ledger").map(|row| row[1].clone()).unwrap_or_default()
}

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
    two.first.ann.ok("SHUTDOWN");
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

fn pgsluice_install(direct: &mut Client, role: &str) {
    direct.ok(&format!("BEGIN; {} COMMIT", pgsluice::ledger::script(Some(role))));
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
fn a_newer_ledger_is_not_written_to() {
    let ledger = new_database(&SERVER, "ledger_newer");
    let mut direct = Client::connect(SERVER.port, &SERVER.user, &ledger);
    pgsluice_install(&mut direct, &SERVER.user);
    direct.ok("UPDATE pgsluice.ledger SET version = 99");
    let mut stage = Stage::on(&SERVER, "newer", |config| with_ledger(config, &ledger, &SERVER.user));
    wait_until("the proxy says so", || {
        state(&stage.ann).contains("the ledger has version 99, and this proxy knows version 1")
    });
    assert!(stage.error("ALTER TABLE quick ADD b int").field(b'D').unwrap().contains("cannot be reached"));
    assert_eq!(
        direct.value("SELECT (SELECT count(*) FROM pgsluice.change) + (SELECT count(*) FROM pgsluice.proxy)"),
        "0"
    );
    // It is as the proxy knows it again.
    direct.ok("UPDATE pgsluice.ledger SET version = 1");
    wait_until("the ledger is kept", || state(&stage.ann) == "kept");
}

#[test]
fn a_schema_of_a_stranger_is_not_used() {
    let ledger = new_database(&SERVER, "ledger_stranger");
    let mut direct = Client::connect(SERVER.port, &SERVER.user, &ledger);
    direct.ok("CREATE ROLE stranger LOGIN");
    for (setup, expected) in [
        ("CREATE SCHEMA pgsluice AUTHORIZATION stranger", "which belongs to the role stranger, is not trusted"),
        (
            "DROP SCHEMA pgsluice CASCADE; CREATE SCHEMA pgsluice; CREATE TABLE pgsluice.ledger (version int); ALTER TABLE pgsluice.ledger OWNER TO stranger",
            "is not trusted",
        ),
        (
            "DROP SCHEMA pgsluice CASCADE; CREATE SCHEMA pgsluice; CREATE TABLE pgsluice.other (a int)",
            "the schema pgsluice is no ledger",
        ),
    ] {
        direct.ok(setup);
        let stage = Stage::on(&SERVER, "stranger", |config| with_ledger(config, &ledger, &SERVER.user));
        wait_until(expected, || state(&stage.ann).contains(expected));
        assert_eq!(direct.value("SELECT to_regclass('pgsluice.change') IS NULL"), "t");
    }
}

#[test]
fn installed_and_taken_away_by_the_command_line() {
    let ledger = new_database(&SERVER, "ledger_cli");
    let folder = std::env::temp_dir().join(format!("pgsluice-ledger-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("proxy.toml");
    let (port, user) = (SERVER.port, &SERVER.user);
    let settings = format!(
        "[proxy]\nbackend = \"127.0.0.1:{port}\"\n[operator]\nuser = \"{user}\"\ndbname = \"{ledger}\"\nledger = true\n"
    );
    std::fs::write(&file, settings).unwrap();
    let run = |arguments: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_pgsluice"))
            .args(arguments)
            .arg("--config")
            .arg(&file)
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.success(), text(&output.stdout) + &text(&output.stderr))
    };
    let mut direct = Client::connect(port, user, &ledger);
    let (ok, printed) = run(&["install", "--print"]);
    assert!(ok && printed.starts_with("BEGIN;\nCREATE SCHEMA IF NOT EXISTS pgsluice;"), "{printed}");
    assert_eq!(direct.value("SELECT to_regnamespace('pgsluice') IS NULL"), "t");
    for _ in 0..2 {
        let (ok, said) = run(&["install"]);
        assert!(ok && said.contains("the ledger, version 1, is installed"), "{said}");
    }
    assert_eq!(direct.value("SELECT version FROM pgsluice.ledger"), "1");
    // Nothing of it is for everybody.
    let open = direct.value(
        "SELECT coalesce(string_agg(p.oid::regprocedure::text, ', '), '') FROM pg_proc p, LATERAL aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) AS a \
         WHERE p.pronamespace = 'pgsluice'::regnamespace AND a.grantee = 0",
    );
    assert_eq!(open, "");
    let (ok, said) = run(&["uninstall"]);
    assert!(ok, "{said}");
    assert_eq!(direct.value("SELECT to_regnamespace('pgsluice') IS NULL"), "t");
    let (ok, said) = run(&["uninstall", "--user", "nobody_here"]);
    assert!(!ok && said.contains("could not connect"), "{said}");
    let _ = std::fs::remove_dir_all(&folder);
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
