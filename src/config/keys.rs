//! Every key of `proxy.toml` in one list, with the setting that it sets and the values that it allows.
//!
//! The reader, its errors, the suggestions for misspelt keys, and the test of `proxy.toml` all read this list.

use super::console::{ConsoleUser, users};
use super::origin::Source;
use super::secret::Secret;
use super::settings::{BackendTls, Backfill, Config, Ddl, ListenTls, Locks, Proxy};
use super::units::{format_size, format_time, parse_size, parse_time};
use super::words::Word;
use super::{Address, Fault, Network};
use std::ops::{Range, RangeInclusive};
use std::path::PathBuf;
use std::time::Duration;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

/// One key, with the place in a [`Config`] that it sets.
pub(super) struct Key<'a> {
    section: &'static str,
    name: &'static str,
    slot: Slot<'a>,
}

/// The place of a value, with its bounds.
enum Slot<'a> {
    Time(&'a mut Duration, RangeInclusive<Duration>),
    Bytes(&'a mut u64, RangeInclusive<u64>),
    Memory(&'a mut usize, RangeInclusive<usize>),
    Count(&'a mut usize, RangeInclusive<usize>),
    Share(&'a mut f64),
    Ratio(&'a mut f64, RangeInclusive<f64>),
    Flag(&'a mut bool),
    Word(&'a mut dyn Word),
    Address(&'a mut Address),
    Addresses(&'a mut Vec<Address>),
    Networks(&'a mut Vec<Network>),
    Text(&'a mut Option<String>),
    Name(&'a mut String),
    Secret(&'a mut Option<Secret>),
    Path(&'a mut Option<PathBuf>),
    Port(&'a mut Option<u16>),
    Users(&'a mut Vec<ConsoleUser>),
}

/// Every key, in the order of `proxy.toml`.
pub(super) fn keys(config: &mut Config) -> Vec<Key<'_>> {
    let Config { proxy, listen_tls, backend_tls, ddl, locks, backfill, operator, console, log, origin: _ } = config;
    let mut keys = keys_of_connections(proxy, listen_tls, backend_tls);
    keys.extend(keys_of_changes(ddl, locks, backfill));
    keys.extend([
        key("operator", "host", Slot::Text(&mut operator.host)),
        key("operator", "port", Slot::Port(&mut operator.port)),
        key("operator", "user", Slot::Text(&mut operator.user)),
        key("operator", "password", Slot::Secret(&mut operator.password)),
        key("operator", "password_file", Slot::Path(&mut operator.password_file)),
        key("operator", "dbname", Slot::Text(&mut operator.dbname)),
        key("console", "enabled", Slot::Flag(&mut console.enabled)),
        key("console", "database", Slot::Name(&mut console.database)),
        key("console", "users", Slot::Users(&mut console.users)),
        key("log", "level", Slot::Word(&mut log.level)),
        key("log", "format", Slot::Word(&mut log.format)),
    ]);
    keys
}

fn key<'c>(section: &'static str, name: &'static str, slot: Slot<'c>) -> Key<'c> {
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
        let line = Some(line_at(text, &name.span()));
        let name = name.get_ref().as_ref();
        let Some(key) = keys.iter_mut().find(|key| key.section == section && key.name == name) else {
            faults.push(unknown_key(section, name, keys).at(line));
            continue;
        };
        lines.extend(line.map(|line| (key.path(), line)));
        if let Slot::Users(slot) = &mut key.slot {
            match users(value) {
                Ok(users) => **slot = users,
                Err(fault) => faults.push(Fault::new(fault.message).at(Some(line_at(text, &(fault.at..fault.at))))),
            }
            continue;
        }
        if !key.slot.set(value.get_ref()) {
            let shown = if matches!(key.slot, Slot::Secret(_)) { "(not shown)" } else { &text[value.span()] };
            faults.push(Fault::value(&key.path(), line, shown, key.slot.allowed()));
        }
    }
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
        let list = |items: Vec<String>| format!("[{}]", items.join(", "));
        match &self.slot {
            Slot::Time(value, _) => format_time(**value),
            Slot::Bytes(value, _) => format_size(**value),
            Slot::Memory(value, _) => format_size(**value as u64),
            Slot::Count(value, _) => value.to_string(),
            Slot::Share(value) | Slot::Ratio(value, _) => value.to_string(),
            Slot::Flag(value) => value.to_string(),
            Slot::Word(value) => value.word().to_owned(),
            Slot::Address(value) => value.to_string(),
            Slot::Addresses(value) => list(value.iter().map(|address| format!("\"{address}\"")).collect()),
            Slot::Networks(value) => list(value.iter().map(|network| format!("\"{network}\"")).collect()),
            Slot::Text(value) => (*value).clone().unwrap_or_default(),
            Slot::Name(value) => (*value).clone(),
            Slot::Secret(value) => if value.is_some() { "(not shown)" } else { "" }.to_owned(),
            Slot::Path(value) => value.as_ref().map(|path| path.display().to_string()).unwrap_or_default(),
            Slot::Port(value) => value.map(|port| port.to_string()).unwrap_or_default(),
            Slot::Users(value) => list(value.iter().map(|user| format!("\"{}\"", user.name)).collect()),
        }
    }
}

impl Slot<'_> {
    /// Sets the value. Returns false if the key does not allow it.
    fn set(&mut self, value: &DeValue<'_>) -> bool {
        match self {
            Self::Time(slot, bounds) => put(slot, value.as_str().and_then(parse_time), |v| bounds.contains(v)),
            Self::Bytes(slot, bounds) => put(slot, value.as_str().and_then(parse_size), |v| bounds.contains(v)),
            Self::Memory(slot, bounds) => {
                let bytes = value.as_str().and_then(parse_size).and_then(|bytes| usize::try_from(bytes).ok());
                put(slot, bytes, |v| bounds.contains(v))
            }
            Self::Count(slot, bounds) => put(slot, integer(value), |v| bounds.contains(v)),
            Self::Share(slot) => put(slot, number(value), |v| (0.0..=1.0).contains(v)),
            Self::Ratio(slot, bounds) => put(slot, number(value), |v| bounds.contains(v)),
            Self::Flag(slot) => put(slot, value.as_bool(), |_| true),
            Self::Word(slot) => value.as_str().is_some_and(|word| slot.set(word)),
            Self::Address(slot) => put(slot, address(value), |_| true),
            Self::Addresses(slot) => {
                let all = value.as_array().and_then(|list| list.iter().map(|item| address(item.get_ref())).collect());
                put(slot, all, |list: &Vec<_>| !list.is_empty())
            }
            Self::Networks(slot) => {
                let network = |value: &DeValue<'_>| value.as_str().and_then(|text| text.parse().ok());
                let all = value.as_array().and_then(|list| list.iter().map(|item| network(item.get_ref())).collect());
                put(slot, all, |_: &Vec<_>| true)
            }
            Self::Text(slot) => put(slot, text(value).map(Some), |_| true),
            Self::Secret(slot) => put(slot, text(value).map(|text| Some(Secret::new(text))), |_| true),
            Self::Path(slot) => put(slot, text(value).map(|text| Some(PathBuf::from(text))), |_| true),
            Self::Port(slot) => put(slot, integer::<u16>(value).filter(|port| *port > 0).map(Some), |_| true),
            Self::Name(slot) => put(slot, text(value), |_| true),
            Self::Users(_) => false,
        }
    }

    /// The values that this key allows, as an error names them.
    fn allowed(&self) -> String {
        match self {
            Self::Time(_, bounds) => {
                let (low, high) = (format_time(*bounds.start()), format_time(*bounds.end()));
                format!("a time from {low} to {high}, such as \"200ms\" (units: us ms s min h d)")
            }
            Self::Bytes(_, bounds) => allowed_sizes(*bounds.start(), *bounds.end()),
            Self::Memory(_, bounds) => allowed_sizes(*bounds.start() as u64, *bounds.end() as u64),
            Self::Count(_, bounds) => format!("a whole number from {} to {}", bounds.start(), bounds.end()),
            Self::Share(_) => "a number from 0 to 1".to_owned(),
            Self::Ratio(_, bounds) => format!("a number from {} to {}", bounds.start(), bounds.end()),
            Self::Flag(_) => "true or false".to_owned(),
            Self::Word(slot) => {
                let words: Vec<String> = slot.words().iter().map(|word| format!("\"{word}\"")).collect();
                format!("one of {}", words.join(", "))
            }
            Self::Address(_) => format!("\"{}\"", Address::ALLOWED.replace(" or ", "\" or \"")),
            Self::Addresses(_) => {
                format!("a list of one or more of \"{}\"", Address::ALLOWED.replace(" or ", "\", \""))
            }
            Self::Networks(_) => "a list of networks, such as \"10.0.0.0/8\" or \"::1\"".to_owned(),
            Self::Text(_) | Self::Secret(_) | Self::Path(_) | Self::Name(_) => "a string that is not empty".to_owned(),
            Self::Users(_) => "a list of users".to_owned(),
            Self::Port(_) => "a whole number from 1 to 65535".to_owned(),
        }
    }
}

fn allowed_sizes(low: u64, high: u64) -> String {
    format!("a size from {} to {}, such as \"64kB\" (units: B kB MB GB TB)", format_size(low), format_size(high))
}

fn put<T>(slot: &mut &mut T, value: Option<T>, allowed: impl FnOnce(&T) -> bool) -> bool {
    value.filter(allowed).map(|value| **slot = value).is_some()
}

fn integer<T: std::str::FromStr>(value: &DeValue<'_>) -> Option<T> {
    value.as_integer().filter(|integer| integer.radix() == 10).and_then(|integer| integer.as_str().parse().ok())
}

fn number(value: &DeValue<'_>) -> Option<f64> {
    let float = value.as_float().map(|float| float.as_str());
    float.or_else(|| value.as_integer().map(|integer| integer.as_str()))?.parse().ok()
}

fn address(value: &DeValue<'_>) -> Option<Address> {
    value.as_str().and_then(|text| text.parse().ok())
}

fn text(value: &DeValue<'_>) -> Option<String> {
    value.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

fn unknown_section(section: &str, keys: &[Key<'_>]) -> Fault {
    let homes = keys.iter().filter(|key| key.name == section).map(|key| key.section);
    let homes: Vec<&str> = homes.collect();
    if let [home] = homes[..] {
        return Fault::new(format!("{section}: unknown key")).hint(format!("Did you mean {section} in [{home}]?"));
    }
    let mut sections: Vec<&str> = keys.iter().map(|key| key.section).collect();
    sections.dedup();
    let allowed: Vec<String> = sections.iter().map(|section| format!("[{section}]")).collect();
    let fault = Fault::new(format!("{section}: unknown section; expected one of {}", allowed.join(", ")));
    match nearest(section, sections.into_iter()) {
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
fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
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

fn line_at(text: &str, span: &Range<usize>) -> usize {
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
