//! A pooler in transaction mode behind the proxy. A lock of the session's would stay on the pooled connection, so the proxy
//! holds none.

use super::common::{Client, Outcome, new_database, no_table_is_small, postgres, wait_until};
use pgsluice::config::{Address, Config};
use pgsluice::dev::Postgres;
use pgsluice::server::{self, Running};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;

static SERVER: LazyLock<Postgres> = LazyLock::new(postgres);

/// PgBouncer between the server and a proxy.
struct Pooled {
    pooler: Child,
    folder: std::path::PathBuf,
    running: Running,
}

impl Drop for Pooled {
    fn drop(&mut self) {
        let _ = self.pooler.kill();
        let _ = self.pooler.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn number(arguments: &[&str]) -> Option<u32> {
    let output = Command::new("id").args(arguments).output().ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}

impl Pooled {
    fn start() -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let folder = std::env::temp_dir().join(format!("pgsluice-pooler-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::write(folder.join("users.txt"), format!("\"{}\" \"\"\n", SERVER.user)).unwrap();
        let settings = format!(
            "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = trust\nauth_file = {}\npool_mode = transaction\ndefault_pool_size = 4\n",
            SERVER.port,
            folder.join("users.txt").display()
        );
        std::fs::write(folder.join("pgbouncer.ini"), settings).unwrap();
        let program =
            ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer"].into_iter().find(|path| std::path::Path::new(path).exists());
        let mut command = Command::new(program.unwrap_or("pgbouncer"));
        command.arg(folder.join("pgbouncer.ini")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // It does not run as root.
        if number(&["-u"]) == Some(0) {
            let user = ["postgres", "nobody"]
                .into_iter()
                .find_map(|user| Some((number(&["-u", user])?, number(&["-g", user])?)));
            let (uid, gid) = user.expect("a user who is not root");
            command.uid(uid).gid(gid);
        }
        let pooler = command.spawn().expect("PgBouncer; scripts/setup.sh clients installs it");
        wait_until("the pooler listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        let mut config = Config::default();
        config.proxy.listen = vec![Address::tcp("127.0.0.1", 0)];
        config.proxy.backend = Address::tcp("127.0.0.1", port);
        config.proxy.workers = 1;
        config.proxy.io = super::common::io();
        no_table_is_small(&mut config);
        Self { pooler, folder, running: server::spawn(config).expect("a proxy") }
    }

    fn client(&self, database: &str) -> Client {
        Client::connect(self.running.address().port(), &SERVER.user, database)
    }
}

/// Granted and waited for, in this database.
const ADVISORY: &str = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' \
     AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";

const STATEMENTS: [&str; 8] = [
    "CREATE TABLE t AS SELECT g AS id, g AS a FROM generate_series(1, 5000) g",
    "ALTER TABLE t ADD COLUMN c int",
    "CREATE INDEX ia ON t (a)",
    "ALTER TABLE t ADD CONSTRAINT positive CHECK (a > 0)",
    "ALTER TABLE t ADD UNIQUE (id)",
    "ALTER TABLE t ADD COLUMN d float8 DEFAULT random()",
    "ALTER TABLE t ADD COLUMN c int",
    "BEGIN; ALTER TABLE t ADD COLUMN e int; CREATE INDEX ie ON t (e); COMMIT",
];

#[test]
fn nothing_is_left_on_a_pooled_connection() {
    let pooled = Pooled::start();
    let database = new_database(&SERVER, "pooled");
    let mut watcher = Client::connect(SERVER.port, &SERVER.user, &database);
    let extended =
        |client: &mut Client, sql: &str| if sql.contains("; ") { client.query(sql) } else { client.execute(sql) };
    for way in [Client::query as fn(&mut Client, &str) -> Outcome, extended] {
        let mut told = 0;
        let mut client = pooled.client(&database);
        for (nth, sql) in STATEMENTS.iter().enumerate() {
            // Others take the pooled connections in between.
            let mut other = pooled.client(&database);
            other.ok("BEGIN");
            let outcome = way(&mut client, sql);
            assert_eq!(outcome.error.as_deref(), (nth == 6).then_some("42701"), "{sql}: {outcome:?}");
            told += outcome.notices.iter().filter(|notice| notice.contains("run as written")).count();
            other.ok("COMMIT");
            assert_eq!(watcher.value(ADVISORY), "0", "behind {sql}");
        }
        assert_eq!(told, 1, "it is told once");
        assert_eq!(watcher.value("SELECT count(*) FROM pg_index WHERE indrelid = 't'::regclass AND indisvalid"), "3");
        // A later change waits for nobody.
        let mut later = pooled.client(&database);
        later.ok("SET lock_timeout = 0; DROP TABLE t");
    }
}

/// The lock is the session's of the pooled connection, as it is without the proxy: once, not twice.
#[test]
fn an_advisory_lock_is_waited_for_once() {
    let pooled = Pooled::start();
    let database = new_database(&SERVER, "pooled");
    let mut holder = Client::connect(SERVER.port, &SERVER.user, &database);
    holder.ok("SELECT pg_advisory_lock(1)");
    let mut client = pooled.client(&database);
    client.ok("BEGIN");
    client.send_query("SELECT pg_advisory_xact_lock(1)");
    let long = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory' AND now() - query_start > '600ms'";
    wait_until("it waits in the server", || holder.value(ADVISORY) == "2" && holder.value(long) == "1");
    holder.ok("SELECT pg_advisory_unlock(1)");
    assert_eq!(client.outcome().error, None);
    client.ok("COMMIT");
    assert_eq!(holder.value(ADVISORY), "0");
}
