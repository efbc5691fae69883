//! Constraints on a table that is in use: new rows obey at once, old rows are checked without blocking anybody.
//!
//! - CHECK, FOREIGN KEY, NOT NULL constraint: added NOT VALID (brief), then VALIDATE (long, weak lock).
//! - SET NOT NULL: a CHECK of the proxy's own is added and validated, proves the rest, and is dropped (12 to 17); the
//!   NOT NULL constraint itself goes that way on 18; on 10 and 11, which know no proof, the CHECK stays.
//! - ADD COLUMN with a CHECK: the column and the CHECK as above, in one brief step.
//! - UNIQUE, PRIMARY KEY: the index is built concurrently, then made the constraint's (brief).
//!
//! Invariants: names are those that PostgreSQL would have chosen; whatever fails, nothing is left behind.

use super::ask::Ask;
use super::index::concurrent;
use super::locks;
use super::model::{Backfill, NewConstraint, Phase, PhaseKind, Plan, Step, Undo};
use crate::catalog::naming::object_name;
use crate::catalog::{ConstraintFacts, RelationFacts};
use crate::pg::relation::quote_identifier;
use crate::pg::{RelationKind, RelationName, sqlstate};
use crate::report::Report;
use crate::sql::form::Form;
use crate::sql::{ColumnPiece, NewKey, Part, PieceKind};

/// `None`: it runs as written.
pub(super) fn plan(ask: &Ask<'_>) -> Option<Plan> {
    let table = ask.target()?;
    let [part] = ask.ddl.parts.as_slice() else { return None };
    let suits = matches!(table.kind, RelationKind::Table | RelationKind::PartitionedTable) && !table.is_system;
    if !ask.limits.rewrite || ask.in_transaction() || !suits || ask.is_small() {
        return None;
    }
    // What holds for the parent alone cannot be proved by a constraint that its children inherit.
    if ask.ddl.only && table.has_children {
        return None;
    }
    let plain = table.kind == RelationKind::Table;
    match part.form {
        Form::SetNotNull if !super::direct::proven_not_null(ask, part) => set_not_null(ask, table, part),
        Form::AddColumnCheck => checked_column(ask, table, part),
        Form::AddColumnDefault => filled_column(ask, table, part),
        Form::AddCheck => not_valid(ask, table, part, 'c'),
        Form::AddNotNullConstraint if not_null_of(table, part.column.as_deref()?).is_none() => {
            not_valid(ask, table, part, 'n')
        }
        // Since 18 a partitioned table may have one that is not valid.
        Form::AddForeignKey if plain || ask.version() >= 180_000 => not_valid(ask, table, part, 'f'),
        // An index on a parent alone would not hold its children's rows.
        Form::AddUnique | Form::AddPrimaryKey if plain => key(ask, table, part.key.as_deref()?, part),
        _ => None,
    }
}

/// Whether a part could be done by a backfill.
pub(super) fn wants_backfill(ask: &Ask<'_>) -> bool {
    ask.ddl.parts.iter().enumerate().any(|(i, part)| part.new_column.is_some() && rewrites(ask, i))
}

fn alter(ask: &Ask<'_>, table: &RelationFacts) -> String {
    let only = if ask.ddl.only { "ONLY " } else { "" };
    format!("ALTER TABLE {only}{} ", table.id.full_name().quoted())
}

/// A phase of steps that are over in a moment once the statement's locks are held.
fn brief(ask: &Ask<'_>, purpose: &str, steps: Vec<Step>) -> Phase {
    Phase { locks: locks::needs(ask, locks::as_written), steps, ..ask.phase(PhaseKind::Brief, purpose) }
}

/// A check of old rows.
fn validation(ask: &Ask<'_>, steps: Vec<Step>) -> Phase {
    let purpose = "check the old rows without blocking reads or writes";
    Phase { locks: locks::needs(ask, locks::validation), steps, ..ask.phase(PhaseKind::Long, purpose) }
}

/// What VALIDATE or DROP does to a constraint; without a name, to the one that the phase before has made.
fn on_constraint(alter: &str, verb: &str, name: Option<&str>) -> Step {
    match name {
        Some(name) => Step::hidden(format!("{alter}{verb} CONSTRAINT {}", quote_identifier(name))),
        None => Step::with_learned_name(&format!("{alter}{verb} CONSTRAINT "), ""),
    }
}

/// The phase that adds what is not valid yet.
fn adding(ask: &Ask<'_>, steps: Vec<Step>) -> Phase {
    brief(ask, "from now on it holds for every new row", steps)
}

/// The constraint is added, which `drop` takes back, and then the old rows are checked. `learns`: its kind, if the server
/// names it.
fn added_then_checked(
    ask: &Ask<'_>,
    table: &RelationFacts,
    add: Phase,
    drop: Step,
    validate: Step,
    learns: Option<char>,
) -> Vec<Phase> {
    let back = brief(ask, "bring back the table as it was", vec![drop]);
    vec![
        Phase {
            undo: Some(Undo::Run(Box::new(back))),
            learns: learns.map(|kind| NewConstraint { table: table.id.oid, kind }),
            ..add
        },
        validation(ask, vec![validate]),
    ]
}

/// The client's statement with NOT VALID at its end, and then the check of the old rows.
fn not_valid(ask: &Ask<'_>, table: &RelationFacts, part: &Part, kind: char) -> Option<Plan> {
    let text = &ask.statement.text;
    // On a line of its own, as the text may end with a comment.
    let add = Step::with_words(text, text.len(), "\nNOT VALID")?;
    let alter = alter(ask, table);
    let name = part.constraint.as_deref();
    let [drop, validate] = ["DROP", "VALIDATE"].map(|verb| on_constraint(&alter, verb, name));
    let phases = added_then_checked(ask, table, adding(ask, vec![add]), drop, validate, name.is_none().then_some(kind));
    Some(Plan { phases, ..ask.empty() })
}

/// The column is added without reading a row, as the rewrite probe says, and its CHECK as any other.
fn checked_column(ask: &Ask<'_>, table: &RelationFacts, part: &Part) -> Option<Plan> {
    let new = part.new_column.as_deref()?;
    let is_check = |piece: &&ColumnPiece| matches!(piece.kind, PieceKind::Check { enforced: true });
    let mut checks = new.pieces.iter().filter(is_check);
    let (Some(check), None) = (checks.next(), checks.next()) else { return None };
    let plain = |piece: &ColumnPiece| {
        let kinds = matches!(
            piece.kind,
            PieceKind::Check { .. }
                | PieceKind::Null
                | PieceKind::NotNull
                | PieceKind::Default { .. }
                | PieceKind::Collate
        );
        kinds
    };
    // A column that is there already the server refuses.
    if rewrites(ask, 0) || table.column(&new.name).is_some() || new.if_not_exists || !new.pieces.iter().all(plain) {
        return None;
    }
    let alter = alter(ask, table);
    let bare = new.with(|piece| !is_check(&piece));
    let add =
        Step { visible: true, ..Step::hidden(format!("{alter}ADD COLUMN {bare}, ADD {}\nNOT VALID", check.text)) };
    let add = brief(ask, "the column, and its check for every new row", vec![add]);
    let drop = Step::hidden(format!("{alter}DROP COLUMN {}", quote_identifier(&new.name)));
    let validate = on_constraint(&alter, "VALIDATE", check.name.as_deref());
    let learns = check.name.is_none().then_some('c');
    let phases = added_then_checked(ask, table, add, drop, validate, learns);
    Some(Plan { phases, ..ask.empty() })
}

/// Whether the server would write the whole table anew for a part, or could not be asked.
fn rewrites(ask: &Ask<'_>, part: usize) -> bool {
    let asked = ask.ddl.parts.get(part).is_some_and(|part| part.probe.is_some());
    let answer = ask.facts.probe.get(part).and_then(Option::as_ref);
    asked && answer.is_none_or(|answer| answer.rewrites_table || answer.rebuilds_indexes)
}

/// The column and its default for new rows, and then old rows get it in batches.
fn filled_column(ask: &Ask<'_>, table: &RelationFacts, part: &Part) -> Option<Plan> {
    let new = part.new_column.as_deref()?;
    let facts = ask.facts.backfill.as_ref().filter(|facts| facts.obstacle.is_none())?;
    let plain =
        |piece: &ColumnPiece| matches!(piece.kind, PieceKind::Null | PieceKind::Default { .. } | PieceKind::Collate);
    if !rewrites(ask, 0) || table.column(&new.name).is_some() || new.if_not_exists || !new.pieces.iter().all(plain) {
        return None;
    }
    let expression = new.pieces.iter().find_map(|piece| match &piece.kind {
        PieceKind::Default { expression } => Some(expression),
        _ => None,
    })?;
    let (alter, column) = (alter(ask, table), quote_identifier(&new.name));
    let bare = new.with(|piece| !matches!(piece.kind, PieceKind::Default { .. }));
    let add = format!("{alter}ADD COLUMN {bare}, ALTER COLUMN {column} SET DEFAULT {expression}");
    let add = brief(ask, "the column, and its default for new rows", vec![Step { visible: true, ..Step::hidden(add) }]);
    let drop = Step::hidden(format!("{alter}DROP COLUMN {column}"));
    let back = brief(ask, "bring back the table as it was", vec![drop]);
    let add = Phase { undo: Some(Undo::Run(Box::new(back))), ..add };
    Some(Plan { phases: vec![add, backfill(ask, table, &[column], facts.quiet)], ..ask.empty() })
}

/// Old rows get the columns' defaults.
fn backfill(ask: &Ask<'_>, table: &RelationFacts, columns: &[String], quiet: bool) -> Phase {
    let each = |words: &str, between: &str| {
        columns.iter().map(|column| format!("{column} {words}")).collect::<Vec<_>>().join(between)
    };
    let (set, wanting) = (each("= DEFAULT", ", "), each("IS NULL", " OR "));
    let name = table.id.full_name();
    let whole = Step::hidden(format!("UPDATE {} SET {set} WHERE {wanting}", name.quoted()));
    Phase {
        locks: locks::needs(ask, locks::backfill),
        steps: vec![whole],
        backfill: Some(Backfill { table: name, oid: table.id.oid, columns: columns.to_vec(), set, wanting, quiet }),
        ..ask.phase(PhaseKind::Backfill, "old rows get its default, a few at a time")
    }
}

fn set_not_null(ask: &Ask<'_>, table: &RelationFacts, part: &Part) -> Option<Plan> {
    let column = part.column.as_deref()?;
    table.column(column)?;
    let alter = alter(ask, table);
    if ask.version() >= 180_000 {
        return Some(not_null_constraint(ask, table, &alter, column));
    }
    let proof = Proof::new(table, column, 1, ask.version() < 120_000);
    let mut phases = proof.phases(ask, table, &alter);
    if ask.version() >= 120_000 {
        let steps = vec![Step::as_written(&ask.statement.text), proof.drop(&alter)];
        phases.push(brief(ask, "the check proves it, and goes", steps));
        return Some(Plan { phases, ..ask.empty() });
    }
    // The reply is the one that the client expects; the column itself would have to be scanned under the lock.
    let message = format!("column \"{column}\" of relation \"{}\" gets a CHECK instead of NOT NULL", table.id.name);
    let note = Report::warning(sqlstate::WARNING, message)
        .detail("Before PostgreSQL 12 SET NOT NULL reads every row while nobody can read or write, whatever is proved.")
        .hint(format!("The constraint is named \"{}\".", proof.name));
    if table.constraint(&proof.name).is_some_and(|there| there.kind == 'c' && there.validated) {
        return Some(ask.plan_of_answer(vec![note]));
    }
    phases.last_mut()?.steps.last_mut()?.visible = true;
    Some(Plan { notes: vec![note], phases, ..ask.empty() })
}

/// The NOT NULL constraint that a column has already (18): not valid, or the statement would have nothing to do.
fn not_null_of<'a>(table: &'a RelationFacts, column: &str) -> Option<&'a ConstraintFacts> {
    table.constraints.iter().find(|constraint| constraint.kind == 'n' && constraint.columns == [column])
}

/// Since 18 NOT NULL is a constraint like others, and has the name that SET NOT NULL would give it.
fn not_null_constraint(ask: &Ask<'_>, table: &RelationFacts, alter: &str, column: &str) -> Plan {
    let add = Step::hidden(format!("{alter}ADD NOT NULL {} NOT VALID", quote_identifier(column)));
    let there = not_null_of(table, column).map(|there| there.name.as_str());
    let validate = Step { visible: true, ..on_constraint(alter, "VALIDATE", there) };
    let phases = match there {
        Some(_) => vec![validation(ask, vec![validate])],
        None => {
            let drop = on_constraint(alter, "DROP", None);
            added_then_checked(ask, table, adding(ask, vec![add]), drop, validate, Some('n'))
        }
    };
    Plan { phases, ..ask.empty() }
}

/// A CHECK of the proxy's own that a column is not null.
struct Proof {
    column: String,
    name: String,
    /// One of the same name is there already: left by a proxy that died.
    there: bool,
}

impl Proof {
    /// The `nth` one of a plan: long names of columns may be cut to the same.
    fn new(table: &RelationFacts, column: &str, nth: usize, lasting: bool) -> Self {
        let name = match lasting {
            true => object_name(&table.id.name, Some(column), "not_null"),
            false => object_name(&format!("pgsluice{nth}"), Some(column), "is_not_null"),
        };
        Self { column: column.to_owned(), there: table.constraint(&name).is_some(), name }
    }

    fn drop(&self, alter: &str) -> Step {
        on_constraint(alter, "DROP", Some(&self.name))
    }

    /// Adds it and validates it.
    fn phases(&self, ask: &Ask<'_>, table: &RelationFacts, alter: &str) -> Vec<Phase> {
        let (name, column) = (quote_identifier(&self.name), quote_identifier(&self.column));
        let add = format!("{alter}ADD CONSTRAINT {name} CHECK ({column} IS NOT NULL) NOT VALID");
        // What a proxy left that died may be of any kind: it is made anew.
        let steps = self.there.then(|| self.drop(alter)).into_iter().chain([Step::hidden(add)]).collect();
        let validate = on_constraint(alter, "VALIDATE", Some(&self.name));
        let validate = Step { not_null: Some(self.column.clone()), ..validate };
        added_then_checked(ask, table, adding(ask, steps), self.drop(alter), validate, None)
    }
}

/// The columns of a primary key are proved not null first, so that its brief step reads no row.
fn key(ask: &Ask<'_>, table: &RelationFacts, key: &NewKey, part: &Part) -> Option<Plan> {
    let alter = alter(ask, table);
    let name = part.constraint.as_ref().or(ask.facts.free_name.as_ref())?;
    let nullable: Vec<&String> = match key.primary {
        true => key.columns.iter().filter(|column| table.column(column).is_some_and(|c| !c.not_null)).collect(),
        false => Vec::new(),
    };
    // A second primary key, a column named twice, INCLUDE before 11: the server refuses it. No proof spares the scan before 12, and 18 wants the constraint itself.
    let second = key.primary && table.constraints.iter().any(|constraint| constraint.kind == 'p');
    let twice = (1..key.columns.len()).any(|i| key.columns[..i].contains(&key.columns[i]));
    if second
        || twice
        || (!key.include.is_empty() && ask.version() < 110_000)
        || key.columns.iter().any(|column| table.column(column).is_none())
        || (!nullable.is_empty() && !(120_000..180_000).contains(&ask.version()))
    {
        return None;
    }
    let proofs: Vec<Proof> = (1..).zip(nullable).map(|(nth, column)| Proof::new(table, column, nth, false)).collect();
    let mut phases: Vec<Phase> = proofs.iter().flat_map(|proof| proof.phases(ask, table, &alter)).collect();
    phases.push(build(ask, table, key, name));
    let quoted = quote_identifier(name);
    let kind = if key.primary { "PRIMARY KEY" } else { "UNIQUE" };
    let add = format!("{alter}ADD CONSTRAINT {quoted} {kind} USING INDEX {quoted}{}", key.deferral);
    let mut steps = vec![Step { visible: true, ..Step::hidden(add) }];
    steps.extend(proofs.iter().map(|proof| proof.drop(&alter)));
    phases.push(brief(ask, "the index becomes the constraint's", steps));
    Some(Plan { phases, ..ask.empty() })
}

fn build(ask: &Ask<'_>, table: &RelationFacts, key: &NewKey, name: &str) -> Phase {
    let index = RelationName::new(Some(&table.id.schema), name);
    let on = table.id.full_name();
    let sql = format!("CREATE UNIQUE INDEX CONCURRENTLY {} ON {}{}", quote_identifier(name), on.quoted(), key.index);
    let known = table.indexes.iter().filter(|index| !index.valid).map(|index| index.id.oid).collect();
    Phase {
        steps: vec![Step::hidden(sql)],
        undo: Some(Undo::DropBuiltIndex { table: on, oid: table.id.oid, known, index }),
        ..concurrent(ask, table, "build its index without blocking reads or writes")
    }
}
