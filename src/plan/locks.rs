//! The relations that a statement locks, and how strongly. All of them are known, so that they can be locked at once.
//!
//! Invariants: a relation has one entry, with the strongest mode. The entries are in the order of oids, so that two plans
//! never lock in opposite orders. There is no entry for a relation that nobody else can see, or that this session has
//! locked strongly enough already.
//!
//! Limits: DROP … CASCADE of a partition takes a whole foreign key that points to its table, which is not followed.
//! Neither is what views, rules and functions depend on. The statement's own `lock_timeout` guards the rest.

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

/// What must be locked before the statement runs.
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
            // Children have columns of their own.
            context.worked_on().iter().for_each(|table| set.add(&table.id, mode, true));
        }
        for other in part.others.iter().filter_map(|name| context.facts.relation(name)) {
            set.add(&other.id, mode, other_is_parent(part.form));
            if part.form == Form::CreateTablePartitionOf {
                set.add_all(other.default_partition.iter(), LockMode::AccessExclusive);
                // Foreign keys get triggers on its behalf.
                set.add_all(referenced(other, |_| true), LockMode::ShareRowExclusive);
                set.add_all(other.referenced_by.iter(), LockMode::ShareRowExclusive);
            }
        }
    }
    set.by_oid.into_values().collect()
}

/// Whether nobody else can see any relation that the statement touches: each is temporary, or made in this very transaction.
pub(super) fn touches_own_relations_only(context: &PlanContext<'_>) -> bool {
    let unseen = |relation: &RelationFacts| relation.persistence == 't' || relation.created_here;
    let others = context.ddl.parts.iter().flat_map(|part| &part.others);
    let others = others.filter_map(|name| context.facts.relation(name));
    context.targets().next().is_some()
        && context.targets().chain(others).all(unseen)
        && needs(context, as_written).is_empty()
}

/// What a new partition locks that is made apart and attached.
pub(super) fn as_attached(_: Form, _: i32) -> (Option<LockMode>, Option<LockMode>) {
    (None, Some(LockMode::ShareUpdateExclusive))
}

/// What a concurrent build or drop locks by itself: the table, of an index its table.
pub(super) fn concurrent(context: &PlanContext<'_>, relation: &RelationFacts) -> Vec<LockNeed> {
    let mut set = LockNeeds { context, by_oid: BTreeMap::new() };
    set.add(relation.table.as_ref().unwrap_or(&relation.id), LockMode::ShareUpdateExclusive, true);
    set.by_oid.into_values().collect()
}

/// What is locked when a partition is taken off that is marked already.
pub(super) fn finalize(context: &PlanContext<'_>, table: &RelationRef, partition: &RelationFacts) -> Vec<LockNeed> {
    let mut set = LockNeeds { context, by_oid: BTreeMap::new() };
    set.add(table, LockMode::ShareUpdateExclusive, true);
    set.add(&partition.id, LockMode::AccessExclusive, false);
    set.detached(partition);
    set.by_oid.into_values().collect()
}

/// What the check of old rows locks: the table, and of a foreign key the referenced one.
pub(super) fn validation(_: Form, _: i32) -> (Option<LockMode>, Option<LockMode>) {
    (Some(LockMode::ShareUpdateExclusive), Some(LockMode::RowShare))
}

/// What dropping what the statement adds locks, or what it replaces: of a foreign key both tables.
pub(super) fn drops(form: Form, version: i32) -> (Option<LockMode>, Option<LockMode>) {
    match form {
        Form::AddForeignKey | Form::EnforceConstraint | Form::AddColumnReferencesDefault => {
            (Some(LockMode::AccessExclusive), Some(LockMode::AccessExclusive))
        }
        _ => form.locks(version),
    }
}

/// What an UPDATE of its rows locks.
pub(super) fn backfill(_: Form, _: i32) -> (Option<LockMode>, Option<LockMode>) {
    (Some(LockMode::RowExclusive), None)
}

/// The same, where nothing that could make code of others run may come meanwhile.
pub(super) fn watched_backfill(_: Form, _: i32) -> (Option<LockMode>, Option<LockMode>) {
    (Some(LockMode::ShareUpdateExclusive), None)
}

struct LockNeeds<'a> {
    context: &'a PlanContext<'a>,
    by_oid: BTreeMap<u32, LockNeed>,
}

impl LockNeeds<'_> {
    /// The statement's own object. What becomes of an index is felt by its table.
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
        // ALTER INDEX RENAME takes any relation's name, and PostgreSQL then locks it as that relation's own command would.
        let mode = match self.context.has_form(Form::AlterIndexRename) && !index {
            true => LockMode::AccessExclusive,
            false => mode,
        };
        let only = self.context.ddl.only || self.context.ddl.parts.iter().all(|part| parent_alone(part.form));
        self.add(&target.id, mode, only);
    }

    /// What the part locks beside the statement's object and the relations that it names.
    /// `modes`: what this phase takes in place of the statement's own locks, maybe.
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
                // A partition's foreign keys have no triggers of its own on the tables that they point to.
                self.add_all(referenced(target, |key| !key.of_parent), AccessExclusive);
                self.add_all(target.partitions_reference.iter(), AccessExclusive);
                if let Some(parent) = &target.parent {
                    self.add(parent, AccessExclusive, true);
                    self.add_all(target.default_partition.iter(), AccessExclusive);
                }
            }
            Form::DropColumn => self.add_all(referenced(target, |constraint| on(constraint, column)), AccessExclusive),
            Form::AlterColumnType => {
                // Foreign keys are dropped and made anew.
                self.add_all(referenced(target, |constraint| on(constraint, column)), AccessExclusive);
                let key = |constraint: &ConstraintFacts| "pu".contains(constraint.kind) && on(constraint, column);
                if target.constraints.iter().any(key) {
                    self.add_all(target.referenced_by.iter(), AccessExclusive);
                }
            }
            Form::AttachPartition => {
                self.add_all(target.default_partition.iter(), AccessExclusive);
                // Foreign keys become the parent's: triggers go from the referenced tables, and come to the referencing.
                self.add_all(referenced(target, |_| true), AccessExclusive);
                self.add_all(target.referenced_by.iter(), ShareRowExclusive);
            }
            Form::DetachPartition => {
                self.add_all(target.default_partition.iter(), AccessExclusive);
                for partition in part.others.iter().filter_map(|name| self.context.facts.relation(name)) {
                    self.detached(partition);
                    // Locked in a weaker mode before 14, its part of a foreign key to the table is yet dropped.
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

    /// Its foreign keys get triggers of their own; those that point to it lose theirs.
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

/// The tables that those foreign keys of `table` point to.
fn referenced(table: &RelationFacts, wanted: impl Fn(&ConstraintFacts) -> bool) -> impl Iterator<Item = &RelationRef> {
    table.constraints.iter().filter(move |constraint| wanted(constraint)).filter_map(|c| c.references.as_ref())
}

fn on(constraint: &ConstraintFacts, column: Option<&str>) -> bool {
    column.is_some_and(|column| constraint.columns.iter().any(|name| name == column))
}

/// Whether the further relation is a parent, whose other children do not matter.
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
