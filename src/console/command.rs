//! What a text asks of the console.
//!
//! It owns nothing: a [`Command`] is made of the words of one statement. It keeps true: a statement that is not understood is an error that says what the
//! console understands, and is never taken for another one.

use super::verbs::{Act, VERBS, Verb};
use super::views::{self, View};
use crate::config::Config;
use crate::holds::{HoldVerb, Scope};
use crate::pg::sqlstate;
use crate::registry::Ratio;
use crate::report::Report;
use crate::sql::console::{Select, Word, Words};
use crate::sql::parse::console::{select, statements};

/// The longest string that is read, in bytes. Tools ask the catalogs with some thousand.
const LONGEST: usize = 256 << 10;

/// What one statement asks for.
#[derive(Debug, Clone)]
pub(super) enum Command {
    /// SHOW of one of the console's views, and the pattern of LIKE.
    View(&'static View, Option<String>),
    /// SHOW CHANGE: one of them.
    Change(u64),
    /// SHOW of a setting: one of the proxy's, or one that PostgreSQL has.
    Setting(String),
    /// SHOW ALL
    Settings,
    Verb(Verb),
    /// SET of a setting that PostgreSQL has.
    Set(String, String),
    /// Nothing is done: the tag.
    Nothing(&'static str),
    Begin(&'static str),
    End(&'static str),
    Select(Select),
}

/// The commands of a string.
///
/// # Errors
/// A statement is not understood.
pub(super) fn commands(text: &str) -> Result<Vec<Command>, Report> {
    if text.len() > LONGEST {
        let what = format!("the console reads strings of at most {} kB", LONGEST >> 10);
        return Err(Report::error(sqlstate::PROGRAM_LIMIT_EXCEEDED, what));
    }
    // PostgreSQL's strings cannot hold NUL, and its scanner stops there.
    let statements = statements(text).map_err(|error| syntax(&error.message))?;
    statements.iter().map(command).collect()
}

fn syntax(message: &str) -> Report {
    Report::error(sqlstate::SYNTAX_ERROR, message)
}

fn command(statement: &Words) -> Result<Command, Report> {
    let words = statement.words.as_slice();
    let Some(Word::Name(first)) = words.first() else { return Err(unknown(statement)) };
    let rest = words.get(1..).unwrap_or_default();
    match first.as_str() {
        "show" => show(rest),
        "select" | "with" | "values" | "table" => match select(&statement.text) {
            Ok(Some(select)) => Ok(Command::Select(select)),
            Ok(None) => Err(unknown(statement)),
            Err(error) => Err(syntax(&error.message)),
        },
        "set" => set(rest),
        "reset" => Ok(Command::Nothing("RESET")),
        "begin" => Ok(Command::Begin("BEGIN")),
        "start" if rest.first().is_some_and(|word| word.is("transaction")) => Ok(Command::Begin("START TRANSACTION")),
        "commit" | "end" => Ok(Command::End("COMMIT")),
        "rollback" if rest.iter().any(|word| word.is("to")) => Ok(Command::Nothing("ROLLBACK")),
        "rollback" | "abort" => Ok(Command::End("ROLLBACK")),
        "savepoint" => Ok(Command::Nothing("SAVEPOINT")),
        // RELEASE SAVEPOINT
        "release" if scope(reason(rest)?.0).is_none() && change_number(reason(rest)?.0).is_none() => {
            Ok(Command::Nothing("RELEASE"))
        }
        "discard" => Ok(Command::Nothing("DISCARD ALL")),
        "deallocate" => Ok(Command::Nothing("DEALLOCATE")),
        "close" => Ok(Command::Nothing("CLOSE CURSOR")),
        "listen" => Ok(Command::Nothing("LISTEN")),
        "unlisten" => Ok(Command::Nothing("UNLISTEN")),
        _ if VERBS.iter().any(|verb| verb.word == first) => verb(first, rest),
        _ => Err(unknown(statement)),
    }
}

/// The error for a statement of another kind.
fn unknown(statement: &Words) -> Report {
    let word = statement.words.first().map(|word| word.text().to_uppercase()).unwrap_or_default();
    Report::error(sqlstate::FEATURE_NOT_SUPPORTED, format!("the console does not run {word}"))
        .detail("This is the console of pgsluice, and not the database behind it.")
        .hint("SHOW HELP lists what the console understands.")
}

fn show(rest: &[Word]) -> Result<Command, Report> {
    let (what, pattern) = match rest {
        [what @ .., like, Word::Text(pattern)] if like.is("like") => (what, Some(pattern.clone())),
        [.., like] if like.is("like") => return Err(syntax("LIKE needs a pattern in single quotes")),
        what => (what, None),
    };
    let name = what.iter().map(Word::text).collect::<String>();
    if let [Word::Name(name)] = what
        && let Some(view) = views::named(name)
    {
        return Ok(Command::View(view, pattern));
    }
    match what {
        [change, Word::Number(number)] if change.is("change") && pattern.is_none() => {
            number.parse().map(Command::Change).map_err(|_| syntax("the form of this command is SHOW CHANGE number"))
        }
        [] => Ok(Command::View(views::help(), pattern)),
        _ if pattern.is_some() => Err(no_view(&name)),
        [all] if all.is("all") => Ok(Command::Settings),
        [time, zone] if time.is("time") && zone.is("zone") => Ok(Command::Setting("timezone".to_owned())),
        [transaction, isolation, level]
            if transaction.is("transaction") && isolation.is("isolation") && level.is("level") =>
        {
            Ok(Command::Setting("transaction_isolation".to_owned()))
        }
        [session, _] if session.is("session") => Ok(Command::Setting("session_authorization".to_owned())),
        _ => Ok(Command::Setting(name)),
    }
}

fn no_view(name: &str) -> Report {
    Report::error(sqlstate::UNDEFINED_OBJECT, format!("the console has no view \"{name}\""))
        .hint("SHOW HELP lists the views.")
}

/// SET: a setting of the proxy's, or one that drivers set.
fn set(rest: &[Word]) -> Result<Command, Report> {
    let rest = match rest {
        [scope, rest @ ..] if (scope.is("session") || scope.is("local")) && rest.len() > 1 => rest,
        rest => rest,
    };
    let end = rest.iter().position(|word| word.is("to") || word.text() == "=" && !matches!(word, Word::Text(_)));
    let Some(end) = end else {
        // SET TIME ZONE, SET NAMES, SET ROLE, SET TRANSACTION, SET SESSION CHARACTERISTICS …
        return Ok(Command::Nothing("SET"));
    };
    let (name, value) = rest.split_at(end);
    let name: String = name.iter().map(Word::text).collect();
    let sections = Config::keys();
    let of_the_proxy = name.contains('.')
        && sections.iter().any(|key| key.split('.').next() == name.split('.').next() || *key == name);
    let (value, why) = reason(value.get(1..).unwrap_or_default())?;
    let value: String = value.iter().map(Word::text).collect();
    match of_the_proxy {
        true if value.is_empty() => Err(syntax("SET needs a value")),
        true => Ok(Command::Verb(Verb { act: Act::Set { key: name, value }, why })),
        false => Ok(Command::Set(name.to_lowercase(), value)),
    }
}

/// Takes `REASON 'text'` off the end of a verb.
fn reason(words: &[Word]) -> Result<(&[Word], Option<String>), Report> {
    match words {
        [rest @ .., reason, Word::Text(why)] if reason.is("reason") => Ok((rest, Some(why.clone()))),
        [.., reason] if reason.is("reason") => Err(syntax("REASON needs a text in single quotes")),
        rest => Ok((rest, None)),
    }
}

fn verb(first: &str, rest: &[Word]) -> Result<Command, Report> {
    let (rest, why) = reason(rest)?;
    let number = || match rest {
        [Word::Number(number)] | [_, Word::Number(number)] => number.parse().ok(),
        _ => None,
    };
    let act = match first {
        "kill" => number().map(Act::Kill),
        "cancel" => number().map(Act::Cancel),
        "approve" => number().map(|number| Act::Decide(HoldVerb::Approve, number)),
        "reject" => number().map(|number| Act::Decide(HoldVerb::Reject, number)),
        "retry" => number().map(|number| Act::Decide(HoldVerb::Retry, number)),
        "force" => number().map(|number| Act::Decide(HoldVerb::Force, number)),
        "unforce" => number().map(|number| Act::Decide(HoldVerb::Unforce, number)),
        "hold" => scope(rest).map(Act::Hold).or_else(|| change_number(rest).map(Act::HoldRunning)),
        "release" => scope(rest).map(Act::Release).or_else(|| change_number(rest).map(Act::ReleaseRunning)),
        "throttle" => match rest {
            [Word::Number(number), word, Word::Number(ratio)] if word.is("ratio") => {
                number.parse().ok().zip(Ratio::from_text(ratio)).map(|(number, ratio)| Act::Throttle(number, ratio))
            }
            _ => None,
        },
        "unthrottle" => change_number(rest).map(Act::Unthrottle),
        _ if !rest.is_empty() => None,
        "reload" => Some(Act::Reload),
        "drain" => Some(Act::Drain),
        "shutdown" => Some(Act::Shutdown),
        _ => None,
    };
    let form = VERBS.iter().find(|verb| verb.word == first).map_or("", |verb| verb.form);
    let act = act.ok_or_else(|| {
        syntax(&format!("the form of this command is {form}")).hint("SHOW HELP lists what the console understands.")
    })?;
    Ok(Command::Verb(Verb { act, why }))
}

/// The number of a change. `None`: the words are none.
fn change_number(rest: &[Word]) -> Option<u64> {
    match rest {
        [Word::Number(number)] => number.parse().ok(),
        [change, Word::Number(number)] if change.is("change") => number.parse().ok(),
        _ => None,
    }
}

/// The scope of HOLD and RELEASE. `None`: the words are none.
fn scope(rest: &[Word]) -> Option<Scope> {
    let name = |words: &[Word]| words.iter().map(Word::text).collect::<String>();
    match rest {
        [all] if all.is("all") => Some(Scope::All),
        [database, words @ ..] if database.is("database") && words.len() == 1 => Some(Scope::Database(name(words))),
        [relation, words @ ..] if relation.is("relation") && matches!(words.len(), 1 | 3) => {
            Some(Scope::Relation(name(words)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Command {
        let mut all = commands(text).unwrap_or_else(|report| panic!("{text}: {report}"));
        assert_eq!(all.len(), 1, "{text}");
        all.remove(0)
    }

    #[test]
    fn verbs_with_reasons() {
        let verb = |text: &str| match one(text) {
            Command::Verb(verb) => verb,
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(verb("KILL 12 REASON 'it hangs'"), Verb { act: Act::Kill(12), why: Some("it hangs".to_owned()) });
        assert_eq!(verb("cancel change 3;").act, Act::Cancel(3));
        assert_eq!(verb("DRAIN").act, Act::Drain);
        assert_eq!(verb("APPROVE 12 REASON 'fine'").act, Act::Decide(HoldVerb::Approve, 12));
        assert_eq!(verb("HOLD ALL").act, Act::Hold(Scope::All));
        assert_eq!(verb("release database shop").act, Act::Release(Scope::Database("shop".to_owned())));
        let relation = Scope::Relation("public.Orders".to_owned());
        assert_eq!(verb("HOLD RELATION public.\"Orders\" REASON 'x'").act, Act::Hold(relation));
        assert_eq!(verb("HOLD 12 REASON 'x'").act, Act::HoldRunning(12));
        assert_eq!(verb("RELEASE 12").act, Act::ReleaseRunning(12));
        let ratio = Ratio::from_text("0.9").unwrap();
        assert_eq!(verb("THROTTLE 12 RATIO 0.9 REASON 'x'").act, Act::Throttle(12, ratio));
        assert_eq!(verb("UNTHROTTLE 12").act, Act::Unthrottle(12));
        assert!(matches!(one("SHOW CHANGE 3"), Command::Change(3)));
        let set = |value: &str| Act::Set { key: "locks.stall_budget".to_owned(), value: value.to_owned() };
        assert_eq!(verb("SET locks.stall_budget = '300ms'").act, set("300ms"));
        assert_eq!(verb("set locks.stall_budget to 300 reason 'x'").act, set("300"));
        for bad in [
            "KILL",
            "KILL x",
            "KILL 99999999999999999999",
            "DRAIN now",
            "KILL 1 REASON",
            "APPROVE",
            "HOLD",
            "HOLD TABLE t",
            "HOLD 1 2",
            "THROTTLE 1",
            "THROTTLE 1 RATIO 1",
            "THROTTLE 1 RATIO x",
            "UNTHROTTLE",
            "SHOW CONFIG LIKE",
        ] {
            assert_eq!(commands(bad).unwrap_err().sqlstate, sqlstate::SYNTAX_ERROR, "{bad}");
        }
    }

    #[test]
    fn what_drivers_send() {
        for text in [
            "BEGIN",
            "START TRANSACTION READ ONLY",
            "RELEASE SAVEPOINT a",
            "RELEASE a",
            "COMMIT",
            "SET extra_float_digits = 3",
            "SET application_name = 'x'",
            "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
            "SET TIME ZONE 'UTC'",
            "SET search_path TO a, b",
            "DISCARD ALL",
            "DEALLOCATE \"x\"",
            "SHOW TRANSACTION ISOLATION LEVEL",
            "SHOW search_path",
            "SELECT 1",
            "select version()",
        ] {
            assert!(!matches!(one(text), Command::Verb(_)), "{text}");
        }
        assert_eq!(commands("SELECT pg_advisory_unlock_all(); CLOSE ALL; UNLISTEN *; RESET ALL;").unwrap().len(), 4);
        for text in ["CREATE TABLE t ()", "DELETE FROM t", "COPY t TO STDOUT", "SELECT 1 INTO t"] {
            assert_eq!(commands(text).unwrap_err().sqlstate, sqlstate::FEATURE_NOT_SUPPORTED, "{text}");
        }
        assert_eq!(commands(&"x".repeat(LONGEST + 1)).unwrap_err().sqlstate, sqlstate::PROGRAM_LIMIT_EXCEEDED);
    }
}
