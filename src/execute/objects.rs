//! The objects that a phase makes, in the terms in which the catalogue identifies them (`catalog/identity.rs`).
//!
//! The functions are pure. They keep true that an object whose name the server chose is never looked up by its name here.

use crate::plan::{CreatedObject, ObjectKind, ObjectName, Phase, Undo};

/// Returns the word that the identity question uses for a kind of object.
fn kind(kind: ObjectKind) -> &'static str {
    match kind {
        ObjectKind::Column => "column",
        ObjectKind::Default => "default",
        ObjectKind::Constraint => "constraint",
        ObjectKind::NotNull => "notnull",
        ObjectKind::Index => "index",
        ObjectKind::Partition => "partition",
        ObjectKind::Table => "table",
        ObjectKind::Sequence => "sequence",
    }
}

/// Returns the kind, table and name by which [`crate::catalog::identity::IDENTITY_SQL`] asks for an object. `None` means that the server chose its name, which is
/// learned in another way.
pub(super) fn known(thing: &CreatedObject) -> Option<(&str, u32, &str)> {
    match &thing.name {
        ObjectName::Known(name) => Some((kind(thing.kind), thing.table, name)),
        ObjectName::Learned(_) => None,
    }
}

/// Returns the objects that the undo of a phase would drop.
pub(super) fn made(phase: &Phase) -> impl Iterator<Item = &CreatedObject> {
    let steps = match &phase.undo {
        Some(Undo::Run(undo)) => undo.steps.as_slice(),
        _ => &[],
    };
    steps.iter().filter_map(|step| step.about.as_ref())
}

/// Returns the name in the result of `quote_ident`.
pub(super) fn unquoted(name: &str) -> String {
    match name.strip_prefix('"').and_then(|name| name.strip_suffix('"')) {
        Some(inner) => inner.replace("\"\"", "\""),
        None => name.to_owned(),
    }
}
