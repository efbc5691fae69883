//! What drivers and tools send on their own: settings, and SELECT of constants, of functions, and from the catalogs.
//!
//! [`SessionSettings`] owns the settings of one session of the console. It keeps true: a SELECT from catalogs has no rows and the columns of its target list. A
//! value that the console does not know is NULL, and a relation that it does not have is an error.

use super::catalogs;
use super::host::{Host, Identity};
use super::table::{Heading, Kind, Table, Value};
use crate::pg::sqlstate;
use crate::report::Report;
use crate::sql::console::{Column, Expression, FromItem, Rows, Select, Source};
use std::collections::BTreeMap;
use std::time::SystemTime;

/// The version that the console shows before the server has told its own: the one of the grammar that the proxy reads.
const UNKNOWN_SERVER: &str = "18.0";

/// The most columns of a result, as in PostgreSQL.
const MOST_COLUMNS: usize = 1664;

/// The most settings that a session may make up.
const MOST: usize = 1000;

/// The settings of one session of the console.
#[derive(Debug, Default)]
pub(super) struct SessionSettings {
    values: BTreeMap<String, String>,
}

/// The version of the console: the server's, and then its own. Drivers choose their first statements by it.
pub(super) fn server_version(host: &dyn Host) -> String {
    let server = host.registry().server_version().unwrap_or_else(|| UNKNOWN_SERVER.to_owned());
    let number = server.split_whitespace().next().unwrap_or(UNKNOWN_SERVER);
    format!("{number} (pgsluice {})", env!("CARGO_PKG_VERSION"))
}

/// `server_version_num` of a version such as `17.2`, `9.6.3` or `19beta1`.
fn version_number(version: &str) -> i64 {
    let mut parts = version.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse::<i64>().unwrap_or(0));
    let major = parts.next().unwrap_or(0);
    major * 10_000 + if version.contains("beta") || version.contains("rc") { 0 } else { parts.next().unwrap_or(0) }
}

/// The settings that the console reports at the login, with PostgreSQL's names.
pub(super) fn reported(host: &dyn Host, who: &Identity, application: &str) -> Vec<(&'static str, String)> {
    let mut all = vec![("server_version", server_version(host)), ("session_authorization", who.user.clone())];
    all.push(("application_name", application.to_owned()));
    let fixed = [
        ("server_encoding", "UTF8"),
        ("client_encoding", "UTF8"),
        ("DateStyle", "ISO, MDY"),
        ("IntervalStyle", "postgres"),
        ("TimeZone", "UTC"),
        ("integer_datetimes", "on"),
        ("standard_conforming_strings", "on"),
        ("is_superuser", "off"),
        ("in_hot_standby", "off"),
        ("default_transaction_read_only", "off"),
        ("search_path", "\"$user\", public"),
        ("scram_iterations", "4096"),
    ];
    all.extend(fixed.map(|(name, value)| (name, value.to_owned())));
    all
}

/// SessionSettings that are shown, beside those that are reported.
const OTHERS: [(&str, &str); 20] = [
    ("transaction_isolation", "read committed"),
    ("default_transaction_isolation", "read committed"),
    ("transaction_read_only", "off"),
    ("extra_float_digits", "1"),
    ("bytea_output", "hex"),
    ("max_identifier_length", "63"),
    ("max_index_keys", "32"),
    ("max_connections", "100"),
    ("statement_timeout", "0"),
    ("lock_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
    ("client_min_messages", "notice"),
    ("lc_collate", "C"),
    ("lc_ctype", "C"),
    ("lc_messages", "C"),
    ("lc_monetary", "C"),
    ("ssl", "off"),
    ("password_encryption", "scram-sha-256"),
    ("synchronous_commit", "on"),
    ("role", "none"),
];

impl SessionSettings {
    /// Sets a setting for this session. The console keeps the value and does nothing else.
    pub(super) fn set(&mut self, name: &str, value: &str) {
        if self.values.len() < MOST || self.values.contains_key(name) {
            self.values.insert(name.to_lowercase(), value.to_owned());
        }
    }

    /// The value of a setting.
    pub(super) fn get(&self, host: &dyn Host, who: &Identity, name: &str) -> Option<String> {
        let name = name.to_lowercase();
        if let Some(value) = self.values.get(&name) {
            return Some(value.clone());
        }
        if name == "server_version_num" {
            return Some(version_number(&server_version(host)).to_string());
        }
        let mut reported = reported(host, who, "").into_iter().map(|(name, value)| (name.to_lowercase(), value));
        let known = reported.find(|(known, _)| *known == name).map(|(_, value)| value);
        known.or_else(|| OTHERS.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()))
    }

    /// All settings, by name.
    pub(super) fn all(&self, host: &dyn Host, who: &Identity) -> Vec<(String, String)> {
        let mut all: BTreeMap<String, String> =
            OTHERS.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        all.extend(reported(host, who, "").into_iter().map(|(name, value)| (name.to_owned(), value)));
        all.extend(self.values.clone());
        all.into_iter().collect()
    }
}

/// What a SELECT may ask about.
pub(super) struct Surroundings<'a> {
    pub(super) host: &'a dyn Host,
    pub(super) who: &'a Identity,
    pub(super) pid: i32,
}

/// The columns of a SELECT. A `*` has none if the text does not tell which ones it stands for.
pub(super) fn headings(select: &Select) -> Vec<Heading> {
    layout(select).concat()
}

/// The columns for which each part of the target list stands, up to PostgreSQL's limit.
fn layout(select: &Select) -> Vec<Vec<Heading>> {
    // The columns of each item are made once, however often the target list names it.
    let items: Vec<(&str, Option<Vec<Heading>>)> =
        select.from.iter().map(|item| (item.alias.as_str(), item_columns(item))).collect();
    let mut room = MOST_COLUMNS;
    let columns = select.columns.iter().map(|column| {
        let headings = if room == 0 { Vec::new() } else { headings_of(column, &items, room) };
        room -= headings.len();
        headings
    });
    columns.collect()
}

/// The columns of one part of a target list, at most so many. `items`: the items of FROM, with their columns.
fn headings_of(column: &Column, items: &[(&str, Option<Vec<Heading>>)], most: usize) -> Vec<Heading> {
    let named = |item: &Option<String>| {
        let item = item.clone();
        items.iter().filter(move |(alias, _)| item.as_ref().is_none_or(|item| item == *alias))
    };
    let heading = |kind| vec![Heading { name: column.name.clone(), kind }];
    match &column.value {
        Expression::Star(item) => {
            let columns: Option<Vec<&[Heading]>> = named(item).map(|(_, columns)| columns.as_deref()).collect();
            columns.unwrap_or_default().into_iter().flatten().take(most).cloned().collect()
        }
        Expression::Field(item, name) => {
            let mut columns = named(item).filter_map(|(_, columns)| columns.as_ref()).flatten();
            heading(columns.find(|one| one.name == *name).map_or(Kind::Text, |found| found.kind))
        }
        value => heading(kind(value)),
    }
}

/// The columns of an item of FROM. `None`: they are not known.
fn item_columns(item: &FromItem) -> Option<Vec<Heading>> {
    match &item.rows {
        Rows::Catalog(name) => catalogs::columns(name),
        Rows::Query(select) => Some(headings(select)),
        Rows::Unknown => None,
    }
}

fn kind(value: &Expression) -> Kind {
    match value {
        Expression::Boolean(_) | Expression::Exists => Kind::Boolean,
        Expression::Integer(number) if i32::try_from(*number).is_ok() => Kind::Integer,
        Expression::Integer(_) | Expression::Count => Kind::Bigint,
        Expression::Number(_) => Kind::Float,
        Expression::Arithmetic(_, left, right) => match (kind(left), kind(right)) {
            (Kind::Integer, Kind::Integer) => Kind::Integer,
            (Kind::Float, _) | (_, Kind::Float) => Kind::Float,
            _ => Kind::Bigint,
        },
        Expression::Cast(_, name) => catalogs::kind_of_type(name),
        Expression::Call(name, _) => match name.as_str() {
            "pg_backend_pid" => Kind::Integer,
            "pg_is_in_recovery" | "has_database_privilege" | "has_schema_privilege" | "has_table_privilege" => {
                Kind::Boolean
            }
            "now"
            | "current_timestamp"
            | "clock_timestamp"
            | "transaction_timestamp"
            | "statement_timestamp"
            | "pg_postmaster_start_time" => Kind::Time,
            _ => Kind::Text,
        },
        Expression::Null
        | Expression::Text(_)
        | Expression::Parameter(_)
        | Expression::Field(..)
        | Expression::Star(_)
        | Expression::Other => Kind::Text,
    }
}

/// Answers a SELECT.
///
/// # Errors
/// It reads a relation that the console does not have, or calls a function that it does not know.
pub(super) fn select(
    around: &Surroundings<'_>,
    settings: &mut SessionSettings,
    select: &Select,
    parameters: &[Option<String>],
) -> Result<Table, Report> {
    if let Source::Relation(name) = &select.source {
        return Err(Report::error(sqlstate::UNDEFINED_TABLE, format!("relation \"{name}\" does not exist"))
            .detail("This is the console of pgsluice, and not the database behind it.")
            .hint("SHOW HELP lists what the console understands."));
    }
    let layout = layout(select);
    let columns = layout.concat();
    if select.source == Source::Catalog && !select.aggregates {
        return Ok(Table { columns, rows: Vec::new() });
    }
    let from_nothing = select.source == Source::Nothing;
    let mut row = Vec::new();
    for (column, headings) in select.columns.iter().zip(&layout) {
        if matches!(column.value, Expression::Star(_)) || headings.is_empty() {
            row.extend(headings.iter().map(|_| Value::Null));
            continue;
        }
        let known = evaluate(around, settings, &column.value, parameters);
        row.push(if from_nothing { known? } else { known.unwrap_or(Value::Null) });
    }
    Ok(Table { columns, rows: vec![row] })
}

fn evaluate(
    around: &Surroundings<'_>,
    settings: &mut SessionSettings,
    value: &Expression,
    parameters: &[Option<String>],
) -> Result<Value, Report> {
    Ok(match value {
        Expression::Null | Expression::Field(..) | Expression::Star(_) | Expression::Other => Value::Null,
        Expression::Boolean(flag) => Value::Boolean(*flag),
        Expression::Integer(number) => Value::Integer(*number),
        Expression::Number(text) => text.parse().map_or(Value::Null, Value::Float),
        Expression::Text(text) => Value::text(text),
        Expression::Exists => Value::Boolean(false),
        Expression::Count => Value::Integer(0),
        Expression::Parameter(number) => {
            let found = number.checked_sub(1).and_then(|at| parameters.get(at)?.as_ref());
            Value::maybe(found.cloned())
        }
        Expression::Cast(inner, _) => cast(evaluate(around, settings, inner, parameters)?, kind(value))?,
        Expression::Arithmetic(sign, left, right) => {
            let left = evaluate(around, settings, left, parameters)?;
            let right = evaluate(around, settings, right, parameters)?;
            arithmetic(*sign, &left, &right)?
        }
        Expression::Call(name, arguments) => {
            let mut values = Vec::new();
            for argument in arguments {
                values.push(evaluate(around, settings, argument, parameters)?);
            }
            call(around, settings, name, &values)?
        }
    })
}

fn cast(value: Value, kind: Kind) -> Result<Value, Report> {
    let Some(text) = value.as_text() else { return Ok(Value::Null) };
    let text = text.trim();
    let cast = match kind {
        Kind::Text => return Ok(Value::text(text)),
        Kind::Integer | Kind::Bigint | Kind::Oid => text.parse().ok().map(Value::Integer),
        Kind::Float => text.parse().ok().map(Value::Float),
        Kind::Boolean => match text.to_ascii_lowercase().as_str() {
            "t" | "true" | "on" | "yes" | "1" => Some(Value::Boolean(true)),
            "f" | "false" | "off" | "no" | "0" => Some(Value::Boolean(false)),
            _ => None,
        },
        Kind::Time => Some(value).filter(|value| matches!(value, Value::Time(_))),
    };
    match (cast, kind) {
        (Some(value), _) => Ok(value),
        // The name of an object that the console does not have.
        (None, Kind::Oid | Kind::Time) => Ok(Value::Null),
        (None, _) => Err(Report::error(sqlstate::INVALID_TEXT_REPRESENTATION, format!("invalid input: \"{text}\""))),
    }
}

fn arithmetic(sign: char, left: &Value, right: &Value) -> Result<Value, Report> {
    let (Value::Integer(left), Value::Integer(right)) = (left, right) else { return Ok(Value::Null) };
    let result = match sign {
        '+' => left.checked_add(*right),
        '-' => left.checked_sub(*right),
        '*' => left.checked_mul(*right),
        _ if *right == 0 => return Err(Report::error(sqlstate::DIVISION_BY_ZERO, "division by zero")),
        _ => left.checked_div(*right),
    };
    Ok(result.map_or(Value::Null, Value::Integer))
}

fn call(
    around: &Surroundings<'_>,
    settings: &mut SessionSettings,
    name: &str,
    values: &[Value],
) -> Result<Value, Report> {
    let text = |at: usize| values.get(at).and_then(Value::as_text).unwrap_or_default();
    let Surroundings { host, who, pid } = around;
    Ok(match name {
        "version" => Value::Text(format!("PostgreSQL {}", server_version(*host))),
        "current_database" | "current_catalog" => Value::text(&host.config().console.database),
        "current_user" | "session_user" | "user" | "current_role" | "getpgusername" => Value::text(&who.user),
        "current_schema" => Value::text("public"),
        "current_schemas" => Value::text("{public}"),
        "pg_backend_pid" => Value::number(*pid),
        "pg_is_in_recovery" => Value::Boolean(false),
        "has_database_privilege" | "has_schema_privilege" | "has_table_privilege" => Value::Boolean(true),
        "now" | "current_timestamp" | "clock_timestamp" | "transaction_timestamp" | "statement_timestamp" => {
            Value::Time(SystemTime::now())
        }
        "inet_client_addr" => Value::maybe(who.address.map(|address| address.to_string())),
        "current_setting" => match settings.get(*host, who, &text(0)) {
            Some(value) => Value::Text(value),
            None if text(1) == "t" => Value::Null,
            None => return Err(unrecognized(&text(0))),
        },
        "set_config" => {
            settings.set(&text(0), &text(1));
            Value::Text(text(1))
        }
        "quote_ident" | "quote_literal" | "lower" | "upper" | "concat" | "format" | "coalesce" => Value::text(text(0)),
        // Locks, notices and statistics of the server: they do nothing here.
        _ if name.starts_with("pg_") || name.starts_with("inet_") || name.starts_with("txid_") => Value::Null,
        _ => {
            return Err(Report::error(sqlstate::UNDEFINED_FUNCTION, format!("function {name} does not exist"))
                .detail("This is the console of pgsluice, and not the database behind it.")
                .hint("SHOW HELP lists what the console understands."));
        }
    })
}

/// PostgreSQL's error for a setting that nobody has.
pub(super) fn unrecognized(name: &str) -> Report {
    Report::error(sqlstate::UNDEFINED_OBJECT, format!("unrecognized configuration parameter \"{name}\""))
        .hint("SHOW HELP lists the views of the console, and SHOW CONFIG the settings of the proxy.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_numbers() {
        assert_eq!(version_number("17.2 (pgsluice 0.1.0)"), 170_002);
        assert_eq!(version_number("19beta1 (pgsluice 0.1.0)"), 190_000);
        assert_eq!(version_number("10.23"), 100_023);
    }
}
