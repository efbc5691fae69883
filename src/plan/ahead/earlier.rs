//! A statement that stands earlier in the block, and why a statement does not go ahead of the block.
//!
//! Plain data, and the words for people; the file owns no state. Invariant: a detail and a hint are sentences.

use crate::plan::block_place::NotAhead;
use crate::sql::{Effect, EffectKind, Statement, first_word};
use std::collections::BTreeSet;

/// A statement that stands earlier in the block. Statements that ROLLBACK TO SAVEPOINT has undone are left out.
#[derive(Debug)]
pub struct Earlier<'a> {
    pub statement: &'a Statement,
    pub effect: &'a Effect,
    /// The oids of what the statement touches.
    pub touches: BTreeSet<u32>,
    /// The statement is ahead of the block already.
    pub hoisted: bool,
    /// For DDL: whether it may go ahead, since it can be undone. The text is a fragment that says why not ("it drops a column"), or
    /// empty.
    pub undoable: Result<(), String>,
    /// The statement calls a function that may do anything.
    pub volatile: bool,
}

/// `why`: a sentence about a statement that stands before the schema change.
pub(super) fn because_of_an_earlier(why: String) -> NotAhead {
    NotAhead { detail: why, hint: BEFORE.to_owned() }
}

pub(super) const APART: &str = "Run the schema change in a transaction of its own.";
pub(super) const BEFORE: &str = "Put the schema change before that statement, or run it in a transaction of its own.";

/// The statement for people: `UPDATE of public.orders`.
pub(super) fn title(x: &Earlier<'_>) -> String {
    let (verb, targets) = match x.statement.ddl() {
        Some(ddl) => (ddl.tag.clone(), ddl.targets.as_slice()),
        None => (String::from_utf8_lossy(first_word(x.statement.text.as_bytes())).to_uppercase(), &[][..]),
    };
    let names = if targets.is_empty() { x.effect.relations.as_slice() } else { targets };
    let names: Vec<String> = names.iter().take(3).map(ToString::to_string).collect();
    let object = ["TABLE", "VIEW", "SEQUENCE", "TYPE", "DOMAIN", "FUNCTION", "SCHEMA", "EXTENSION"];
    let link = match verb.as_str() {
        "INSERT" | "MERGE" => " into ",
        "DROP INDEX" | "ALTER INDEX" => " ",
        _ if object.iter().any(|object| verb.ends_with(object)) => " ",
        _ if x.effect.kind == EffectKind::Ddl => " on ",
        _ => " of ",
    };
    if names.is_empty() { verb } else { format!("{verb}{link}{}", names.join(", ")) }
}
