//! What SHOW shows: one table of views, each with its columns and the function that reads its rows.
//!
//! [`VIEWS`] is that table. Another view is another row of it, and HELP, SHOW and `pgsluice ctl` have it at once. It keeps true: no view shows a secret or a
//! string of a client's statement.

mod change;
mod gate;
mod proxy;
mod session;

use super::host::Host;
use super::table::{Heading, Kind, Table, Value};
use super::verbs::VERBS;
use crate::pg::sqlstate;
use crate::report::Report;

/// One view.
#[derive(Debug)]
pub(super) struct View {
    /// The word behind SHOW, in lower case.
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    columns: &'static [(&'static str, Kind)],
    rows: fn(&dyn Host) -> Vec<Vec<Value>>,
}

impl View {
    /// The columns.
    pub(super) fn columns(&self) -> Vec<Heading> {
        self.columns.iter().map(|(name, kind)| Heading { name: (*name).to_owned(), kind: *kind }).collect()
    }

    /// The rows as they are now.
    pub(super) fn table(&self, host: &dyn Host) -> Table {
        Table { columns: self.columns(), rows: (self.rows)(host) }
    }
}

/// All views, in the order of HELP.
pub(super) const VIEWS: &[View] = &[
    View {
        name: "help",
        about: "What the console understands.",
        columns: &[("command", Kind::Text), ("about", Kind::Text)],
        rows: help_rows,
    },
    View {
        name: "version",
        about: "The versions of the proxy and of the server behind it.",
        columns: &[("name", Kind::Text), ("version", Kind::Text)],
        rows: proxy::version,
    },
    View {
        name: "state",
        about: "How the proxy does.",
        columns: &[("name", Kind::Text), ("value", Kind::Text)],
        rows: proxy::state,
    },
    View {
        name: "config",
        about: "Every setting: its value, its default, where it comes from, and whether SET or RELOAD changes it.",
        columns: &[
            ("key", Kind::Text),
            ("value", Kind::Text),
            ("default", Kind::Text),
            ("source", Kind::Text),
            ("live", Kind::Boolean),
        ],
        rows: proxy::config,
    },
    View {
        name: "sessions",
        about: "The clients that have logged in. KILL ends one.",
        columns: &[
            ("number", Kind::Bigint),
            ("user", Kind::Text),
            ("database", Kind::Text),
            ("application", Kind::Text),
            ("address", Kind::Text),
            ("encrypted", Kind::Boolean),
            ("backend_pid", Kind::Integer),
            ("since", Kind::Time),
            ("change", Kind::Bigint),
            ("console", Kind::Boolean),
            ("client", Kind::Text),
        ],
        rows: session::sessions,
    },
    View {
        name: "changes",
        about: "The schema changes that run in this proxy or are held, and what was decided. SHOW CHANGE number shows one.",
        columns: &[
            ("number", Kind::Bigint),
            ("session", Kind::Bigint),
            ("user", Kind::Text),
            ("database", Kind::Text),
            ("backend_pid", Kind::Integer),
            ("statement", Kind::Text),
            ("phase", Kind::Integer),
            ("phases", Kind::Integer),
            ("since", Kind::Time),
            ("waiting", Kind::Text),
            ("waiting_since", Kind::Time),
            ("state", Kind::Text),
            ("rule", Kind::Text),
            ("approvals", Kind::Text),
            ("expires", Kind::Time),
            ("client", Kind::Text),
        ],
        rows: change::changes,
    },
    View {
        name: "blockers",
        about: "The sessions that schema changes of this proxy wait for.",
        columns: &[
            ("change", Kind::Bigint),
            ("pid", Kind::Integer),
            ("application", Kind::Text),
            ("user", Kind::Text),
            ("state", Kind::Text),
            ("transaction_ms", Kind::Bigint),
            ("mode", Kind::Text),
            ("relation", Kind::Text),
        ],
        rows: change::blockers,
    },
    View {
        name: "lanes",
        about: "The lanes that schema changes of this proxy hold.",
        columns: &[
            ("relation_oid", Kind::Oid),
            ("relation", Kind::Text),
            ("change", Kind::Bigint),
            ("backend_pid", Kind::Integer),
        ],
        rows: change::lanes,
    },
    View {
        name: "rules",
        about: "The rules of the gate, in the order in which they are asked. The first one that matches decides.",
        columns: &[
            ("number", Kind::Integer),
            ("name", Kind::Text),
            ("verdict", Kind::Text),
            ("matches_by", Kind::Text),
            ("limits", Kind::Text),
            ("window", Kind::Text),
            ("line", Kind::Integer),
        ],
        rows: gate::rules,
    },
    View {
        name: "windows",
        about: "The windows that rules name, and whether they are open now.",
        columns: &[
            ("name", Kind::Text),
            ("times", Kind::Text),
            ("open", Kind::Boolean),
            ("opens", Kind::Time),
            ("line", Kind::Integer),
        ],
        rows: gate::windows,
    },
    View {
        name: "holds",
        about: "What operators hold by hand. RELEASE takes it back.",
        columns: &[
            ("scope", Kind::Text),
            ("user", Kind::Text),
            ("address", Kind::Text),
            ("since", Kind::Time),
            ("reason", Kind::Text),
            ("waiting", Kind::Bigint),
        ],
        rows: gate::holds,
    },
    View {
        name: "stats",
        about: "The counters since the proxy began.",
        columns: &[("name", Kind::Text), ("value", Kind::Bigint)],
        rows: proxy::stats,
    },
    View {
        name: "listeners",
        about: "The addresses that the proxy listens on.",
        columns: &[("address", Kind::Text), ("kind", Kind::Text), ("encryption", Kind::Text)],
        rows: proxy::listeners,
    },
    View {
        name: "memory",
        about: "The memory of the process, in kB.",
        columns: &[("name", Kind::Text), ("kilobytes", Kind::Bigint)],
        rows: proxy::memory,
    },
];

/// The view of this name.
pub(super) fn named(name: &str) -> Option<&'static View> {
    VIEWS.iter().find(|view| view.name == name)
}

/// The view that tells of the others.
pub(super) fn help() -> &'static View {
    &VIEWS[0]
}

/// One change that is or was held.
///
/// # Errors
/// There is no such change.
pub(super) fn change(host: &dyn Host, number: u64) -> Result<Table, Report> {
    let rows = change::one(host, number).ok_or_else(|| {
        Report::error(sqlstate::UNDEFINED_OBJECT, format!("schema change {number} does not exist"))
            .hint("SHOW CHANGES lists the ones there are.")
    })?;
    Ok(Table { columns: change_columns(), rows })
}

/// The columns of SHOW CHANGE.
pub(super) fn change_columns() -> Vec<Heading> {
    ["name", "value"].map(|name| Heading { name: name.to_owned(), kind: Kind::Text }).to_vec()
}

fn help_rows(_: &dyn Host) -> Vec<Vec<Value>> {
    let shows = VIEWS.iter().map(|view| {
        let name = view.name.to_uppercase();
        vec![Value::text(format!("SHOW {name} [LIKE 'pattern']")), Value::text(view.about)]
    });
    let change = vec![
        Value::text("SHOW CHANGE number"),
        Value::text("One schema change that runs, or that is or was held, with its plan."),
    ];
    let setting = vec![Value::text("SHOW section.key"), Value::text("One setting.")];
    let verbs = VERBS.iter().map(|verb| vec![Value::text(verb.form), Value::text(verb.about)]);
    shows.chain([change, setting]).chain(verbs).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_view_is_help() {
        assert_eq!(help().name, "help");
    }
}
