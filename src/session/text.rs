//! The verdict on a client's text that has keywords of DDL: it is relayed, or the proxy acts on it, or refuses it.
//!
//! It owns nothing. It keeps true: a text is read as the session's server reads it (its encodings, its strings). A text that takes long to
//! parse is parsed aside, so that the other sessions of the worker need not wait.

use super::shared::Shared;
use super::statement::{acts, shown};
use crate::backend::ServerChannel;
use crate::config::{Fallback, LockWaits, Mode};
use crate::pg::{LockMode, sqlstate};
use crate::report::Report;
use crate::sql::{self, Class, Statement};
use crate::wire::speech;

/// The verdict on a text.
pub(super) enum TextVerdict {
    /// The text is relayed. It comes with its statements, if it could be parsed.
    Relay(Vec<Statement>),
    Refuse(Report),
    Act(Vec<Statement>),
}

/// How the session's server reads a text.
pub(super) fn parse_options(channel: &ServerChannel, shared: &Shared) -> sql::ParseOptions {
    sql::ParseOptions {
        standard_conforming_strings: channel.speech().conforming(),
        newer: channel.server_major() > sql::GRAMMAR && shared.config.ddl.unparsable == Fallback::Relay,
    }
}

/// A text's statements, if it can be parsed. PostgreSQL's lexer needs quadratic time for some long texts (nested comments), so long texts are
/// parsed aside.
pub(super) async fn statements_of(channel: &mut ServerChannel, shared: &Shared, text: &[u8]) -> Option<Vec<Statement>> {
    /// Bytes.
    const SURELY_QUICK: usize = 16 << 10;
    let speech = channel.speech();
    let options = parse_options(channel, shared);
    let text = std::str::from_utf8(text).ok()?;
    let mut statements = if text.len() <= SURELY_QUICK {
        sql::parse_with(text, options).ok()?
    } else {
        let text = text.to_owned();
        shared.aside().work(channel, move || sql::parse_with(&text, options).ok()).await??
    };
    if speech.is_in_private(text) {
        for statement in &mut statements {
            statement.logged = speech::shown(&statement.logged);
            // The proxy would send their texts once more, and the session's encoding may give them another meaning.
            if matches!(statement.class, Class::AdvisoryLock(_) | Class::Lock(_) | Class::Newer) {
                statement.class = Class::Other;
            }
        }
    }
    // Where these wait in the server, they are statements like any other.
    let (locks, observes) = (&shared.config.locks, shared.config.proxy.mode == Mode::Observe);
    for statement in &mut statements {
        let waits_in_server = match statement.class {
            Class::AdvisoryLock(_) => observes || locks.advisory_locks == LockWaits::Relay,
            Class::Lock(_) => observes || locks.lock_table == LockWaits::Relay,
            _ => false,
        };
        if waits_in_server {
            statement.class = Class::Other;
        }
    }
    if let Some(rules) = shared.rules_to_ask() {
        for statement in &mut statements {
            statement.gated = rules.may_concern(statement);
            if let Class::ExplainDdl(inner) = &mut statement.class {
                inner.gated = rules.may_concern(inner);
            }
        }
    }
    Some(statements)
}

/// The verdict on a text with DDL keywords.
pub(super) async fn judge(channel: &mut ServerChannel, shared: &Shared, text: &[u8]) -> TextVerdict {
    let ddl = &shared.config.ddl;
    let Some(statements) = statements_of(channel, shared, text).await else {
        shared.metrics.texts_unparsable.add();
        tracing::debug!("a text with DDL keywords could not be parsed");
        return match ddl.unparsable {
            Fallback::Relay => TextVerdict::Relay(Vec::new()),
            Fallback::Refuse => TextVerdict::Refuse(unparsable()),
        };
    };
    if !statements.iter().any(acts) {
        return TextVerdict::Relay(statements);
    }
    let gated = statements.iter().any(|statement| statement.gated);
    // The server reads the whole string before it runs any of it.
    if statements.len() > 1 && may_change_encoding(text) {
        return if gated { TextVerdict::Refuse(cannot_be_asked()) } else { TextVerdict::Relay(Vec::new()) };
    }
    if statements.len() > ddl.statements_limit {
        shared.metrics.texts_oversize.add();
        return match ddl.oversize {
            Fallback::Relay if gated => TextVerdict::Refuse(too_many_statements()),
            Fallback::Relay => TextVerdict::Relay(Vec::new()),
            Fallback::Refuse => TextVerdict::Refuse(too_many_statements()),
        };
    }
    if shared.config.proxy.mode == Mode::Observe {
        for statement in statements.iter().filter(|statement| acts(statement)) {
            shared.metrics.ddl_seen.add();
            tracing::info!(lock = ?locks_of(statement), "would act on: {}", shown(statement));
        }
        return TextVerdict::Relay(Vec::new());
    }
    TextVerdict::Act(statements)
}

/// The error for a text that is larger than `inspect_limit`, if such texts are refused.
pub(super) fn too_large() -> Report {
    Report::fatal(sqlstate::CONFIGURATION_LIMIT_EXCEEDED, "statement text is larger than the proxy may inspect").hint(
        "Send it in smaller pieces, or raise inspect_limit in [ddl] of proxy.toml, or let such texts pass with oversize = \"relay\".",
    )
}

/// The error for a statement that rules may concern, where the proxy cannot stop it to ask them.
pub(super) fn cannot_be_asked() -> Report {
    Report::error(
        sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE,
        "schema change cannot be compared with the rules of the proxy",
    )
    .detail("The proxy cannot stop the statement at this place, and rules of proxy.toml may be about it.")
    .hint("Send the statement by itself, when the answers to all earlier messages have come.")
}

fn unparsable() -> Report {
    Report::error(sqlstate::FEATURE_NOT_SUPPORTED, "statement has DDL keywords and cannot be parsed by the proxy")
        .hint("The setting unparsable in [ddl] of proxy.toml is \"refuse\". With \"relay\" such a text would go to the server.")
}

fn too_many_statements() -> Report {
    Report::error(sqlstate::CONFIGURATION_LIMIT_EXCEEDED, "string has more statements than the proxy may inspect")
        .hint("Send it in smaller pieces, or raise statements_limit in [ddl] of proxy.toml.")
}

/// Whether a text with characters beyond ASCII names the setting of the encoding.
fn may_change_encoding(text: &[u8]) -> bool {
    !text.is_ascii() && sql::has_word(text, &["client_encoding", "names"])
}

/// The lock modes that a statement's forms take, for the log of `observe` mode, which asks the server nothing.
fn locks_of(statement: &Statement) -> Vec<&'static str> {
    let Class::Ddl(ddl) = &statement.class else { return Vec::new() };
    ddl.parts.iter().filter_map(|part| part.form.row().lock).map(LockMode::sql).collect()
}
