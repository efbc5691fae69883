//! The stage of the tests of the ledger: two proxies that share one, and the roles that decide.

use crate::common::{self, Client, new_database, port, proxy};
use crate::stage::{Operator, RULES, SERVER, Stage, rules};
use pgsluice::config::{Config, Operator as OperatorSettings};
use pgsluice::server::Running;
use std::time::Duration;

/// A stage whose decisions are in a ledger, with another proxy beside it.
pub(crate) struct Two {
    pub(crate) first: Stage,
    pub(crate) second: Running,
    pub(crate) folder: std::path::PathBuf,
    pub(crate) ledger: String,
    /// The ledger's database, as the superuser.
    pub(crate) direct: Client,
}

pub(crate) fn with_ledger(config: &mut Config, database: &str, user: &str) {
    config.operator = OperatorSettings {
        user: Some(user.to_owned()),
        dbname: Some(database.to_owned()),
        ledger: true,
        ..OperatorSettings::default()
    };
}

impl Two {
    pub(crate) fn new(name: &str) -> Self {
        Self::with(name, |_| {})
    }

    pub(crate) fn with(name: &str, tweak: impl Fn(&mut Config)) -> Self {
        let ledger = new_database(&SERVER, &format!("ledger_{name}"));
        let first = Stage::on(&SERVER, name, |config| {
            with_ledger(config, &ledger, &SERVER.user);
            tweak(config);
        });
        let folder = first.folder.join("second");
        std::fs::create_dir_all(&folder).unwrap();
        let second = proxy(&SERVER, |config| {
            common::no_table_is_small(config);
            config.proxy.listen.push(pgsluice::config::Address::Unix { dir: folder.clone(), port: 6432 });
            config.gate = rules(RULES);
            with_ledger(config, &ledger, &SERVER.user);
            tweak(config);
        });
        let mut direct = Client::connect(SERVER.port, &SERVER.user, &ledger);
        for console in [&first.ann, &Operator::new(&folder, "ann")] {
            kept(console);
        }
        roles(&mut direct);
        Self { first, second, folder, ledger, direct }
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(port(&self.second), &self.first.user, &self.first.database)
    }

    pub(crate) fn console(&self) -> Operator {
        Operator::new(&self.folder, "ann")
    }

    /// The ledger as a role that decides.
    pub(crate) fn sql(&self, role: &str) -> Client {
        Client::connect(SERVER.port, role, &self.ledger)
    }

    /// The state of a change in the ledger.
    pub(crate) fn state(&mut self, number: u64) -> String {
        self.direct.value(&format!("SELECT state FROM pgsluice.changes WHERE id = {number}"))
    }

    /// The events of a change, the oldest first.
    pub(crate) fn events(&mut self, number: u64) -> String {
        self.direct
            .value(&format!("SELECT string_agg(what, ', ' ORDER BY id) FROM pgsluice.events WHERE change = {number}"))
    }
}

/// Waits until the ledger answers.
#[track_caller]
fn kept(console: &Operator) {
    let mut last = String::new();
    let until = std::time::Instant::now() + Duration::from_secs(20);
    while last != "kept" {
        assert!(std::time::Instant::now() < until, "{last}");
        last = state(console);
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub(crate) fn roles(direct: &mut Client) {
    for (name, role) in [("olga", "operator"), ("otto", "operator"), ("vera", "viewer")] {
        // The roles are the server's, and the tests share it.
        direct.ok(&format!(
            "SELECT pg_advisory_lock(42); DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{name}') THEN CREATE ROLE {name} LOGIN; END IF; \
             GRANT pgsluice_{role} TO {name}; END $$; SELECT pg_advisory_unlock(42)"
        ));
    }
}

/// What SHOW STATE says of the ledger.
pub(crate) fn state(console: &Operator) -> String {
    console.rows("SHOW STATE").into_iter().find(|row| row[0] == "ledger").map(|row| row[1].clone()).unwrap_or_default()
}

pub(crate) fn pgsluice_install(direct: &mut Client, role: &str) {
    direct.ok(&format!("BEGIN; {} COMMIT", pgsluice::ledger::script(Some(role))));
}
