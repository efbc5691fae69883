//! New constraints on a table that is in use: new rows obey at once, and old rows are checked without blocking anybody.
//!
//! - CHECK, FOREIGN KEY, and NOT NULL as a constraint: added NOT VALID (brief), then validated (long, under a weak lock).
//! - NOT NULL on 12 to 17: a CHECK of the proxy's own is added and validated. It proves to the server that no row has
//!   NULL, and is dropped. On 18 the NOT NULL constraint itself is added NOT VALID. On 10 and 11 the server takes no
//!   proof, and the CHECK stays. A new column that was filled keeps its CHECK there, too.
//! - UNIQUE, PRIMARY KEY: the index is built concurrently, and then becomes the constraint's (brief).
//!
//! Invariants: every name is the one that PostgreSQL would have chosen. If a phase fails, nothing is left behind.

use super::index::concurrent;
use super::model::{CreatedObject, ObjectKind, ObjectName, Phase, Step, Undo};
use super::purpose;
use super::replaced::Replaced;
use super::subcommands::Subcommands;
use crate::catalog::naming::object_name;
use crate::catalog::{ConstraintFacts, NameSuffix, RelationFacts};
use crate::pg::relation::quote_identifier;
use crate::pg::{RelationKind, RelationName, sqlstate};
use crate::report::Report;
use crate::sql::form::Form;
use crate::sql::{ClauseKind, NewColumn, NewKey, Part};

/// A constraint's name: a known one, of the author or of the proxy, or the slot of a name that the server chooses.
enum Name<'a> {
    Known(&'a str),
    Learned(usize),
}

/// The step that validates or drops a constraint.
fn on_constraint(work: &Subcommands<'_>, verb: &str, name: &Name<'_>) -> Step {
    let (alter, table) = (&work.alter(), work.table().id.oid);
    match name {
        Name::Known(name) => Step::hidden(format!("{alter}{verb} CONSTRAINT {}", quote_identifier(name))).about(
            table,
            ObjectKind::Constraint,
            name,
        ),
        Name::Learned(slot) => {
            let about = CreatedObject { table, kind: ObjectKind::Constraint, name: ObjectName::Learned(*slot) };
            let step = Step::with_learned_name(&format!("{alter}{verb} CONSTRAINT "), *slot);
            Step { about: Some(about), ..step }
        }
    }
}

/// The kind of the constraint (as in `pg_constraint.contype`) if it can be added first and checked later; `None`: it cannot.
pub(super) fn kind(work: &Subcommands<'_>, part: &Part) -> Option<char> {
    match part.form {
        Form::AddCheck => Some('c'),
        Form::AddNotNullConstraint if work.table().not_null(part.column.as_deref()?).is_none() => Some('n'),
        // Since 18 a partitioned table may have a foreign key that is not valid.
        Form::AddForeignKey if work.table().kind == RelationKind::Table || work.context().version() >= 180_000 => {
            Some('f')
        }
        _ => None,
    }
}

/// Adds the constraint with NOT VALID at the end of the subcommand, and then the check of the old rows.
pub(super) fn not_valid(work: &mut Subcommands<'_>, kind: char, part: &Part) -> Option<()> {
    let whole = &work.context().statement.text;
    // NOT VALID has a line of its own, since the text may end with a comment.
    let add = match work.context().ddl.parts.len() {
        1 => Step::with_words(whole, whole.len(), "\nNOT VALID")?,
        _ => Step::hidden(format!("{}{}\nNOT VALID", work.alter(), part.text.as_ref()?)),
    };
    add_not_valid(work, kind, add, part.constraint.as_deref())
}

/// Adds a constraint that is not valid, and has it validated. `name`: the name of the constraint in `add`, if there is one.
pub(super) fn add_not_valid(work: &mut Subcommands<'_>, kind: char, add: Step, name: Option<&str>) -> Option<()> {
    // Another subcommand may drop the constraint that has this name. This function cannot tell.
    if name.is_some_and(|name| work.table().constraint(name).is_some()) && work.context().ddl.parts.len() > 1 {
        return None;
    }
    let learns = name.is_none().then(|| work.learns(kind));
    let name = match (&learns, name) {
        (Some(made), _) => Name::Learned(made.slot),
        (None, Some(name)) => Name::Known(name),
        (None, None) => return None,
    };
    let [drop, validate] = ["DROP", "VALIDATE"].map(|verb| on_constraint(work, verb, &name));
    work.meanwhile("for a time the constraint holds for new rows only");
    work.then(purpose::NEW_ROWS, [Step { learns, ..add }], [drop]);
    work.check(validate);
    Some(())
}

/// Adds a constraint that its author adds as NOT VALID and validates in the same statement.
pub(super) fn to_be_validated(work: &mut Subcommands<'_>, part: &Part) -> Option<()> {
    let name = part.constraint.as_deref().filter(|name| work.table().constraint(name).is_none())?;
    let add = Step::hidden(format!("{}{}", work.alter(), part.text.as_ref()?));
    let drop = on_constraint(work, "DROP", &Name::Known(name));
    work.meanwhile("for a time the constraint holds for new rows only");
    work.then(purpose::NEW_ROWS, [add], [drop]);
    Some(())
}

/// Adds a constraint as [`add_not_valid`] does, but under a name of the proxy's until it takes the place of another constraint.
pub(super) fn add_under(work: &mut Subcommands<'_>, add: Step, replaced: &Replaced) {
    let name = Name::Known(&replaced.meanwhile);
    let [drop, validate] = ["DROP", "VALIDATE"].map(|verb| on_constraint(work, verb, &name));
    let renamed = Some(replaced.renamed());
    work.then(purpose::NEW_ROWS, [Step { renamed: renamed.clone(), ..add }], [drop]);
    work.check(Step { renamed, ..validate });
}

pub(super) fn set_not_null(work: &mut Subcommands<'_>, part: &Part) -> Option<()> {
    let column = part.column.as_deref()?;
    work.table().column(column)?;
    not_null(work, column, part.text.clone())
}

/// Makes a column NOT NULL. `subcommand`: the author's own subcommand, if there is one.
pub(super) fn not_null(work: &mut Subcommands<'_>, column: &str, subcommand: Option<String>) -> Option<()> {
    if !work.prove(column) {
        return Some(());
    }
    if work.context().version() >= 180_000 {
        return not_null_constraint(work, column, subcommand);
    }
    let lasting = work.context().version() < 120_000;
    let proof = Proof::new(work, column, lasting);
    if lasting && proof.is_valid(work.table()) {
        let note = proof.note(work);
        work.answer(vec![note]);
        return Some(());
    }
    if lasting && proof.is_anothers(work.table()) {
        return None;
    }
    work.meanwhile(match lasting {
        true => "the column gets a CHECK for good, which refuses NULL with SQLSTATE 23514 instead of 23502",
        false => "for a time a CHECK refuses NULL, with SQLSTATE 23514 instead of 23502",
    });
    let (add, drop) = proof.add(work);
    work.then(purpose::NEW_ROWS, add, [drop]);
    let validate = on_constraint(work, "VALIDATE", &Name::Known(&proof.name));
    work.check(Step { not_null: Some(column.to_owned()), ..validate });
    if lasting {
        // The client gets the reply that it expects. SET NOT NULL itself would scan the table under its lock.
        let note = proof.note(work);
        work.note(note);
        return Some(());
    }
    work.last(subcommand.unwrap_or_else(|| format!("ALTER COLUMN {} SET NOT NULL", quote_identifier(column))));
    let drop = proof.drop(work);
    work.after("set NOT NULL, and drop the CHECK that has proved it", [drop]);
    Some(())
}

/// Makes a new column NOT NULL. Since 18 the constraint keeps the author's name for it, and its NO INHERIT.
pub(super) fn new_not_null(work: &mut Subcommands<'_>, new: &NewColumn) -> Option<()> {
    let mut written = new.pieces.iter().filter_map(|piece| match piece.kind {
        ClauseKind::NotNull { no_inherit } => Some((piece, no_inherit)),
        _ => None,
    });
    let Some((piece, no_inherit)) = written.next() else { return not_null(work, &new.name, None) };
    // A NOT NULL that is added with its column makes the children's columns NOT NULL even with NO INHERIT.
    let is_odd = no_inherit && (work.context().version() < 180_000 || work.table().has_children);
    if written.next().is_some() || is_odd {
        return None;
    }
    if work.context().version() < 180_000 || (piece.name.is_none() && !no_inherit) {
        return not_null(work, &new.name, None);
    }
    work.prove(&new.name);
    let before = piece.text.get(..piece.element_at)?;
    let no_inherit = if no_inherit { " NO INHERIT" } else { "" };
    let column = quote_identifier(&new.name);
    let add = format!("{}ADD {before}NOT NULL {column}{no_inherit} NOT VALID", work.alter());
    add_not_valid(work, 'n', Step::hidden(add), piece.name.as_deref())
}

/// Makes a column NOT NULL on 18 and later. NOT NULL is a constraint like others there. It gets the name that SET NOT NULL would give it.
fn not_null_constraint(work: &mut Subcommands<'_>, column: &str, subcommand: Option<String>) -> Option<()> {
    if let Some(there) = work.table().not_null(column) {
        work.check(on_constraint(work, "VALIDATE", &Name::Known(&there.name)));
        match subcommand {
            // SET NOT NULL makes a constraint that the table has from its parent the table's own.
            Some(subcommand) if !there.local => work.last(subcommand),
            _ => work.then_nothing(),
        }
        return Some(());
    }
    let add = Step::hidden(format!("{}ADD NOT NULL {} NOT VALID", work.alter(), quote_identifier(column)));
    add_not_valid(work, 'n', add, None)
}

/// A CHECK of the proxy's own that proves that a column is not null.
struct Proof {
    column: String,
    /// The condition on the column. For a row type, or a domain over one, it is the condition that SET NOT NULL checks.
    test: &'static str,
    name: String,
    /// The table has a constraint of that name already. A proxy that died may have left it.
    there: bool,
}

impl Proof {
    fn new(work: &Subcommands<'_>, column: &str, lasting: bool) -> Self {
        let name = match lasting {
            true => object_name(&work.table().id.name, Some(column), "not_null"),
            // The name has a number, since long names of two columns may be cut to the same one.
            false => object_name(&format!("pgsluice{}", work.proofs_so_far()), Some(column), "is_not_null"),
        };
        let row_type = work.table().column(column).is_none_or(|column| column.row_type);
        let built_in = work.added(column).is_some_and(|new| new.built_in);
        let test = if row_type && !built_in { "IS DISTINCT FROM NULL" } else { "IS NOT NULL" };
        Self { column: column.to_owned(), test, there: work.table().constraint(&name).is_some(), name }
    }

    /// Whether the existing constraint of this name has this condition. Its definition is empty if it was not asked for.
    fn says_this(&self, there: &ConstraintFacts) -> bool {
        let said = there.definition.strip_suffix(" NOT VALID").unwrap_or(&there.definition);
        let column = quote_identifier(&self.column);
        // The server quotes a name only if it must. `quote_identifier` quotes every name.
        [self.column.as_str(), &column].iter().any(|column| said == format!("CHECK (({column} {}))", self.test))
    }

    fn is_valid(&self, table: &RelationFacts) -> bool {
        table.constraint(&self.name).is_some_and(|there| there.validated && self.says_this(there))
    }

    /// Whether somebody else's constraint has the name of a CHECK that is to stay.
    fn is_anothers(&self, table: &RelationFacts) -> bool {
        table.constraint(&self.name).is_some_and(|there| !self.says_this(there))
    }

    fn note(&self, work: &Subcommands<'_>) -> Report {
        let (column, table) = (&self.column, &work.table().id.name);
        let message = format!("column \"{column}\" of relation \"{table}\" gets a CHECK instead of NOT NULL");
        Report::warning(sqlstate::WARNING, message)
            .detail(
                "Before PostgreSQL 12, SET NOT NULL reads every row while nobody else can read or write the table, even if a CHECK proves that there is no NULL.",
            )
            .hint(format!("The constraint is named \"{}\".", self.name))
    }

    fn drop(&self, work: &Subcommands<'_>) -> Step {
        on_constraint(work, "DROP", &Name::Known(&self.name))
    }

    /// The steps that add the CHECK, and the step that takes it back.
    fn add(&self, work: &Subcommands<'_>) -> (Vec<Step>, Step) {
        let (name, column) = (quote_identifier(&self.name), quote_identifier(&self.column));
        let add = format!("{}ADD CONSTRAINT {name} CHECK ({column} {}) NOT VALID", work.alter(), self.test);
        // A constraint that a dead proxy left may be of any kind, so it is made anew.
        let steps = self.there.then(|| self.drop(work)).into_iter().chain([Step::hidden(add)]);
        (steps.collect(), self.drop(work))
    }
}

/// Adds a key. The columns of a primary key are proved not null first, so that the brief step of the key reads no row.
pub(super) fn key(work: &mut Subcommands<'_>, part: usize, key: &NewKey, written: Option<&str>) -> Option<()> {
    let table = work.table();
    let label = if key.primary { NameSuffix::Pkey } else { NameSuffix::Key };
    let name = written.or_else(|| work.context().facts.free_name(part, label))?.to_owned();
    // The server refuses a second primary key, a column named twice, a name that is taken, and INCLUDE before 11.
    let replaced = work.replaced(written);
    let stays = |constraint: &ConstraintFacts| work.replaced(Some(&constraint.name)).is_none();
    let second = key.primary && table.constraints.iter().any(|there| there.kind == 'p' && stays(there));
    let twice = (1..key.columns.len()).any(|i| key.columns[..i].contains(&key.columns[i]));
    // The server refuses an index on a virtual column, too.
    let computed = key.columns.iter().filter_map(|name| table.column(name)).any(|column| column.computed);
    let taken = replaced.is_none() && written.is_some_and(|name| table.constraint(name).is_some());
    let includes_early = !key.include.is_empty() && work.context().version() < 110_000;
    // The server makes one key of two equal ones in a statement.
    // On a partitioned table the index of the parent alone would not hold the rows of the partitions.
    if second
        || twice
        || taken
        || computed
        || includes_early
        || table.kind != RelationKind::Table
        || work.has_key(&name, &key.columns)
    {
        return None;
    }
    for column in &key.columns {
        let not_null_yet = work.is_not_null(column)?;
        // On 18, USING INDEX would make a NOT NULL that the child has from its parent the child's own.
        if key.primary && not_null_yet && table.parent.is_some() && work.context().version() >= 180_000 {
            return None;
        }
        if key.primary && !not_null_yet {
            // Before 12 no proof spares the scan.
            if work.context().version() < 120_000 {
                return None;
            }
            not_null(work, column, None)?;
        }
    }
    let index = replaced.as_ref().map_or(&name, |replaced| &replaced.meanwhile);
    let mut build = build(work, key, index);
    build.steps.iter_mut().for_each(|step| step.renamed = replaced.as_ref().map(Replaced::renamed));
    work.build(build);
    let (quoted, index) = (quote_identifier(&name), quote_identifier(index));
    let kind = key.kind();
    let add = format!("{}ADD CONSTRAINT {quoted} {kind} USING INDEX {index}{}", work.alter(), key.deferral);
    work.becomes_key(Step::hidden(add));
    work.add_key(name, &key.columns);
    Some(())
}

fn build(work: &Subcommands<'_>, key: &NewKey, name: &str) -> Phase {
    let table = work.table();
    let index = RelationName::new(Some(&table.id.schema), name);
    let on = table.id.full_name();
    let sql = format!("CREATE UNIQUE INDEX CONCURRENTLY {} ON {}{}", quote_identifier(name), on.quoted(), key.index);
    let known = table.indexes.iter().filter(|index| !index.valid).map(|index| index.id.oid).collect();
    Phase {
        steps: vec![Step::hidden(sql)],
        undo: Some(Undo::DropBuiltIndex { table: on, oid: table.id.oid, known, index }),
        ..concurrent(work.context(), table, "build the index of the key without blocking reads or writes")
    }
}
