//! The author's own text, cut apart: the subcommands of an ALTER TABLE, and the clauses of a new column.
//!
//! Invariant: every piece is a slice of the author's text between two of its tokens, and never the parser's words. If the
//! text does not split as the grammar's tree does, there are no pieces and the statement stays whole.

use super::names::some;
use super::tokens::{Scanned, Word};
use super::{definition, key};
use crate::sql::{ClauseKind, ColumnClause, NewColumn};
use pg_query::NodeEnum;
use pg_query::protobuf::{self, AlterTableCmd, AlterTableStmt, ColumnDef, ConstrType, Constraint, Node, Token};
use std::ops::Range;

/// The words of one subcommand, and the scanned text that they are from.
pub(super) struct SubcommandText<'a> {
    scanned: &'a Scanned<'a>,
    words: &'a [Word],
}

/// The text of each subcommand, in order. `None`: the text does not split into the subcommands of the tree.
pub(super) fn of_alter_table<'a>(stmt: &AlterTableStmt, scanned: &'a Scanned<'a>) -> Option<Vec<SubcommandText<'a>>> {
    let words = scanned.tokens();
    let table = usize::try_from(stmt.relation.as_ref()?.location).ok()?;
    let mut at = words.iter().position(|word| word.range.start == table)? + 1;
    while words.get(at)?.token == Token::Ascii46 {
        at += 2;
    }
    match words.get(at)?.token {
        Token::Ascii42 => at += 1,
        // ONLY (t), U&"t" UESCAPE '!'
        Token::Ascii41 | Token::Uescape => return None,
        _ => {}
    }
    let rest = words.get(at..)?;
    let pieces: Vec<SubcommandText<'_>> = at_commas(rest).map(|words| SubcommandText { scanned, words }).collect();
    (pieces.len() == stmt.cmds.len() && pieces.iter().all(|piece| !piece.words.is_empty())).then_some(pieces)
}

/// Splits the words at the commas that are outside of parentheses and brackets.
fn at_commas(words: &[Word]) -> impl Iterator<Item = &[Word]> {
    let mut depth = 0_i32;
    words.split(move |word| {
        match word.token {
            Token::Ascii40 | Token::Ascii91 => depth += 1,
            Token::Ascii41 | Token::Ascii93 => depth -= 1,
            _ => {}
        }
        depth == 0 && word.token == Token::Ascii44
    })
}

impl SubcommandText<'_> {
    pub(super) fn text(&self) -> Option<String> {
        let (first, last) = (self.words.first()?, self.words.last()?);
        self.slice(first.range.start..last.range.end)
    }

    /// The text after the name in `ADD CONSTRAINT name …`.
    pub(super) fn element(&self) -> Option<String> {
        let [add, constraint, _, first, ..] = self.words else { return None };
        let is_named = add.token == Token::AddP && constraint.token == Token::Constraint;
        (is_named && first.token != Token::Uescape).then_some(())?;
        self.slice(first.range.start..self.words.last()?.range.end)
    }

    fn slice(&self, range: Range<usize>) -> Option<String> {
        self.scanned.source(range).map(str::to_owned)
    }

    /// The text from the word that begins at `start` to the last word before `end`. Both are offsets in the scanned text.
    fn between(&self, start: usize, end: usize) -> Option<(String, &[Word])> {
        let first = self.words.iter().position(|word| word.range.start == start)?;
        let after = self.words.iter().position(|word| word.range.start >= end).unwrap_or(self.words.len());
        let words = self.words.get(first..after)?;
        Some((self.slice(start..words.last()?.range.end)?, words))
    }

    /// The column that this ADD COLUMN adds. `None`: the column cannot be taken apart.
    pub(super) fn new_column(&self, command: &AlterTableCmd, column: &ColumnDef) -> Option<NewColumn> {
        let mut at = 0;
        let mut next = |wanted: Token| {
            let found = self.words.get(at).is_some_and(|word| word.token == wanted);
            at += usize::from(found);
            found
        };
        next(Token::AddP);
        next(Token::Column);
        if next(Token::IfP) {
            next(Token::Not);
            next(Token::Exists);
        }
        let name = self.words.get(at)?.range.start;
        let type_at = self.words.get(at + 1).filter(|word| word.token != Token::Uescape)?.range.start;
        let mut starts: Vec<(usize, Option<&Constraint>)> = Vec::new();
        for node in &column.constraints {
            let Some(NodeEnum::Constraint(constraint)) = &node.node else { return None };
            starts.push((usize::try_from(constraint.location).ok()?, Some(constraint)));
        }
        if let Some(collation) = &column.coll_clause {
            starts.push((usize::try_from(collation.location).ok()?, None));
        }
        starts.sort_by_key(|(start, _)| *start);
        let end = self.words.last()?.range.end;
        let first = starts.first().map_or(end, |(start, _)| *start);
        let mut new = NewColumn {
            name: column.colname.clone(),
            type_text: self.between(type_at, first)?.0,
            serial: definition::serial(column),
            built_in: !definition::is_user_type(column),
            constant_default: definition::has_constant_default(column),
            if_not_exists: command.missing_ok,
            pieces: Vec::new(),
        };
        for (i, (start, constraint)) in starts.iter().enumerate() {
            let to = starts.get(i + 1).map_or(end, |(next, _)| *next);
            let (text, words) = self.between(*start, to)?;
            match constraint {
                Some(attribute) if is_attribute(attribute) => {
                    let before = new.pieces.last_mut()?;
                    before.text = format!("{} {text}", before.text);
                    before.add_attribute(attribute);
                }
                Some(constraint) => new.pieces.push(piece(constraint, text, words, *start, &column.colname)?),
                None => new.pieces.push(ColumnClause::new(ClauseKind::Collate, text)),
            }
        }
        // Only a column of an integer type can be an identity column.
        (name < first && (new.identity().is_none() || definition::is_integer(column))).then_some(new)
    }
}

fn is_attribute(constraint: &Constraint) -> bool {
    matches!(
        constraint.contype(),
        ConstrType::ConstrAttrDeferrable
            | ConstrType::ConstrAttrNotDeferrable
            | ConstrType::ConstrAttrDeferred
            | ConstrType::ConstrAttrImmediate
            | ConstrType::ConstrAttrEnforced
            | ConstrType::ConstrAttrNotEnforced
    )
}

fn piece(constraint: &Constraint, text: String, words: &[Word], start: usize, column: &str) -> Option<ColumnClause> {
    // The constraint itself comes after `CONSTRAINT name`.
    let skip = if words.first()?.token == Token::Constraint { 2 } else { 0 };
    let element_at = words.get(skip)?.range.start - start;
    let behind_word = || words.get(skip + 1).map(|word| text.get(word.range.start - start..).map(str::to_owned));
    let kind = match constraint.contype() {
        ConstrType::ConstrNull => ClauseKind::Null,
        ConstrType::ConstrNotnull => ClauseKind::NotNull { no_inherit: constraint.is_no_inherit },
        ConstrType::ConstrDefault => ClauseKind::Default { expression: behind_word()?? },
        ConstrType::ConstrCheck => ClauseKind::Check { enforced: true },
        ConstrType::ConstrForeign => ClauseKind::References { enforced: true },
        ConstrType::ConstrPrimary | ConstrType::ConstrUnique => {
            ClauseKind::Key(Box::new(key::new_key(&of_column(constraint, column))?))
        }
        ConstrType::ConstrIdentity => ClauseKind::Identity { options: sequence_options(&text, words, start)? },
        ConstrType::ConstrGenerated => ClauseKind::Generated { stored: definition::is_stored(constraint) },
        _ => return None,
    };
    Some(ColumnClause { name: some(&constraint.conname), element_at, ..ColumnClause::new(kind, text) })
}

fn of_column(constraint: &Constraint, column: &str) -> Constraint {
    let name = Node { node: Some(NodeEnum::String(protobuf::String { sval: column.to_owned() })) };
    Constraint { keys: vec![name], ..constraint.clone() }
}

/// The options of an identity's sequence. `None`: they name the sequence, which the grammar allows only here.
fn sequence_options(text: &str, words: &[Word], start: usize) -> Option<String> {
    let Some(open) = words.iter().position(|word| word.token == Token::Ascii40) else { return Some(String::new()) };
    if words.iter().any(|word| matches!(word.token, Token::NameP | Token::Sequence)) {
        return None;
    }
    let (first, last) = (words.get(open)?.range.end, words.last().filter(|last| last.token == Token::Ascii41)?);
    text.get(first - start..last.range.start - start).map(|options| options.trim().to_owned())
}

impl ColumnClause {
    fn new(kind: ClauseKind, text: String) -> Self {
        Self { kind, name: None, text, element_at: 0 }
    }

    /// The grammar gives DEFERRABLE and the like as constraints of their own, after the constraint that they apply to.
    fn add_attribute(&mut self, attribute: &Constraint) {
        match (&mut self.kind, attribute.contype()) {
            (ClauseKind::Key(key), ConstrType::ConstrAttrDeferrable) if key.deferral.is_empty() => {
                key.deferral = " DEFERRABLE";
            }
            (ClauseKind::Key(key), ConstrType::ConstrAttrDeferred) => key.deferral = " DEFERRABLE INITIALLY DEFERRED",
            (
                ClauseKind::Check { enforced } | ClauseKind::References { enforced },
                ConstrType::ConstrAttrNotEnforced,
            ) => {
                *enforced = false;
            }
            _ => {}
        }
    }
}
