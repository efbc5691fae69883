//! Tests of the facts and probes against the installed server. `tests/servers.rs` runs the same tests against all versions.

#[path = "facts/checks.rs"]
mod checks;

use pgsluice::dev::{Options, Postgres};

#[tokio::test]
async fn facts_of_a_real_server() {
    checks::all(&Postgres::start(Options::default()).unwrap()).await;
}
