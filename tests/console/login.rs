//! Who may come in: users with a password, and the proxy's own user over a Unix socket.

use crate::common::raw::{messages, read_to_close, socket, startup};
use crate::{Proxy, succeeded};
use std::io::Write;

#[test]
fn passwords_right_and_wrong() {
    let proxy = Proxy::alone();
    for (user, password) in [("ann", "admin secret"), ("vic", "viewer secret")] {
        assert_eq!(proxy.session(user, password).value("SELECT current_user"), user);
    }
    let mut said = Vec::new();
    for (user, password) in [("ann", "wrong"), ("vic", "admin secret"), ("nobody", "admin secret"), ("nobody", "")] {
        let output = proxy.command("psql", user, password).args(["-X", "-c", "SHOW STATE"]).output().expect("psql");
        assert!(!output.status.success(), "{user}");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        if !password.is_empty() {
            let text = format!("FATAL:  password authentication failed for user \"{user}\"");
            assert!(error.contains(&text), "{error}");
            said.push(error.replace(user, "?"));
        }
    }
    // Whether a user exists cannot be told from the answer.
    assert_eq!(said[0], said[2]);
}

/// The exchange of a user who does not exist looks like one of a user who does: the same salt at each try.
#[test]
fn an_unknown_user_has_a_salt_of_its_own() {
    let proxy = Proxy::alone();
    let salt = |user: &str| {
        let mut stream = socket(proxy.port);
        stream.write_all(&startup(user, "pgsluice")).unwrap();
        let first = b"n,,n=,r=abcdefghijklmnop";
        let mut body = b"SCRAM-SHA-256\0".to_vec();
        body.extend(u32::try_from(first.len()).unwrap().to_be_bytes());
        body.extend(first);
        stream.write_all(&crate::common::raw::frame(b'p', &body)).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let all = messages(&read_to_close(&mut stream));
        let challenge = all.iter().rev().find(|message| message.tag == b'R').expect("a challenge");
        let text = String::from_utf8_lossy(&challenge.body[4..]).into_owned();
        text.split(',').filter(|part| !part.starts_with("r=")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(salt("ann"), salt("ann"));
    assert_eq!(salt("nobody"), salt("nobody"));
    assert_ne!(salt("nobody"), salt("nobody else"));
    assert_eq!(salt("nobody")[1], salt("ann")[1], "iterations");
}

#[test]
fn the_proxys_own_user_comes_in_over_the_unix_socket() {
    let proxy = Proxy::start(|config| config.console.users.clear());
    let mut command = proxy.command("psql", "whoever", "");
    command.env("PGHOST", &proxy.folder).env("PGPORT", "6432").env_remove("PGPASSWORD");
    let output = command.args(["-XAtc", "SELECT current_user", "-c", "SET log.level = 'info'"]).output().expect("psql");
    assert_eq!(succeeded(&output), "whoever\nSET\n");
    // Over TCP nobody is let in without users.
    let output = proxy.psql(&["-c", "SELECT 1"]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("FATAL:  the console has no user \"ann\"") && error.contains("HINT:"), "{error}");
}

#[test]
fn a_console_that_is_off_leaves_the_name_to_the_server() {
    let proxy = Proxy::start(|config| config.console.enabled = false);
    let output = proxy.psql(&["-c", "SELECT 1"]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("could not connect to the server at 127.0.0.1:9"), "{error}");
}

#[test]
fn options_of_the_protocol_that_are_not_known_are_reported() {
    let proxy = Proxy::alone();
    let body = b"user\0ann\0database\0pgsluice\0_pq_.future\0on\0\0";
    for (version, agreed) in [(196_608_u32, 196_608_u32), (196_610, 196_610), (196_608 + 9999, 196_610)] {
        let mut packet = (8 + body.len() as u32).to_be_bytes().to_vec();
        packet.extend(version.to_be_bytes());
        packet.extend(body);
        let mut stream = socket(proxy.port);
        stream.write_all(&packet).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let all = messages(&read_to_close(&mut stream));
        let answer = &all[0];
        assert_eq!(answer.tag, b'v', "{all:?}");
        assert_eq!(answer.body[..4], agreed.to_be_bytes(), "{version}");
        assert_eq!(&answer.body[4..], b"\0\0\0\x01_pq_.future\0");
    }
}

/// The server's version comes first, since drivers choose their first statements by it.
#[test]
fn the_version_begins_with_the_servers() {
    let postgres = crate::common::postgres();
    let proxy = Proxy::start(|config| {
        config.proxy.backend = pgsluice::config::Address::tcp("127.0.0.1", postgres.port);
    });
    let mut client = crate::common::Client::connect(proxy.port, &postgres.user, "postgres");
    let version = client.value("SHOW server_version");
    let number = version.split(' ').next().unwrap();
    let admin = proxy.admin();
    assert_eq!(admin.value("SHOW server_version"), format!("{number} (pgsluice {})", env!("CARGO_PKG_VERSION")));
    assert_eq!(admin.value("SHOW server_version_num"), client.value("SHOW server_version_num"));
    assert!(admin.value("SELECT version()").starts_with(&format!("PostgreSQL {number} ")));
    assert_eq!(admin.rows("SHOW VERSION LIKE 'server'")[0][1].as_deref(), Some(version.as_str()));
}

/// Encryption is the relay's: what `[listen.tls]` demands holds for the console, too, and SCRAM works inside.
#[test]
fn encryption_is_the_relays() {
    use pgsluice::config::ListenTlsMode;
    let proxy = Proxy::start(|config| crate::common::tls::listen(config, ListenTlsMode::Require, "server"));
    let shown = |mode: &str| {
        let mut command = proxy.command("psql", "ann", "admin secret");
        command.env("PGSSLMODE", mode).args(["-XAtF", ",", "-c", "SHOW SESSIONS LIKE 'ann'"]).output().expect("psql")
    };
    let row = succeeded(&shown("require"));
    assert_eq!(row.split(',').nth(5), Some("t"), "{row}");
    assert!(String::from_utf8_lossy(&shown("disable").stderr).contains("the proxy takes encrypted connections only"));
}
