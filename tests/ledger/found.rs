//! What a proxy finds where its ledger is to be: a newer one, somebody else's schema, or one that the command line has made.

use crate::common::{Client, new_database, wait_until};
use crate::stage::{SERVER, Stage};
use crate::two::{pgsluice_install, state, with_ledger};

#[test]
fn a_newer_ledger_is_not_written_to() {
    let ledger = new_database(&SERVER, "ledger_newer");
    let mut direct = Client::connect(SERVER.port, &SERVER.user, &ledger);
    pgsluice_install(&mut direct, &SERVER.user);
    direct.ok("UPDATE pgsluice.ledger SET version = 99");
    let mut stage = Stage::on(&SERVER, "newer", |config| with_ledger(config, &ledger, &SERVER.user));
    wait_until("the proxy says so", || {
        state(&stage.ann).contains("the ledger has version 99, and this proxy knows version 1")
    });
    assert!(stage.error("ALTER TABLE quick ADD b int").field(b'D').unwrap().contains("cannot be reached"));
    assert_eq!(
        direct.value("SELECT (SELECT count(*) FROM pgsluice.change) + (SELECT count(*) FROM pgsluice.proxy)"),
        "0"
    );
    // It is as the proxy knows it again.
    direct.ok("UPDATE pgsluice.ledger SET version = 1");
    wait_until("the ledger is kept", || state(&stage.ann) == "kept");
}

#[test]
fn a_schema_of_a_stranger_is_not_used() {
    let ledger = new_database(&SERVER, "ledger_stranger");
    let mut direct = Client::connect(SERVER.port, &SERVER.user, &ledger);
    direct.ok("CREATE ROLE stranger LOGIN");
    for (setup, expected) in [
        ("CREATE SCHEMA pgsluice AUTHORIZATION stranger", "which belongs to the role stranger, is not trusted"),
        (
            "DROP SCHEMA pgsluice CASCADE; CREATE SCHEMA pgsluice; CREATE TABLE pgsluice.ledger (version int); ALTER TABLE pgsluice.ledger OWNER TO stranger",
            "is not trusted",
        ),
        (
            "DROP SCHEMA pgsluice CASCADE; CREATE SCHEMA pgsluice; CREATE TABLE pgsluice.other (a int)",
            "the schema pgsluice is no ledger",
        ),
    ] {
        direct.ok(setup);
        let stage = Stage::on(&SERVER, "stranger", |config| with_ledger(config, &ledger, &SERVER.user));
        wait_until(expected, || state(&stage.ann).contains(expected));
        assert_eq!(direct.value("SELECT to_regclass('pgsluice.change') IS NULL"), "t");
    }
}

#[test]
fn installed_and_taken_away_by_the_command_line() {
    let ledger = new_database(&SERVER, "ledger_cli");
    let folder = std::env::temp_dir().join(format!("pgsluice-ledger-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("proxy.toml");
    let (port, user) = (SERVER.port, &SERVER.user);
    let settings = format!(
        "[proxy]\nbackend = \"127.0.0.1:{port}\"\n[operator]\nuser = \"{user}\"\ndbname = \"{ledger}\"\nledger = true\n"
    );
    std::fs::write(&file, settings).unwrap();
    let run = |arguments: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_pgsluice"))
            .args(arguments)
            .arg("--config")
            .arg(&file)
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.success(), text(&output.stdout) + &text(&output.stderr))
    };
    let mut direct = Client::connect(port, user, &ledger);
    let (ok, printed) = run(&["install", "--print"]);
    assert!(ok && printed.starts_with("BEGIN;\nCREATE SCHEMA IF NOT EXISTS pgsluice;"), "{printed}");
    assert_eq!(direct.value("SELECT to_regnamespace('pgsluice') IS NULL"), "t");
    for _ in 0..2 {
        let (ok, said) = run(&["install"]);
        assert!(ok && said.contains("the ledger, version 1, is installed"), "{said}");
    }
    assert_eq!(direct.value("SELECT version FROM pgsluice.ledger"), "1");
    // Nothing of it is for everybody.
    let open = direct.value(
        "SELECT coalesce(string_agg(p.oid::regprocedure::text, ', '), '') FROM pg_proc p, LATERAL aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) AS a \
         WHERE p.pronamespace = 'pgsluice'::regnamespace AND a.grantee = 0",
    );
    assert_eq!(open, "");
    let (ok, said) = run(&["uninstall"]);
    assert!(ok, "{said}");
    assert_eq!(direct.value("SELECT to_regnamespace('pgsluice') IS NULL"), "t");
    let (ok, said) = run(&["uninstall", "--user", "nobody_here"]);
    assert!(!ok && said.contains("could not connect"), "{said}");
    let _ = std::fs::remove_dir_all(&folder);
}
