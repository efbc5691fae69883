//! Tests of the gate through the proxy, against a server: what a verdict means for a statement in each protocol, in and outside a transaction, in
//! strings and pipelines, and in EXPLAIN.

mod common;

use common::raw::{bind, execute, parse};
use common::{Client, Outcome, new_database, no_table_is_small, port, postgres, proxy};
use pgsluice::config::{Config, Mode, Overrides};
use pgsluice::dev::Postgres;
use pgsluice::gate::Rules;
use pgsluice::server::Running;
use std::sync::LazyLock;

/// One server for all; it ends with this process.
static SERVER: LazyLock<Postgres> = LazyLock::new(postgres);

const RULES: &str = r#"
[[window]]
name = "never now"
hours = "00:00-00:01"
days = "mon"
zone = "UTC"

[[rule]]
name = "scratch"
match = { relation = "tmp_*" }
verdict = "allow"

[[rule]]
name = "no drops"
match = { destructive = true }
verdict = "refuse"
message = "nobody drops data here"
hint = "Ask #dba."

[[rule]]
name = "grants are made elsewhere"
match = { form = ["GRANT, REVOKE", "CREATE VIEW", "CREATE TABLE AS*"] }
verdict = "refuse"

[[rule]]
name = "as written"
match = { relation = "guarded" }
verdict = "guard"

[[rule]]
name = "second pair of eyes"
match = { relation = "held", size_over = "1kB" }
verdict = "hold"
approvers = 1
wait_for = "20ms"

[[rule]]
name = "at night"
match = { relation = "public.nightly" }
verdict = "window"
window = "never now"

[[rule]]
name = "short"
match = { relation = "short" }
verdict = "allow"
deadline = "300ms"

[[rule]]
name = "not in a transaction"
match = { relation = "alone" }
verdict = "plan"
in_transaction = "refuse"
"#;

const TABLES: &str = "CREATE TABLE plain (id int, a int); CREATE TABLE tmp_a (id int); CREATE TABLE guarded (id int, a int);
    CREATE TABLE held (id int, a int); INSERT INTO held SELECT 1, 1; CREATE TABLE nightly (id int, a int);
    CREATE TABLE short (id int, a int); CREATE TABLE alone (id int, a int); CREATE TABLE schema_migrations (version bigint)";

struct Stage {
    running: Running,
    direct: Client,
    client: Client,
}

/// How a statement is sent.
#[derive(Debug, Clone, Copy)]
enum Way {
    Simple,
    Extended,
}

const WAYS: [Way; 2] = [Way::Simple, Way::Extended];

fn rules(config: &mut Config, text: &str) {
    config.gate = Config::parse(text, Overrides::default()).unwrap().gate;
}

impl Stage {
    fn new(name: &str) -> Self {
        Self::with(name, |config| rules(config, RULES))
    }

    fn with(name: &str, tweak: impl FnOnce(&mut Config)) -> Self {
        let running = proxy(&SERVER, |config| {
            no_table_is_small(config);
            tweak(config);
        });
        let database = new_database(&SERVER, name);
        let mut direct = Client::connect(SERVER.port, &SERVER.user, &database);
        direct.ok(TABLES);
        let client = Client::connect(port(&running), &SERVER.user, &database);
        Self { running, direct, client }
    }

    fn run(&mut self, sql: &str, way: Way) -> Outcome {
        match way {
            Way::Simple => self.client.query(sql),
            Way::Extended => self.client.execute(sql),
        }
    }

    /// The statement fails with this message, by a rule.
    #[track_caller]
    fn refused(&mut self, sql: &str, way: Way, message: &str) {
        let outcome = self.run(sql, way);
        let found = (outcome.error.as_deref(), outcome.message.as_deref());
        assert_eq!(found, (Some("55000"), Some(message)), "{sql} ({way:?})");
    }

    #[track_caller]
    fn ok(&mut self, sql: &str, way: Way) -> Outcome {
        let outcome = self.run(sql, way);
        assert_eq!(outcome.error, None, "{sql} ({way:?})");
        outcome
    }

    /// Whether the relation is there, as another session sees it.
    fn is_there(&mut self, relation: &str) -> bool {
        self.direct.value(&format!("SELECT to_regclass('{relation}') IS NOT NULL")) == "t"
    }

    fn explain(&mut self, sql: &str) -> String {
        let rows = self.client.ok(&format!("EXPLAIN {sql}")).rows;
        rows.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect::<Vec<_>>().join("\n")
    }
}

#[test]
fn a_refused_statement_does_nothing() {
    let mut stage = Stage::new("gate_refuse");
    for way in WAYS {
        stage.refused("DROP TABLE plain", way, "nobody drops data here");
        stage.refused("ALTER TABLE plain ADD b int, DROP a", way, "nobody drops data here");
        stage.refused("DROP TABLE tmp_a, plain", way, "nobody drops data here");
        stage.refused("TRUNCATE plain", way, "nobody drops data here");
        stage.ok("SELECT 1", way);
    }
    assert!(stage.is_there("plain") && stage.is_there("tmp_a"));
    stage.ok("TRUNCATE schema_migrations", Way::Simple);
    stage.ok("DROP TABLE tmp_a", Way::Extended);
    assert!(!stage.is_there("tmp_a"));
    assert!(stage.running.shared().metrics.ddl_refused.value() >= 8);
}

/// Statements that the proxy relays without rules are stopped, too.
#[test]
fn what_needs_no_plan_is_asked_about() {
    let mut stage = Stage::new("gate_relayed");
    for way in WAYS {
        stage.refused("GRANT SELECT ON plain TO PUBLIC", way, "GRANT is refused");
        stage.refused("CREATE VIEW v AS SELECT 1", way, "CREATE VIEW is refused");
        stage.refused("CREATE TABLE copy AS SELECT 1 AS a", way, "CREATE TABLE AS is refused");
        stage.ok("COMMENT ON TABLE plain IS 'x'", way);
    }
    assert!(!stage.is_there("v") && !stage.is_there("copy"));
    // The scratch tables are free.
    stage.ok("CREATE TABLE tmp_copy AS SELECT 1 AS a", Way::Extended);
    assert!(stage.is_there("tmp_copy"));
}

#[test]
fn a_refused_statement_fails_its_transaction() {
    let mut stage = Stage::new("gate_block");
    for way in WAYS {
        stage.ok("BEGIN", way);
        stage.ok("ALTER TABLE plain ADD COLUMN IF NOT EXISTS b int", way);
        stage.ok("CREATE TABLE made (a int)", way);
        // The block has made the table, so that without rules the drop would pass.
        stage.refused("DROP TABLE made", way, "nobody drops data here");
        assert_eq!(stage.run("SELECT 1", way).error.unwrap(), "25P02");
        stage.ok("ROLLBACK", way);
        assert!(!stage.is_there("made"));
        stage.ok("BEGIN", way);
        stage.ok("SAVEPOINT s", way);
        stage.refused("TRUNCATE plain", way, "nobody drops data here");
        stage.ok("ROLLBACK TO s", way);
        stage.ok("CREATE TABLE made (a int)", way);
        stage.ok("COMMIT", way);
        assert!(stage.is_there("made"));
        stage.direct.ok("DROP TABLE made");
    }
}

#[test]
fn a_refused_statement_ends_its_string_and_its_pipeline() {
    let mut stage = Stage::new("gate_string");
    for sql in [
        "CREATE TABLE made (a int); DROP TABLE plain; CREATE TABLE more (a int)",
        "CREATE TABLE made (a int); ALTER TABLE made ADD b int; DROP TABLE made",
        "SELECT 1; CREATE TABLE made (a int); GRANT SELECT ON made TO PUBLIC",
        "ALTER TABLE plain ADD c int; ALTER TABLE plain ADD d int; ALTER TABLE plain DROP a",
    ] {
        assert_eq!(stage.client.query(sql).error.unwrap(), "55000", "{sql}");
        assert!(!stage.is_there("made") && !stage.is_there("more"), "{sql}");
    }
    assert_eq!(
        stage.direct.value("SELECT count(*) FROM pg_attribute WHERE attrelid = 'plain'::regclass AND attnum > 0"),
        "2"
    );
    let outcome =
        stage.client.pipeline(&["CREATE TABLE made (a int)", "DROP TABLE plain", "CREATE TABLE more (a int)"]);
    assert_eq!(outcome.error.unwrap(), "55000");
    assert!(!stage.is_there("made") && !stage.is_there("more") && stage.is_there("plain"));
    stage.ok("CREATE TABLE tmp_b (a int); DROP TABLE tmp_b", Way::Simple);
}

#[test]
fn a_guarded_statement_runs_as_it_is_written() {
    let mut stage = Stage::new("gate_guard");
    assert!(stage.explain("CREATE INDEX ON plain (a)").contains("CONCURRENTLY"));
    let plan = stage.explain("CREATE INDEX ON guarded (a)");
    assert!(
        plan.starts_with("gate     guard, by rule \"as written\"")
            && plan.ends_with("run    CREATE INDEX ON guarded (a)"),
        "{plan}"
    );
    for way in WAYS {
        stage.ok("CREATE INDEX guarded_a ON guarded (a)", way);
        stage.ok("DROP INDEX guarded_a", way);
        stage.ok("BEGIN", way);
        // It is not done ahead of the transaction.
        stage.ok("CREATE INDEX guarded_a ON guarded (a)", way);
        stage.ok("ROLLBACK", way);
    }
    assert_eq!(stage.running.shared().metrics.ddl_ahead.value(), 0);
}

#[test]
fn a_planned_statement_is_planned_in_guard_mode() {
    let mut stage = Stage::with("gate_plan", |config| {
        config.proxy.mode = Mode::Guard;
        rules(config, "[[rule]]\nname = \"indexes\"\nmatch = { family = \"index\" }\nverdict = \"plan\"");
    });
    let plan = stage.explain("CREATE INDEX ON plain (a)");
    assert!(plan.starts_with("gate     plan, by rule \"indexes\"") && plan.contains("CONCURRENTLY"), "{plan}");
    for way in WAYS {
        stage.ok("CREATE INDEX plain_a ON plain (a)", way);
        assert_eq!(stage.direct.value("SELECT indisvalid FROM pg_index WHERE indexrelid = 'plain_a'::regclass"), "t");
        stage.ok("DROP INDEX plain_a", way);
    }
    stage.ok("BEGIN; CREATE INDEX plain_a ON plain (a); COMMIT", Way::Simple);
    assert_eq!(stage.running.shared().metrics.ddl_ahead.value(), 1);
}

#[test]
fn a_closed_window_says_when_it_opens() {
    let mut stage = Stage::new("gate_window");
    for way in WAYS {
        let error = "ALTER TABLE is allowed only in the window \"never now\"";
        stage.refused("ALTER TABLE nightly ADD b int", way, error);
        stage.refused("ALTER TABLE public.nightly ADD b int", way, error);
    }
    let plan = stage.explain("ALTER TABLE nightly ADD b int");
    assert!(
        plan.contains("the window \"never now\" is closed, and opens at 20") && plan.contains("00:00 UTC"),
        "{plan}"
    );
    stage.direct.ok("CREATE SCHEMA other; CREATE TABLE other.nightly (a int)");
    stage.ok("SET search_path = other", Way::Simple);
    stage.ok("ALTER TABLE nightly ADD b int", Way::Simple);
}

#[test]
fn a_held_statement_fails_with_its_ticket_if_nobody_approves() {
    let mut stage = Stage::new("gate_hold");
    for way in WAYS {
        stage.refused("ALTER TABLE held ADD b int", way, "ALTER TABLE is held");
        stage.refused("CREATE INDEX ON held (a)", way, "CREATE INDEX is held");
        stage.ok("BEGIN", way);
        stage.refused("CREATE INDEX ON held (a)", way, "CREATE INDEX is held");
        stage.ok("ROLLBACK", way);
    }
    // Nothing would be changed.
    stage.ok("ALTER TABLE held ADD COLUMN IF NOT EXISTS a int", Way::Simple);
    stage.direct.ok("TRUNCATE held");
    stage.ok("ALTER TABLE held ADD b int", Way::Simple);
}

#[test]
fn limits_of_a_rule_hold_for_its_statements() {
    let mut stage = Stage::new("gate_limits");
    stage.direct.ok("BEGIN; LOCK TABLE short; LOCK TABLE plain");
    let begun = std::time::Instant::now();
    let error = stage.run("ALTER TABLE short ADD b int", Way::Simple).error.unwrap();
    assert_eq!(error, "55P03");
    // The deadline of the settings is half an hour.
    assert!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());
    stage.direct.ok("ROLLBACK");
    stage.ok("BEGIN", Way::Simple);
    stage.refused("CREATE INDEX ON alone (a)", Way::Simple, "CREATE INDEX is refused in a transaction");
    stage.ok("ROLLBACK", Way::Simple);
    stage.ok("CREATE INDEX ON alone (a)", Way::Simple);
}

#[test]
fn explain_shows_the_rule_and_the_plan() {
    let mut stage = Stage::new("gate_explain");
    let plan = stage.explain("DROP TABLE plain");
    assert!(plan.starts_with("gate     refuse, by rule \"no drops\"\n         it destroys data\ndirect   "), "{plan}");
    let plan = stage.explain("ALTER TABLE plain ADD z int");
    assert!(plan.starts_with("gate     allow: no rule matches\ndirect   "), "{plan}");
    stage.ok("BEGIN", Way::Simple);
    let plan = stage.explain("CREATE INDEX ON held (a)");
    assert!(plan.contains("ahead    of the transaction") && plan.contains("gate     hold"), "{plan}");
    stage.ok("ROLLBACK", Way::Simple);
    let prepared = stage.run("EXPLAIN DROP TABLE plain", Way::Extended);
    assert_eq!(prepared.rows[0][0].as_deref(), Some("gate     refuse, by rule \"no drops\""));
}

/// A role that may not ask for facts gets the verdict of the text, and what is not known stays closed.
#[test]
fn without_facts_what_is_not_known_is_closed() {
    let mut stage = Stage::new("gate_blind");
    stage.direct.ok("REVOKE EXECUTE ON FUNCTION pg_catalog.pg_try_advisory_lock(int, int) FROM PUBLIC");
    let role = format!("blind_{}", std::process::id());
    stage.direct.ok(&format!("CREATE ROLE {role} LOGIN; GRANT {role} TO CURRENT_USER"));
    for table in ["held", "plain", "nightly"] {
        stage.direct.ok(&format!("ALTER TABLE {table} OWNER TO {role}"));
    }
    let database = stage.direct.value("SELECT current_database()");
    let mut client = Client::connect(port(&stage.running), &role, &database);
    let mut refused = |sql: &str| client.query(sql).error.unwrap_or_else(|| panic!("{sql}"));
    // Neither the size nor the schema is known.
    assert_eq!(refused("ALTER TABLE held ADD z int"), "55000");
    assert_eq!(refused("ALTER TABLE nightly ADD z int"), "55000");
    assert_eq!(refused("DROP TABLE plain"), "55000");
    client.ok("ALTER TABLE plain ADD z int");
}

/// Other rules may take the place of the present ones; the next statement of each session has them.
#[test]
fn rules_can_be_exchanged() {
    let mut stage = Stage::new("gate_swap");
    stage.ok("PREPARE one AS SELECT 1", Way::Simple);
    stage.refused("DROP TABLE plain", Way::Simple, "nobody drops data here");
    stage.running.shared().set_rules(Rules::default());
    stage.ok("DROP TABLE plain", Way::Simple);
}

/// Where the proxy does not know the place of its answer, a statement that a rule may be about does not pass.
#[test]
fn what_cannot_be_stopped_ends_the_session() {
    let mut stage = Stage::new("gate_unsynced");
    let pipeline = [parse("", "SELECT 1"), bind("", "", &[]), execute("", 0)].concat();
    stage.client.send(&pipeline);
    stage.client.send_query("DROP TABLE plain");
    let mut last = None;
    while let Some(message) = stage.client.try_read() {
        last = Some(message);
    }
    let last = last.unwrap();
    assert_eq!((last.tag, last.field(b'C').as_deref()), (b'E', Some("55000")));
    assert!(stage.is_there("plain"));
}

/// Neither quotes, nor the case of letters, nor a comment make another name of a table.
#[test]
fn a_name_is_what_the_server_makes_of_it() {
    let mut stage = Stage::with("gate_names", |config| {
        rules(
            config,
            "[[rule]]\nname = \"r\"\nmatch = { relation = [\"public.plain\", \"Odd name\"] }\nverdict = \"refuse\"",
        );
    });
    stage.direct.ok("CREATE TABLE \"Odd name\" (a int); CREATE TABLE \"PLAIN\" (a int); CREATE INDEX i ON plain (a)");
    for way in WAYS {
        for name in ["plain", "PLAIN", "\"plain\"", "public . /* x */ plain", "public.\"plain\"", "\"Odd name\""] {
            stage.refused(&format!("ALTER TABLE {name} ADD b int"), way, "ALTER TABLE is refused");
        }
        stage.refused("DROP INDEX i", way, "DROP INDEX is refused");
        stage.refused("ALTER INDEX i RENAME TO j", way, "ALTER INDEX is refused");
        stage.refused("ALTER TABLE i RENAME TO j", way, "ALTER TABLE is refused");
        stage.refused("COMMENT ON COLUMN plain.a IS 'x'", way, "COMMENT is refused");
        stage.refused(
            "CREATE TABLE n (a int) PARTITION BY LIST (a); DROP TABLE plain",
            Way::Simple,
            "DROP TABLE is refused",
        );
        stage.ok("ALTER TABLE \"PLAIN\" ADD COLUMN IF NOT EXISTS b int", way);
    }
}

/// A partitioned table is as large as its partitions, and an index belongs to its table.
#[test]
fn sizes_are_those_of_whole_tables() {
    let mut stage = Stage::with("gate_tree", |config| {
        rules(config, "[[rule]]\nname = \"r\"\nmatch = { size_over = \"100kB\" }\nverdict = \"refuse\"");
    });
    let tree = "CREATE TABLE tree (id int, pad text) PARTITION BY LIST (id); CREATE TABLE tree_1 PARTITION OF tree FOR VALUES IN (1)";
    stage.direct.ok(tree);
    stage.direct.ok("INSERT INTO tree SELECT 1, repeat('x', 500) FROM generate_series(1, 1000)");
    stage.direct.ok("CREATE TABLE big AS SELECT * FROM tree; CREATE INDEX big_id ON big (id)");
    for way in WAYS {
        stage.refused("ALTER TABLE tree ADD b int", way, "ALTER TABLE is refused");
        stage.refused("CREATE INDEX CONCURRENTLY big_two ON big (id)", way, "CREATE INDEX is refused");
        stage.refused("DROP INDEX big_id", way, "DROP INDEX is refused");
        stage.refused("ALTER TABLE big_id RENAME TO other", way, "ALTER TABLE is refused");
        stage.refused("DROP TABLE tree", way, "DROP TABLE is refused");
        stage.refused("TRUNCATE tree", way, "TRUNCATE TABLE is refused");
        stage.ok("ALTER TABLE plain ADD COLUMN IF NOT EXISTS b int", way);
    }
    assert!(stage.explain("ALTER TABLE tree ADD b int").starts_with("gate     refuse"));
}
