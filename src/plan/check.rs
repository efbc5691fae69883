//! The rules of every plan, and the list of those that a plan breaks. A plan of this crate breaks none; every golden is
//! checked.

use super::model::{Phase, PhaseKind, Plan, Undo};
use super::purpose;
use crate::pg::LockMode;
use crate::sql::form::{Cost, Form};

/// The rules that a plan breaks, as sentences; empty for a sound plan.
pub fn check(plan: &Plan) -> Vec<String> {
    let mut broken = Vec::new();
    one_reply(plan, &mut broken);
    for (i, phase) in plan.phases.iter().enumerate() {
        let mut rule = |holds: bool, text: &str| {
            if !holds {
                broken.push(format!("phase {}: {text}", i + 1));
            }
        };
        rule(!phase.steps.is_empty(), "a phase has a step");
        rule(phase.steps.iter().all(|step| !step.sql.trim().is_empty()), "a step has a text");
        rule(!long_and_strong(plan, phase) || plan.warns(), "long work under a strong lock comes with a WARNING");
        rule(in_order(phase), "locks stand in the order of their oids, each relation once");
        match phase.kind {
            PhaseKind::Relay => rule(phase.locks.is_empty(), "a relayed step is not preceded by locks"),
            PhaseKind::Brief => {
                let needs_none = phase.purpose == purpose::NOT_RUN || makes_relation(phase);
                rule(!phase.locks.is_empty() || needs_none, "a brief phase names its locks");
                rule(phase.in_transaction, "locks are taken ahead in a transaction only");
            }
            PhaseKind::Guarded => {
                let none = phase.locks.iter().all(|need| !need.lockable);
                rule(phase.in_transaction || none, "locks are taken ahead in a transaction only");
            }
            PhaseKind::Long => {
                rule(weak(phase), "a long phase takes no lock that blocks reads or writes");
                rule(!phase.in_transaction || may_stand_in_transaction(plan), "it cannot run in a transaction");
            }
            PhaseKind::Detach => {
                rule(!phase.in_transaction, "it cannot run in a transaction");
                let once = |phase: &Phase| phase.kind == PhaseKind::Brief && phase.in_transaction;
                rule(
                    phase.detach.as_ref().is_none_or(|detach| once(&detach.finish)),
                    "it is finished by a brief phase",
                );
            }
            PhaseKind::Backfill => {
                rule(weak(phase), "a backfill takes no lock that blocks reads or writes");
                rule(!phase.in_transaction, "each batch is a transaction of its own");
            }
        }
        rule((phase.kind == PhaseKind::Backfill) == phase.backfill.is_some(), "a backfill says what it fills");
        rule((phase.kind == PhaseKind::Detach) == phase.detach.is_some(), "a detach says how it is finished");
        if phase.steps.iter().any(|step| is_concurrent(&step.sql)) {
            rule(phase.kind != PhaseKind::Brief && phase.kind != PhaseKind::Guarded, "CONCURRENTLY is a long phase");
            rule(phase.kind == PhaseKind::Relay || !phase.in_transaction, "CONCURRENTLY stands in no transaction");
            // REINDEX SCHEMA names no table, so its leftovers cannot be told. DETACH and REFRESH leave no index.
            let leaves_index = !phase.locks.is_empty()
                && !plan.forms.iter().any(|f| {
                    matches!(f, Form::DetachConcurrently | Form::RefreshConcurrently | Form::RefreshMaterializedView)
                });
            rule(phase.kind == PhaseKind::Relay || phase.undo.is_some() || !leaves_index, "CONCURRENTLY has an undo");
        }
        let earlier = plan.phases[..i].iter().flat_map(|phase| &phase.steps);
        let mut learned: Vec<usize> = earlier.filter_map(|step| step.learns.map(|made| made.slot)).collect();
        learned.extend(plan.phases[..i].iter().filter_map(|phase| phase.detach.as_ref().map(|detach| detach.slot)));
        let mut names = phase.steps.iter().filter_map(|step| step.name_at);
        rule(names.all(|name| learned.contains(&name.slot)), "a name is learned before it is used");
        rule(undo_fits(phase), "a drop that cannot be undone is finished, and nothing else");
        rule(undo_is_told(phase), "what is undone is told by more than its name");
    }
    broken
}

/// Exactly one step, or the answer, is the client's reply. Either the phases after that step only tidy up, or its phase has an undo.
fn one_reply(plan: &Plan, broken: &mut Vec<String>) {
    let visible = plan.phases.iter().flat_map(|phase| &phase.steps).filter(|step| step.visible).count();
    match (&plan.answer, visible) {
        (Some(_), 0) if plan.phases.is_empty() => {}
        (Some(_), _) => broken.push("an answered plan runs nothing".to_owned()),
        (None, 1) => {
            let at = plan.phases.iter().position(|phase| phase.steps.iter().any(|step| step.visible));
            let last = at.is_some_and(|at| plan.phases[at + 1..].iter().all(|phase| phase.tidies));
            if !last && !at.is_some_and(|at| matches!(plan.phases[at].undo, Some(Undo::Run(_)))) {
                broken.push("what follows the client's reply can make it undone".to_owned());
            }
        }
        (None, n) => broken.push(format!("one step gives the client its reply, not {n}")),
    }
}

/// Whether a guarded phase is known to cost more than a catalogue change, under a lock that blocks the application.
fn long_and_strong(plan: &Plan, phase: &Phase) -> bool {
    phase.kind == PhaseKind::Guarded
        && matches!(plan.cost, Cost::Scan | Cost::Build | Cost::Rewrite)
        && phase.locks.iter().any(|need| need.mode.blocks_application())
}

fn weak(phase: &Phase) -> bool {
    phase.locks.iter().all(|need| need.mode <= LockMode::ShareUpdateExclusive || need.mode == LockMode::Exclusive)
}

fn in_order(phase: &Phase) -> bool {
    phase.locks.iter().zip(phase.locks.iter().skip(1)).all(|(one, next)| one.oid < next.oid)
}

fn may_stand_in_transaction(plan: &Plan) -> bool {
    plan.forms.iter().all(|form| form.row().in_transaction)
}

/// Whether the phase makes a relation, on which nobody else can have a lock.
fn makes_relation(phase: &Phase) -> bool {
    let alone = |step: &super::Step| step.about.as_ref().is_some_and(|about| about.kind.stands_alone());
    matches!(&phase.undo, Some(Undo::Run(undo)) if undo.steps.iter().any(alone))
}

fn undo_fits(phase: &Phase) -> bool {
    let drops = phase.steps.iter().any(|step| step.sql.trim_start().to_ascii_uppercase().starts_with("DROP INDEX"));
    !matches!(phase.undo, Some(Undo::FinishDrop { .. })) || drops
}

/// Whether an undo tells its objects by more than their names. Another session may have to run the undo after somebody else's object
/// has got such a name. An undo that attaches a partition again needs no more than the name, since it drops nothing.
fn undo_is_told(phase: &Phase) -> bool {
    phase.detach.is_some()
        || !matches!(&phase.undo, Some(Undo::Run(undo)) if undo.steps.iter().any(|step| step.about.is_none()))
}

/// Whether CONCURRENTLY stands where PostgreSQL's grammar has it, near the front. A name or a literal further on may contain it too.
fn is_concurrent(sql: &str) -> bool {
    let mut words = sql.split_ascii_whitespace().take(6);
    words.any(|word| word.eq_ignore_ascii_case("CONCURRENTLY"))
}
