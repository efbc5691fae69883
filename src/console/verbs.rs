//! The verbs of the console: what an admin may do.
//!
//! [`VERBS`] is the one list of them, for HELP and for the reader of commands. It keeps true: a verb is done only for an admin, and each leaves an event.

use super::audit::audit;
use super::host::{Host, Identity, Stop};
use crate::config::{Config, Role, is_live};
use crate::gate::change::State;
use crate::holds::{Actor, HoldVerb, Scope, ScopeHold, Told};
use crate::pg::sqlstate;
use crate::report::Report;
use std::time::SystemTime;

/// A verb as HELP shows it.
pub(super) struct VerbForm {
    /// The first word.
    pub(super) word: &'static str,
    pub(super) form: &'static str,
    pub(super) about: &'static str,
}

/// All verbs.
pub(super) const VERBS: [VerbForm; 13] = [
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
        word: "approve",
        form: "APPROVE number [REASON 'text']",
        about: "Let a change that is held run once, unless more people have to approve it. Its author may not.",
    },
    VerbForm {
        word: "reject",
        form: "REJECT number [REASON 'text']",
        about: "Let a change that is held fail, with the reason, now and whenever it is sent again.",
    },
    VerbForm {
        word: "retry",
        form: "RETRY number [REASON 'text']",
        about: "Hold a change that was rejected or cancelled, has failed or expired, and ask for a decision anew.",
    },
    VerbForm {
        word: "force",
        form: "FORCE number [REASON 'text']",
        about: "Let a change run once without the approvals that it needs. This is logged as such.",
    },
    VerbForm {
        word: "unforce",
        form: "UNFORCE number [REASON 'text']",
        about: "Take FORCE back, unless the change runs already.",
    },
    VerbForm {
        word: "hold",
        form: "HOLD ALL | DATABASE name | RELATION schema.name [REASON 'text']",
        about: "Hold all schema changes, or those of a database or of a relation, until RELEASE or APPROVE.",
    },
    VerbForm {
        word: "release",
        form: "RELEASE ALL | DATABASE name | RELATION schema.name [REASON 'text']",
        about: "Take HOLD back. What waits because of it goes on.",
    },
    VerbForm {
        word: "cancel",
        form: "CANCEL number [REASON 'text']",
        about: "Cancel a schema change of SHOW CHANGES, whether it is held or runs. What it has done is undone.",
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
    Decide(HoldVerb, u64),
    Hold(Scope),
    Release(Scope),
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
            Act::Decide(verb, _) => verb.tag(),
            Act::Hold(_) => "HOLD",
            Act::Release(_) => "RELEASE",
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
            Act::Hold(scope) => scope.to_string(),
            Act::Release(scope) => scope.to_string().replacen("HOLD", "RELEASE", 1),
            Act::Decide(_, number) | Act::Cancel(number) | Act::Kill(number) => format!("{} {number}", self.tag()),
            Act::Reload | Act::Drain | Act::Shutdown => self.tag().to_owned(),
        }
    }

    /// Does the verb. The value is a NOTICE for the client.
    ///
    /// # Errors
    /// The user is no admin, or the verb cannot be done.
    pub(super) async fn run(&self, host: &dyn Host, who: &Identity) -> Result<Option<Report>, Report> {
        let result = if who.role == Role::Admin { self.act(host, who).await } else { Err(not_permitted(self)) };
        let outcome = result.as_ref().map(|_| ()).map_err(|report| report.message.as_str());
        audit(who, &self.what(), self.why.as_deref(), outcome);
        self.note(host, who, outcome);
        result
    }
}

impl Verb {
    /// Leaves the event in the ledger, unless the ledger has it: decisions and holds are made there.
    fn note(&self, host: &dyn Host, who: &Identity, outcome: Result<(), &str>) {
        let Some(keeper) = host.holds().keeper() else { return };
        let made_there = matches!(self.act, Act::Decide(..) | Act::Hold(_) | Act::Release(_));
        if made_there && outcome.is_ok() {
            return;
        }
        let refused = outcome.err().map_or_else(String::new, |error| format!(" (refused: {error})"));
        keeper.tell(Told::Verb {
            what: format!("{}{refused}", self.what()),
            by: who.user.clone(),
            from: who.from(),
            why: self.why.clone().unwrap_or_default(),
        });
    }

    async fn act(&self, host: &dyn Host, who: &Identity) -> Result<Option<Report>, Report> {
        let (from, now) = (who.from(), SystemTime::now());
        let actor = Actor { user: &who.user, from: &from, why: self.why.as_deref() };
        match &self.act {
            Act::Set { key, value } => set(host, key, value)?,
            Act::Reload => {
                let reloaded = host.reload()?;
                return Ok(Some(Report::notice(sqlstate::SUCCESSFUL_COMPLETION, reloaded.to_string())));
            }
            Act::Decide(verb, number) => {
                return host.holds().act(*number, *verb, &actor).await.map(Some);
            }
            Act::Hold(scope) => {
                let (by, why) = (who.user.clone(), self.why.clone().unwrap_or_default());
                host.hold(ScopeHold { scope: scope.clone(), by, from, why, since: now }).await?;
            }
            Act::Release(scope) => host.let_go(scope, &actor).await?,
            Act::Cancel(number) => cancel(host, *number, &actor).await?,
            Act::Kill(number) => {
                let session = host.registry().session(*number);
                session.ok_or_else(|| missing("session", *number, "SESSIONS"))?.kill();
            }
            Act::Drain => host.stop(Stop::WhenIdle),
            Act::Shutdown => host.stop(Stop::Now),
        }
        Ok(None)
    }
}

fn not_permitted(verb: &Verb) -> Report {
    Report::error(sqlstate::INSUFFICIENT_PRIVILEGE, format!("permission denied for {}", verb.tag()))
        .detail("Only users of the console with the role admin may do this.")
        .hint("The role is in [[console.users]] of proxy.toml.")
}

async fn cancel(host: &dyn Host, number: u64, actor: &Actor<'_>) -> Result<(), Report> {
    let holds = host.holds();
    let waits = holds.get(number).is_some_and(|held| matches!(held.change.state(), State::Held | State::Approved));
    let running = host.registry().changes().into_iter().filter(|change| change.known_as() == number);
    let running: Vec<_> = running.collect();
    // A ledger knows what runs in other proxies.
    if waits || (running.is_empty() && holds.keeper().is_some()) {
        return holds.act(number, HoldVerb::Cancel, actor).await.map(|_| ());
    }
    if running.is_empty() {
        return Err(missing("schema change", number, "CHANGES"));
    }
    running.iter().for_each(|change| change.cancel());
    Ok(())
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
