//! Facts and probes against the server that is installed; `tests/servers.rs` has the same against all that it knows.

#[path = "facts/checks.rs"]
mod checks;

use pgsluice::dev::{Options, Postgres};

#[tokio::test]
async fn facts_of_a_real_server() {
    checks::all(&Postgres::start(Options::default()).unwrap()).await;
}
