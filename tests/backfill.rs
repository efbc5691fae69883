//! Backfills: every old row gets its value, whatever the application does meanwhile, and whoever ends it leaves nothing.

mod common;

use common::{Client, new_database, port, postgres, proxy};

#[test]
fn every_row_gets_a_value_of_its_own() {
    let postgres = postgres();
    let running = proxy(&postgres, |config| config.ddl.small_table = 0);
    let database = new_database(&postgres, "backfill");
    let mut client = Client::connect(port(&running), &postgres.user, &database);
    client.ok("CREATE TABLE t (id int PRIMARY KEY, v text)");
    client.ok("INSERT INTO t SELECT g, repeat('x', 50) FROM generate_series(1, 20000) g");
    client.ok("ALTER TABLE t ADD COLUMN r float8 DEFAULT random()");
    assert_eq!(client.value("SELECT count(DISTINCT r) FROM t"), "20000");
    running.stop_now();
}
