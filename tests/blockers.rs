//! Sessions that are idle in a transaction and in the way of a schema change: `blockers = "terminate"` of a rule.

mod common;

use common::end::assert_fatal;
use common::{Client, new_database, no_table_is_small, port, postgres, proxy, wait_until};
use pgsluice::config::{Config, Overrides};
use pgsluice::dev::Postgres;
use pgsluice::server::Running;
use std::sync::LazyLock;

static SERVER: LazyLock<Postgres> = LazyLock::new(|| {
    let server = postgres();
    let mut direct = Client::connect(server.port, &server.user, "postgres");
    direct.ok("CREATE ROLE deploy LOGIN; CREATE ROLE worker LOGIN; CREATE ROLE backup LOGIN");
    server
});

const RULE: &str = r#"
[[rule]]
name = "forgotten transactions"
match = { relation = "t" }
verdict = "allow"
blockers = "terminate"
blockers_after = "400ms"
blockers_except = ["back*"]
"#;

struct Stage {
    running: Running,
    database: String,
    direct: Client,
}

impl Stage {
    fn new(name: &str) -> Self {
        let running = proxy(&SERVER, |config| {
            no_table_is_small(config);
            config.gate = Config::parse(RULE, Overrides::default()).unwrap().gate;
        });
        let database = new_database(&SERVER, name);
        let mut direct = Client::connect(SERVER.port, &SERVER.user, &database);
        direct.ok("CREATE TABLE t (id int, a int); INSERT INTO t VALUES (1, 1); GRANT ALL ON t TO PUBLIC");
        Self { running, database, direct }
    }

    fn client(&self, role: &str) -> Client {
        Client::connect(port(&self.running), role, &self.database)
    }

    /// A session of the role that has read the table and is idle in its transaction.
    fn idle(&self, role: &str) -> Client {
        let mut client = self.client(role);
        client.ok("BEGIN; SELECT * FROM t");
        client
    }

    fn ended(&self) -> u64 {
        self.running.shared().metrics.blockers_ended.value()
    }
}

#[test]
fn an_idle_session_is_ended() {
    let mut stage = Stage::new("blockers_idle");
    let idle = stage.idle("worker");
    let mut aborted = stage.client("worker");
    aborted.ok("BEGIN; LOCK TABLE t IN ACCESS SHARE MODE; SAVEPOINT s");
    assert!(aborted.query("SELECT 1/0").error.is_some());
    let mut client = stage.client(&SERVER.user);
    let outcome = client.query("ALTER TABLE t ADD COLUMN b int");
    assert_eq!(outcome.error, None, "{outcome:?}");
    assert_eq!(stage.ended(), 2);
    for gone in [idle, aborted] {
        assert_fatal(&gone.last_words(), "57P01");
    }
    let columns = "SELECT string_agg(attname, ',' ORDER BY attnum) FROM pg_attribute WHERE attrelid = 't'::regclass AND attnum > 0";
    assert_eq!(stage.direct.value(columns), "id,a,b");
}

#[test]
fn a_session_that_works_or_is_excepted_is_left_alone() {
    let mut stage = Stage::new("blockers_left");
    let mut backup = stage.idle("backup");
    let mut works = stage.client("worker");
    works.send_query("BEGIN; SELECT * FROM t; SELECT pg_sleep(2); COMMIT; SELECT 'it was not ended'");
    let running =
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%it was not ended%' AND pid <> pg_backend_pid()";
    wait_until("it works", || stage.direct.value(running) == "1");
    let mut client = stage.client(&SERVER.user);
    client.send_query("ALTER TABLE t ADD COLUMN b int");
    let told = works.outcome();
    assert_eq!(told.error, None, "{told:?}");
    // The backup has been idle for longer than the rule says by now.
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '/* pgsluice: waiting for ACCESS EXCLUSIVE%user backup%'";
    wait_until("it waits for the backup", || stage.direct.value(waits) == "1");
    assert_eq!(stage.ended(), 0);
    backup.ok("COMMIT");
    assert_eq!(client.outcome().error, None);
    assert_eq!(stage.ended(), 0);
}

#[test]
fn a_role_that_may_not_ends_nobody() {
    let mut stage = Stage::new("blockers_right");
    stage.direct.ok("ALTER TABLE t OWNER TO deploy");
    let (mut worker, own) = (stage.idle("worker"), stage.idle("deploy"));
    let mut client = stage.client("deploy");
    client.send_query("ALTER TABLE t ADD COLUMN b int");
    // Its own sessions are ended.
    wait_until("its own is ended", || stage.ended() == 1);
    drop(own);
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '/* pgsluice: waiting for ACCESS EXCLUSIVE%' AND usename = 'deploy'";
    wait_until("it waits", || stage.direct.value(waits) == "1");
    worker.ok("COMMIT");
    let outcome = client.outcome();
    assert_eq!(outcome.error, None, "{outcome:?}");
    assert_eq!(stage.ended(), 1);
}

#[test]
fn in_a_transaction_nobody_is_ended() {
    let mut stage = Stage::new("blockers_block");
    let mut worker = stage.idle("worker");
    let mut client = stage.client(&SERVER.user);
    client.ok("BEGIN; SELECT 1");
    client.send_query("ALTER TABLE t ADD COLUMN b int");
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '/* pgsluice: waiting for ACCESS EXCLUSIVE%user worker%for 1 s%'";
    wait_until("it waits for a second", || stage.direct.value(waits) == "1");
    assert_eq!(stage.ended(), 0);
    worker.ok("COMMIT");
    assert_eq!(client.outcome().error, None);
    client.ok("COMMIT");
}
