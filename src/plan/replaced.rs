//! The constraints that an ALTER TABLE replaces: `DROP CONSTRAINT x, ADD CONSTRAINT x …`.
//!
//! The server does all drops before it adds anything. So a subcommand that names an object cannot go into another phase
//! than a subcommand that drops the object. [`replaced`] finds the one exception: a constraint that is dropped and made
//! anew under its name ([`super::replace`]).
//!
//! Invariant: if it cannot be told whether a subcommand names an object that another one drops, the statement runs whole.

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
    /// The name of the new constraint while the old one exists.
    pub(super) meanwhile: String,
}

impl Replaced {
    /// `from`: the first number to try in the name `meanwhile`.
    pub(super) fn new(table: &RelationFacts, name: &str, from: usize) -> Option<Self> {
        let free = |name: &String| table.constraint(name).is_none() && table.indexes.iter().all(|i| i.id.name != *name);
        let names = |n: usize| object_name(&format!("pgsluice{n}"), Some(name), "new");
        Some(Self { name: name.to_owned(), meanwhile: (from..).map(names).find(free)? })
    }

    /// The two names, for an error of a step that has the constraint under `meanwhile`.
    pub(super) fn renamed(&self) -> Renamed {
        Renamed { from: self.meanwhile.clone(), to: self.name.clone() }
    }
}

/// The constraints that are replaced; `None`: a subcommand drops something else that another one names.
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

/// The name of the object that a subcommand drops or changes; `Some(None)`: the name cannot be told.
#[allow(clippy::option_option)] // "nothing", "who knows", "this" are three answers
fn takes(part: &Part) -> Option<&Option<String>> {
    match part.form {
        Form::DropColumn | Form::DropNotNull | Form::AlterIdentity | Form::DropExpression => Some(&part.column),
        Form::DropConstraint => Some(&part.constraint),
        _ => None,
    }
}

/// Whether another subcommand names the object that `taker` takes away, or may get that name from the server.
fn is_named(taken: &str, taker: &Part, other: &Part) -> bool {
    (may_name_unnamed(taken, taker) && makes_unnamed(other))
        || other.text.as_ref().is_none_or(|text| has_word(text, taken))
}

fn may_name_unnamed(taken: &str, taker: &Part) -> bool {
    taker.form == Form::DropConstraint && may_be_chosen(taken)
}

/// The subcommands that contain each word. So not every subcommand is read again for each name that is taken away.
struct NameMentions {
    parts: usize,
    by_word: HashMap<String, Vec<usize>>,
    /// The subcommands whose names cannot be found as words.
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

    /// The subcommands of which [`is_named`] could be true, in their order.
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

/// Whether a text may contain a name, quoted or not. A name with other characters than those of a word is searched for anywhere. A text
/// with Unicode escapes may contain any name.
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

/// Whether a subcommand makes a constraint whose name the server chooses. It may be the name of the one that is dropped.
fn makes_unnamed(part: &Part) -> bool {
    use Form::{AddCheck, AddForeignKey, AddNotNullConstraint, AddPrimaryKey, AddUnique, SetNotNull};
    let form = matches!(part.form, AddCheck | AddForeignKey | AddNotNullConstraint | AddPrimaryKey | AddUnique);
    let column = part.new_column.as_ref().is_some_and(|new| new.pieces.iter().any(|piece| piece.name.is_none()));
    part.form == SetNotNull || column || (form && part.constraint.is_none())
}

/// Whether `add` makes the constraint anew that `drop` drops, and the old and the new one can exist at once.
fn replaces(table: &RelationFacts, drop: &Part, add: &Part) -> bool {
    let named = drop.constraint.as_ref().and_then(|name| table.constraint(name));
    let forms = [Form::AddCheck, Form::AddForeignKey, Form::AddUnique, Form::AddPrimaryKey];
    // A key that foreign keys point to cannot be dropped. The server raises that error at once.
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
