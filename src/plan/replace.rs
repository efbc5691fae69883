//! A constraint in place of another of the same name, and a foreign key that becomes ENFORCED.
//!
//! The new constraint is made beside the old one, under a name of the proxy's. Its rows are checked or its index is built. One brief
//! step drops the old constraint and gives the new one its name.
//!
//! Invariants: the application sees the old constraint or both, never none. Errors name the constraint as its author does.

use super::constraint;
use super::model::Step;
use super::replaced::Replaced;
use super::subcommands::Subcommands;
use crate::pg::RelationKind;
use crate::pg::relation::quote_identifier;
use crate::sql::Part;

/// Adds a CHECK or foreign key in place of one of the same name.
pub(super) fn add(work: &mut Subcommands<'_>, part: &Part, replaced: &Replaced) -> Option<()> {
    beside(work, part.element.as_ref()?, replaced);
    Some(())
}

/// Adds the new constraint beside the old one. It gets its name when the old one has been dropped.
fn beside(work: &mut Subcommands<'_>, element: &str, replaced: &Replaced) {
    let (meanwhile, name) = (quote_identifier(&replaced.meanwhile), quote_identifier(&replaced.name));
    let add = format!("{}ADD CONSTRAINT {meanwhile} {element}\nNOT VALID", work.alter());
    constraint::add_under(work, Step::hidden(add), replaced);
    work.meanwhile("for a time the old and the new constraint hold, the new one under another name");
    let rename = Step::hidden(format!("{}RENAME CONSTRAINT {meanwhile} TO {name}", work.alter()));
    work.after("put the new constraint in place of the old one", [rename]);
}

/// Makes a foreign key that is NOT ENFORCED enforced (18). The statement itself would check every row under its lock. Instead, an
/// enforced foreign key is added beside the old one, checked, and put in its place.
pub(super) fn enforce(work: &mut Subcommands<'_>, part: &Part) -> Option<()> {
    let name = part.constraint.as_ref()?;
    let there = work.table().constraint(name).filter(|there| there.kind == 'f' && !there.commented)?;
    let element = there.definition.strip_suffix(" NOT ENFORCED")?;
    let alone = work.context().ddl.parts.iter().filter(|other| other.constraint.as_ref() == Some(name)).count() == 1;
    if work.table().kind != RelationKind::Table || work.table().is_partition || !alone || !only_enforces(part, name) {
        return None;
    }
    let at = work.context().ddl.parts.iter().position(|other| std::ptr::eq(other, part))?;
    let replaced = Replaced::new(work.table(), name, at + 1)?;
    work.last(format!("DROP CONSTRAINT {}", quote_identifier(name)));
    beside(work, element, &replaced);
    Some(())
}

/// Whether the subcommand has ENFORCED alone, without DEFERRABLE or another attribute.
fn only_enforces(part: &Part, name: &str) -> bool {
    let text = part.text.as_ref().and_then(|text| text.get(..text.len().checked_sub("ENFORCED".len())?));
    text.map(str::trim_end).is_some_and(|text| {
        text.ends_with(&quote_identifier(name)) || text.to_lowercase().ends_with(&format!(" {name}"))
    })
}
