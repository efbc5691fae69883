//! A server of another version than the installed one.

use pgsluice::dev::{Options, Postgres};
use std::path::{Path, PathBuf};

/// A server of this major version. One that is missing fails its test: a version that was not tried is not one that works.
pub fn server(version: u32) -> Postgres {
    let servers = std::env::var_os("PGSLUICE_SERVERS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/servers"), PathBuf::from);
    let programs = servers.join(version.to_string()).join("bin");
    let options = Options::default().programs(&programs).setting("max_prepared_transactions", "10");
    let server = Postgres::start(options).unwrap_or_else(|report| {
        panic!("no PostgreSQL {version} to test with: {report}\n`make setup-test` (or setup-servers) installs it")
    });
    assert_eq!(server.version, version, "in {}", programs.display());
    server
}

/// Whether all is to be tried on every version, as `make test-servers` asks for, or what is quick.
pub fn thorough() -> bool {
    std::env::var_os("PGSLUICE_ALL_WAYS").is_some()
}
