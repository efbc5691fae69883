//! The verbs of the console: what an admin may do.
//!
//! [`VERBS`] is the one list of them, for HELP and for the reader of commands. It keeps true: a verb is done only for an admin, and each leaves an event.

use super::audit::audit;
use super::host::{Host, Identity, Stop};
use crate::config::{Config, Role, is_live};
use crate::pg::sqlstate;
use crate::report::Report;

/// A verb as HELP shows it.
pub(super) struct VerbForm {
    /// The first word.
    pub(super) word: &'static str,
    pub(super) form: &'static str,
    pub(super) about: &'static str,
}

/// All verbs.
pub(super) const VERBS: [VerbForm; 6] = [
    VerbForm {
        word: "set",
        form: "SET section.key = 'value' [REASON 'text']",
        about: "Change a setting of the running proxy. SHOW CONFIG says which ones it follows.",
    },
    VerbForm {
        word: "reload",
        form: "RELOAD [REASON 'text']",
        about: "Read proxy.toml, certificates and keys anew. What is wrong in them changes nothing.",
    },
    VerbForm {
        word: "cancel",
        form: "CANCEL number [REASON 'text']",
        about: "Cancel a schema change of SHOW CHANGES. What it has done is undone.",
    },
    VerbForm {
        word: "kill",
        form: "KILL number [REASON 'text']",
        about: "End a session of SHOW SESSIONS. Its schema change is undone first.",
    },
    VerbForm {
        word: "drain",
        form: "DRAIN [REASON 'text']",
        about: "Accept no more clients, end sessions when they are idle, and then stop, as at SIGTERM.",
    },
    VerbForm { word: "shutdown", form: "SHUTDOWN [REASON 'text']", about: "End all sessions now, and stop." },
];

/// What a verb is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Act {
    Set { key: String, value: String },
    Reload,
    Cancel(u64),
    Kill(u64),
    Drain,
    Shutdown,
}

/// A verb, with the reason that the user has given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verb {
    pub(super) act: Act,
    pub(super) why: Option<String>,
}

impl Verb {
    /// The command's tag.
    pub(super) fn tag(&self) -> &'static str {
        match self.act {
            Act::Set { .. } => "SET",
            Act::Reload => "RELOAD",
            Act::Cancel(_) => "CANCEL",
            Act::Kill(_) => "KILL",
            Act::Drain => "DRAIN",
            Act::Shutdown => "SHUTDOWN",
        }
    }

    fn what(&self) -> String {
        match &self.act {
            // Other keys may hold a secret, and are refused.
            Act::Set { key, .. } if !is_live(key) => format!("SET {key} = (not shown)"),
            Act::Set { key, value } => format!("SET {key} = {value}"),
            Act::Cancel(number) | Act::Kill(number) => format!("{} {number}", self.tag()),
            Act::Reload | Act::Drain | Act::Shutdown => self.tag().to_owned(),
        }
    }

    /// Does the verb. The value is a NOTICE for the client.
    ///
    /// # Errors
    /// The user is no admin, or the verb cannot be done.
    pub(super) fn run(&self, host: &dyn Host, who: &Identity) -> Result<Option<Report>, Report> {
        let result = if who.role == Role::Admin { act(host, &self.act) } else { Err(not_permitted(self)) };
        let outcome = result.as_ref().map(|_| ()).map_err(|report| report.message.as_str());
        audit(who, &self.what(), self.why.as_deref(), outcome);
        result
    }
}

fn not_permitted(verb: &Verb) -> Report {
    Report::error(sqlstate::INSUFFICIENT_PRIVILEGE, format!("permission denied for {}", verb.tag()))
        .detail("Only users of the console with the role admin may do this.")
        .hint("The role is in [[console.users]] of proxy.toml.")
}

fn act(host: &dyn Host, act: &Act) -> Result<Option<Report>, Report> {
    match act {
        Act::Set { key, value } => set(host, key, value).map(|()| None),
        Act::Reload => {
            let reloaded = host.reload()?;
            Ok(Some(Report::notice(sqlstate::SUCCESSFUL_COMPLETION, reloaded.to_string())))
        }
        Act::Cancel(number) => {
            let change = host.registry().change(*number).ok_or_else(|| missing("schema change", *number, "CHANGES"))?;
            change.cancel();
            Ok(None)
        }
        Act::Kill(number) => {
            let session = host.registry().session(*number).ok_or_else(|| missing("session", *number, "SESSIONS"))?;
            session.kill();
            Ok(None)
        }
        Act::Drain => {
            host.stop(Stop::WhenIdle);
            Ok(None)
        }
        Act::Shutdown => {
            host.stop(Stop::Now);
            Ok(None)
        }
    }
}

fn set(host: &dyn Host, key: &str, value: &str) -> Result<(), Report> {
    if !Config::keys().iter().any(|known| known == key) {
        return Err(Report::error(
            sqlstate::UNDEFINED_OBJECT,
            format!("unrecognized configuration parameter \"{key}\""),
        )
        .hint("SHOW CONFIG lists the keys."));
    }
    if !is_live(key) || key == "console.users" {
        return Err(Report::error(
            sqlstate::FEATURE_NOT_SUPPORTED,
            format!("parameter \"{key}\" cannot be changed while the proxy runs"),
        )
        .hint("Change it in proxy.toml, and restart the proxy. Users of the console change by RELOAD."));
    }
    host.set(key, value)
}

fn missing(what: &str, number: u64, view: &str) -> Report {
    Report::error(sqlstate::UNDEFINED_OBJECT, format!("{what} {number} does not exist"))
        .hint(format!("SHOW {view} lists the ones there are."))
}
