//! Tests of TLS on both sides, and of the login through it. `tests/first_bytes.rs` has the other traffic before a session.
//!
//! They run against a real server that encrypts, with libpq (psql, pgbench) and with bare sockets. A case that works
//! directly must work through the proxy, or fail for the reason that `docs/security.md` gives.

mod common;

use common::tls::{FILES, SECRET, SERVER, SSL_REQUEST, behind, both, install, listen, psql, said, tls, tls_client};
use common::{Client, new_database, port, proxy, raw, startup_packet, wait_until};
use pgsluice::config::{Address, BackendTlsMode, Config, ListenTlsMode};
use pgsluice::dev::{Options, Postgres};
use pgsluice::server::Running;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

const ENCRYPTED: &str = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";

#[test]
fn modes_towards_clients() {
    for (mode, plain, encrypted) in [
        (ListenTlsMode::Disable, true, false),
        (ListenTlsMode::Allow, true, true),
        (ListenTlsMode::Require, false, true),
    ] {
        let running = proxy(&SERVER, |config| listen(config, mode, "server"));
        for (sslmode, works) in [
            ("disable", plain),
            ("prefer", true),
            ("require", encrypted),
            ("verify-ca", encrypted),
            ("verify-full", encrypted),
        ] {
            let output = psql(port(&running), "SELECT 1", &[("PGSSLMODE", sslmode)]);
            assert_eq!(output.status.success(), works, "{mode} {sslmode}: {}", said(&output));
            if !works && mode == ListenTlsMode::Require {
                assert!(said(&output).contains("encrypted connections only"), "{}", said(&output));
            }
        }
        running.stop_now();
    }
}

#[test]
fn modes_towards_the_server() {
    let elsewhere = Postgres::start(Options::default()).unwrap();
    install(&elsewhere, "elsewhere");
    let plain = Postgres::start(Options::default()).unwrap();
    use BackendTlsMode::{Disable, Prefer, Require, VerifyCa, VerifyFull};
    // The server's certificate names another host; it is not encrypted; the root is a stranger's.
    let cases = [
        (Disable, Some("f"), Some("f"), Some("f"), Some("f")),
        (Prefer, Some("t"), Some("t"), Some("f"), Some("t")),
        (Require, Some("t"), Some("t"), None, None),
        (VerifyCa, Some("t"), Some("t"), None, None),
        (VerifyFull, Some("t"), None, None, None),
    ];
    for (mode, right, other_name, without, stranger) in cases {
        let ask = |server: &Postgres, root: &str| {
            let running = proxy(server, |config| {
                config.backend_tls.mode = mode;
                // `require` checks the certificate if a root is given, as libpq does.
                config.backend_tls.root = (mode != Require || root == "stranger").then(|| FILES.crt(root));
            });
            let mut stream = TcpStream::connect(("127.0.0.1", port(&running))).unwrap();
            stream.write_all(&startup_packet("postgres", "postgres")).unwrap();
            let mut client = Client { stream, pid: 0, key: Vec::new() };
            let first = client.read();
            let answer = if first.tag == b'R' {
                while client.read().tag != b'Z' {}
                Some(client.value(ENCRYPTED))
            } else {
                assert_eq!(first.field(b'C').as_deref(), Some("08006"), "{mode}");
                assert!(first.field(b'H').is_some());
                None
            };
            running.stop_now();
            answer
        };
        assert_eq!(ask(&SERVER, "ca").as_deref(), right, "{mode}");
        assert_eq!(ask(&elsewhere, "ca").as_deref(), other_name, "{mode}: another name");
        assert_eq!(ask(&plain, "ca").as_deref(), without, "{mode}: not encrypted");
        assert_eq!(ask(&SERVER, "stranger").as_deref(), stranger, "{mode}: a stranger's root");
    }
}

/// The matrix of what SCRAM does where one end, both or none are encrypted.
#[test]
fn scram_through_the_proxy() {
    // Proxy's certificate, client's sslmode, the server's mode, channel_binding; then whether it works.
    let cases = [
        ("server", "require", BackendTlsMode::VerifyFull, "prefer", true),
        ("server", "require", BackendTlsMode::VerifyFull, "require", true),
        ("other", "require", BackendTlsMode::Require, "prefer", false),
        ("other", "require", BackendTlsMode::Require, "disable", true),
        ("other", "require", BackendTlsMode::Disable, "prefer", true),
        ("server", "require", BackendTlsMode::Disable, "require", false),
        ("server", "disable", BackendTlsMode::Require, "prefer", true),
        ("server", "disable", BackendTlsMode::Disable, "prefer", true),
    ];
    for (certificate, sslmode, backend, binding, works) in cases {
        let running = proxy(&SERVER, |config| {
            listen(config, ListenTlsMode::Allow, certificate);
            behind(config, backend);
        });
        let environment = [("PGSSLMODE", sslmode), ("PGCHANNELBINDING", binding)];
        let output = psql(port(&running), ENCRYPTED, &environment);
        let case = format!("{certificate} {sslmode} {backend} {binding}: {}", said(&output));
        assert_eq!(output.status.success(), works, "{case}");
        if works {
            let expected = if backend == BackendTlsMode::Disable { "f" } else { "t" };
            assert_eq!(said(&output).trim(), expected, "{case}");
        } else if certificate == "other" {
            assert!(said(&output).contains("HINT:") && said(&output).contains("[listen.tls]"), "{case}");
        }
        let md5 =
            psql(port(&running), ENCRYPTED, &[("PGSSLMODE", sslmode), ("PGUSER", "md5"), ("PGDATABASE", "postgres")]);
        assert!(md5.status.success(), "md5, {case}");
        running.stop_now();
    }
}

/// What the server says of a wrong password is passed on without a hint of ours.
#[test]
fn a_wrong_password_is_the_servers_to_tell() {
    let running = proxy(&SERVER, |config| {
        listen(config, ListenTlsMode::Allow, "server");
        behind(config, BackendTlsMode::Require);
    });
    for user in ["scram", "md5", "nobody"] {
        let environment =
            [("PGPASSWORD", "wrong"), ("PGUSER", user), ("PGSSLMODE", "require"), ("PGDATABASE", "postgres")];
        let [direct, proxied] = [SERVER.port, port(&running)].map(|port| {
            let output = psql(port, "SELECT 1", &environment);
            assert!(!output.status.success());
            said(&output).replace(&port.to_string(), "PORT")
        });
        assert_eq!(direct, proxied);
    }
    running.stop_now();
}

#[test]
fn client_certificates() {
    for required in [false, true] {
        let running = proxy(&SERVER, |config| {
            listen(config, ListenTlsMode::Allow, "server");
            config.listen_tls.ca = Some(FILES.crt("ca"));
            config.listen_tls.require_client_certificate = required;
        });
        let (crt, key) = (FILES.crt("client"), FILES.key("client"));
        let (crt, key) = (crt.to_str().unwrap(), key.to_str().unwrap());
        let with = [("PGSSLMODE", "require"), ("PGSSLCERT", crt), ("PGSSLKEY", key)];
        let output = psql(port(&running), "SELECT 1", &with);
        assert!(output.status.success(), "{}", said(&output));
        let (crt, key) = (FILES.crt("stranger"), FILES.key("stranger"));
        let strange =
            [("PGSSLMODE", "require"), ("PGSSLCERT", crt.to_str().unwrap()), ("PGSSLKEY", key.to_str().unwrap())];
        assert!(!psql(port(&running), "SELECT 1", &strange).status.success());
        let without = psql(port(&running), "SELECT 1", &[("PGSSLMODE", "require")]);
        assert_eq!(without.status.success(), !required, "{}", said(&without));
        running.stop_now();
    }
    // A login by certificate is one to the proxy alone: the client's key cannot sign for the server.
    let (crt, key) = (FILES.crt("client"), FILES.key("client"));
    let login = [("PGSSLMODE", "require"), ("PGSSLCERT", crt.to_str().unwrap()), ("PGSSLKEY", key.to_str().unwrap())];
    let login = [&login[..], &[("PGUSER", "certified"), ("PGDATABASE", "postgres")]].concat();
    let running = both(|config| config.listen_tls.ca = Some(FILES.crt("ca")));
    let output = psql(port(&running), "SELECT 1", &login);
    assert!(said(&output).contains("connection requires a valid client certificate"), "{}", said(&output));
    running.stop_now();
    // The server can ask the proxy for a certificate; it is the same for all.
    let running = proxy(&SERVER, |config| {
        behind(config, BackendTlsMode::VerifyFull);
        config.backend_tls.certificate = Some(FILES.crt("client"));
        config.backend_tls.key = Some(FILES.key("client"));
    });
    let shown = "SELECT client_dn FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    assert_eq!(said(&psql(port(&running), shown, &[])).trim(), "/CN=client");
    running.stop_now();
}

/// Large results, COPY both ways, schema changes, cancels: all of it through TLS on both sides.
#[test]
fn work_through_tls() {
    let running = both(|_| {});
    let database = new_database(&SERVER, "work");
    let way = [("PGSSLMODE", "require"), ("PGDATABASE", database.as_str())];
    let run = |sql: &str| {
        let output = psql(port(&running), sql, &way);
        assert!(output.status.success(), "{sql}: {}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    run("CREATE TABLE t (id int PRIMARY KEY, v text)");
    run("INSERT INTO t SELECT n, repeat(md5(n::text), 20) FROM generate_series(1, 40000) n");
    let rows = run("COPY t TO STDOUT");
    assert_eq!(rows.lines().count(), 40_000);
    run("CREATE TABLE u (LIKE t)");
    let file = FILES.folder.join("rows");
    std::fs::write(&file, &rows).unwrap();
    run(&format!("\\copy u from '{}'", file.display()));
    assert_eq!(
        run("SELECT count(*), md5(string_agg(v, '' ORDER BY id)) FROM t"),
        run("SELECT count(*), md5(string_agg(v, '' ORDER BY id)) FROM u")
    );
    assert_eq!(run("SELECT length(repeat('x', 30000000))").trim(), "30000000");
    assert_eq!(run("SELECT repeat('x', 30000000)").trim().len(), 30_000_000);
    run("CREATE INDEX ON t (v); ALTER TABLE t ADD COLUMN w int NOT NULL DEFAULT 3");
    for protocol in ["simple", "extended", "prepared"] {
        let mut pgbench = SERVER.command("pgbench");
        let script = FILES.folder.join(format!("{protocol}.sql"));
        std::fs::write(
            &script,
            "\\set id random(1, 40000)\nSELECT v FROM t WHERE id = :id;\nUPDATE t SET w = w + 1 WHERE id = :id;\n",
        )
        .unwrap();
        pgbench.env("PGPORT", port(&running).to_string()).env("PGUSER", "scram").env("PGPASSWORD", SECRET).envs(way);
        let output = pgbench.args(["-n", "-c4", "-j2", "-t50", "-M", protocol, "-f"]).arg(&script).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
    }
    running.stop_now();
}

/// psql's Ctrl-C is a CancelRequest on a connection of its own.
#[test]
fn a_cancel_through_tls() {
    let running = both(|_| {});
    let mut sleeper = tls_client(&running, false).unwrap();
    sleeper.send(&raw::q("SELECT pg_sleep(60)"));
    let mut watcher = Client::connect(SERVER.port, &SERVER.user, "postgres");
    let sleeping =
        format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {} AND wait_event = 'PgSleep'", sleeper.pid);
    wait_until("the query sleeps", || watcher.value(&sleeping) == "1");
    // Encrypted, as libpq 17 sends it, and in plain text, as older ones do.
    let mut stream = tls(&running, true, &[b"postgresql"]).unwrap();
    let body = [&80_877_102_u32.to_be_bytes()[..], &sleeper.key].concat();
    stream.write_all(&[&(4 + body.len() as u32).to_be_bytes()[..], &body].concat()).unwrap();
    assert_eq!(sleeper.read_to(b'E').field(b'C').as_deref(), Some("57014"));
    sleeper.read_to(b'Z');
    sleeper.send(&raw::q("SELECT pg_sleep(60)"));
    wait_until("the query sleeps again", || watcher.value(&sleeping) == "1");
    let plain = Client {
        stream: TcpStream::connect(("127.0.0.1", port(&running))).unwrap(),
        pid: sleeper.pid,
        key: sleeper.key.clone(),
    };
    plain.cancel(port(&running));
    assert_eq!(sleeper.read_to(b'E').field(b'C').as_deref(), Some("57014"));
    running.stop_now();
}

/// Sessions keep the certificate they began with; the next get the new one; a bad file changes nothing.
#[test]
fn files_are_read_anew() {
    let (crt, key) = (FILES.folder.join("current.crt"), FILES.folder.join("current.key"));
    let put = |name: &str| {
        std::fs::copy(FILES.crt(name), &crt).unwrap();
        std::fs::copy(FILES.key(name), &key).unwrap();
    };
    put("server");
    let running = proxy(&SERVER, |config| {
        listen(config, ListenTlsMode::Require, "server");
        config.listen_tls.certificate = Some(crt.clone());
        config.listen_tls.key = Some(key.clone());
    });
    let shown = || {
        let stream = tls(&running, true, &[b"postgresql"]).unwrap();
        stream.conn.peer_certificates().unwrap()[0].to_vec()
    };
    let pem = |name: &str| CertificateDer::from_pem_file(FILES.crt(name)).unwrap().to_vec();
    let mut old = tls_client(&running, false).unwrap();
    assert_eq!(shown(), pem("server"));
    put("other");
    running.shared().front_tls.reload().unwrap();
    assert_eq!(shown(), pem("other"));
    std::fs::write(&key, "no key").unwrap();
    let wrong = running.shared().front_tls.reload().unwrap_err();
    assert!(wrong.contains("listen.tls.key") && wrong.contains("no private key"), "{wrong}");
    assert_eq!(shown(), pem("other"));
    old.send(&raw::q("SELECT 1"));
    old.read_to(b'Z');
    running.stop_now();
}

/// Somebody between proxy and server who answers in its place is believed nothing.
#[test]
fn a_stranger_in_the_servers_place() {
    let evil = b"E\0\0\0\x31SERROR\0VFATAL\0C28000\0Msend me your password\0\0";
    for (answer, mode) in [
        (&evil[..], BackendTlsMode::Require),
        (b"S\x15\x03\x01", BackendTlsMode::Require),
        (b"X", BackendTlsMode::Prefer),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let answer = answer.to_vec();
        let stranger = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 8];
            stream.read_exact(&mut request).unwrap();
            assert_eq!(request, SSL_REQUEST);
            stream.write_all(&answer).unwrap();
        });
        let running = proxy(&SERVER, |config| {
            config.proxy.backend = Address::tcp("127.0.0.1", address.port());
            config.proxy.connect_timeout = Duration::from_secs(2);
            behind(config, mode);
        });
        let mut stream = TcpStream::connect(("127.0.0.1", port(&running))).unwrap();
        stream.write_all(&startup_packet("postgres", "postgres")).unwrap();
        let mut client = Client { stream, pid: 0, key: Vec::new() };
        let message = client.read();
        assert_eq!(message.field(b'C').as_deref(), Some("08006"));
        assert!(!message.field(b'M').unwrap().contains("password"), "{:?}", message.field(b'M'));
        stranger.join().unwrap();
        running.stop_now();
    }
}

#[test]
fn files_that_do_not_fit_are_told() {
    let spawned = |tweak: &dyn Fn(&mut Config)| {
        let mut config = Config::default();
        config.proxy.listen = vec![Address::tcp("127.0.0.1", 0)];
        tweak(&mut config);
        pgsluice::server::spawn(config).map(Running::stop_now).unwrap_err().to_string()
    };
    let missing = spawned(&|config| {
        listen(config, ListenTlsMode::Allow, "server");
        config.listen_tls.key = Some(Path::new("no/such.key").to_owned());
    });
    assert!(missing.contains("listen.tls.key: no/such.key: "), "{missing}");
    let mixed = spawned(&|config| {
        listen(config, ListenTlsMode::Allow, "server");
        config.listen_tls.key = Some(FILES.key("other"));
    });
    assert!(mixed.contains("do not match"), "{mixed}");
    let swapped = spawned(&|config| {
        listen(config, ListenTlsMode::Allow, "server");
        config.listen_tls.certificate = Some(FILES.key("server"));
    });
    assert!(swapped.contains("the file contains no certificate (PEM)"), "{swapped}");
}
