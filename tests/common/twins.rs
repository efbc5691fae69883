//! The oracle of transparency: two equal databases, one reached directly and one through a proxy.

use super::raw::transcript;
use super::{Client, new_database, port, proxy, wait_until};
use pgsluice::dev::Postgres;
use pgsluice::server::Running;
use std::time::Duration;

pub struct Twins {
    pub server: &'static Postgres,
    pub running: Running,
    pub direct: String,
    pub proxied: String,
}

impl Twins {
    pub fn new(server: &'static Postgres, prefix: &str, setup: &str) -> Self {
        let running = proxy(server, |_| {});
        let [direct, proxied] = [(), ()].map(|()| {
            let database = new_database(server, prefix);
            Client::connect(server.port, &server.user, &database).ok(setup);
            database
        });
        Self { server, running, direct, proxied }
    }

    pub fn direct(&self) -> Client {
        Client::connect(self.server.port, &self.server.user, &self.direct)
    }

    pub fn proxied(&self) -> Client {
        Client::connect(port(&self.running), &self.server.user, &self.proxied)
    }

    /// Each port with its database: directly, and through the proxy.
    pub fn ways(&self) -> [(u16, &str); 2] {
        [(self.server.port, &self.direct), (port(&self.running), &self.proxied)]
    }

    /// Plays `parts` on both sides and gives both transcripts.
    pub fn both(&self, parts: &[&[u8]], pause: Option<Duration>) -> (String, String) {
        let played = |client: Client, database: &str| {
            client.stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            let bytes = client.play(parts, pause);
            wait_until_alone(self.server, database);
            transcript(&bytes)
        };
        (played(self.direct(), &self.direct), played(self.proxied(), &self.proxied))
    }

    #[track_caller]
    pub fn same(&self, name: &str, bytes: &[u8]) {
        let (direct, proxied) = self.both(&[bytes], None);
        assert!(!direct.is_empty(), "{name}: no answer");
        assert_eq!(direct, proxied, "{name}");
    }

    /// What `talk` gives on both sides is the same, and something.
    #[track_caller]
    pub fn same_talk(&self, name: &str, talk: impl Fn(Client, &str) -> String) {
        let [direct, proxied] = self.ways().map(|(port, database)| {
            let given = talk(Client::connect(port, &self.server.user, database), database);
            wait_until_alone(self.server, database);
            given
        });
        assert!(!direct.is_empty(), "{name}: no answer");
        assert_eq!(direct, proxied, "{name}");
    }
}

/// Every backend of the database has ended.
pub fn wait_until_alone(server: &Postgres, database: &str) {
    let mut watcher = Client::connect(server.port, &server.user, "postgres");
    let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}'");
    wait_until(&format!("no backend is left in {database}"), || watcher.value(&sql) == "0");
}
