//! The input of the planner: one DDL statement with its facts and limits, and the questions about them that several files
//! ask.

use super::model::{Limits, Phase, PhaseKind, Plan, Step};
use super::purpose;
use crate::catalog::{Facts, ProbeAnswer, RelationFacts};
use crate::pg::{RelationKind, RelationName};
use crate::report::Report;
use crate::sql::form::{Cost, Form};
use crate::sql::{Ddl, Statement};

/// One DDL statement with all that its plan depends on.
pub(super) struct PlanContext<'a> {
    pub(super) statement: &'a Statement,
    pub(super) ddl: &'a Ddl,
    pub(super) facts: &'a Facts,
    pub(super) limits: &'a Limits,
}

impl<'a> PlanContext<'a> {
    /// The facts of the statement's targets, as far as these exist.
    pub(super) fn targets(&self) -> impl Iterator<Item = &'a RelationFacts> {
        let facts = self.facts;
        self.ddl.targets.iter().filter_map(|name| facts.relation(name))
    }

    /// The target, if the statement has one target and it exists.
    pub(super) fn target(&self) -> Option<&'a RelationFacts> {
        match self.ddl.targets.as_slice() {
            [name] => self.facts.relation(name),
            _ => None,
        }
    }

    pub(super) fn version(&self) -> i32 {
        self.facts.session.server_version
    }

    pub(super) fn in_transaction(&self) -> bool {
        self.facts.session.in_transaction
    }

    /// The answer of the rewrite probe about a part; `None`: the probe was not made, or could not run.
    pub(super) fn probe(&self, part: usize) -> Option<&'a ProbeAnswer> {
        self.facts.probe.get(part).and_then(Option::as_ref)
    }

    pub(super) fn has_form(&self, form: Form) -> bool {
        self.ddl.parts.iter().any(|part| part.form == form)
    }

    /// Whether every relation exists that the statement needs, so that the server does not refuse the statement for that.
    pub(super) fn all_there(&self) -> bool {
        let creates = self.ddl.parts.iter().any(|part| creates(part.form));
        let targets = match self.ddl.if_exists {
            true => self.targets().next().is_some() || self.ddl.targets.is_empty(),
            false => self.ddl.targets.iter().all(|name| self.facts.relation(name).is_some()),
        };
        // A table may reference itself before it exists.
        let there = |name: &RelationName| self.facts.relation(name).is_some() || self.ddl.targets.contains(name);
        (targets || creates) && self.ddl.parts.iter().flat_map(|part| &part.others).all(there)
    }

    /// Whether the server refuses to run the statement in the transaction that is open.
    pub(super) fn must_leave_transaction(&self) -> bool {
        self.in_transaction() && self.ddl.parts.iter().any(|part| !part.form.row().in_transaction)
    }

    /// Whether the relations that are built, read or rewritten are small enough for that to be done under the lock.
    pub(super) fn is_small(&self) -> bool {
        let worked_on = self.worked_on();
        !worked_on.is_empty()
            && !self.reads_default()
            && worked_on.iter().all(|relation| relation.created_here || self.small(relation.weight()))
    }

    /// Whether a default partition that is not small is read, too.
    fn reads_default(&self) -> bool {
        let known = self.facts.attach.as_ref().and_then(|attach| attach.default.as_ref());
        let large = |table: &RelationFacts| match known {
            Some(default) => !self.small(default.bytes),
            None => !self.small(table.bytes),
        };
        let has_default = |table: &RelationFacts| table.default_partition.is_some();
        self.has_form(Form::AttachPartition) && self.targets().any(|table| has_default(table) && large(table))
    }

    pub(super) fn small(&self, bytes: u64) -> bool {
        self.limits.is_small(bytes)
    }

    /// The relations whose rows a scan, build or rewrite goes through.
    pub(super) fn worked_on(&self) -> Vec<&'a RelationFacts> {
        let facts = self.facts;
        if self.has_form(Form::AlterDomain) {
            return self.facts.domain_tables.iter().flatten().collect();
        }
        if !self.has_form(Form::AttachPartition) {
            return self.targets().collect();
        }
        self.ddl.parts.iter().flat_map(|part| &part.others).filter_map(|name| facts.relation(name)).collect()
    }

    /// A plan without phases and notes.
    pub(super) fn empty(&self) -> Plan {
        let rows = || self.ddl.parts.iter().map(|part| part.form.row());
        Plan {
            statement: self.statement.text.clone(),
            tag: self.ddl.tag.clone(),
            forms: self.ddl.parts.iter().map(|part| part.form).collect(),
            lock: self.ddl.parts.iter().filter_map(|part| part.form.locks(self.version()).0).max(),
            cost: heaviest(rows().map(|row| row.cost)),
            notes: Vec::new(),
            answer: None,
            phases: Vec::new(),
            meanwhile: Vec::new(),
        }
    }

    pub(super) fn plan_of_answer(&self, answer: Vec<Report>) -> Plan {
        Plan { answer: Some(answer), ..self.empty() }
    }

    /// The plan that sends the statement as it is written, without any lock attempt.
    pub(super) fn relayed(&self, purpose: &str) -> Plan {
        Plan { phases: vec![self.phase(PhaseKind::Relay, purpose)], ..self.empty() }
    }

    /// The plan of a statement that the server will not run. If a missing relation has come meanwhile, the server would run it: the
    /// phase waits for no lock, and the facts are then read anew.
    pub(super) fn refused_by_the_server(&self) -> Plan {
        let may_stand_in_one = self.ddl.parts.iter().all(|part| part.form.row().in_transaction);
        if self.in_transaction() || !may_stand_in_one || self.ddl.concurrently {
            return self.relayed(purpose::NOT_RUN);
        }
        Plan { phases: vec![self.phase(PhaseKind::Brief, purpose::NOT_RUN)], ..self.empty() }
    }

    /// A phase with the client's own text as its step, and without locks.
    pub(super) fn phase(&self, kind: PhaseKind, purpose: &str) -> Phase {
        let in_transaction = match kind {
            PhaseKind::Relay | PhaseKind::Long | PhaseKind::Backfill | PhaseKind::Detach => self.in_transaction(),
            PhaseKind::Brief | PhaseKind::Guarded => self.may_be_wrapped(),
        };
        Phase {
            kind,
            purpose: purpose.to_owned(),
            in_transaction,
            locks: Vec::new(),
            steps: vec![Step::as_written(&self.statement.text)],
            undo: None,
            backfill: None,
            detach: None,
            tidies: false,
        }
    }

    /// Whether the statement may run in a transaction block. It may not if it goes through many tables or partitions, each in a
    /// transaction of its own.
    fn may_be_wrapped(&self) -> bool {
        let many = self.ddl.targets.is_empty()
            || self
                .targets()
                .any(|t| matches!(t.kind, RelationKind::PartitionedTable | RelationKind::PartitionedIndex));
        let goes_through = self.has_form(Form::Reindex) || self.has_form(Form::Cluster);
        self.ddl.parts.iter().all(|part| part.form.row().in_transaction) && !(many && goes_through)
    }
}

/// Whether the statement's target need not exist before it.
pub(super) fn creates(form: Form) -> bool {
    matches!(
        form,
        Form::CreateTable
            | Form::CreateTableReferences
            | Form::CreateTablePartitionOf
            | Form::CreateTableInherits
            | Form::CreateTableAs
            | Form::CreateMaterializedView
            | Form::CreateView
            | Form::ReplaceView
            | Form::CreateObject
    )
}

/// The size of the table that a relation is, or belongs to.
pub(super) fn table_bytes(relation: &RelationFacts) -> u64 {
    relation.bytes.max(relation.table_bytes)
}

pub(super) fn heaviest(costs: impl Iterator<Item = Cost>) -> Cost {
    costs.max_by_key(|cost| cost.weight()).unwrap_or(Cost::Unknown)
}
