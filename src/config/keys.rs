//! Every key of `proxy.toml` in one list, with the setting that it sets and the values that it allows.
//!
//! The reader, its errors, the suggestions for misspelt keys, and the test of `proxy.toml` all read this list. The keys of `[[rule]]` and
//! `[[window]]` are in `gate_keys`, since a file may have many of these.

use super::Fault;
use super::console::users;
use super::origin::Source;
use super::settings::{BackendTls, Backfill, Config, Ddl, ListenTls, Locks, Proxy};
use super::slot::{DAY, HOUR, MS, SECOND, Slot};
use std::ops::Range;
use std::time::Duration;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The tables of which a file may have several. They are read by `gate_keys`.
const LISTS: [&str; 2] = ["rule", "window"];

/// One key, with the place in a [`Config`] that it sets.
pub(super) struct Key<'a> {
    section: &'static str,
    name: &'static str,
    slot: Slot<'a>,
}

/// Every key, in the order of `proxy.toml`.
pub(super) fn keys(config: &mut Config) -> Vec<Key<'_>> {
    let Config {
        proxy,
        listen_tls,
        backend_tls,
        ddl,
        locks,
        backfill,
        operator,
        console,
        metrics,
        webhook,
        log,
        gate: _,
        blockers: _,
        origin: _,
    } = config;
    let mut keys = keys_of_connections(proxy, listen_tls, backend_tls);
    keys.extend(keys_of_changes(ddl, locks, backfill));
    keys.extend([
        key("operator", "host", Slot::Text(&mut operator.host)),
        key("operator", "port", Slot::Port(&mut operator.port)),
        key("operator", "user", Slot::Text(&mut operator.user)),
        key("operator", "password", Slot::Secret(&mut operator.password)),
        key("operator", "password_file", Slot::Path(&mut operator.password_file)),
        key("operator", "dbname", Slot::Text(&mut operator.dbname)),
        key("operator", "ledger", Slot::Flag(&mut operator.ledger)),
        key("operator", "ledger_keep", Slot::Time(&mut operator.ledger_keep, Duration::ZERO..=3650 * DAY)),
        key("console", "enabled", Slot::Flag(&mut console.enabled)),
        key("console", "database", Slot::Name(&mut console.database)),
        key("console", "users", Slot::Users(&mut console.users)),
        key("metrics", "listen", Slot::OptionalAddress(&mut metrics.listen)),
        key("webhook", "url", Slot::Url(&mut webhook.url)),
        key("webhook", "secret", Slot::Secret(&mut webhook.secret)),
        key("webhook", "secret_file", Slot::Path(&mut webhook.secret_file)),
        key("webhook", "ca", Slot::Path(&mut webhook.ca)),
        key("webhook", "events", Slot::Events(&mut webhook.events)),
        key("webhook", "blocked_after", Slot::Time(&mut webhook.blocked_after, 100 * MS..=30 * DAY)),
        key("log", "level", Slot::Word(&mut log.level)),
        key("log", "format", Slot::Word(&mut log.format)),
    ]);
    keys
}

/// A key of a section.
pub(super) fn key<'c>(section: &'static str, name: &'static str, slot: Slot<'c>) -> Key<'c> {
    Key { section, name, slot }
}

fn keys_of_connections<'c>(
    proxy: &'c mut Proxy,
    listen: &'c mut ListenTls,
    backend: &'c mut BackendTls,
) -> Vec<Key<'c>> {
    vec![
        key("proxy", "mode", Slot::Word(&mut proxy.mode)),
        key("proxy", "listen", Slot::Addresses(&mut proxy.listen)),
        key("proxy", "backend", Slot::Address(&mut proxy.backend)),
        key("proxy", "workers", Slot::Count(&mut proxy.workers, 0..=1_024)),
        key("proxy", "io", Slot::Word(&mut proxy.io)),
        key("proxy", "max_clients", Slot::Count(&mut proxy.max_clients, 1..=1_000_000)),
        key("proxy", "max_clients_per_address", Slot::Count(&mut proxy.max_clients_per_address, 0..=1_000_000)),
        key("proxy", "connect_timeout", Slot::Time(&mut proxy.connect_timeout, 10 * MS..=HOUR)),
        key("proxy", "login_timeout", Slot::Time(&mut proxy.login_timeout, 10 * MS..=HOUR)),
        key("proxy", "keepalive", Slot::Time(&mut proxy.keepalive, Duration::ZERO..=DAY)),
        key("proxy", "user_timeout", Slot::Time(&mut proxy.user_timeout, Duration::ZERO..=DAY)),
        key("proxy", "proxy_protocol_from", Slot::Networks(&mut proxy.proxy_protocol_from)),
        key("proxy", "drain_grace", Slot::Time(&mut proxy.drain_grace, Duration::ZERO..=DAY)),
        key("listen.tls", "mode", Slot::Word(&mut listen.mode)),
        key("listen.tls", "certificate", Slot::Path(&mut listen.certificate)),
        key("listen.tls", "key", Slot::Path(&mut listen.key)),
        key("listen.tls", "ca", Slot::Path(&mut listen.ca)),
        key("listen.tls", "require_client_certificate", Slot::Flag(&mut listen.require_client_certificate)),
        key("backend.tls", "mode", Slot::Word(&mut backend.mode)),
        key("backend.tls", "negotiation", Slot::Word(&mut backend.negotiation)),
        key("backend.tls", "root", Slot::Path(&mut backend.root)),
        key("backend.tls", "certificate", Slot::Path(&mut backend.certificate)),
        key("backend.tls", "key", Slot::Path(&mut backend.key)),
    ]
}

fn keys_of_changes<'c>(ddl: &'c mut Ddl, locks: &'c mut Locks, backfill: &'c mut Backfill) -> Vec<Key<'c>> {
    vec![
        key("ddl", "inspect_limit", Slot::Memory(&mut ddl.inspect_limit, 8 << 10..=1 << 30)),
        key("ddl", "statements_limit", Slot::Count(&mut ddl.statements_limit, 1..=1_000_000)),
        key("ddl", "prepared_limit", Slot::Memory(&mut ddl.prepared_limit, 64 << 10..=1 << 30)),
        key("ddl", "notifications_limit", Slot::Memory(&mut ddl.notifications_limit, 0..=1 << 30)),
        key("ddl", "journal_limit", Slot::Memory(&mut ddl.journal_limit, 0..=1 << 30)),
        key("ddl", "in_transaction", Slot::Word(&mut ddl.in_transaction)),
        key("ddl", "on_disconnect", Slot::Word(&mut ddl.on_disconnect)),
        key("ddl", "free_tables", Slot::Flag(&mut ddl.free_tables)),
        key("ddl", "replay_limit", Slot::Time(&mut ddl.replay_limit, MS..=DAY)),
        key("ddl", "unparsable", Slot::Word(&mut ddl.unparsable)),
        key("ddl", "oversize", Slot::Word(&mut ddl.oversize)),
        key("ddl", "notices", Slot::Flag(&mut ddl.notices)),
        key("ddl", "progress_interval", Slot::Time(&mut ddl.progress_interval, 100 * MS..=HOUR)),
        key("ddl", "record_interval", Slot::Time(&mut ddl.record_interval, Duration::ZERO..=DAY)),
        key("ddl", "small_table", Slot::Bytes(&mut ddl.small_table, 0..=1 << 40)),
        key("ddl", "unsafe", Slot::Word(&mut ddl.unsafe_ddl)),
        key("ddl", "exclude", Slot::Word(&mut ddl.exclude)),
        key("locks", "poll", Slot::Time(&mut locks.poll, MS..=60 * SECOND)),
        key("locks", "poll_jitter", Slot::Share(&mut locks.poll_jitter)),
        key("locks", "stall_budget", Slot::Time(&mut locks.stall_budget, MS..=60 * SECOND)),
        key("locks", "hold_budget", Slot::Time(&mut locks.hold_budget, MS..=HOUR)),
        key("locks", "deadline", Slot::Time(&mut locks.deadline, MS..=30 * DAY)),
        key("locks", "turn_limit", Slot::Time(&mut locks.turn_limit, MS..=30 * DAY)),
        key("locks", "in_transaction_wait", Slot::Time(&mut locks.in_transaction_wait, MS..=DAY)),
        key("locks", "ladder_start", Slot::Time(&mut locks.ladder_start, MS..=60 * SECOND)),
        key("locks", "starve_after", Slot::Time(&mut locks.starve_after, Duration::ZERO..=DAY)),
        key("locks", "autovacuum", Slot::Word(&mut locks.autovacuum)),
        key("locks", "advisory_locks", Slot::Word(&mut locks.advisory_locks)),
        key("locks", "lock_table", Slot::Word(&mut locks.lock_table)),
        key("locks", "fallback_timeout", Slot::Time(&mut locks.fallback_timeout, MS..=60 * SECOND)),
        key("backfill", "batch_time", Slot::Time(&mut backfill.batch_time, MS..=10 * SECOND)),
        key("backfill", "lock_timeout", Slot::Time(&mut backfill.lock_timeout, MS..=60 * SECOND)),
        key("backfill", "pause_ratio", Slot::Ratio(&mut backfill.pause_ratio, 0.0..=100.0)),
        key("backfill", "max_lag", Slot::Time(&mut backfill.max_lag, Duration::ZERO..=DAY)),
        key("backfill", "max_active", Slot::Count(&mut backfill.max_active, 0..=1_000_000)),
        key("backfill", "condition", Slot::Text(&mut backfill.condition)),
        key("backfill", "pause_limit", Slot::Time(&mut backfill.pause_limit, SECOND..=30 * DAY)),
        key("backfill", "analyze", Slot::Flag(&mut backfill.analyze)),
    ]
}

/// Puts every key of `text` into `config`, with its line, and returns the errors.
pub(super) fn read(text: &str, config: &mut Config) -> Vec<Fault> {
    let document = match DeTable::parse(text) {
        Ok(document) => document,
        Err(error) => {
            let line = error.span().map(|span| line_at(text, &span));
            return vec![Fault::new(error.message().replace('\n', "; ")).at(line)];
        }
    };
    let mut lines = Vec::new();
    let mut faults = Vec::new();
    let mut keys = keys(config);
    for (section, value) in document.get_ref() {
        let line = line_at(text, &section.span());
        let section = section.get_ref().as_ref();
        match value.get_ref() {
            _ if LISTS.contains(&section) => {}
            DeValue::Table(table) if keys.iter().any(|key| key.section == section) => {
                read_section(text, section, table, &mut keys, &mut faults, &mut lines);
            }
            DeValue::Table(table)
                if keys.iter().any(|key| key.section.split_once('.').is_some_and(|(outer, _)| outer == section)) =>
            {
                for (name, value) in table {
                    let line = line_at(text, &name.span());
                    let section = format!("{section}.{}", name.get_ref());
                    match value.get_ref() {
                        DeValue::Table(table) if keys.iter().any(|key| key.section == section) => {
                            read_section(text, &section, table, &mut keys, &mut faults, &mut lines);
                        }
                        _ => faults.push(unknown_section(&section, &keys).at(Some(line))),
                    }
                }
            }
            _ => faults.push(unknown_section(section, &keys).at(Some(line))),
        }
    }
    lines.into_iter().for_each(|(key, line)| config.origin.note(&key, Source::File(line)));
    faults
}

fn read_section(
    text: &str,
    section: &str,
    table: &DeTable<'_>,
    keys: &mut [Key<'_>],
    faults: &mut Vec<Fault>,
    lines: &mut Vec<(String, usize)>,
) {
    for (name, value) in table {
        let line = line_at(text, &name.span());
        if let Some(key) = read_key(text, section, (name.get_ref(), line), value, keys, faults) {
            lines.push((key, line));
        }
    }
}

/// Sets one key of a section, and returns it as `section.key` unless it is unknown. `name`: its name, and its line.
pub(super) fn read_key(
    text: &str,
    section: &str,
    (name, line): (&str, usize),
    value: &Spanned<DeValue<'_>>,
    keys: &mut [Key<'_>],
    faults: &mut Vec<Fault>,
) -> Option<String> {
    let Some(key) = keys.iter_mut().find(|key| key.section == section && key.name == name) else {
        faults.push(unknown_key(section, name, keys).at(Some(line)));
        return None;
    };
    let path = key.path();
    if let Slot::Users(slot) = &mut key.slot {
        match users(value) {
            Ok(users) => **slot = users,
            Err(fault) => faults.push(Fault::new(fault.message).at(Some(line_at(text, &(fault.at..fault.at))))),
        }
        return Some(path);
    }
    if !key.slot.set(value.get_ref()) {
        let shown = if key.slot.is_secret() { "(not shown)" } else { &text[value.span()] };
        faults.push(Fault::value(&path, Some(line), shown, key.slot.allowed()));
    }
    Some(path)
}

impl Key<'_> {
    /// The key as `section.key`.
    pub(super) fn path(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }

    /// Sets the value that a person has typed: `200ms`, `'200ms'`, `12`, `true`, or a list as in the file. Returns false if the key does not
    /// allow it.
    pub(super) fn set_text(&mut self, text: &str) -> bool {
        // As a string first, which most values are, and then as the file writes numbers, flags and lists.
        let quoted = DeValue::String(text.into());
        self.slot.set(&quoted) || DeValue::parse(text).is_ok_and(|value| self.slot.set(value.get_ref()))
    }

    /// The values that this key allows, as an error names them.
    pub(super) fn allowed(&self) -> String {
        self.slot.allowed()
    }

    /// The value as `proxy.toml` would have it, without the quotes of a single string. Of a secret it is only said whether it is set.
    pub(super) fn shown(&self) -> String {
        self.slot.shown()
    }
}

fn unknown_section(section: &str, keys: &[Key<'_>]) -> Fault {
    let homes = keys.iter().filter(|key| key.name == section).map(|key| key.section);
    let homes: Vec<&str> = homes.collect();
    if let [home] = homes[..] {
        return Fault::new(format!("{section}: unknown key")).hint(format!("Did you mean {section} in [{home}]?"));
    }
    let mut sections: Vec<&str> = keys.iter().map(|key| key.section).collect();
    sections.dedup();
    let lists = LISTS.iter().map(|list| format!("[[{list}]]"));
    let allowed: Vec<String> = sections.iter().map(|section| format!("[{section}]")).chain(lists).collect();
    let fault = Fault::new(format!("{section}: unknown section; expected one of {}", allowed.join(", ")));
    match nearest(section, sections.into_iter().chain(LISTS)) {
        Some(near) if LISTS.contains(&near) => fault.hint(format!("Did you mean [[{near}]]?")),
        Some(near) => fault.hint(format!("Did you mean [{near}]?")),
        None => fault,
    }
}

fn unknown_key(section: &str, name: &str, keys: &[Key<'_>]) -> Fault {
    let fault = Fault::new(format!("{section}.{name}: unknown key"));
    if let Some(home) = keys.iter().find(|key| key.name == name) {
        return fault.hint(format!("Did you mean {name} in [{}]?", home.section));
    }
    let names: Vec<&str> = keys.iter().filter(|key| key.section == section).map(|key| key.name).collect();
    match nearest(name, names.iter().copied()) {
        Some(near) => fault.hint(format!("Did you mean {near}?")),
        None => fault.hint(format!("The keys of [{section}] are {}.", names.join(", "))),
    }
}

/// The candidate that is the fewest edits away, if that number is small enough for a typing error.
pub(crate) fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let most = (word.len() / 3).clamp(1, 3);
    let near = candidates.map(|candidate| (edits(word, candidate), candidate));
    near.filter(|(distance, _)| *distance <= most).min().map(|(_, candidate)| candidate)
}

/// The Levenshtein distance, in bytes.
fn edits(left: &str, right: &str) -> usize {
    let right = right.as_bytes();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.iter().enumerate() {
            let change = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[right.len()]
}

/// The line of a place in the text, from 1.
pub(super) fn line_at(text: &str, span: &Range<usize>) -> usize {
    1 + text.bytes().take(span.start).filter(|byte| *byte == b'\n').count()
}

/// The line on which `section.key` is set, or `None`.
pub(super) fn line_of(text: &str, path: &str) -> Option<usize> {
    let (sections, name) = path.rsplit_once('.')?;
    let document = DeTable::parse(text).ok()?;
    let mut table = document.get_ref();
    for section in sections.split('.') {
        table = table.get(section).map(Spanned::get_ref)?.as_table()?;
    }
    table.iter().find(|(key, _)| key.get_ref() == name).map(|(key, _)| line_at(text, &key.span()))
}
