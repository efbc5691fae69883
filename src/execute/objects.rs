//! The objects that a phase makes, as the catalogue tells them (`catalog/identity.rs`).
//!
//! Pure.

use crate::plan::{CreatedObject, ObjectKind, ObjectName, Phase, Undo};

fn kind(kind: ObjectKind) -> &'static str {
    match kind {
        ObjectKind::Column => "column",
        ObjectKind::Default => "default",
        ObjectKind::Constraint => "constraint",
        ObjectKind::Partition => "partition",
    }
}

/// A thing as [`IDENTITY_SQL`] asks for it; what the server named is learned otherwise.
pub(super) fn known(thing: &CreatedObject) -> Option<(&str, u32, &str)> {
    match &thing.name {
        ObjectName::Known(name) => Some((kind(thing.kind), thing.table, name)),
        ObjectName::Learned(_) => None,
    }
}

/// What undoing a phase would drop.
pub(super) fn made(phase: &Phase) -> impl Iterator<Item = &CreatedObject> {
    let steps = match &phase.undo {
        Some(Undo::Run(undo)) => undo.steps.as_slice(),
        _ => &[],
    };
    steps.iter().filter_map(|step| step.about.as_ref())
}

/// What `quote_ident` gave.
pub(super) fn unquoted(name: &str) -> String {
    match name.strip_prefix('"').and_then(|name| name.strip_suffix('"')) {
        Some(inner) => inner.replace("\"\"", "\""),
        None => name.to_owned(),
    }
}
