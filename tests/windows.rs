//! Windows through the proxy, against a server: a statement waits until its window opens, by the clock or by a condition, and hears why.

mod common;

use common::{Client, Message, new_database, no_table_is_small, port, postgres, proxy, wait_until};
use pgsluice::config::{Config, Overrides};
use pgsluice::dev::Postgres;
use pgsluice::gate::Rules;
use pgsluice::server::Running;
use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

/// One server for all; it ends with this process.
static SERVER: LazyLock<Postgres> = LazyLock::new(postgres);

const CLOSED: &str = "NOT EXISTS (SELECT FROM public.backups)";

struct Stage {
    running: Running,
    direct: Client,
    client: Client,
}

/// A window `w`, and a rule by which ALTER TABLE waits for it.
fn text(window: &str, wait_for: &str) -> String {
    format!(
        "[[window]]\nname = \"w\"\n{window}\n[[rule]]\nname = \"r\"\nmatch = {{ family = \"column\" }}\nverdict = \"window\"\nwindow = \"w\"\nwait_for = \"{wait_for}\"\n"
    )
}

fn config(text: &str) -> Config {
    Config::parse(text, Overrides::default()).unwrap_or_else(|error| panic!("{text}: {error}"))
}

impl Stage {
    fn new(name: &str, rules: &str) -> Self {
        let gate = config(rules).gate;
        let running = proxy(&SERVER, |config| {
            no_table_is_small(config);
            config.gate = gate;
        });
        let database = new_database(&SERVER, name);
        let mut direct = Client::connect(SERVER.port, &SERVER.user, &database);
        direct.ok(
            "CREATE TABLE t (id int); CREATE TABLE backups (id int); INSERT INTO backups VALUES (1); CREATE SEQUENCE s",
        );
        let client = Client::connect(port(&running), &SERVER.user, &database);
        Self { running, direct, client }
    }

    fn with_condition(name: &str, condition: &str, wait_for: &str) -> Self {
        Self::new(name, &text(&format!("condition = \"{condition}\""), wait_for))
    }

    /// Waits until the client's statement waits for the window.
    fn waits(&mut self) {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%waits for the window \"w\"%' AND pid = ";
        let sql = format!("{sql}{}", self.client.pid);
        wait_until("it waits", || self.direct.value(&sql) == "1");
    }

    fn columns(&mut self) -> String {
        let sql =
            "SELECT count(*) FROM pg_attribute WHERE attrelid = 't'::regclass AND attnum > 0 AND NOT attisdropped";
        self.direct.value(sql)
    }

    #[track_caller]
    fn error(&mut self, sql: &str) -> Message {
        self.client.send_query(sql);
        let messages = self.client.read_up_to(b"Z");
        messages.into_iter().find(|message| message.tag == b'E').expect("an error")
    }
}

/// `HH:MM` of a number of minutes since 1970, in UTC.
fn clock(minutes: u64) -> String {
    format!("{:02}:{:02}", minutes / 60 % 24, minutes % 60)
}

/// It takes up to a minute, since hours of windows have no seconds.
#[test]
fn a_statement_waits_until_the_hours_begin() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let opens = (now + 2) / 60 + 1;
    let hours = format!("hours = \"{}-{}\"", clock(opens), clock(opens + 120));
    let mut stage = Stage::new("window_clock", &text(&hours, "4min"));
    stage.client.send_query("ALTER TABLE t ADD COLUMN a int");
    let notice = stage.client.read();
    assert_eq!(notice.field(b'M').unwrap(), "ALTER TABLE waits for the window \"w\"");
    let detail = notice.field(b'D').unwrap();
    assert!(detail.contains("Rule \"r\" matches: the family is column.") && detail.contains("opens at "), "{detail}");
    assert!(notice.field(b'H').unwrap().starts_with("The client waits for "), "{notice:?}");
    stage.waits();
    // It holds no lock.
    stage.direct.ok("BEGIN; LOCK TABLE t; COMMIT");
    let begun = stage.client.outcome();
    let ended = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    assert_eq!(begun.error, None);
    assert!(ended >= opens * 60 && ended < opens * 60 + 30, "{ended} {opens}");
    assert_eq!(stage.columns(), "2");
}

#[test]
fn a_statement_waits_until_the_condition_is_true() {
    let mut stage = Stage::with_condition("window_condition", CLOSED, "0");
    stage.client.send_query("ALTER TABLE t ADD COLUMN a int");
    let notice = stage.client.read();
    let detail = notice.field(b'D').unwrap();
    assert!(
        detail.ends_with("The condition of the window (00:00-24:00, every day, UTC, with a condition) is not true."),
        "{detail}"
    );
    stage.waits();
    stage.direct.ok("BEGIN; LOCK TABLE t, backups; COMMIT");
    assert_eq!(stage.columns(), "1");
    stage.direct.ok("TRUNCATE backups");
    assert_eq!(stage.client.outcome().error, None);
    assert_eq!(stage.columns(), "2");
    // From now on nothing waits.
    stage.client.ok("ALTER TABLE t ADD COLUMN b int");
}

/// A transaction that has only read waits, and is as it was then. One that makes others wait does not.
#[test]
fn a_transaction_waits_too() {
    let mut stage = Stage::with_condition("window_block", CLOSED, "0");
    stage.client.ok("SET search_path = public");
    stage.client.ok("BEGIN");
    stage.client.ok("SELECT 1");
    stage.client.send_query("ALTER TABLE t ADD COLUMN a int");
    stage.waits();
    stage.direct.ok("TRUNCATE backups");
    assert_eq!(stage.client.outcome().error, None);
    assert_eq!(stage.client.value("SHOW transaction_read_only"), "off");
    assert_eq!(stage.client.value("SHOW search_path"), "public");
    assert_eq!(stage.client.value("SHOW statement_timeout"), "0");
    stage.client.ok("COMMIT");
    assert_eq!(stage.columns(), "2");
    stage.direct.ok("INSERT INTO backups VALUES (1)");
    stage.client.ok("BEGIN; INSERT INTO t VALUES (1)");
    let error = stage.error("ALTER TABLE t ADD COLUMN b int");
    assert_eq!(error.field(b'C').unwrap(), "55000");
    assert!(error.field(b'D').unwrap().ends_with("so that it does not wait itself."), "{error:?}");
    assert_eq!(stage.client.query("SELECT 1").error.as_deref(), Some("25P02"));
    stage.client.ok("ROLLBACK");
}

#[test]
fn a_window_that_does_not_open_says_why() {
    for (name, condition, why) in [
        ("false", CLOSED, "is not true."),
        ("null", "NULL -- why", "is not true."),
        ("missing", "EXISTS (SELECT FROM nowhere)", "fails: relation \"nowhere\" does not exist."),
        ("writes", "nextval('public.s') > 0", "fails: cannot execute nextval() in a read-only transaction."),
        ("slow", "(SELECT true FROM pg_sleep(600))", "fails: it takes longer than 5 s."),
        ("two", "true); DROP TABLE public.t; SELECT (true", "fails: syntax error at or near \";\"."),
    ] {
        let mut stage = Stage::with_condition(&format!("window_{name}"), condition, "100ms");
        let error = stage.error("ALTER TABLE t ADD COLUMN a int");
        assert_eq!(error.field(b'C').unwrap(), "55000", "{name}: {error:?}");
        assert_eq!(error.field(b'M').unwrap(), "ALTER TABLE is allowed only in the window \"w\"");
        let detail = error.field(b'D').unwrap();
        assert!(detail.contains("The condition of the window") && detail.ends_with(why), "{name}: {detail}");
        assert_eq!(stage.client.value("SELECT 1"), "1");
        assert_eq!(stage.columns(), "1");
    }
}

/// A condition that is asked in the client's transaction fails in a savepoint.
#[test]
fn a_condition_that_fails_leaves_the_transaction_to_the_rule() {
    let rules = "[[window]]\nname = \"w\"\ncondition = \"EXISTS (SELECT FROM nowhere)\"\n[[rule]]\nname = \"r\"\nmatch = { relation = \"other\" }\nverdict = \"window\"\nwindow = \"w\"\n";
    let mut stage = Stage::new("window_savepoint", rules);
    stage.client.ok("BEGIN");
    stage.client.ok("ALTER TABLE t ADD COLUMN a int");
    stage.client.ok("COMMIT");
    assert_eq!(stage.columns(), "2");
}

/// *Not while* something is at work: a rule refuses in a window with a condition, and a condition that fails does not let it run.
#[test]
fn a_rule_refuses_in_a_window_with_a_condition() {
    let rules = |condition: &str| {
        format!(
            "[[window]]\nname = \"w\"\ncondition = \"{condition}\"\n[[rule]]\nname = \"not while a backup runs\"\nmatch = {{ in_window = \"w\" }}\nverdict = \"refuse\"\n"
        )
    };
    let mut stage = Stage::new("window_refuse", &rules("EXISTS (SELECT FROM public.backups)"));
    let error = stage.error("ALTER TABLE t ADD COLUMN a int");
    assert_eq!(error.field(b'D').unwrap(), "Rule \"not while a backup runs\" matches: the window \"w\" is open.");
    stage.direct.ok("TRUNCATE backups");
    stage.client.ok("ALTER TABLE t ADD COLUMN a int");
    let other = Rules::new(&config(&rules("nowhere"))).unwrap();
    stage.running.shared().set_rules(other);
    let error = stage.error("ALTER TABLE t ADD COLUMN b int");
    assert!(error.field(b'D').unwrap().ends_with("perhaps the window \"w\" is open."), "{error:?}");
}

#[test]
fn a_wait_ends_with_a_cancel_with_the_timeout_and_with_other_rules() {
    let mut stage = Stage::with_condition("window_cancel", CLOSED, "0");
    let sql = "ALTER TABLE t ADD COLUMN a int";
    stage.client.send_query(sql);
    stage.waits();
    stage.direct.ok(&format!("SELECT pg_cancel_backend({})", stage.client.pid));
    assert_eq!(stage.client.outcome().error.as_deref(), Some("57014"));
    stage.client.ok("SET statement_timeout = '300ms'");
    assert_eq!(stage.client.query(sql).error.as_deref(), Some("57014"));
    stage.client.ok("RESET statement_timeout");
    stage.client.send_query(sql);
    stage.waits();
    stage.running.shared().set_rules(Rules::default());
    assert_eq!(stage.client.outcome().error, None);
    assert_eq!(stage.columns(), "2");
}

#[test]
fn explain_says_what_the_window_depends_on() {
    let mut stage = Stage::with_condition("window_explain", CLOSED, "0");
    let explain = |stage: &mut Stage| -> String {
        let rows = stage.client.ok("EXPLAIN ALTER TABLE t ADD COLUMN a int").rows;
        rows.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect::<Vec<_>>().join("\n")
    };
    let closed = "the hours of the window \"w\" are open, and its condition is not known to be true";
    assert!(explain(&mut stage).contains(closed), "{}", explain(&mut stage));
    stage.direct.ok("TRUNCATE backups");
    assert!(explain(&mut stage).contains("the window \"w\" is open"), "{}", explain(&mut stage));
}
