//! Statements that are wrong in two ways. The client gets the error that the server would have raised, whichever error the
//! phases met first.

use crate::common::{Client, Message, no_table_is_small, port, postgres, proxy};
use std::fmt::Write as _;

const SCENE: &str = "DROP SCHEMA IF EXISTS s CASCADE; CREATE SCHEMA s; SET search_path = s;
    CREATE TABLE r (id int PRIMARY KEY); INSERT INTO r VALUES (1);
    CREATE TABLE t (id int, a int, b int, c text, d int DEFAULT 1);
    INSERT INTO t SELECT g, g % 10, CASE WHEN g > 900 THEN NULL ELSE g END, NULL FROM generate_series(1, 1000) g;
    ALTER TABLE t ADD CONSTRAINT lax CHECK (a < 5) NOT VALID; CREATE VIEW v AS SELECT d FROM t;
    CREATE TABLE p (id int, x int) PARTITION BY RANGE (id);
    CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (100);
    CREATE TABLE sub PARTITION OF p FOR VALUES FROM (100) TO (200) PARTITION BY RANGE (id);
    CREATE TABLE q (id int, x int); INSERT INTO q SELECT g, g FROM generate_series(1, 1000) g;
    CREATE TABLE odd (id int, y text); INSERT INTO odd SELECT g, g FROM generate_series(1, 1000) g;
    CREATE TABLE nulls (id int, e int, f int); INSERT INTO nulls VALUES (1, 1, NULL), (1, NULL, 1)";

const STATEMENTS: [&str; 31] = [
    "ALTER TABLE t DROP COLUMN nonexistent, VALIDATE CONSTRAINT nope",
    "ALTER TABLE t VALIDATE CONSTRAINT nope, DROP COLUMN nonexistent",
    "ALTER TABLE t VALIDATE CONSTRAINT lax, DROP COLUMN nonexistent",
    "ALTER TABLE t VALIDATE CONSTRAINT lax, DROP COLUMN d",
    "ALTER TABLE t ADD CHECK (a > 5), ALTER nonexistent SET DEFAULT 1",
    "ALTER TABLE t ADD CHECK (a > 5), ALTER c SET DEFAULT nonexistent()",
    "ALTER TABLE t ADD CHECK (a > 5), ADD CONSTRAINT lax CHECK (a > 0)",
    "ALTER TABLE t ADD CHECK (a > 5), ADD CHECK (nonexistent > 0)",
    "ALTER TABLE t ADD CHECK (a > 5), ALTER b SET NOT NULL",
    "ALTER TABLE t ALTER b SET NOT NULL, ADD CHECK (a > 5)",
    "ALTER TABLE t ALTER c SET NOT NULL, ALTER b SET NOT NULL",
    "ALTER TABLE t ALTER b SET NOT NULL, ALTER c SET NOT NULL",
    "ALTER TABLE nulls ALTER e SET NOT NULL, ALTER f SET NOT NULL",
    "ALTER TABLE nulls ALTER f SET NOT NULL, ALTER e SET NOT NULL",
    "ALTER TABLE t ADD PRIMARY KEY (a), ALTER b SET NOT NULL",
    "ALTER TABLE t ALTER b SET NOT NULL, ADD UNIQUE (a)",
    "ALTER TABLE t ADD PRIMARY KEY (a, b)",
    "ALTER TABLE t ADD UNIQUE (a), ADD FOREIGN KEY (a) REFERENCES r",
    "ALTER TABLE t ADD FOREIGN KEY (a) REFERENCES r, ADD UNIQUE (a)",
    "ALTER TABLE t ADD FOREIGN KEY (a) REFERENCES r, ADD CHECK (a > 5)",
    "ALTER TABLE t ADD FOREIGN KEY (c) REFERENCES r, ADD CHECK (a > 5)",
    "ALTER TABLE t ADD COLUMN n int DEFAULT (random() * 0)::int CHECK (n > 0), ADD CHECK (a > 5)",
    "ALTER TABLE t ADD COLUMN n int DEFAULT (random() * 0)::int CHECK (n > 0), ALTER b SET NOT NULL",
    "ALTER TABLE t ADD COLUMN n int DEFAULT (random() * 0)::int UNIQUE, DROP COLUMN d",
    "ALTER TABLE t ADD CONSTRAINT k UNIQUE (id), ADD CONSTRAINT k CHECK (a > 5)",
    "ALTER TABLE p ATTACH PARTITION q FOR VALUES FROM (0) TO (10)",
    "ALTER TABLE p ATTACH PARTITION q FOR VALUES FROM (300) TO (200)",
    "ALTER TABLE p ATTACH PARTITION odd FOR VALUES FROM (300) TO (400)",
    "ALTER TABLE sub ATTACH PARTITION p FOR VALUES FROM (100) TO (110)",
    "ALTER TABLE p ATTACH PARTITION q FOR VALUES FROM (300) TO (400)",
    "ALTER TABLE p ATTACH PARTITION p FOR VALUES FROM (300) TO (400)",
];

/// All that an error says, but for the place in the server's source.
fn error(client: &mut Client, sql: &str) -> String {
    client.send_query(sql);
    let mut told = String::new();
    loop {
        let message: Message = client.read();
        match message.tag {
            b'E' => {
                for code in b"SCMDHPstcdn" {
                    if let Some(value) = message.field(*code) {
                        let _ = write!(told, "{}={value} ", char::from(*code));
                    }
                }
            }
            b'C' => told.push_str(&message.text()),
            b'Z' => return told,
            _ => {}
        }
    }
}

#[test]
fn the_error_is_the_servers_own() {
    let postgres = postgres();
    let proxy = proxy(&postgres, |config| {
        no_table_is_small(config);
        // What is asked here is not how long it may take.
        config.locks.stall_budget = crate::common::PATIENCE;
        config.locks.deadline = crate::common::PATIENCE * 2;
    });
    let mut clients = [postgres.port, port(&proxy)].map(|port| Client::connect(port, &postgres.user, "postgres"));
    clients.iter_mut().for_each(|client| {
        client.ok("SET client_min_messages = error");
    });
    let mut differ = String::new();
    for sql in STATEMENTS {
        let told = clients.each_mut().map(|client| {
            client.ok(SCENE);
            let told = error(client, sql);
            let left = client.value("SELECT count(*) FROM pg_class WHERE relname ~ 'pgsluice' UNION ALL SELECT count(*) FROM pg_constraint WHERE conname ~ 'pgsluice'");
            assert_eq!(left, "0", "{sql}");
            told
        });
        if told[0] != told[1] {
            let _ = writeln!(differ, "{sql}\n- {}\n+ {}", told[0], told[1]);
        }
    }
    assert!(differ.is_empty(), "{differ}");
    proxy.stop();
}
