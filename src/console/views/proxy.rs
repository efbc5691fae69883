//! SHOW VERSION, STATE, CONFIG, STATS, LISTENERS and MEMORY: the proxy itself.
//!
//! It owns nothing. It keeps true: of a secret setting only whether it is set is shown.

use crate::config::{Address, is_live};
use crate::console::host::Host;
use crate::console::table::Value;
use crate::holds::LedgerState;

pub(super) fn version(host: &dyn Host) -> Vec<Vec<Value>> {
    vec![
        vec![Value::text("pgsluice"), Value::text(env!("CARGO_PKG_VERSION"))],
        vec![Value::text("server"), Value::maybe(host.registry().server_version())],
    ]
}

pub(super) fn state(host: &dyn Host) -> Vec<Vec<Value>> {
    let (config, registry) = (host.config(), host.registry());
    let sessions = registry.sessions();
    let of_console = sessions.iter().filter(|session| session.console).count();
    let clients = sessions.len().saturating_sub(of_console);
    let waiting = registry.changes().iter().filter(|change| change.progress().waiting.is_some()).count();
    let row = |name: &str, value: String| vec![Value::text(name), Value::Text(value)];
    vec![
        row("mode", config.proxy.mode.to_string()),
        row("backend", config.proxy.backend.to_string()),
        row("draining", host.is_draining().to_string()),
        row("sessions", clients.to_string()),
        row("console_sessions", of_console.to_string()),
        row("changes", registry.changes().len().to_string()),
        row("changes_waiting", waiting.to_string()),
        row("operator_connection", config.operator.user.is_some().to_string()),
        row("ledger", ledger(host)),
    ]
}

/// Where the gate's decisions are kept, and what that means.
fn ledger(host: &dyn Host) -> String {
    match host.holds().keeper().map(|keeper| keeper.state()) {
        None => "none: approvals and holds are in the memory of this proxy, and end with it".to_owned(),
        Some(LedgerState::Kept) => "kept".to_owned(),
        Some(LedgerState::Lost(since, why)) => {
            let since = Value::Time(since).as_text().unwrap_or_default();
            format!("lost since {since}, so that nothing is allowed that a rule holds: {why}")
        }
    }
}

pub(super) fn config(host: &dyn Host) -> Vec<Vec<Value>> {
    let config = host.config();
    let row = |(key, value, default): (String, String, String)| {
        let (source, live) = (config.origin.of(&key).to_string(), is_live(&key));
        vec![Value::Text(key), Value::Text(value), Value::Text(default), Value::Text(source), Value::Boolean(live)]
    };
    config.values().into_iter().map(row).collect()
}

pub(super) fn stats(host: &dyn Host) -> Vec<Vec<Value>> {
    let all = host.metrics().all();
    all.into_iter().map(|(name, value)| vec![Value::text(name), Value::number(value)]).collect()
}

pub(super) fn listeners(host: &dyn Host) -> Vec<Vec<Value>> {
    let tls = host.config().listen_tls.mode;
    let row = |address: &Address| {
        let (kind, encryption) = match address {
            Address::Tcp { .. } => ("tcp", tls.as_str()),
            Address::Unix { .. } => ("unix", "disable"),
        };
        vec![Value::text(address.to_string()), Value::text(kind), Value::text(encryption)]
    };
    host.listening().iter().map(row).collect()
}

/// What the system says of the process. On systems without `/proc` there are no rows.
pub(super) fn memory(_: &dyn Host) -> Vec<Vec<Value>> {
    const LINES: [(&str, &str); 4] =
        [("VmRSS:", "resident"), ("VmHWM:", "resident_peak"), ("VmSize:", "virtual"), ("VmData:", "data")];
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let value = |wanted: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(wanted))?;
        line.split_whitespace().next()?.parse::<i64>().ok()
    };
    let rows = LINES.iter().filter_map(|(line, name)| Some(vec![Value::text(*name), Value::Integer(value(line)?)]));
    rows.collect()
}
