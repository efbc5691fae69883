//! The relations that a statement locks, and how strongly. All of them are known, so that they can be locked at once.
//!
//! Invariants: a relation has one entry, with the strongest mode. The entries are in the order of oids, so that two plans
//! never lock in opposite orders. There is no entry for a relation that nobody else can see, or that this session has
//! locked strongly enough already.
//!
//! Limits: DROP … CASCADE of a partition drops a whole foreign key that points to its table; the locks for that are not
//! listed. Dependencies of views, rules and functions are not followed either. The statement's own `lock_timeout` guards
//! such locks.

use super::context::PlanContext;
use super::model::LockNeed;
use crate::catalog::{ConstraintFacts, RelationFacts, RelationRef};
use crate::pg::{LockMode, RelationKind};
use crate::sql::Part;
use crate::sql::form::Form;
use std::collections::BTreeMap;

/// The locks of the statement as its author wrote it.
pub(super) fn as_written(form: Form, version: i32) -> (Option<LockMode>, Option<LockMode>) {
    form.locks(version)
}

/// The locks to take before the statement runs.
pub(super) fn needs(
    context: &PlanContext<'_>,
    modes: fn(Form, i32) -> (Option<LockMode>, Option<LockMode>),
) -> Vec<LockNeed> {
    let mut set = LockNeeds { context, by_oid: BTreeMap::new() };
    let version = context.version();
    let strongest = context.ddl.parts.iter().filter_map(|part| modes(part.form, version).0).max();
    for target in context.targets() {
        if let Some(mode) = strongest {
            set.target(target, mode);
        }
        for part in &context.ddl.parts {
            set.dependents(target, part, modes(part.form, version));
        }
    }
    for part in &context.ddl.parts {
        let Some(mode) = modes(part.form, version).1 else { continue };
        if part.form == Form::AlterDomain {
            // The list has an entry for each child whose column has the domain.
            context.worked_on().iter().for_each(|table| set.add(&table.id, mode, true));
        }
        for other in part.others.iter().filter_map(|name| context.facts.relation(name)) {
            set.add(&other.id, mode, other_is_parent(part.form));
            if part.form == Form::CreateTablePartitionOf {
                set.add_all(other.default_partition.iter(), LockMode::AccessExclusive);
                // The foreign keys get triggers for the new partition.
                set.add_all(referenced(other, |_| true), LockMode::ShareRowExclusive);
                set.add_all(other.referenced_by.iter(), LockMode::ShareRowExclusive);
            }
        }
    }
    set.by_oid.into_values().collect()
}

/// Whether nobody else can see any relation that the statement touches. Each is temporary, or created by this transaction.
pub(super) fn touches_own_relations_only(context: &PlanContext<'_>) -> bool {
    let unseen = |relation: &RelationFacts| relation.persistence == 't' || relation.created_here;
    let others = context.ddl.parts.iter().flat_map(|part| &part.others);
    let others = others.filter_map(|name| context.facts.relation(name));
    context.targets().next().is_some()
        && context.targets().chain(others).all(unseen)
        && needs(context, as_written).is_empty()
}

/// The locks of a new partition that is created apart and then attached.
pub(super) fn as_attached(_: Form, _: i32) -> (Option<LockMode>, Option<LockMode>) {
    (None, Some(LockMode::ShareUpdateExclusive))
}

/// The lock that a concurrent build or drop takes by itself. It is a lock on the table, or on the table of the index.
pub(super) fn concurrent(context: &PlanContext<'_>, relation: &RelationFacts) -> Vec<LockNeed> {
    let mut set = LockNeeds { context, by_oid: BTreeMap::new() };
    set.add(relation.table.as_ref().unwrap_or(&relation.id), LockMode::ShareUpdateExclusive, true);
    set.by_oid.into_values().collect()
}

/// The locks of DETACH PARTITION … FINALIZE, which detaches a partition that is marked already.
pub(super) fn finalize(context: &PlanContext<'_>, table: &RelationRef, partition: &RelationFacts) -> Vec<LockNeed> {
    let mut set = LockNeeds { context, by_oid: BTreeMap::new() };
    set.add(table, LockMode::ShareUpdateExclusive, true);
    set.add(&partition.id, LockMode::AccessExclusive, false);
    set.detached(partition);
    set.by_oid.into_values().collect()
}

/// The locks of the check of old rows: on the table and, for a foreign key, on the referenced table.
pub(super) fn validation(_: Form, _: i32) -> (Option<LockMode>, Option<LockMode>) {
    (Some(LockMode::ShareUpdateExclusive), Some(LockMode::RowShare))
}

/// The locks to drop a constraint or column that the statement adds or replaces. A foreign key needs them on both tables.
pub(super) fn drops(form: Form, version: i32) -> (Option<LockMode>, Option<LockMode>) {
    match form {
        Form::AddForeignKey
        | Form::AddForeignKeyNotValid
        | Form::EnforceConstraint
        | Form::AddColumnReferences
        | Form::AddColumnReferencesDefault => (Some(LockMode::AccessExclusive), Some(LockMode::AccessExclusive)),
        _ => form.locks(version),
    }
}

/// The locks to undo a statement that only adds. The drop of a foreign key needs its lock on both tables, and so does the drop of a column
/// or table that has one.
pub(super) fn undoes(form: Form, _: i32) -> (Option<LockMode>, Option<LockMode>) {
    let references = matches!(
        form,
        Form::AddForeignKey
            | Form::AddForeignKeyNotValid
            | Form::AddColumnReferences
            | Form::AddColumnReferencesDefault
            | Form::CreateTableReferences
    );
    (Some(LockMode::AccessExclusive), references.then_some(LockMode::AccessExclusive))
}

/// The lock of an UPDATE of the table's rows.
pub(super) fn backfill(_: Form, _: i32) -> (Option<LockMode>, Option<LockMode>) {
    (Some(LockMode::RowExclusive), None)
}

/// The lock of such an UPDATE if nobody may meanwhile add anything to the table that makes code of others run.
pub(super) fn watched_backfill(_: Form, _: i32) -> (Option<LockMode>, Option<LockMode>) {
    (Some(LockMode::ShareUpdateExclusive), None)
}

struct LockNeeds<'a> {
    context: &'a PlanContext<'a>,
    by_oid: BTreeMap<u32, LockNeed>,
}

impl LockNeeds<'_> {
    /// Adds the lock on the statement's own object. DROP INDEX and REINDEX also need the table of the index.
    fn target(&mut self, target: &RelationFacts, mode: LockMode) {
        let index = matches!(target.kind, RelationKind::Index | RelationKind::PartitionedIndex);
        if index && let Some(table) = &target.table {
            if self.context.has_form(Form::DropIndex) {
                return self.add(table, mode, true);
            }
            if self.context.has_form(Form::Reindex) {
                self.add(table, mode, true);
                return self.add(&target.id, LockMode::AccessExclusive, false);
            }
        }
        // ALTER INDEX RENAME accepts any relation's name. PostgreSQL then locks the relation as its own command would.
        let mode = match self.context.has_form(Form::AlterIndexRename) && !index {
            true => LockMode::AccessExclusive,
            false => mode,
        };
        let only = self.context.ddl.only || self.context.ddl.parts.iter().all(|part| parent_alone(part.form));
        self.add(&target.id, mode, only);
    }

    /// Adds the locks of the part on relations that it does not name.
    /// `modes`: the modes of this phase. They may differ from the statement's own.
    fn dependents(&mut self, target: &RelationFacts, part: &Part, modes: (Option<LockMode>, Option<LockMode>)) {
        use LockMode::{AccessExclusive, ShareRowExclusive};
        let as_written = modes == part.form.locks(self.context.version());
        let cascade = part.cascade || self.context.ddl.cascade;
        let column = part.column.as_deref();
        match part.form {
            Form::DropConstraint | Form::EnforceConstraint | Form::UnenforceConstraint | Form::ValidateConstraint => {
                let named = |constraint: &ConstraintFacts| Some(&constraint.name) == part.constraint.as_ref();
                if let Some(mode) = modes.1 {
                    self.add_all(referenced(target, named), mode);
                }
            }
            _ if !as_written => return,
            Form::DropTable | Form::DropForeignTable => {
                // A foreign key that a partition has from its parent has no triggers of its own on the table that it points to.
                self.add_all(referenced(target, |key| !key.of_parent), AccessExclusive);
                self.add_all(target.partitions_reference.iter(), AccessExclusive);
                if let Some(parent) = &target.parent {
                    self.add(parent, AccessExclusive, true);
                    self.add_all(target.default_partition.iter(), AccessExclusive);
                }
            }
            Form::DropColumn => self.add_all(referenced(target, |constraint| on(constraint, column)), AccessExclusive),
            Form::AlterColumnType => {
                // The server drops the foreign keys and makes them anew.
                self.add_all(referenced(target, |constraint| on(constraint, column)), AccessExclusive);
                let key = |constraint: &ConstraintFacts| "pu".contains(constraint.kind) && on(constraint, column);
                if target.constraints.iter().any(key) {
                    self.add_all(target.referenced_by.iter(), AccessExclusive);
                }
            }
            Form::AttachPartition => {
                self.add_all(target.default_partition.iter(), AccessExclusive);
                // The foreign keys become the parent's. Triggers are dropped on the referenced tables and made on the referencing ones.
                self.add_all(referenced(target, |_| true), AccessExclusive);
                self.add_all(target.referenced_by.iter(), ShareRowExclusive);
            }
            Form::DetachPartition => {
                self.add_all(target.default_partition.iter(), AccessExclusive);
                for partition in part.others.iter().filter_map(|name| self.context.facts.relation(name)) {
                    self.detached(partition);
                    // Before 14 the partition is locked in a weaker mode, but the drop of its part of a foreign key needs this one.
                    if !partition.referenced_by.is_empty() {
                        self.add(&partition.id, AccessExclusive, false);
                    }
                }
            }
            _ => {}
        }
        if cascade && part.form == Form::Truncate {
            self.add_all(target.reached_by.iter(), AccessExclusive);
        }
        let drops_keys = matches!(part.form, Form::DropTable | Form::DropConstraint | Form::DropColumn);
        if cascade && drops_keys && as_written {
            self.add_all(target.referenced_by.iter(), AccessExclusive);
        }
    }

    /// Adds the locks for the foreign keys of a detached partition. Its own keys get triggers of their own. The keys that point to it
    /// lose their triggers.
    fn detached(&mut self, partition: &RelationFacts) {
        self.add_all(referenced(partition, |_| true), LockMode::ShareRowExclusive);
        self.add_all(partition.referenced_by.iter(), LockMode::AccessExclusive);
    }

    fn add_all<'r>(&mut self, relations: impl Iterator<Item = &'r RelationRef>, mode: LockMode) {
        for relation in relations {
            self.add(relation, mode, false);
        }
    }

    fn add(&mut self, relation: &RelationRef, mode: LockMode, only: bool) {
        let known = self.context.facts.lock_facts(relation.oid);
        let nobody_waits = known.as_ref().is_some_and(|known| {
            known.persistence == 't' || known.created_here || known.own_lock.is_some_and(|held| held >= mode)
        });
        if nobody_waits {
            return;
        }
        let below = if only { 0 } else { self.context.facts.below(relation.oid) };
        let need = LockNeed {
            relation: relation.full_name(),
            oid: relation.oid,
            mode,
            only,
            lockable: known.as_ref().is_some_and(|known| known.kind.lockable() && known.may_lock),
            held: known.is_some_and(|known| known.own_lock.is_some()),
            below,
        };
        self.by_oid
            .entry(relation.oid)
            .and_modify(|have| {
                have.mode = have.mode.max(mode);
                have.only &= only;
                have.below = have.below.max(below);
            })
            .or_insert(need);
    }
}

/// The tables that the wanted foreign keys of `table` point to.
fn referenced(table: &RelationFacts, wanted: impl Fn(&ConstraintFacts) -> bool) -> impl Iterator<Item = &RelationRef> {
    table.constraints.iter().filter(move |constraint| wanted(constraint)).filter_map(|c| c.references.as_ref())
}

fn on(constraint: &ConstraintFacts, column: Option<&str>) -> bool {
    column.is_some_and(|column| constraint.columns.iter().any(|name| name == column))
}

/// Whether the second relation of the statement is a parent. Its other children are not locked.
fn other_is_parent(form: Form) -> bool {
    matches!(form, Form::CreateTablePartitionOf | Form::CreateTableInherits | Form::Inherit)
}

/// Whether the form works on a parent without its partitions and children.
fn parent_alone(form: Form) -> bool {
    matches!(
        form,
        Form::AttachPartition
            | Form::DetachPartition
            | Form::DetachConcurrently
            | Form::Comment
            | Form::SecurityLabel
            | Form::SetTableOptions
            | Form::OwnerTo
            | Form::RenameTable
            | Form::SetSchema
            | Form::ReplicaIdentity
            | Form::RowSecurity
            | Form::CreatePolicy
            | Form::AlterPolicy
            | Form::DropPolicy
            | Form::CreateRule
            | Form::AlterRule
            | Form::DropRule
            | Form::SetRules
            | Form::CreateStatistics
    )
}
