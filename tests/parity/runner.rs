//! Runs scripts directly and through proxies, on one server, and reports the differences.

use crate::common::{self, Client, port, proxy};
use crate::frames;
use crate::script::{self, Script};
use crate::state;
use crate::ways::Way;
use pgsluice::config::Config;
use pgsluice::dev::Postgres;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::time::Duration;

/// Where the scripts may not do as they like: roles belong to the whole cluster.
const ROLES: &str =
    "CREATE ROLE parity_owner; CREATE ROLE parity_joe; GRANT parity_owner TO parity_joe; CREATE ROLE parity_none";

/// A proxy with the default for `small_table`, and one for which no table is small.
pub(crate) const SMALL_TABLES: &str = "small tables";
pub(crate) const CONCURRENT: &str = "concurrent";

/// A proxy's port, and what is special about it.
struct Proxied {
    name: &'static str,
    port: u16,
}

/// What depends on how busy the machine is: notices of progress, and how long a step may hold its locks.
pub(crate) fn unhurried(config: &mut Config) {
    config.ddl.progress_interval = Duration::from_secs(600);
    config.locks.hold_budget = Duration::from_secs(60);
}

/// Every script in every one of `ways` through both proxies, as far as `wanted` picks it; the differences, as text.
pub(crate) fn scripts(postgres: &Postgres, ways: &[Way], wanted: impl Fn(&Script, Way, &str) -> bool + Sync) -> String {
    Client::connect(postgres.port, &postgres.user, "postgres").ok(ROLES);
    let tiny = proxy(postgres, unhurried);
    let concurrent = proxy(postgres, |config| {
        unhurried(config);
        common::no_table_is_small(config);
    });
    let proxies =
        [Proxied { name: SMALL_TABLES, port: port(&tiny) }, Proxied { name: CONCURRENT, port: port(&concurrent) }];
    let work = script::all();
    let next = Mutex::new(work.iter());
    let failures = Mutex::new(String::new());
    // One script at a time: what belongs to the cluster is named after the script.
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(script) = { next.lock().unwrap().next() } {
                    for way in ways.iter().copied() {
                        let through = proxies.iter().filter(|proxied| wanted(script, way, proxied.name));
                        let found = compare(postgres, &through.collect::<Vec<_>>(), script, way);
                        failures.lock().unwrap().push_str(&found);
                    }
                }
            });
        }
    });
    failures.into_inner().unwrap()
}

/// The conversations of [`frames`]; the differences, as text.
pub(crate) fn conversations(postgres: &Postgres) -> String {
    let running = proxy(postgres, common::no_table_is_small);
    let direct = frames::run(postgres, postgres.port);
    difference(&direct, &frames::run(postgres, port(&running)))
}

/// The differences, as text; empty if there are none.
fn compare(postgres: &Postgres, proxies: &[&Proxied], script: &Script, way: Way) -> String {
    let mut failures = String::new();
    if proxies.is_empty() {
        return failures;
    }
    let direct = run(postgres, postgres.port, script, way);
    // Amid a transaction nothing is built concurrently.
    let all = if matches!(way, Way::Simple | Way::Extended | Way::Pipeline | Way::Latin1) { proxies.len() } else { 1 };
    for proxied in &proxies[..all] {
        let found = difference(&direct, &run(postgres, proxied.port, script, way));
        if !found.is_empty() {
            let _ = writeln!(failures, "=== {}/{} ({})\n{found}", script.name, way.name(), proxied.name);
        }
    }
    failures
}

/// What came back, and what is there afterwards, line by line.
fn run(postgres: &Postgres, port: u16, script: &Script, way: Way) -> Vec<String> {
    let database = common::new_database(postgres, "parity");
    let mut client = Client::connect(port, &postgres.user, &database);
    let mut lines = Vec::new();
    let mut parts = script.parts.iter().filter(|part| part.runs(way.name()));
    if parts.all(|part| way.send(&mut client, &part.sent(postgres.version, way.alone()), &mut lines)) {
        lines.push("--- the session".to_owned());
        lines.extend(state::of_session(&mut client));
    }
    drop(client);
    lines.push("--- the database".to_owned());
    lines.extend(state::of_database(postgres, &database));
    common::drop_database(postgres, &database);
    lines
}

/// A line-by-line difference with a little context.
pub(crate) fn difference(direct: &[String], proxied: &[String]) -> String {
    let same_start = direct.iter().zip(proxied).take_while(|(a, b)| a == b).count();
    if same_start == direct.len() && same_start == proxied.len() {
        return String::new();
    }
    let rest = direct.len().min(proxied.len()) - same_start;
    let same_end = direct.iter().rev().zip(proxied.iter().rev()).take(rest).take_while(|(a, b)| a == b).count();
    let mut text = String::new();
    for line in &direct[same_start.saturating_sub(6)..same_start] {
        let _ = writeln!(text, "  {line}");
    }
    for (sign, lines) in [('-', direct), ('+', proxied)] {
        for line in lines[same_start..lines.len() - same_end].iter().take(25) {
            let _ = writeln!(text, "{sign} {line}");
        }
    }
    text
}
