//! A statement and its facts become a [`Plan`]. The module is pure: it does no I/O, reads no clock, and leaves the
//! executor no choice.
//!
//! A statement goes through these files, in this order:
//!
//! 1. [`elide`]: the statement changes nothing, and the catalogue can answer it.
//! 2. [`index`], [`drop_index`], [`reindex`], [`refresh`]: the statement has a CONCURRENTLY form that blocks nobody.
//!    [`partitioned_index`], [`partitioned_key`], [`partitioned_foreign_key`]: it has one on each partition.
//! 3. [`alter_table`] ([`subcommands`], [`new_column`], [`constraint`], [`replaced`], [`replace`]): new rows obey at
//!    once, and old rows are filled and checked without blocking anybody. [`attach`]: whatever a new partition must have
//!    is made before it is attached. [`detach`], [`new_partition`]: the table stays in use.
//! 4. [`direct`]: the statement runs as it is written once its locks ([`locks`]) are free, with a WARNING where that is
//!    not safe.
//!
//! Two files come before these. [`optimistic`] says which statements can be tried without facts. [`block_locks`] knows
//! the tables for which the client's transaction needs no plan. [`additive`] says which plans go on when their client has left.
//!
//! [`mod@print`] shows any plan, and [`check`] lists the rules that a plan breaks.
//!
//! Limits: the module asks nothing. If the facts say nothing about a relation, the result is a [`Refusal`] and never a
//! guess. If the server would raise an error, the plan lets the server raise it.

pub mod additive;
pub mod ahead;
mod alter_table;
mod context;
mod attach;
pub mod check;
mod constraint;
mod detach;
mod direct;
mod drop_index;
mod elide;
pub mod optimistic;
pub mod block_locks;
pub mod block_place;
mod hint;
pub mod hoist;
mod index;
mod lock_table;
pub mod logged;
pub mod locks;
pub mod model;
mod new_column;
mod new_partition;
mod partitioned_foreign_key;
mod partitioned_index;
mod partitioned_key;
pub mod print;
mod purpose;
mod refresh;
mod reindex;
mod replace;
mod replaced;
mod subcommands;

pub use self::lock_table::lock_table_phase;
pub use model::*;

use crate::catalog::Facts;
use crate::catalog::reading::FactsNeeded;
use crate::pg::sqlstate;
use crate::report::Report;
use crate::sql::form::{ExecutionKind, Form};
use crate::sql::{Class, Ddl, Part, Statement};
use context::PlanContext;

/// The plan of a statement.
pub fn plan(statement: &Statement, facts: &Facts, limits: &Limits) -> Result<Plan, Refusal> {
    match &statement.class {
        Class::Ddl(ddl) => plan_ddl(&PlanContext { statement, ddl, facts, limits }),
        Class::ExplainDdl(inner) => plan(inner, facts, limits),
        Class::Newer => Ok(direct::newer(statement)),
        Class::Lock(lock) if lock.makes_others_wait() => Ok(lock_table::plan(statement, lock, facts)),
        Class::MayHideDdl { names_ddl: true, swallows: false } => Ok(direct::hidden_ddl(statement)),
        Class::MayHideDdl { .. } | Class::AdvisoryLock(_) | Class::Lock(_) | Class::Transaction(_) | Class::Other => {
            Ok(direct::not_ddl(statement))
        }
    }
}

/// Whether a statement needs facts and a plan. It does not if it can make nobody wait. CREATE TABLE IF NOT EXISTS takes no lock on a
/// table that exists.
pub fn needs_plan(ddl: &Ddl) -> bool {
    let waits = |part: &Part| {
        let row = part.form.row();
        row.way != ExecutionKind::Relay
            && (row.lock.is_some() || !part.others.is_empty() || row.way != ExecutionKind::Run)
    };
    let may_do_nothing = ddl.if_exists || (ddl.if_not_exists && ddl.form() != Form::CreateTable);
    ddl.parts.iter().any(waits) || (may_do_nothing && !ddl.targets.is_empty())
}

/// How much the plan depends on, beyond the relation's own row in `pg_class`. `tests/plans.rs` makes every plan without the facts that
/// this function says it does not need.
pub fn wants(statement: &Statement) -> FactsNeeded {
    let needed = wants_of_plan(statement);
    // Rules ask for the size of a whole tree, and for the table of an index.
    if statement.gated { needed.max(FactsNeeded::Indexes) } else { needed }
}

fn wants_of_plan(statement: &Statement) -> FactsNeeded {
    let ddl = match &statement.class {
        Class::Ddl(ddl) => ddl,
        Class::ExplainDdl(inner) => return wants(inner),
        Class::MayHideDdl { .. }
        | Class::Newer
        | Class::AdvisoryLock(_)
        | Class::Lock(_)
        | Class::Transaction(_)
        | Class::Other => return FactsNeeded::Itself,
    };
    if matches!(ddl.form(), Form::Truncate | Form::DropTable) {
        return FactsNeeded::Reach;
    }
    // The undo of SET DEFAULT depends on whether the column has a default (`hoist`).
    let wants_more =
        |part: &Part| part.cascade || part.missing_ok || part.form == Form::SetDefault || !is_plain(part.form);
    if !ddl.cascade && ddl.parts.iter().all(|part| is_of_index(part.form)) {
        return FactsNeeded::Indexes;
    }
    if ddl.cascade || ddl.parts.iter().any(wants_more) { FactsNeeded::Details } else { FactsNeeded::Itself }
}

/// Whether the plan depends on indexes alone. REINDEX is not in the list: it also depends on exclusion constraints, since their indexes
/// have no concurrent way.
fn is_of_index(form: Form) -> bool {
    matches!(
        form,
        Form::CreateIndex
            | Form::CreateIndexConcurrently
            | Form::DropIndex
            | Form::DropIndexConcurrently
            | Form::AlterIndexRename
            | Form::AlterIndexSet
    )
}

/// Whether the form is one brief step under the locks of the relations that the statement names, whatever these relations are.
fn is_plain(form: Form) -> bool {
    matches!(
        form,
        Form::AddColumn
            | Form::AddColumnReferences
            | Form::SetDefault
            | Form::SetColumnStatistics
            | Form::SetStorage
            | Form::RenameColumn
            | Form::AddCheckNotValid
            | Form::AddForeignKeyNotValid
            | Form::AlterConstraint
            | Form::RenameConstraint
            | Form::CreateStatistics
            | Form::CreateTable
            | Form::CreateTableReferences
            | Form::RenameTable
            | Form::SetSchema
            | Form::OwnerTo
            | Form::ReplicaIdentity
            | Form::RowSecurity
            | Form::SetTableOptions
            | Form::SetTriggers
            | Form::SetRules
            | Form::CreateTrigger
            | Form::AlterTrigger
            | Form::DropTrigger
            | Form::CreateRule
            | Form::AlterRule
            | Form::DropRule
            | Form::CreatePolicy
            | Form::AlterPolicy
            | Form::DropPolicy
            | Form::Comment
            | Form::SecurityLabel
    )
}

/// Whether the plan depends on the facts of a backfill of the statement's table ([`Facts::backfill`]).
pub fn may_backfill(statement: &Statement, facts: &Facts, limits: &Limits) -> bool {
    let Some(ddl) = statement.ddl() else { return false };
    let context = PlanContext { statement, ddl, facts, limits };
    limits.rewrite && !context.in_transaction() && !context.is_small() && alter_table::wants_backfill(&context)
}

fn plan_ddl(context: &PlanContext<'_>) -> Result<Plan, Refusal> {
    if let Some(why) = context.facts.nameless {
        return direct::plan_unnamed(context, why);
    }
    covered(context.ddl, context.facts)?;
    if context.limits.rewrite
        && let Some(answer) = elide::answer(context)
    {
        return Ok(context.plan_of_answer(answer));
    }
    // The server itself raises the error for a missing relation or a statement that is not allowed.
    if !context.all_there() || context.must_leave_transaction() {
        return Ok(context.refused_by_the_server());
    }
    if locks::touches_own_relations_only(context) {
        return Ok(context.relayed("only this session can see what the statement changes"));
    }
    let rerouted = match context.ddl.form() {
        Form::CreateIndex | Form::CreateIndexConcurrently => {
            index::plan(context).or_else(|| partitioned_index::plan(context))
        }
        Form::AttachPartition => attach::plan(context),
        Form::DetachPartition => detach::plan(context),
        Form::AddForeignKey => partitioned_foreign_key::plan(context).or_else(|| alter_table::plan(context)),
        Form::DropTable => detach::plan_drop(context),
        Form::CreateTablePartitionOf => attach::plan_new(context).or_else(|| new_partition::plan(context)),
        Form::DropIndex | Form::DropIndexConcurrently => drop_index::plan(context),
        Form::Reindex | Form::ReindexConcurrently => reindex::plan(context),
        Form::RefreshMaterializedView => refresh::plan(context),
        Form::AddUnique | Form::AddPrimaryKey => partitioned_key::plan(context).or_else(|| alter_table::plan(context)),
        _ => alter_table::plan(context),
    };
    match rerouted {
        Some(plan) => Ok(plan),
        None => direct::plan(context),
    }
}

/// Refuses the statement if the facts do not cover a relation that it names.
fn covered(ddl: &Ddl, facts: &Facts) -> Result<(), Refusal> {
    let named = ddl.targets.iter().chain(ddl.parts.iter().flat_map(|part| &part.others));
    match named.into_iter().find(|name| facts.asked(name).is_none()) {
        None => Ok(()),
        Some(name) => Err(Refusal {
            report: Report::error(sqlstate::INTERNAL_ERROR, format!("no facts were read about relation {name}"))
                .detail("A plan needs facts about every relation that the statement names.")
                .hint("This is a bug of pgsluice. Please report it."),
        }),
    }
}
