//! TLS on both sides, the login through it, and what else comes before the first startup packet.
//!
//! Against a real server that encrypts, with libpq (psql, pgbench) and with bare sockets. A case that
//! works directly must work through the proxy, or fail for the reason that `docs/security.md` gives.

mod common;

use common::{Client, Message, new_database, port, proxy, raw, startup_packet, wait_until};
use pgsluice::config::{Address, BackendTlsMode, Config, ListenTlsMode};
use pgsluice::dev::{Options, Postgres};
use pgsluice::server::Running;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

const SECRET: &str = "s3cret";
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
const GSSENC_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 48];

/// Certificates of one authority, as files: the server's, another one for the proxy, a client's; and one of a stranger's.
struct Files {
    folder: PathBuf,
}

impl Files {
    fn new() -> Self {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("tls-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let files = Self { folder };
        let ca = files.authority("ca");
        files.authority("stranger");
        for name in ["server", "other", "client"] {
            files.issue(name, &ca, &["localhost", "127.0.0.1"]);
        }
        files.issue("elsewhere", &ca, &["elsewhere.example"]);
        files
    }

    fn authority(&self, name: &str) -> Issuer<'static, KeyPair> {
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        self.write(name, &params.self_signed(&key).unwrap().pem(), &key);
        Issuer::new(params, key)
    }

    fn issue(&self, name: &str, issuer: &Issuer<'_, KeyPair>, hosts: &[&str]) {
        let mut params =
            CertificateParams::new(hosts.iter().map(|host| (*host).to_owned()).collect::<Vec<_>>()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        self.write(name, &params.signed_by(&key, issuer).unwrap().pem(), &key);
    }

    fn write(&self, name: &str, certificate: &str, key: &KeyPair) {
        std::fs::write(self.crt(name), certificate).unwrap();
        std::fs::write(self.key(name), key.serialize_pem()).unwrap();
        std::fs::set_permissions(self.key(name), std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn crt(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.crt"))
    }

    fn key(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.key"))
    }
}

static FILES: LazyLock<Files> = LazyLock::new(Files::new);

/// Encrypts with the certificate `server`, and asks the role `scram` for SCRAM.
static SERVER: LazyLock<Postgres> = LazyLock::new(|| {
    let postgres = Postgres::start(Options::default()).expect("a throw-away server");
    let rules = postgres.data_dir.join("pg_hba.conf");
    let old = std::fs::read_to_string(&rules).unwrap();
    let own = "host all scram all scram-sha-256\nhost all md5 all md5\nhostssl all certified all cert\n";
    std::fs::write(&rules, own.to_owned() + &old).unwrap();
    install(&postgres, "server");
    let mut admin = Client::connect(postgres.port, &postgres.user, "postgres");
    admin.ok(&format!("CREATE ROLE scram LOGIN SUPERUSER PASSWORD '{SECRET}'"));
    admin.ok(&format!("SET password_encryption = 'md5'; CREATE ROLE md5 LOGIN PASSWORD '{SECRET}'"));
    admin.ok("CREATE ROLE certified LOGIN");
    postgres
});

/// Gives the server a certificate, and makes it encrypt.
fn install(postgres: &Postgres, name: &str) {
    let owner = std::fs::metadata(&postgres.data_dir).unwrap();
    for (from, to) in [(FILES.crt(name), "server.crt"), (FILES.key(name), "server.key"), (FILES.crt("ca"), "root.crt")]
    {
        let to = postgres.data_dir.join(to);
        std::fs::copy(&from, &to).unwrap();
        std::fs::set_permissions(&to, std::fs::Permissions::from_mode(0o600)).unwrap();
        chown(&to, Some(owner.uid()), Some(owner.gid())).unwrap();
    }
    let mut admin = Client::connect(postgres.port, &postgres.user, "postgres");
    admin.ok("ALTER SYSTEM SET ssl_ca_file = 'root.crt'");
    admin.ok("ALTER SYSTEM SET ssl = on");
    admin.ok("SELECT pg_reload_conf()");
    let encrypts = || {
        let mut stream = TcpStream::connect(("127.0.0.1", postgres.port)).unwrap();
        stream.write_all(&SSL_REQUEST).unwrap();
        let mut answer = [0];
        stream.read_exact(&mut answer).unwrap();
        answer == *b"S"
    };
    wait_until("the server encrypts", encrypts);
}

fn listen(config: &mut Config, mode: ListenTlsMode, certificate: &str) {
    config.listen_tls.mode = mode;
    config.listen_tls.certificate = Some(FILES.crt(certificate));
    config.listen_tls.key = Some(FILES.key(certificate));
}

fn behind(config: &mut Config, mode: BackendTlsMode) {
    config.backend_tls.mode = mode;
    if matches!(mode, BackendTlsMode::VerifyCa | BackendTlsMode::VerifyFull) {
        config.backend_tls.root = Some(FILES.crt("ca"));
    }
}

/// psql as the role `scram`.
fn psql(port: u16, sql: &str, environment: &[(&str, &str)]) -> Output {
    let mut command = SERVER.command("psql");
    command.env("PGPORT", port.to_string()).env("PGUSER", "scram").env("PGPASSWORD", SECRET);
    command.env("PGSSLROOTCERT", FILES.crt("ca")).envs(environment.iter().copied()).args(["-XAtc", sql]);
    command.output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

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

#[test]
fn the_first_bytes_of_a_client() {
    let running = both(|config| config.listen_tls.mode = ListenTlsMode::Allow);
    let connect = || {
        let stream = TcpStream::connect(("127.0.0.1", port(&running))).unwrap();
        stream.set_read_timeout(Some(common::PATIENCE)).unwrap();
        stream
    };
    // Bytes in plain text right behind the request.
    for more in [&b"x"[..], &startup_packet("postgres", "postgres")] {
        let mut stream = connect();
        stream.write_all(&[&SSL_REQUEST[..], more].concat()).unwrap();
        let mut client = Client { stream, pid: 0, key: Vec::new() };
        let message = client.read();
        assert_eq!(message.field(b'C').as_deref(), Some("08P01"));
        assert!(message.field(b'M').unwrap().contains("unencrypted data after SSL request"));
    }
    // GSS is declined, then TLS granted; after it no further request.
    let mut stream = connect();
    let mut answer = [0];
    for (request, expected) in [(GSSENC_REQUEST, b'N'), (SSL_REQUEST, b'S')] {
        stream.write_all(&request).unwrap();
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(answer[0], expected);
    }
    let mut stream = handshake(stream, &[]).unwrap();
    stream.write_all(&SSL_REQUEST).unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert_eq!(raw::messages(&rest)[0].field(b'C').as_deref(), Some("0A000"));
    // A direct handshake must name the protocol.
    assert!(tls_client(&running, true).is_some());
    assert!(tls(&running, true, &[]).is_none());
    assert!(tls(&running, true, &[b"http/1.1"]).is_none());
    // What is neither TLS nor PostgreSQL.
    let mut stream = connect();
    stream.write_all(&[0x16, 3, 1, 0, 5, 1, 2, 3, 4, 5]).unwrap();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    assert_ne!(rest.first(), Some(&b'R'));
    // Nobody was hurt.
    assert!(psql(port(&running), "SELECT 1", &[]).status.success());
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

/// A load balancer's header says who the client is; limits count it.
#[test]
fn proxy_headers_and_limits() {
    let running = proxy(&SERVER, |config| {
        config.proxy.proxy_protocol_from = vec!["127.0.0.1".parse().unwrap()];
        config.proxy.max_clients_per_address = 2;
    });
    let connect = |header: &[u8]| {
        let mut stream = TcpStream::connect(("127.0.0.1", port(&running))).unwrap();
        stream.set_read_timeout(Some(common::PATIENCE)).unwrap();
        stream.write_all(&[header, &startup_packet("postgres", "postgres")].concat()).unwrap();
        let mut client = Client { stream, pid: 0, key: Vec::new() };
        let first = client.try_read();
        (client, first.map(|message: Message| message.field(b'C').unwrap_or_else(|| "in".to_owned())))
    };
    let from = |address: &str| format!("PROXY TCP4 {address} 127.0.0.1 1 2\r\n").into_bytes();
    let (one, first) = connect(&from("192.0.2.1"));
    assert_eq!(first.as_deref(), Some("in"));
    let (_two, first) = connect(&from("192.0.2.1"));
    assert_eq!(first.as_deref(), Some("in"));
    assert_eq!(connect(&from("192.0.2.1")).1.as_deref(), Some("53300"));
    assert_eq!(connect(&from("192.0.2.2")).1.as_deref(), Some("in"));
    drop(one);
    wait_until("there is room again", || connect(&from("192.0.2.1")).1.as_deref() == Some("in"));
    // From there, nothing goes without a header.
    assert_eq!(connect(b"").1, None);
    running.stop_now();

    let running = proxy(&SERVER, |config| config.proxy.max_clients = 1);
    let one = Client::connect(port(&running), "postgres", "postgres");
    let mut two = TcpStream::connect(("127.0.0.1", port(&running))).unwrap();
    two.write_all(&startup_packet("postgres", "postgres")).unwrap();
    let message = Client { stream: two, pid: 0, key: Vec::new() }.read();
    assert_eq!((message.field(b'C').as_deref(), message.field(b'V').as_deref()), (Some("53300"), Some("FATAL")));
    one.cancel(port(&running));
    running.stop_now();
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
    assert!(mixed.contains("do not go together"), "{mixed}");
    let swapped = spawned(&|config| {
        listen(config, ListenTlsMode::Allow, "server");
        config.listen_tls.certificate = Some(FILES.key("server"));
    });
    assert!(swapped.contains("no certificate (PEM) in it"), "{swapped}");
}

/// TLS on both sides, with the server's own certificate.
fn both(tweak: impl FnOnce(&mut Config)) -> Running {
    proxy(&SERVER, |config| {
        listen(config, ListenTlsMode::Require, "server");
        behind(config, BackendTlsMode::VerifyFull);
        tweak(config);
    })
}

type Tls = rustls::StreamOwned<rustls::ClientConnection, TcpStream>;

/// The handshake is over when this returns; `None`: it failed, or the proxy closed the connection at once.
fn handshake(stream: TcpStream, alpn: &[&[u8]]) -> Option<Tls> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(FILES.crt("ca")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let connection = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut stream = rustls::StreamOwned::new(connection, stream);
    stream.conn.complete_io(&mut stream.sock).ok()?;
    Some(stream)
}

fn tls(running: &Running, direct: bool, alpn: &[&[u8]]) -> Option<Tls> {
    let mut stream = TcpStream::connect(("127.0.0.1", port(running))).unwrap();
    stream.set_read_timeout(Some(common::PATIENCE)).unwrap();
    if !direct {
        stream.write_all(&SSL_REQUEST).unwrap();
        let mut answer = [0];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(answer, *b"S");
    }
    let mut stream = handshake(stream, alpn)?;
    // With TLS 1.3 the client is done first: whether the server is content shows when it waits for more.
    stream.sock.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut byte = [0];
    let waits = matches!(stream.read(&mut byte), Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut));
    stream.sock.set_read_timeout(Some(common::PATIENCE)).unwrap();
    waits.then_some(stream)
}

/// A session over TLS, by bare messages.
struct TlsClient {
    stream: Tls,
    pid: i32,
    key: Vec<u8>,
}

fn tls_client(running: &Running, direct: bool) -> Option<TlsClient> {
    let stream = tls(running, direct, if direct { &[b"postgresql"] } else { &[] })?;
    let mut client = TlsClient { stream, pid: 0, key: Vec::new() };
    client.send(&startup_packet("postgres", "postgres"));
    let key = client.read_to(b'K').body;
    client.pid = i32::from_be_bytes(key[..4].try_into().unwrap());
    client.key = key;
    client.read_to(b'Z');
    Some(client)
}

impl TlsClient {
    fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
        self.stream.flush().unwrap();
    }

    fn read_to(&mut self, tag: u8) -> Message {
        loop {
            let mut header = [0; 5];
            self.stream.read_exact(&mut header).unwrap();
            let mut body = vec![0; u32::from_be_bytes(header[1..].try_into().unwrap()) as usize - 4];
            self.stream.read_exact(&mut body).unwrap();
            if header[0] == tag {
                return Message { tag, body };
            }
        }
    }
}
