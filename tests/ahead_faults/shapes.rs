//! The transactions whose every step is disturbed.

use crate::common::raw::{q, run, sync};
use crate::common::{Client, Message};
use std::io::Write;

/// A shop, and the table of a migration tool.
pub(crate) const SHOP: &str = "CREATE TABLE shops (id bigint PRIMARY KEY, name text);
    CREATE TABLE orders (id bigint PRIMARY KEY, note text, total numeric NOT NULL DEFAULT 0);
    CREATE TABLE lines (id bigint PRIMARY KEY, order_id bigint REFERENCES orders);
    INSERT INTO shops SELECT g, 'shop ' || g FROM generate_series(1, 5) g;
    INSERT INTO orders SELECT g, 'note ' || g, g FROM generate_series(1, 20) g;
    INSERT INTO lines SELECT g, g FROM generate_series(1, 10) g;
    CREATE TABLE schema_migrations (version text PRIMARY KEY);
    INSERT INTO schema_migrations VALUES ('1')";

pub(crate) const NO_SHOP: &str = "DROP TABLE lines, orders, shops, schema_migrations";

/// A transaction of a migration tool.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) name: &'static str,
    /// Each is sent, and answered, before the next one.
    pub(crate) queries: &'static [&'static str],
    pub(crate) extended: bool,
    /// Another schema change of the same table.
    pub(crate) other: &'static str,
}

const OTHER_OF_ORDERS: &str = "ALTER TABLE orders ADD COLUMN other int";
const OTHER_OF_LINES: &str = "ALTER TABLE lines ADD COLUMN other int";

pub(crate) const COLUMN: Shape = Shape {
    name: "a column with its key and its index",
    queries: &[
        "BEGIN",
        "ALTER TABLE orders ADD COLUMN shop_id bigint REFERENCES shops",
        "CREATE INDEX ON orders (shop_id)",
        "INSERT INTO schema_migrations VALUES ('2')",
        "COMMIT",
    ],
    extended: false,
    other: OTHER_OF_ORDERS,
};

pub(crate) const KEY: Shape = Shape {
    name: "a key and a unique index behind an INSERT",
    queries: &[
        "BEGIN",
        "INSERT INTO schema_migrations VALUES ('2')",
        "ALTER TABLE lines ADD FOREIGN KEY (id) REFERENCES orders",
        "CREATE UNIQUE INDEX one_line ON lines (order_id)",
        "COMMIT",
    ],
    extended: false,
    other: OTHER_OF_LINES,
};

pub(crate) const FILLED: Shape = Shape {
    name: "a column that is filled",
    queries: &[
        "BEGIN",
        "INSERT INTO schema_migrations VALUES ('2')",
        "ALTER TABLE orders ADD COLUMN shop_id bigint REFERENCES shops",
        "ALTER TABLE orders ADD COLUMN extra int DEFAULT 0 NOT NULL",
        "UPDATE orders SET shop_id = 1",
        "ALTER TABLE orders ALTER COLUMN shop_id SET NOT NULL",
        "COMMIT",
    ],
    extended: false,
    other: OTHER_OF_ORDERS,
};

pub(crate) const STRING: Shape = Shape {
    name: "one string without BEGIN",
    queries: &[
        "ALTER TABLE orders ADD COLUMN shop_id bigint REFERENCES shops; CREATE INDEX ON orders (shop_id); INSERT INTO schema_migrations VALUES ('2')",
    ],
    extended: false,
    other: OTHER_OF_ORDERS,
};

pub(crate) const ROLLED_BACK: Shape = Shape {
    name: "a transaction that is rolled back",
    queries: &[
        "BEGIN",
        "ALTER TABLE orders ADD COLUMN shop_id bigint REFERENCES shops",
        "CREATE INDEX ON orders (shop_id)",
        "INSERT INTO schema_migrations VALUES ('2')",
        "ROLLBACK",
    ],
    extended: false,
    other: OTHER_OF_ORDERS,
};

pub(crate) const SAVEPOINT: Shape = Shape {
    name: "the extended protocol with a savepoint",
    queries: &[
        "BEGIN",
        "INSERT INTO schema_migrations VALUES ('2')",
        "SAVEPOINT s",
        "ALTER TABLE orders ADD COLUMN code text DEFAULT 'x' NOT NULL",
        "CREATE INDEX by_code ON orders (code)",
        "RELEASE SAVEPOINT s",
        "ALTER TABLE orders ADD CONSTRAINT positive CHECK (total >= 0)",
        "COMMIT",
    ],
    extended: true,
    other: OTHER_OF_ORDERS,
};

/// What a client was told.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    /// All answers came, and the last one is that the transaction is over.
    pub(crate) to_its_end: bool,
    pub(crate) words: Vec<String>,
}

impl Shape {
    /// Whether the client wants its transaction to commit.
    pub(crate) fn commits(&self) -> bool {
        self.queries.last() != Some(&"ROLLBACK")
    }

    /// Plays the client's part, until its transaction is over, or a statement has failed, or nobody answers any more.
    pub(crate) fn play(&self, client: &mut Client) -> Heard {
        let mut heard = Heard::default();
        for sql in self.queries {
            let bytes = if self.extended { [run(sql), sync()].concat() } else { q(sql) };
            if client.stream.write_all(&bytes).is_err() {
                return heard;
            }
            loop {
                let Some(message) = client.try_read() else { return heard };
                let failed = message.tag == b'E';
                note(&mut heard, &message);
                if failed {
                    return heard;
                }
                if message.tag == b'Z' {
                    break;
                }
            }
        }
        heard.to_its_end = true;
        heard
    }
}

fn note(heard: &mut Heard, message: &Message) {
    match message.tag {
        b'C' => heard.words.push(message.text()),
        b'E' | b'N' => heard.words.push(format!(
            "{} {} {}",
            message.field(b'C').unwrap_or_default(),
            message.field(b'M').unwrap_or_default(),
            message.field(b'D').unwrap_or_default()
        )),
        _ => {}
    }
}
