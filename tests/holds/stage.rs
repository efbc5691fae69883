//! The stage of the tests of held changes: a server, a proxy with rules, a client, and operators at the console.

use crate::common::{Client, Message, new_database, no_table_is_small, port, postgres, proxy, wait_until};
use pgsluice::config::{Address, Config, Overrides};
use pgsluice::dev::Postgres;
use pgsluice::server::Running;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio_postgres::{NoTls, SimpleQueryMessage};

/// One server for all; it ends with this process.
pub(crate) static SERVER: LazyLock<Postgres> = LazyLock::new(postgres);

/// The client waits for longer than any test, unless a rule says otherwise.
pub(crate) const RULES: &str = r#"
[[rule]]
name = "quick"
match = { relation = "quick" }
verdict = "hold"
wait_for = "50ms"

[[rule]]
name = "soon over"
match = { relation = "soon" }
verdict = "hold"
wait_for = "50ms"
expires = "1s"

[[rule]]
name = "two"
match = { relation = "two" }
verdict = "hold"
approvers = 2

[[rule]]
name = "second pair of eyes"
match = { relation = ["held", "held_*"] }
verdict = "hold"
wait_for = "0"
hint = "Ask #dba."
"#;

pub(crate) const TABLES: &str =
    "CREATE TABLE held (id int, a int); CREATE TABLE quick (id int, a int); CREATE TABLE soon (id int, a int);
    CREATE TABLE two (id int, a int); CREATE TABLE plain (id int, a int); INSERT INTO held VALUES (1, 1)";

pub(crate) struct Stage {
    pub(crate) running: Running,
    pub(crate) folder: PathBuf,
    pub(crate) database: String,
    pub(crate) user: String,
    pub(crate) direct: Client,
    pub(crate) client: Client,
    pub(crate) ann: Operator,
}

/// A session of the console.
pub(crate) struct Operator {
    runtime: tokio::runtime::Runtime,
    pub(crate) client: tokio_postgres::Client,
}

impl Operator {
    pub(crate) fn new(folder: &PathBuf, user: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let client = runtime.block_on(async {
            let mut config = tokio_postgres::Config::new();
            config.host_path(folder).port(6432).user(user).dbname("pgsluice");
            let (client, connection) = config.connect(NoTls).await.unwrap();
            tokio::spawn(connection);
            client
        });
        Self { runtime, client }
    }

    pub(crate) fn rows(&self, sql: &str) -> Vec<Vec<String>> {
        let messages = self.runtime.block_on(self.client.simple_query(sql));
        let messages = messages.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        let row = |message: &SimpleQueryMessage| match message {
            SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|at| row.get(at).unwrap_or_default().to_owned()).collect())
            }
            _ => None,
        };
        messages.iter().filter_map(row).collect()
    }

    pub(crate) fn ok(&self, sql: &str) {
        self.rows(sql);
    }

    /// The SQLSTATE of a command that must fail.
    pub(crate) fn error(&self, sql: &str) -> String {
        let error = self.runtime.block_on(self.client.simple_query(sql)).expect_err(sql);
        error.code().unwrap().code().to_owned()
    }

    /// A value of SHOW CHANGE.
    pub(crate) fn of(&self, number: u64, name: &str) -> String {
        let rows = self.rows(&format!("SHOW CHANGE {number}"));
        let values = rows.into_iter().filter(|row| row[0] == name).map(|mut row| row.swap_remove(1));
        values.collect::<Vec<_>>().join("\n")
    }

    /// The numbers of the changes for which a client waits.
    pub(crate) fn waiting(&self) -> Vec<u64> {
        let rows = self.rows("SHOW CHANGES");
        let waits = rows.into_iter().filter(|row| row[11] == "held" && row[9].contains("is held by"));
        waits.map(|row| row[0].parse().unwrap()).collect()
    }

    /// Waits for the first change that is held with a client.
    pub(crate) fn held(&self) -> u64 {
        wait_until("a client waits", || !self.waiting().is_empty());
        self.waiting()[0]
    }
}

impl Stage {
    pub(crate) fn new(name: &str) -> Self {
        Self::on(&SERVER, name, |_| {})
    }

    pub(crate) fn on(server: &Postgres, name: &str, tweak: impl FnOnce(&mut Config)) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("pgsluice-holds-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let running = proxy(server, |config| {
            no_table_is_small(config);
            config.proxy.listen.push(Address::Unix { dir: folder.clone(), port: 6432 });
            config.gate = rules(RULES);
            tweak(config);
        });
        let database = new_database(server, name);
        let mut direct = Client::connect(server.port, &server.user, &database);
        direct.ok(TABLES);
        let client = Client::connect(port(&running), &server.user, &database);
        let ann = Operator::new(&folder, "ann");
        Self { running, folder, database, user: server.user.clone(), direct, client, ann }
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(port(&self.running), &self.user, &self.database)
    }

    pub(crate) fn operator(&self, user: &str) -> Operator {
        Operator::new(&self.folder, user)
    }

    pub(crate) fn columns(&mut self, table: &str) -> String {
        self.direct.value(&format!(
            "SELECT string_agg(attname, ',' ORDER BY attnum) FROM pg_attribute WHERE attrelid = '{table}'::regclass AND attnum > 0 AND NOT attisdropped"
        ))
    }

    /// The error of a statement, with all its fields.
    #[track_caller]
    pub(crate) fn error(&mut self, sql: &str) -> Message {
        self.client.send_query(sql);
        error(&mut self.client)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

pub(crate) fn rules(text: &str) -> pgsluice::config::GateSettings {
    Config::parse(text, Overrides::default()).unwrap().gate
}

#[track_caller]
pub(crate) fn error(client: &mut Client) -> Message {
    let messages = client.read_up_to(b"Z");
    messages.into_iter().find(|message| message.tag == b'E').expect("an error")
}

/// The number in a ticket.
pub(crate) fn number(error: &Message) -> u64 {
    let detail = error.field(b'D').unwrap();
    detail.strip_prefix("change=").and_then(|rest| rest.split(' ').next()).unwrap().parse().unwrap()
}
