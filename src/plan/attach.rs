//! ATTACH PARTITION without a scan, a build or a check of rows under its locks. All of that is done in earlier phases.
//!
//! - The bounds: the partition gets a CHECK of the proxy's own that implies them, and the CHECK is validated. The default
//!   partition gets a CHECK that excludes them. These CHECKs prove the bounds to the server, and the last step drops
//!   them.
//! - Indexes that the partition lacks are built concurrently, under the names that PostgreSQL would have chosen. Indexes
//!   of keys become constraints. Foreign keys are added NOT VALID and validated. The last step finds all of them there
//!   and attaches them.
//!
//! Invariant: empty copies have shown that the server takes the CHECKs for a proof. If the server does not take them in
//! the last step, the step exceeds its hold budget and everything is undone.

use super::context::{PlanContext, table_bytes};
use super::locks;
use super::model::{BoundsOf, LockNeed, ObjectKind, Phase, PhaseKind, Plan, Step, Undo};
use super::partitioned_index::attached;
use super::purpose;
use crate::catalog::attach::{AttachFacts, DefaultPartition, MissingForeignKey, MissingIndex};
use crate::catalog::{RelationFacts, RelationRef, index_definition_tail};
use crate::pg::relation::quote_identifier;
use crate::pg::{LockMode, RelationKind, RelationName};

/// The names of the proxy's own CHECKs.
const WITHIN: &str = "pgsluice_within_bounds";
const OUTSIDE: &str = "pgsluice_outside_bounds";

/// The plan of ATTACH PARTITION; `None`: the statement runs as it is written.
pub(super) fn plan(context: &PlanContext<'_>) -> Option<Plan> {
    let (parent, facts) = (context.target()?, context.facts.attach.as_ref()?);
    let [part] = context.ddl.parts.as_slice() else { return None };
    let new = part.others.first().and_then(|name| context.facts.relation(name))?;
    // The server refuses to attach a partition or a child of another table.
    let free = !new.is_partition
        && !new.typed
        && new.parent.is_none()
        && (new.kind == RelationKind::PartitionedTable || !new.has_children);
    if !free || !context.limits.rewrite || context.in_transaction() || parent.is_system || !parent.owned || !new.owned {
        return None;
    }
    let large = !context.small(table_bytes(new));
    let default = facts.default.as_ref().filter(|default| default.excludes.is_some() && !context.small(default.bytes));
    if (facts.obstacle && (large || facts.default.as_ref().is_some_and(|default| !context.small(default.bytes))))
        || default.is_some_and(|default| !default.owned)
        || (large && !can_be_made_ready(facts, new))
    {
        return None;
    }
    let mut work =
        AttachPlan { context, new, phases: Vec::new(), last: Vec::new(), meanwhile: Vec::new(), built: Vec::new() };
    if large {
        work.partition(facts);
    }
    if let Some(default) = default {
        work.default(default, BoundsOf::Default);
    }
    Some(work.plan())
}

/// The plan of CREATE TABLE … PARTITION OF if the server would read a default partition; `None`: this file has no plan for it.
pub(super) fn plan_new(context: &PlanContext<'_>) -> Option<Plan> {
    let facts = context.facts.attach.as_ref()?;
    let [part] = context.ddl.parts.as_slice() else { return None };
    let parent = part.others.first().and_then(|name| context.facts.relation(name))?;
    let default =
        facts.default.as_ref().filter(|default| default.excludes.is_some() && !context.small(default.bytes))?;
    // Before 12 the server would tell the client of a proof that the client has not made. If a default partition has partitions
    // of its own, the server's errors differ from those of VALIDATE.
    let new = context.ddl.targets.iter().all(|name| context.facts.relation(name).is_none());
    let fits =
        new && !facts.obstacle && default.owned && default.kind == RelationKind::Table && context.version() >= 120_000;
    if !fits || !parent.owned || !context.limits.rewrite || context.in_transaction() || parent.is_system {
        return None;
    }
    let mut work = AttachPlan {
        context,
        new: parent,
        phases: Vec::new(),
        last: Vec::new(),
        meanwhile: Vec::new(),
        built: Vec::new(),
    };
    work.default(default, BoundsOf::DefaultBesideNew);
    Some(work.plan())
}

/// Whether the indexes and constraints that the partition lacks can be made beforehand.
fn can_be_made_ready(facts: &AttachFacts, new: &RelationFacts) -> bool {
    let lacks = !facts.missing.is_empty() || !facts.foreign_keys.is_empty();
    facts.missing.iter().all(|index| index.plain && index.name.is_some())
        && facts.foreign_keys.iter().all(|key| !key.taken)
        // A partitioned table would need them on each of its own partitions.
        && !(lacks && new.kind == RelationKind::PartitionedTable)
}

struct AttachPlan<'a> {
    context: &'a PlanContext<'a>,
    new: &'a RelationFacts,
    phases: Vec<Phase>,
    /// The steps that follow the client's own statement.
    last: Vec<Step>,
    meanwhile: Vec<&'static str>,
    /// The indexes that the client's statement must have attached.
    built: Vec<RelationName>,
}

impl AttachPlan<'_> {
    fn partition(&mut self, facts: &AttachFacts) {
        for index in &facts.missing {
            self.index(index);
        }
        for key in &facts.foreign_keys {
            self.foreign_key(key);
        }
        // The CHECK is added last, so that it exists for as short a time as possible.
        let new = self.new;
        if let Some(bounds) = &facts.bounds {
            self.meanwhile.push("for a time a CHECK of the new partition refuses rows outside its bounds");
            self.proof(&new.id, WITHIN, bounds, BoundsOf::Partition);
        }
    }

    fn default(&mut self, default: &DefaultPartition, of: BoundsOf) {
        if let Some(excludes) = &default.excludes {
            self.meanwhile.push("for a time a CHECK of the default partition refuses rows within the new bounds");
            self.proof(&default.id, OUTSIDE, excludes, of);
        }
    }

    /// Adds a CHECK and validates it. If there is a CHECK of that name, a proxy that died has left it, and it is made anew.
    fn proof(&mut self, table: &RelationRef, name: &str, check: &str, of: BoundsOf) {
        let alter = format!("ALTER TABLE {}", table.full_name().quoted());
        let add = format!("{alter} DROP CONSTRAINT IF EXISTS {name}, ADD CONSTRAINT {name} CHECK ({check}) NOT VALID");
        let about = |step: Step| step.about(table.oid, ObjectKind::Constraint, name);
        let drop = || about(Step::hidden(format!("{alter} DROP CONSTRAINT {name}")));
        let validate = about(Step::hidden(format!("{alter} VALIDATE CONSTRAINT {name}")));
        self.added([table, table].map(|table| vec![need(table, LockMode::AccessExclusive)]), add, drop());
        let locks = vec![need(table, LockMode::ShareUpdateExclusive)];
        let long = self.long(locks, Step { bounds: Some(of), ..validate });
        self.phases.push(long);
        self.last.push(drop());
    }

    /// A brief phase that adds a constraint under `locks`. `drop` takes it back under the locks `back`.
    fn added(&mut self, [locks, back]: [Vec<LockNeed>; 2], add: String, drop: Step) {
        let brief =
            |purpose, locks, step| Phase { locks, steps: vec![step], ..self.context.phase(PhaseKind::Brief, purpose) };
        let back = brief(purpose::RESTORE, back, drop);
        let add = brief(purpose::NEW_ROWS, locks, Step::hidden(add));
        self.phases.push(Phase { undo: Some(Undo::Run(Box::new(back))), ..add });
    }

    /// A check of old rows.
    fn long(&self, locks: Vec<LockNeed>, step: Step) -> Phase {
        Phase { locks, steps: vec![step], ..self.context.phase(PhaseKind::Long, purpose::OLD_ROWS) }
    }

    fn index(&mut self, index: &MissingIndex) {
        let Some((name, (unique, tail))) = index.name.as_deref().zip(index_definition_tail(&index.definition)) else {
            return;
        };
        let (on, quoted) = (self.new.id.full_name(), quote_identifier(name));
        let built = RelationName::new(Some(&self.new.id.schema), name);
        let unique = if unique { "UNIQUE " } else { "" };
        let sql = format!("CREATE {unique}INDEX CONCURRENTLY {quoted} ON {}{tail}", on.quoted());
        let known = self.new.indexes.iter().filter(|index| !index.valid).map(|index| index.id.oid).collect();
        self.phases.push(Phase {
            locks: vec![LockNeed { only: true, ..need(&self.new.id, LockMode::ShareUpdateExclusive) }],
            steps: vec![Step::hidden(sql)],
            undo: Some(Undo::DropBuiltIndex { table: on.clone(), oid: self.new.id.oid, known, index: built.clone() }),
            ..self
                .context
                .phase(PhaseKind::Long, "build an index that the partition lacks, without blocking reads or writes")
        });
        if let Some(kind) = &index.constraint {
            let alter = format!("ALTER TABLE {}", on.quoted());
            let add = format!("{alter} ADD CONSTRAINT {quoted} {kind} USING INDEX {quoted}{}", index.deferral);
            let drop = Step::hidden(format!("{alter} DROP CONSTRAINT {quoted}"));
            let drop = drop.about(self.new.id.oid, ObjectKind::Constraint, name);
            self.added([(); 2].map(|()| vec![need(&self.new.id, LockMode::AccessExclusive)]), add, drop);
        }
        self.built.push(built);
    }

    fn foreign_key(&mut self, key: &MissingForeignKey) {
        let alter = format!("ALTER TABLE {}", self.new.id.full_name().quoted());
        let name = quote_identifier(&key.name);
        let add = format!("{alter} ADD CONSTRAINT {name} {} NOT VALID", key.definition);
        let [drop, validate] = ["DROP", "VALIDATE"].map(|verb| {
            let step = Step::hidden(format!("{alter} {verb} CONSTRAINT {name}"));
            step.about(self.new.id.oid, ObjectKind::Constraint, &key.name)
        });
        let both = |own, other| {
            let mut locks = vec![need(&self.new.id, own)];
            locks.extend(self.referenced(key).into_iter().map(|table| LockNeed {
                lockable: self.context.facts.lock_facts(table.oid).is_some_and(|facts| facts.may_lock),
                ..need(table, other)
            }));
            locks.sort_by_key(|need| need.oid);
            locks.dedup_by_key(|need| need.oid);
            locks
        };
        let [weak, strong] = [LockMode::ShareRowExclusive, LockMode::AccessExclusive].map(|mode| both(mode, mode));
        let check = both(LockMode::ShareUpdateExclusive, LockMode::RowShare);
        self.added([weak, strong], add, drop);
        let long = self.long(check, validate);
        self.phases.push(long);
    }

    /// The table that the parent's foreign key points to.
    fn referenced(&self, key: &MissingForeignKey) -> Option<&RelationRef> {
        let constraints = self.context.target().into_iter().flat_map(|parent| &parent.constraints);
        constraints.filter(|c| c.kind == 'f' && c.name == key.name).find_map(|c| c.references.as_ref())
    }

    /// The whole plan. The last phase has the client's own statement, and then drops the CHECKs.
    fn plan(mut self) -> Plan {
        let mut attach = Step::as_written(&self.context.statement.text);
        // Before 12 the server tells the client that a CHECK proves the bounds, and the client has made no such CHECK.
        if let Some(last) = self.last.last_mut().filter(|_| self.context.version() < 120_000) {
            attach.visible = false;
            last.visible = true;
        }
        let mut steps = vec![attach];
        if !self.built.is_empty() {
            steps.push(attached(&self.built));
        }
        steps.append(&mut self.last);
        let purpose = if self.phases.is_empty() {
            "no row has to be read"
        } else {
            "a catalogue change only, since the bounds are proved"
        };
        let locks = locks::needs(self.context, locks::as_written);
        self.phases.push(Phase { locks, steps, ..self.context.phase(PhaseKind::Brief, purpose) });
        Plan { phases: self.phases, meanwhile: self.meanwhile, ..self.context.empty() }
    }
}

/// A lock on one table, without its descendants.
fn need(table: &RelationRef, mode: LockMode) -> LockNeed {
    LockNeed::alone(table.full_name(), table.oid, mode)
}
