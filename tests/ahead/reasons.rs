//! What is not done ahead, each with its reason in the WARNING.

use crate::common::Message;
use crate::stage::{SHOP, Stage};

const INDEX: &str = "CREATE INDEX a ON orders (note)";

/// The block before the statement, the statement, and words of the reason.
pub(crate) const REASONS: [(&[&str], &str, &str); 19] = [
    (&["BEGIN", "UPDATE orders SET note = note"], INDEX, "UPDATE of orders stands before it"),
    (&["BEGIN", "UPDATE public.orders SET note = note"], INDEX, "UPDATE of public.orders stands before it"),
    (&["BEGIN", "ALTER TABLE orders RENAME note TO remark"], "CREATE INDEX a ON orders (remark)", "orders"),
    (&["BEGIN ISOLATION LEVEL SERIALIZABLE"], INDEX, "SERIALIZABLE"),
    (&["BEGIN ISOLATION LEVEL REPEATABLE READ"], INDEX, "REPEATABLE READ"),
    (&["BEGIN", "DECLARE c CURSOR FOR SELECT 1"], INDEX, "cursor"),
    (&["BEGIN", "INSERT INTO serials DEFAULT VALUES RETURNING id"], INDEX, "RETURNING"),
    (&["BEGIN", "SELECT wild()"], INDEX, "a function that may do anything"),
    (&["BEGIN", "DO 'BEGIN PERFORM 1; END'"], INDEX, "DO"),
    (&["BEGIN", "SAVEPOINT s", "SELECT 1 / 0", "ROLLBACK TO s"], INDEX, "failed"),
    (&["BEGIN"], "ALTER TABLE orders ALTER id TYPE int", "undone"),
    (&["BEGIN"], "REINDEX TABLE orders", "undone"),
    // A second run of the transaction could not tell that somebody else has changed what the client knows.
    (
        &["BEGIN", "SELECT name FROM shops FOR UPDATE", "UPDATE shops SET name = 'known' WHERE id = 1"],
        INDEX,
        "UPDATE of shops behind it",
    ),
    (
        &["BEGIN", "UPDATE shops SET name = 'b'", "SELECT name FROM shops", "DELETE FROM shops WHERE id = 3"],
        INDEX,
        "DELETE of shops behind it",
    ),
    (&["BEGIN", "UPDATE shops SET name = 'b'", "SELECT name, now() FROM shops"], INDEX, "the time or on chance"),
    (&["BEGIN", "LOCK TABLE shops", "SELECT name FROM shops LIMIT 1"], INDEX, "the order of the rows"),
    // No statement of the transaction tells its level.
    (&["SET default_transaction_isolation = 'repeatable read'", "BEGIN"], INDEX, "REPEATABLE READ or SERIALIZABLE"),
    (
        &["SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE", "BEGIN"],
        INDEX,
        "REPEATABLE READ or SERIALIZABLE",
    ),
    (
        &["SET default_transaction_isolation = 'serializable'", "START TRANSACTION", "SELECT 1"],
        INDEX,
        "REPEATABLE READ or SERIALIZABLE",
    ),
];

/// What the statements of [`REASONS`] need.
pub(crate) fn setup() -> String {
    format!(
        "{SHOP}; CREATE TABLE serials (id serial); CREATE FUNCTION wild() RETURNS int LANGUAGE sql VOLATILE AS 'SELECT 1'"
    )
}

#[test]
fn what_is_not_done_ahead_says_why() {
    let stage = Stage::new("reasons", &setup());
    for (before, statement, reason) in REASONS {
        let mut client = stage.client();
        for sql in before {
            client.query(sql);
        }
        client.send_query(statement);
        let mut warnings = Vec::new();
        loop {
            let message = client.read();
            match message.tag {
                b'N' => warnings.push(words(&message)),
                b'E' => panic!("{statement} behind {before:?}: {}", words(&message)),
                b'Z' => break,
                _ => {}
            }
        }
        assert!(
            warnings.iter().any(|warning| warning.contains("not done ahead") && warning.contains(reason)),
            "{statement} behind {before:?}: {warnings:?}"
        );
        client.ok("ROLLBACK");
    }
    assert_eq!(stage.ahead(), 0);
    stage.end();
}

fn words(message: &Message) -> String {
    [b'M', b'D', b'H'].iter().filter_map(|field| message.field(*field)).collect::<Vec<_>>().join(" | ")
}

#[test]
fn the_operator_may_choose_to_guard_or_to_refuse() {
    for (word, error, ahead) in [("guard", None, 0), ("refuse", Some("55000"), 0), ("hoist", None, 1)] {
        let stage = Stage::with("setting", SHOP, |config| {
            config.ddl.in_transaction = pgsluice::config::InTransaction::from_word(word).unwrap();
        });
        let mut client = stage.client();
        client.ok("BEGIN");
        let outcome = client.query(INDEX);
        assert_eq!(outcome.error.as_deref(), error, "{word}: {outcome:?}");
        assert_eq!(stage.ahead(), ahead, "{word}");
        assert_eq!(outcome.notices.iter().any(|notice| notice.starts_with("WARNING")), word == "guard", "{outcome:?}");
        client.ok("ROLLBACK");
        stage.end();
    }
}
