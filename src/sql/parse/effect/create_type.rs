//! The idiom of several tools for CREATE TYPE IF NOT EXISTS:
//! `DO $$ BEGIN CREATE TYPE t AS ENUM (…); EXCEPTION WHEN duplicate_object THEN null; END $$`.
//!
//! Invariant: the block does nothing but create types.

use super::super::grammar::grammar;
use super::super::names::{dotted, string, strings};
use super::super::options::ParseOptions;
use super::super::tokens::{Word, scan};
use crate::pg::RelationName;
use pg_query::NodeEnum;
use pg_query::protobuf::{DoStmt, Node};

/// The types that the DO creates; `None`: the DO is not of that form.
pub(super) fn types(stmt: &DoStmt, options: ParseOptions) -> Option<Vec<RelationName>> {
    let option = |name: &str| {
        stmt.args.iter().find_map(|arg| match arg.node.as_ref()? {
            NodeEnum::DefElem(option) if option.defname == name => string(option.arg.as_ref()?),
            _ => None,
        })
    };
    if option("language").is_some_and(|language| language != "plpgsql") {
        return None;
    }
    let body = option("as")?;
    let scanned = scan(body, options);
    let words = scanned.tokens();
    let text = |word: &Word| body.get(word.range.clone()).unwrap_or_default().to_lowercase();
    let first = words.first().filter(|word| text(word) == "begin")?;
    let at = words.iter().position(|word| text(word) == "exception")?;
    let handler: Vec<String> = words.get(at..)?.iter().map(text).collect();
    let handler: Vec<&str> = handler.iter().map(String::as_str).collect();
    let ends = ["exception", "when", "duplicate_object", "then", "null", ";", "end"];
    let rest = handler.strip_prefix(&ends[..])?;
    if !matches!(rest, [] | [";"]) {
        return None;
    }
    let created = body.get(first.range.end..words.get(at)?.range.start)?;
    let created = grammar(created, options).ok()?;
    let one = |stmt: Option<&Node>| match stmt?.node.as_ref()? {
        NodeEnum::CreateEnumStmt(stmt) => dotted(&strings(&stmt.type_name)),
        _ => None,
    };
    created.iter().map(|raw| one(raw.stmt.as_deref())).collect::<Option<Vec<_>>>().filter(|types| !types.is_empty())
}
