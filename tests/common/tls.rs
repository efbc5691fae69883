//! A server that encrypts, with certificates of an authority of its own, and clients that speak TLS.

use super::{Client, Message, PATIENCE, port, proxy, startup_packet, wait_until};
use pgsluice::config::{BackendTlsMode, Config, ListenTlsMode};
use pgsluice::dev::{Options, Postgres};
use pgsluice::server::Running;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::PathBuf;
use std::process::Output;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

pub const SECRET: &str = "s3cret";
pub const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
pub const GSSENC_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 48];

/// Certificates of one authority, as files: the server's, another one for the proxy, a client's; and one of a stranger's.
pub struct Files {
    pub folder: PathBuf,
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

    pub fn crt(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.crt"))
    }

    pub fn key(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.key"))
    }
}

pub static FILES: LazyLock<Files> = LazyLock::new(Files::new);

/// Encrypts with the certificate `server`, and asks the role `scram` for SCRAM.
pub static SERVER: LazyLock<Postgres> = LazyLock::new(|| {
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
pub fn install(postgres: &Postgres, name: &str) {
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

pub fn listen(config: &mut Config, mode: ListenTlsMode, certificate: &str) {
    config.listen_tls.mode = mode;
    config.listen_tls.certificate = Some(FILES.crt(certificate));
    config.listen_tls.key = Some(FILES.key(certificate));
}

pub fn behind(config: &mut Config, mode: BackendTlsMode) {
    config.backend_tls.mode = mode;
    if matches!(mode, BackendTlsMode::VerifyCa | BackendTlsMode::VerifyFull) {
        config.backend_tls.root = Some(FILES.crt("ca"));
    }
}

/// psql as the role `scram`.
pub fn psql(port: u16, sql: &str, environment: &[(&str, &str)]) -> Output {
    let mut command = SERVER.command("psql");
    command.env("PGPORT", port.to_string()).env("PGUSER", "scram").env("PGPASSWORD", SECRET);
    command.env("PGSSLROOTCERT", FILES.crt("ca")).envs(environment.iter().copied()).args(["-XAtc", sql]);
    command.output().unwrap()
}

pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// TLS on both sides, with the server's own certificate.
pub fn both(tweak: impl FnOnce(&mut Config)) -> Running {
    proxy(&SERVER, |config| {
        listen(config, ListenTlsMode::Require, "server");
        behind(config, BackendTlsMode::VerifyFull);
        tweak(config);
    })
}

pub type Tls = rustls::StreamOwned<rustls::ClientConnection, TcpStream>;

/// The handshake is over when this returns; `None`: it failed, or the proxy closed the connection at once.
pub fn handshake(stream: TcpStream, alpn: &[&[u8]]) -> Option<Tls> {
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

pub fn tls(running: &Running, direct: bool, alpn: &[&[u8]]) -> Option<Tls> {
    let mut stream = TcpStream::connect(("127.0.0.1", port(running))).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
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
    stream.sock.set_read_timeout(Some(PATIENCE)).unwrap();
    waits.then_some(stream)
}

/// A session over TLS, by bare messages.
pub struct TlsClient {
    pub stream: Tls,
    pub pid: i32,
    pub key: Vec<u8>,
}

pub fn tls_client(running: &Running, direct: bool) -> Option<TlsClient> {
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
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
        self.stream.flush().unwrap();
    }

    pub fn read_to(&mut self, tag: u8) -> Message {
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
