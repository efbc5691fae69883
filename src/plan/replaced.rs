//! The constraints that an ALTER TABLE replaces: `DROP CONSTRAINT x, ADD CONSTRAINT x …`.
//!
//! The server does all drops before it adds anything. So a subcommand cannot be parted from another one that drops what
//! it names. [`replaced`] finds the one exception: a constraint that is dropped and made anew under its name
//! ([`super::replace`]).
//!
//! Invariant: if a subcommand may name what another one drops, and that cannot be told, the statement stays whole.

use super::context::PlanContext;
use super::model::Renamed;
use crate::catalog::RelationFacts;
use crate::catalog::naming::object_name;
use crate::sql::Part;
use crate::sql::form::Form;
use std::collections::{BTreeSet, HashMap};

/// A constraint that the statement drops, and makes anew under its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Replaced {
    pub(super) name: String,
    /// What the new one is called while the old one is there.
    pub(super) meanwhile: String,
}

impl Replaced {
    /// `from`: the number that its other name has if nothing else is called so.
    pub(super) fn new(table: &RelationFacts, name: &str, from: usize) -> Option<Self> {
        let free = |name: &String| table.constraint(name).is_none() && table.indexes.iter().all(|i| i.id.name != *name);
        let names = |n: usize| object_name(&format!("pgsluice{n}"), Some(name), "new");
        Some(Self { name: name.to_owned(), meanwhile: (from..).map(names).find(free)? })
    }

    /// For an error of a step that knows it under its other name.
    pub(super) fn renamed(&self) -> Renamed {
        Renamed { from: self.meanwhile.clone(), to: self.name.clone() }
    }
}

/// The constraints that are replaced; `None`: something else takes from another.
pub(super) fn replaced(context: &PlanContext<'_>, table: &RelationFacts) -> Option<Vec<Replaced>> {
    let parts = &context.ddl.parts;
    let words = NameMentions::of(parts);
    let mut found = Vec::new();
    for (at, part) in parts.iter().enumerate() {
        let Some(taken) = takes(part) else { continue };
        let taken = taken.as_ref()?;
        let names = |other: &usize| *other != at && parts.get(*other).is_some_and(|other| is_named(taken, part, other));
        let mut naming = words.may_name(taken, part).into_iter().filter(names).filter_map(|other| parts.get(other));
        let Some(other) = naming.next() else { continue };
        if naming.next().is_some() || !replaces(table, part, other) {
            return None;
        }
        found.push(Replaced::new(table, taken, found.len() + 1)?);
    }
    Some(found)
}

/// What a subcommand takes away; `Some(None)`: that cannot be told.
#[allow(clippy::option_option)] // "nothing", "who knows", "this" are three answers
fn takes(part: &Part) -> Option<&Option<String>> {
    match part.form {
        Form::DropColumn | Form::DropNotNull | Form::AlterIdentity | Form::DropExpression => Some(&part.column),
        Form::DropConstraint => Some(&part.constraint),
        _ => None,
    }
}

/// Whether another subcommand names what `taker` takes, or may be given its name by the server.
fn is_named(taken: &str, taker: &Part, other: &Part) -> bool {
    (may_name_unnamed(taken, taker) && makes_unnamed(other))
        || other.text.as_ref().is_none_or(|text| has_word(text, taken))
}

fn may_name_unnamed(taken: &str, taker: &Part) -> bool {
    taker.form == Form::DropConstraint && may_be_chosen(taken)
}

/// In which subcommands a word stands: so that not every one is read again for each name that is taken.
struct NameMentions {
    parts: usize,
    by_word: HashMap<String, Vec<usize>>,
    /// What cannot be told by a word.
    any: Vec<usize>,
    unnamed: Vec<usize>,
}

impl NameMentions {
    fn of(parts: &[Part]) -> Self {
        let mut words = Self { parts: parts.len(), by_word: HashMap::new(), any: Vec::new(), unnamed: Vec::new() };
        if !parts.iter().any(|part| takes(part).is_some()) {
            return words;
        }
        for (at, part) in parts.iter().enumerate() {
            let text = part.text.as_ref().map(|text| text.to_lowercase());
            if text.as_ref().is_none_or(|text| text.contains("u&")) {
                words.any.push(at);
            }
            if makes_unnamed(part) {
                words.unnamed.push(at);
            }
            for word in text.iter().flat_map(|text| text.split(|c| !is_in_a_word(c))) {
                match words.by_word.get_mut(word) {
                    Some(places) if places.last() == Some(&at) => {}
                    Some(places) => places.push(at),
                    None => drop(words.by_word.insert(word.to_owned(), vec![at])),
                }
            }
        }
        words
    }

    /// In their order, all that [`is_named`] could be true of.
    fn may_name(&self, taken: &str, taker: &Part) -> BTreeSet<usize> {
        let name = taken.to_lowercase();
        if !name.chars().all(is_in_a_word) {
            return (0..self.parts).collect();
        }
        let unnamed = may_name_unnamed(taken, taker).then_some(&self.unnamed).into_iter().flatten();
        self.by_word.get(&name).into_iter().flatten().chain(&self.any).chain(unnamed).copied().collect()
    }
}

fn is_in_a_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$'
}

/// Whether a text has a name in it, quoted or not. A name of odd characters is looked for anywhere; where Unicode is written in
/// escapes it cannot be told.
fn has_word(text: &str, name: &str) -> bool {
    let (text, name) = (text.to_lowercase(), name.to_lowercase());
    let found = match name.chars().all(is_in_a_word) {
        true => text.split(|c| !is_in_a_word(c)).any(|word| word == name),
        false => text.replace("\"\"", "\"").contains(&name),
    };
    found || text.contains("u&")
}

/// Whether a name could be one that the server chose for a constraint.
fn may_be_chosen(name: &str) -> bool {
    let name = name.trim_end_matches(|c: char| c.is_ascii_digit());
    ["_check", "_fkey", "_key", "_pkey", "_excl", "_not_null"].iter().any(|label| name.ends_with(label))
}

/// Whether it makes a constraint whose name the server chooses: maybe the one that is dropped.
fn makes_unnamed(part: &Part) -> bool {
    use Form::{AddCheck, AddForeignKey, AddNotNullConstraint, AddPrimaryKey, AddUnique, SetNotNull};
    let form = matches!(part.form, AddCheck | AddForeignKey | AddNotNullConstraint | AddPrimaryKey | AddUnique);
    let column = part.new_column.as_ref().is_some_and(|new| new.pieces.iter().any(|piece| piece.name.is_none()));
    part.form == SetNotNull || column || (form && part.constraint.is_none())
}

/// Whether `add` makes the constraint anew that `drop` drops, so that the two can be there at once.
fn replaces(table: &RelationFacts, drop: &Part, add: &Part) -> bool {
    let named = drop.constraint.as_ref().and_then(|name| table.constraint(name));
    let forms = [Form::AddCheck, Form::AddForeignKey, Form::AddUnique, Form::AddPrimaryKey];
    // A key that others refer to cannot be dropped: the server says so at once.
    let free = |kind: char| drop.cascade || !"pu".contains(kind) || table.referenced_by.is_empty();
    drop.form == Form::DropConstraint
        && add.constraint == drop.constraint
        && forms.contains(&add.form)
        && named.is_some_and(|there| free(there.kind))
}

#[cfg(test)]
mod tests {
    use super::{has_word, may_be_chosen};

    #[test]
    fn names_are_found_as_words() {
        assert!(has_word("ADD CHECK (paid > 0)", "paid") && has_word("ADD CHECK (\"Paid\" > 0)", "Paid"));
        assert!(!has_word("ADD CHECK (paid > 0)", "id") && !has_word("ADD CONSTRAINT price_2 UNIQUE (a)", "price"));
        assert!(
            has_word("ADD CHECK (\"my \"\"own\"\"\" > 0)", "my \"own\"")
                && has_word("ADD CHECK (u&\"\\0061\" > 0)", "a")
        );
    }

    #[test]
    fn names_that_the_server_may_have_chosen() {
        assert!(may_be_chosen("t_a_check") && may_be_chosen("t_a_fkey12") && !may_be_chosen("checked"));
    }
}
