//! ADD COLUMN in parts: the column itself, which takes milliseconds; its values for old rows; its constraints.
//!
//! - A default that the server would write into every row: it becomes the default for new rows, and a backfill fills old
//!   rows.
//! - serial, identity: a sequence is made, its values become the default, and a backfill fills old rows. For an identity
//!   the sequence is only a means: in the end the identity goes on where the sequence ended. Until then the sequence has
//!   the name that the identity's own sequence will have, since errors name it.
//! - NOT NULL of such a column, CHECK, REFERENCES beside a default, UNIQUE, PRIMARY KEY: as ALTER TABLE would add them.
//!
//! Limits: the server has no way but to rewrite the table for stored generated columns, and for columns of a domain that
//! has constraints (`docs/decisions/0030-columns-without-an-online-way.md`).

use super::constraint;
use super::context::PlanContext;
use super::model::{ObjectKind, Step};
use super::subcommands::Subcommands;
use crate::catalog::{BackfillFacts, NameSuffix, SequenceCreation};
use crate::pg::relation::{quote_identifier, quote_literal};
use crate::pg::{RelationKind, RelationName};
use crate::sql::{ClauseKind, ColumnClause, NewColumn, Part};

/// Whether a backfill gives old rows their values of the column.
pub(super) fn is_filled(context: &PlanContext<'_>, i: usize, part: &Part) -> bool {
    let Some(new) = part.new_column.as_deref() else { return false };
    new.serial.is_some() || new.identity().is_some() || rewrites(context, i)
}

/// Whether the server would write the whole table anew for a part, or no rewrite probe could run.
fn rewrites(context: &PlanContext<'_>, part: usize) -> bool {
    let asked = context.ddl.parts.get(part).is_some_and(|part| part.probe.is_some());
    let answer = context.probe(part);
    asked && answer.is_none_or(|answer| answer.rewrites_table || answer.rebuilds_indexes)
}

/// Whether the column has two values, two primary keys, or both NULL and NOT NULL. The server raises the error.
fn contradicts_itself(new: &NewColumn) -> bool {
    let count = |wanted: fn(&ClauseKind) -> bool| new.pieces.iter().filter(|piece| wanted(&piece.kind)).count();
    let values = count(|kind| {
        matches!(kind, ClauseKind::Default { .. } | ClauseKind::Identity { .. } | ClauseKind::Generated { .. })
    });
    let serial = usize::from(new.serial.is_some());
    let not_null = |kind: &ClauseKind| match kind {
        ClauseKind::NotNull { .. } | ClauseKind::Identity { .. } => true,
        ClauseKind::Key(key) => key.primary,
        _ => false,
    };
    let keys = count(|kind| matches!(kind, ClauseKind::Key(key) if key.primary));
    let null = count(|kind| matches!(kind, ClauseKind::Null)) > 0;
    values + serial > 1 || keys > 1 || (null && (serial > 0 || count(not_null) > 0))
}

/// Whether the column can be added in milliseconds without its value, so that a backfill can fill old rows.
fn may_come_bare(context: &PlanContext<'_>, part: usize, new: &NewColumn) -> bool {
    let answer = context.probe(part);
    new.built_in || (new.identity().is_none() && answer.is_some_and(|answer| answer.rewrites_bare == Some(false)))
}

/// Adds the steps of a new column; `None`: the column has a part that cannot be split off.
pub(super) fn add(work: &mut Subcommands<'_>, i: usize, part: &Part) -> Option<()> {
    let new = part.new_column.as_deref()?;
    let filled = is_filled(work.context(), i, part);
    let generated = new.pieces.iter().any(|piece| matches!(piece.kind, ClauseKind::Generated { .. }));
    let computed = new.pieces.iter().any(|piece| matches!(piece.kind, ClauseKind::Generated { stored: false }));
    let fails = work.context().probe(i).is_some_and(|answer| answer.fails);
    let has_key = new.pieces.iter().any(|piece| matches!(piece.kind, ClauseKind::Key(_)));
    let others = work.context().ddl.parts.iter().enumerate();
    let mut others = others.filter(|(at, _)| *at != i).filter_map(|(_, part)| part.column.as_ref());
    // The server refuses a column that exists already. A column that another subcommand works on must be added with its value.
    // A column that a child has already keeps its values and its default there.
    if work.table().column(&new.name).is_some()
        || work.table().is_partition
        || work.table().typed
        || work.table().child_columns.contains(&new.name)
        || fails
        || contradicts_itself(new)
        || others.any(|column| *column == new.name)
        || (filled && (generated || !may_come_bare(work.context(), i, new)))
        || (computed && (work.context().version() < 180_000 || has_key))
    {
        return None;
    }
    let implied = new.serial.is_some() || new.identity().is_some();
    let not_null = implied || new.pieces.iter().any(|piece| matches!(piece.kind, ClauseKind::NotNull { .. }));
    let kept = |piece: &ColumnClause| match &piece.kind {
        ClauseKind::Collate | ClauseKind::Null | ClauseKind::Generated { .. } => true,
        ClauseKind::Default { .. } => !filled,
        // The server would check NOT NULL of a virtual column for every row.
        ClauseKind::NotNull { .. } => !filled && !computed,
        ClauseKind::Check { enforced } => !enforced,
        // Without a value there is nothing to check.
        ClauseKind::References { enforced } => !enforced || (!filled && new.default_expression().is_none()),
        ClauseKind::Key(_) | ClauseKind::Identity { .. } => false,
    };
    if filled {
        let facts = work.context().facts.backfill.as_ref().filter(|facts| facts.obstacle.is_none())?;
        let bare = new.bare(work.context().version(), kept);
        add_filled(work, i, new, &bare, facts)?;
    } else {
        let add = Step::hidden(format!("{}ADD COLUMN {}", work.alter(), new.with(kept)));
        work.first("add the column", [add], [drop_column(work, &new.name)]);
    }
    // Before 12 no proof makes a filled column NOT NULL. The column keeps a CHECK, which a key or an identity cannot use.
    let only_checked = (filled || computed) && work.context().version() < 120_000;
    work.add_column(&new.name, not_null && !only_checked);
    if (filled || computed) && not_null {
        if only_checked && new.identity().is_some() {
            return None;
        }
        constraint::new_not_null(work, new)?;
    }
    if let Some(identity) = new.identity() {
        become_identity(work, i, new, identity)?;
    }
    for piece in new.pieces.iter().filter(|piece| !kept(piece)) {
        constrain(work, i, new, piece)?;
    }
    Some(())
}

fn drop_column(work: &Subcommands<'_>, column: &str) -> Step {
    let drop = Step::hidden(format!("{}DROP COLUMN {}", work.alter(), quote_identifier(column)));
    drop.about(work.table().id.oid, ObjectKind::Column, column)
}

/// Adds the column with its default for new rows, and has old rows filled.
fn add_filled(work: &mut Subcommands<'_>, i: usize, new: &NewColumn, bare: &str, facts: &BackfillFacts) -> Option<()> {
    let column = quote_identifier(&new.name);
    let back = drop_column(work, &new.name);
    let sequence = match (new.serial, new.identity()) {
        (Some(stands_for), _) => Some((stands_for, "")),
        (None, Some(ColumnClause { kind: ClauseKind::Identity { options }, .. })) => {
            // Before 17 partitioned tables cannot have an identity, and the server raises the error.
            if work.table().kind != RelationKind::Table || work.table().has_children {
                return None;
            }
            Some((new.type_text.as_str(), options.as_str()))
        }
        _ => None,
    };
    let Some((stands_for, options)) = sequence else {
        work.fill(new, value(new, facts)?);
        let alter = work.alter();
        let steps = match new.default_expression() {
            Some(value) => vec![format!("{alter}ADD COLUMN {bare}, ALTER COLUMN {column} SET DEFAULT {value}")],
            // The default is the domain's own.
            None => {
                vec![format!("{alter}ADD COLUMN {bare}"), format!("{alter}ALTER COLUMN {column} DROP DEFAULT")]
            }
        };
        work.first("add the column and its default for new rows", steps.into_iter().map(Step::hidden), [back]);
        return Some(());
    };
    if work.table().persistence != 'p' {
        return None;
    }
    let name = work.context().facts.free_name(i, NameSuffix::Seq)?;
    // Long names of two columns may be cut to the same one. The server makes one sequence after the other, and would number them.
    if !work.add_sequence(name) {
        return None;
    }
    let quoted = RelationName::new(Some(&work.table().id.schema), name).quoted();
    let next = format!("pg_catalog.nextval({})", quote_literal(&quoted));
    work.fill(new, if facts.watched { next.clone() } else { "DEFAULT".to_owned() });
    let owned_by = format!("{}.{column}", work.table().id.full_name().quoted());
    let mut steps = made_for_owner(facts, &quoted, format!("CREATE SEQUENCE {quoted} AS {stands_for} {options}"))?;
    // A role that may insert needs no privilege on an identity's sequence. It must not need one on the sequence that stands for it.
    if new.serial.is_none() {
        steps.push(format!("GRANT USAGE ON SEQUENCE {quoted} TO PUBLIC"));
    }
    steps.push(format!("{}ADD COLUMN {bare}, ALTER COLUMN {column} SET DEFAULT {next}", work.alter()));
    steps.push(format!("ALTER SEQUENCE {quoted} OWNED BY {owned_by}"));
    work.first("add the column, whose new rows get values of a sequence", steps.into_iter().map(Step::hidden), [back]);
    Some(())
}

/// The value for old rows. The table's owner may meanwhile give the column another default, or another type. If the owner's code must
/// not run (`watched`), the value is the client's own expression, and the type must be PostgreSQL's own.
fn value(new: &NewColumn, facts: &BackfillFacts) -> Option<String> {
    match (facts.watched, new.default_expression()) {
        (false, _) => Some("DEFAULT".to_owned()),
        // The expression may end with a comment.
        (true, Some(words)) if new.built_in => Some(format!("({words}\n)")),
        (true, _) => None,
    }
}

/// The steps that create the sequence of a column. As with a sequence that the server creates, its owner is the table's owner.
fn made_for_owner(facts: &BackfillFacts, sequence: &str, create: String) -> Option<Vec<String>> {
    let BackfillFacts { role, owner, .. } = facts;
    Some(match facts.sequences? {
        SequenceCreation::Plain => vec![create],
        SequenceCreation::AsOwner => {
            vec![format!("SET LOCAL ROLE {owner}"), create, format!("SET LOCAL ROLE {role}")]
        }
        SequenceCreation::Given => vec![create, format!("ALTER SEQUENCE {sequence} OWNER TO {owner}")],
    })
}

/// Makes the column an identity, which continues where the sequence ended. No new row comes between, since the table is locked. The
/// sequence had the name that the identity's own sequence is to have, since errors name it. It is renamed first.
fn become_identity(work: &mut Subcommands<'_>, i: usize, new: &NewColumn, identity: &ColumnClause) -> Option<()> {
    let column = quote_identifier(&new.name);
    let in_schema = |name: &str| RelationName::new(Some(&work.table().id.schema), name).quoted();
    let name = in_schema(work.context().facts.free_name(i, NameSuffix::Seq)?);
    // No other table and no other column has this name.
    let aside = format!("pgsluice_{}_{}_seq", work.table().id.oid, i + 1);
    let sequence = in_schema(&aside);
    let element = identity.text.get(identity.element_at..).unwrap_or_default();
    let table = quote_literal(&work.table().id.full_name().quoted());
    let steps = [
        format!("{}ALTER COLUMN {column} DROP DEFAULT", work.alter()),
        format!("ALTER SEQUENCE {name} OWNED BY NONE"),
        format!("ALTER SEQUENCE {name} RENAME TO {}", quote_identifier(&aside)),
        format!("{}ALTER COLUMN {column} ADD {element}", work.alter()),
        format!(
            "SELECT pg_catalog.setval(pg_catalog.pg_get_serial_sequence({table}, {}), s.last_value, s.is_called) FROM {sequence} s",
            quote_literal(&new.name)
        ),
        format!("DROP SEQUENCE {sequence}"),
    ];
    work.after("continue the identity where its sequence ended", steps.map(Step::hidden));
    Some(())
}

/// Adds a constraint that was written with the column as a constraint of the table.
fn constrain(work: &mut Subcommands<'_>, i: usize, new: &NewColumn, piece: &ColumnClause) -> Option<()> {
    let name = piece.name.as_deref();
    match &piece.kind {
        ClauseKind::Check { .. } => {
            let add = Step::hidden(format!("{}ADD {}\nNOT VALID", work.alter(), piece.text));
            constraint::add_not_valid(work, 'c', add, name)
        }
        ClauseKind::References { .. } => {
            if work.table().kind != RelationKind::Table && work.context().version() < 180_000 {
                return None;
            }
            let (before, element) = piece.text.split_at_checked(piece.element_at)?;
            let column = quote_identifier(&new.name);
            let add = format!("{}ADD {before}FOREIGN KEY ({column}) {element}\nNOT VALID", work.alter());
            constraint::add_not_valid(work, 'f', Step::hidden(add), name)
        }
        ClauseKind::Key(key) => constraint::key(work, i, key, name),
        _ => Some(()),
    }
}
