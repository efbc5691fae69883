//! EXPLAIN of a schema change in a transaction: it says what would be done, and changes nothing.

use crate::blocks::BLOCKS;
use crate::common::{Client, Outcome, no_table_is_small, port, proxy};
use crate::reasons::{REASONS, setup};
use crate::stage::{SHOP, Stage, Told};
use pgsluice::dev::{Options, Postgres};

const INSIDE: &str = "inside   the transaction, in which the application does not wait for it";
const AHEAD: &str = "ahead    of the transaction, in which the application would wait for it";
const NOT_AHEAD: &str = "inside   the transaction, in which the application may wait for it";
const INDEX: &str = "CREATE INDEX a ON orders (note)";

fn lines(outcome: &Outcome) -> Vec<String> {
    assert_eq!(outcome.error, None, "{outcome:?}");
    outcome.rows.iter().flatten().flatten().cloned().collect()
}

/// The lines of EXPLAIN, which are the same in both protocols.
#[track_caller]
fn explained(client: &mut Client, statement: &str) -> Vec<String> {
    let sql = format!("EXPLAIN {statement}");
    let simple = lines(&client.query(&sql));
    assert_eq!(lines(&client.execute(&sql)), simple, "{sql}");
    simple
}

#[test]
fn it_names_the_place_and_what_goes_ahead_too() {
    let stage = Stage::new("explain", SHOP);
    let mut client = stage.client();
    client.ok("BEGIN");
    let column = "ALTER TABLE orders ADD COLUMN shop_id bigint REFERENCES shops";
    let inside = explained(&mut client, column);
    assert_eq!(inside[0], INSIDE);
    assert!(inside[1].starts_with("direct   ACCESS EXCLUSIVE"), "{inside:?}");
    client.ok(column);
    client.ok("SELECT 1");

    let ahead = explained(&mut client, "CREATE INDEX ON orders (shop_id)");
    assert_eq!(ahead[..3], [AHEAD, "         With it go ahead:", &format!("         statement 1: {column}")]);
    for line in ["  run    CREATE INDEX CONCURRENTLY ON orders (shop_id)", "phase 1  long, no transaction: "] {
        assert!(ahead.iter().any(|told| told.starts_with(line)), "{line} in {ahead:?}");
    }
    // A backfill is planned as outside a transaction.
    let filled = explained(&mut client, "ALTER TABLE orders ADD COLUMN token uuid DEFAULT gen_random_uuid() NOT NULL");
    assert_eq!(filled[..2], [AHEAD, "         With it go ahead:"]);
    assert!(filled.iter().any(|line| line.starts_with("phase 2  in batches, no transaction")), "{filled:?}");

    assert_eq!(stage.ahead(), 0);
    client.ok("ROLLBACK");
    assert!(explained(&mut client, INDEX)[0].starts_with("direct"));
    stage.end();
}

#[test]
fn it_says_why_a_statement_keeps_its_place() {
    let stage = Stage::new("explain_why", &setup());
    for (before, statement, reason) in REASONS {
        let mut client = stage.client();
        before.iter().for_each(|sql| drop(client.query(sql)));
        let told = explained(&mut client, statement);
        assert_eq!(told[0], NOT_AHEAD, "{statement} behind {before:?}");
        let why = told[1..].iter().take_while(|line| line.starts_with("    ")).map(|line| line.trim());
        let why = why.collect::<Vec<_>>().join(" ");
        assert!(why.contains("DETAIL: ") && why.contains("HINT: ") && why.contains(reason), "{statement}: {told:?}");
        assert!(told.iter().any(|line| line.contains("WARNING 01000")), "{statement}: {told:?}");
        assert_eq!(client.ok("ROLLBACK").status, 'I');
    }
    stage.end();
}

/// Each statement of each block is explained before it is sent. What EXPLAIN says is what is then done, and the outcome is that of the block
/// without EXPLAIN.
#[test]
fn what_it_says_is_what_is_done() {
    let mut ahead = 0;
    for (extended, end) in [(false, "COMMIT"), (true, "COMMIT"), (false, "ROLLBACK")] {
        for block in BLOCKS {
            let stage = Stage::new("explain_blocks", SHOP);
            let (mut direct, mut proxied) = (stage.directly(), stage.client());
            for sql in ["BEGIN"].iter().chain(block).chain(&[end]) {
                let is_ddl = ["CREATE ", "ALTER "].iter().any(|word| sql.starts_with(word));
                let told = if is_ddl { explained(&mut proxied, sql) } else { Vec::new() };
                let before = stage.ahead();
                let [one, other] = [&mut direct, &mut proxied]
                    .map(|client| Told::from(if extended { client.execute(sql) } else { client.query(sql) }));
                assert_eq!(one, other, "{sql} in {block:?}");
                let says = told.first().is_some_and(|line| line == AHEAD);
                assert_eq!(stage.ahead() - before, u64::from(says), "{sql} in {block:?}: {told:?}");
                ahead += u64::from(says);
            }
            drop((direct, proxied));
            stage.same_state(&format!("{block:?}"));
            stage.end();
        }
    }
    assert!(ahead >= 36, "{ahead} statements were done ahead");
}

#[test]
fn it_leaves_no_trace_in_the_transaction() {
    let stage = Stage::new("explain_trace", SHOP);
    let trace = "SELECT concat_ws(' ', txid_current_if_assigned(), pg_my_temp_schema(), (SELECT string_agg(relation::regclass || ' ' || mode, ',' ORDER BY 1)
        FROM pg_locks WHERE pid = pg_backend_pid() AND relation >= 16384))";
    let mut client = stage.client();
    client.ok("BEGIN");
    let before = client.value(trace);
    assert_eq!(before, "0");
    let statements = [
        INDEX,
        "ALTER TABLE orders ADD COLUMN token uuid DEFAULT gen_random_uuid() NOT NULL UNIQUE",
        "ALTER TABLE orders ALTER note SET NOT NULL",
        "ALTER TABLE orders ADD UNIQUE (note)",
        "ALTER TABLE lines ADD FOREIGN KEY (id) REFERENCES orders",
        "ALTER TABLE orders ALTER id TYPE int",
        "ALTER TABLE nothing ADD COLUMN a int",
        "DROP TABLE shops",
    ];
    for statement in statements {
        explained(&mut client, statement);
        assert_eq!(client.value(trace), before, "{statement}");
    }
    client.ok("ROLLBACK");
    stage.end();
}

/// Explains a statement outside a transaction and inside, with the same phases.
#[track_caller]
fn same_plan(client: &mut Client, statement: &str) {
    // The undo of the last phase is there only in a transaction.
    let phases = |lines: Vec<String>| -> Vec<String> {
        let left_out = ["ahead", "  undo", "  hidden SELECT WHERE false"];
        lines.into_iter().filter(|line| !left_out.iter().any(|label| line.starts_with(label))).collect()
    };
    let outside = explained(client, statement);
    client.ok("BEGIN");
    client.ok("SAVEPOINT s");
    let inside = explained(client, statement);
    assert_eq!(inside[0], AHEAD, "{statement}: {inside:#?}");
    assert_eq!(phases(inside), phases(outside), "{statement}");
    client.ok("ROLLBACK TO s");
    client.ok("COMMIT");
}

#[test]
fn the_plan_is_the_one_outside() {
    let stage = Stage::new("explain_outside", &format!("{SHOP}; CREATE DOMAIN any_number AS int"));
    let mut client = stage.client();
    for statement in [
        INDEX,
        "ALTER TABLE orders ADD a serial",
        "ALTER TABLE orders ADD UNIQUE (note)",
        "ALTER TABLE orders ALTER note SET NOT NULL",
        "ALTER TABLE orders ADD CHECK (total >= 0)",
        "ALTER TABLE orders ADD at timestamptz DEFAULT clock_timestamp() NOT NULL",
    ] {
        same_plan(&mut client, statement);
    }
    client.ok("BEGIN");
    let told = explained(&mut client, "ALTER TABLE orders ADD p any_number DEFAULT 1");
    assert_eq!(told[0], AHEAD);
    assert!(told.iter().any(|line| line.starts_with("unknown  Whether the server rewrites the table")), "{told:?}");
    stage.end();
}

const EVENTS: &str = "CREATE TABLE events (id bigint, day int, shop_id bigint) PARTITION BY RANGE (day);
    CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM (1) TO (2);
    CREATE TABLE events_2 PARTITION OF events FOR VALUES FROM (2) TO (3);
    INSERT INTO events SELECT g, 1 + g % 2, 1 FROM generate_series(1, 100) g";

/// The indexes of partitions are compared with those of a copy, which keeps a transaction from PREPARE TRANSACTION.
#[test]
fn partitions_are_compared_where_no_transaction_is_prepared() {
    let server = Postgres::start(Options::default()).unwrap();
    let proxy = proxy(&server, no_table_is_small);
    let mut client = Client::connect(port(&proxy), &server.user, "postgres");
    client.ok(&format!("{SHOP}; {EVENTS}"));
    for statement in [
        "CREATE INDEX ON events (id)",
        "CREATE UNIQUE INDEX events_key ON events (id, day)",
        "ALTER TABLE events ADD CONSTRAINT events_key UNIQUE (id, day)",
        "ALTER TABLE events ADD FOREIGN KEY (shop_id) REFERENCES shops",
    ] {
        same_plan(&mut client, statement);
    }
    client.ok("CREATE INDEX ON events_1 (id)");
    client.ok("BEGIN");
    client.ok("SET LOCAL lock_timeout = 77");
    assert_eq!(explained(&mut client, "CREATE INDEX ON events (id)")[0], NOT_AHEAD);
    assert_eq!(client.value("SHOW lock_timeout"), "77ms");
    assert_eq!(client.value("SELECT count(*) FROM pg_class WHERE relname ~ 'pgsluice'"), "0");
    client.ok("COMMIT");
    proxy.stop();

    let stage = Stage::new("explain_prepared", EVENTS);
    let mut client = stage.client();
    client.ok("BEGIN");
    let told = explained(&mut client, "CREATE INDEX ON events (id)");
    assert!(
        told[0] == AHEAD && told[1].starts_with("unknown  It depends on the indexes of the partitions"),
        "{told:?}"
    );
    client.ok("PREPARE TRANSACTION 'explained'");
    client.ok("ROLLBACK PREPARED 'explained'");
    stage.end();
}

#[test]
fn it_stands_in_a_string_as_alone() {
    let stage = Stage::new("explain_string", SHOP);
    let mut client = stage.client();
    let alter = "EXPLAIN ALTER TABLE orders ADD CONSTRAINT known CHECK (total >= 0)";
    client.ok("BEGIN");
    let alone = lines(&client.query(alter));
    assert_eq!(alone[0], AHEAD);
    client.ok("COMMIT");
    for (string, tags) in [
        (format!("BEGIN; {alter}; COMMIT"), 3),
        (format!("INSERT INTO schema_migrations VALUES ('2'); {alter}; ANALYZE shops"), 3),
        (format!("BEGIN; INSERT INTO schema_migrations VALUES ('3'); {alter}; {INDEX}; COMMIT"), 5),
    ] {
        let outcome = client.query(&string);
        assert_eq!(lines(&outcome), alone, "{string}");
        assert_eq!((outcome.tags.len(), outcome.status), (tags, 'I'), "{string}: {:?}", outcome.tags);
    }
    assert_eq!(stage.ahead(), 1);
    assert_eq!(client.value("SELECT string_agg(version, ',' ORDER BY version) FROM schema_migrations"), "1,2,3");
    assert_eq!(client.value("SELECT count(*) FROM pg_index WHERE indexrelid = 'a'::regclass AND indisvalid"), "1");
    assert_eq!(client.value("SELECT count(*) FROM pg_constraint WHERE conname = 'known'"), "0");
    stage.end();
}

#[test]
fn the_operators_choice_counts() {
    for (word, line) in
        [("guard", NOT_AHEAD), ("refuse", "ERROR:  CREATE INDEX is refused in a transaction"), ("hoist", AHEAD)]
    {
        let stage = Stage::with("explain_setting", SHOP, |config| {
            config.ddl.in_transaction = pgsluice::config::InTransaction::from_word(word).unwrap();
        });
        let mut client = stage.client();
        client.ok("BEGIN");
        assert_eq!(explained(&mut client, INDEX)[0], line, "{word}");
        assert_eq!(client.ok("COMMIT").tags, ["COMMIT"], "{word}");
        stage.end();
    }
}
