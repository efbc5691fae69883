//! Tests on every version of PostgreSQL from 10 on: relay, facts, locks, index builds, and parity.
//!
//! The servers are those of `scripts/setup.sh servers`, under `target/servers/NN/bin` (or `PGSLUICE_SERVERS/NN/bin`). A
//! missing server fails its test, since an untried version does not count as one that works. `make test-servers` tries all
//! versions in every way of sending; a plain `cargo test` tries five of them, with each statement alone.

#[path = "servers/backfill.rs"]
mod backfill;
#[path = "servers/builds.rs"]
mod builds;
#[path = "parity/catalog.rs"]
mod catalog;
#[path = "facts/checks.rs"]
mod checks;
mod common;
#[path = "parity/frames.rs"]
mod frames;
#[path = "servers/relay.rs"]
mod relay;
#[path = "locks/rows.rs"]
mod rows;
#[path = "parity/runner.rs"]
mod runner;
#[path = "parity/script.rs"]
mod script;
#[path = "parity/state.rs"]
mod state;
#[path = "parity/ways.rs"]
mod ways;

use common::versions::server;
use ways::Way;

/// All that must hold on one version.
fn works_on(version: u32) {
    let server = server(version);
    relay::check(&server);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(checks::all(&server));
    rows::check(&server);
    builds::check(&server);
    backfill::check(&server);
    // In all ways and through both proxies; or, to be quick, each statement alone and all that can be done concurrently.
    let thorough = common::versions::thorough();
    let ways: &[Way] = if thorough { &Way::ALL } else { &[Way::Simple, Way::Extended] };
    let wanted = std::env::var("PARITY").unwrap_or_default();
    let wanted = |script: &script::Script, _: Way, proxy: &str| {
        script.name.contains(&wanted) && (thorough || proxy == runner::CONCURRENT)
    };
    let mut found = runner::scripts(&server, ways, wanted);
    found.push_str(&runner::conversations(&server));
    assert!(found.is_empty(), "on PostgreSQL {version} direct (-) and proxied (+) differ:\n{found}");
}

/// A test per version, so that each says for itself whether it works.
macro_rules! versions {
    ($($(#[$attribute:meta])* $name:ident $version:literal;)*) => {
        $(#[test] $(#[$attribute])* fn $name() { works_on($version); })*
    };
}

versions! {
    postgresql_10 10;
    #[ignore = "make test-servers"]
    postgresql_11 11;
    postgresql_12 12;
    #[ignore = "make test-servers"]
    postgresql_13 13;
    #[ignore = "make test-servers"]
    postgresql_14 14;
    postgresql_15 15;
    #[ignore = "make test-servers"]
    postgresql_16 16;
    #[ignore = "make test-servers"]
    postgresql_17 17;
    postgresql_18 18;
    postgresql_19 19;
}
