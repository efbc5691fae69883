//! The columns of catalogs that the console shows are those of the server whose grammar the proxy has.

use crate::common::Client;
use crate::common::versions::server;
use std::path::Path;

/// All relations of the system, each with its columns and their types: a line of `catalogs.txt`. A domain is shown as the type below it, as a
/// RowDescription does.
const SQL: &str = "SELECT CASE n.nspname WHEN 'pg_catalog' THEN '' ELSE n.nspname || '.' END || c.relname || ' ' \
      || string_agg(a.attname || ':' || coalesce(b.typname, t.typname), ' ' ORDER BY a.attnum) \
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
      JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
      JOIN pg_type t ON t.oid = a.atttypid LEFT JOIN pg_type b ON b.oid = t.typbasetype \
    WHERE n.nspname IN ('pg_catalog', 'information_schema') AND c.relkind IN ('r', 'v') \
      AND c.relname NOT LIKE '\\_pg\\_%' AND c.relname NOT LIKE 'sql\\_%' \
    GROUP BY n.nspname, c.relname ORDER BY n.nspname DESC, c.relname COLLATE \"C\"";

#[test]
fn catalogs_have_the_columns_of_the_server() {
    let postgres = server(18);
    let mut client = Client::connect(postgres.port, &postgres.user, "postgres");
    let rows = client.ok(SQL).rows.into_iter().flatten().flatten();
    let shown: String = rows.map(|row| row + "\n").collect();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/console/catalogs.txt");
    if std::env::var_os("UPDATE_GOLDENS").is_some() {
        std::fs::write(&path, &shown).expect("the file");
    }
    let kept = std::fs::read_to_string(&path).expect("the file (UPDATE_GOLDENS=1 makes it)");
    for (now, before) in shown.lines().zip(kept.lines()) {
        assert_eq!(now, before);
    }
    assert_eq!(shown.lines().count(), kept.lines().count());
    assert!(shown.lines().count() > 100);
}
