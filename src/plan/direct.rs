//! A statement as its author wrote it: relayed, brief, guarded, or long.
//!
//! Invariant: a statement that may be long under a lock that blocks the application is never silent. It is a guarded
//! phase with a WARNING, unless the table is small.

use super::context::{PlanContext, heaviest, table_bytes};
use super::hint;
use super::locks;
use super::model::{Phase, PhaseKind, Plan, Refusal, Step};
use super::print::size;
use super::purpose;
use crate::catalog::{BackfillFacts, NamesUnknown, RelationFacts};
use crate::pg::relation::quote_identifier;
use crate::pg::sqlstate;
use crate::report::{Report, in_words};
use crate::sql::form::{Cost, ExecutionKind, Form};
use crate::sql::{Part, Statement, has_word};
use std::time::Duration;

/// How long one part takes, now that the facts are known.
enum PartCost {
    Relay,
    Brief,
    Long,
    /// The part may be long under its lock. The text says why, as a fragment behind "because"; it is empty if that cannot be told.
    Unsafe(&'static str),
}

/// The plan of a statement that is not rerouted.
///
/// # Errors
/// The statement has no safe way, and the settings refuse such a statement.
pub(super) fn plan(context: &PlanContext<'_>) -> Result<Plan, Refusal> {
    let verdicts: Vec<PartCost> =
        context.ddl.parts.iter().enumerate().map(|(i, part)| verdict(context, i, part)).collect();
    let all = |wanted: fn(&PartCost) -> bool| verdicts.iter().all(wanted);
    let mut hazards: Vec<(Form, &'static str)> = Vec::new();
    for (i, (part, verdict)) in context.ddl.parts.iter().zip(&verdicts).enumerate() {
        if let PartCost::Unsafe(hazard) = verdict {
            hazards.push((blamed(context, i, part), hazard));
        }
    }
    if all(|v| matches!(v, PartCost::Long)) && hazards.is_empty() {
        return Ok(long(context));
    }
    // Long parts alone run under a weak lock. Beside other parts, they run under the strongest lock of all parts.
    if let Some(part) =
        context.ddl.parts.iter().zip(&verdicts).find(|(_, v)| matches!(v, PartCost::Long)).map(|(p, _)| p)
    {
        hazards.push((part.form, "every row is read under the stronger lock of the other subcommands"));
    }
    if !hazards.is_empty() && !context.is_small() {
        return match hazards.iter().find(|(form, hazard)| is_refused(context, *form, hazard)) {
            Some((form, hazard)) => Err(refusal(context, *form, hazard)),
            None => Ok(guarded(context, &hazards)),
        };
    }
    let locks = locks::needs(context, locks::as_written);
    let plan = Plan { cost: cost(context, &verdicts), ..context.empty() };
    if locks.is_empty() || all(|v| matches!(v, PartCost::Relay)) {
        let held = context.in_transaction() && !all(|v| matches!(v, PartCost::Relay)) && plan.lock.is_some();
        let purpose = if held {
            "the transaction holds its locks already"
        } else {
            "the statement takes no lock that others could wait for"
        };
        return Ok(Plan { phases: context.relayed(purpose).phases, ..plan });
    }
    let purpose = if hazards.is_empty() { purpose::CATALOGUE_ONLY } else { purpose::SMALL_TABLE };
    Ok(Plan { phases: vec![Phase { locks, ..context.phase(PhaseKind::Brief, purpose) }], ..plan })
}

/// The cost of the statement, now that it is known which parts are brief.
fn cost(context: &PlanContext<'_>, verdicts: &[PartCost]) -> Cost {
    let costs = context.ddl.parts.iter().zip(verdicts).map(|(part, verdict)| match verdict {
        PartCost::Brief => Cost::Brief,
        PartCost::Relay | PartCost::Long | PartCost::Unsafe(_) => part.form.row().cost,
    });
    heaviest(costs)
}

/// Whether a part takes milliseconds once its locks are held.
pub(super) fn is_brief(context: &PlanContext<'_>, i: usize, part: &Part) -> bool {
    matches!(verdict(context, i, part), PartCost::Relay | PartCost::Brief)
}

fn verdict(context: &PlanContext<'_>, i: usize, part: &Part) -> PartCost {
    let row = part.form.row();
    match row.way {
        ExecutionKind::Relay => PartCost::Relay,
        ExecutionKind::Run => PartCost::Brief,
        ExecutionKind::Long => PartCost::Long,
        // A new column that fails on a copy fails on the table, too. Only a change of type may name something that the copy lacks.
        _ if part.new_column.is_some() && context.probe(i).is_some_and(|a| a.fails) => PartCost::Brief,
        ExecutionKind::Probe | ExecutionKind::Fill => match context.probe(i) {
            Some(answer) if answer.rewrites_table || answer.rebuilds_indexes => {
                PartCost::Unsafe(blamed(context, i, part).row().hazard)
            }
            Some(_) => rechecks(context, part).map_or(PartCost::Brief, PartCost::Unsafe),
            None if part.form == Form::AddColumnDefault && is_kept_beside_rows(context, part) => PartCost::Brief,
            None => PartCost::Unsafe(row.hazard),
        },
        ExecutionKind::Phases if part.form == Form::SetNotNull && proven_not_null(context, part) => PartCost::Brief,
        ExecutionKind::Phases
            if part.form == Form::AddNotNullConstraint && has_not_null(context, part) == Some(true) =>
        {
            PartCost::Brief
        }
        ExecutionKind::Concurrently if row.hazard.is_empty() => PartCost::Brief,
        // An index on a partitioned table alone is only a catalogue entry, and nothing is built.
        ExecutionKind::Concurrently if part.form == Form::CreateIndex && !super::index::builds(context) => {
            PartCost::Brief
        }
        ExecutionKind::Guarded
            if part.form == Form::AlterDomain && context.facts.domain_tables.as_ref().is_some_and(Vec::is_empty) =>
        {
            PartCost::Relay
        }
        ExecutionKind::Phases | ExecutionKind::Guarded | ExecutionKind::Concurrently => PartCost::Unsafe(row.hazard),
    }
}

/// Whether a new column's default surely writes no row. The rewrite probe tells this otherwise. It does not run in a transaction
/// block, since a transaction that has used a temporary table cannot be prepared.
fn is_kept_beside_rows(context: &PlanContext<'_>, part: &Part) -> bool {
    let constant = part.new_column.as_ref().is_some_and(|new| new.built_in && new.constant_default);
    constant && context.version() >= 110_000
}

/// The form that a WARNING names. If the type of a new column has no online way, that is the cause, whatever else the column has.
fn blamed(context: &PlanContext<'_>, i: usize, part: &Part) -> Form {
    let answer = context.probe(i);
    if answer.is_some_and(|answer| answer.rewrites_bare == Some(true)) { Form::AddColumnUserType } else { part.form }
}

/// Why rows are read although none is written. A change of type checks the CHECKs of the column again. A new expression of a virtual
/// column checks its NOT NULL again.
fn rechecks(context: &PlanContext<'_>, part: &Part) -> Option<&'static str> {
    let column = part.column.as_ref()?;
    let checked = |table: &RelationFacts| table.constraints.iter().any(|c| c.kind == 'c' && c.columns.contains(column));
    let not_null = |table: &RelationFacts| table.column(column).is_some_and(|column| column.not_null);
    match part.form {
        Form::AlterColumnType if context.targets().any(checked) => {
            Some("a CHECK on the column is checked again for every row while nobody can read or write the table")
        }
        Form::SetExpression if context.targets().any(not_null) => {
            Some("NOT NULL is checked again for every row while nobody can read or write the table")
        }
        _ => None,
    }
}

/// Whether the column has a NOT NULL that spares the scan; `None`: it has no NOT NULL constraint. Since 18 NOT NULL is a constraint. A
/// valid one may become the table's own without a scan. One that no child inherits makes the server refuse the statement.
fn has_not_null(context: &PlanContext<'_>, part: &Part) -> Option<bool> {
    let there = context.target()?.not_null(part.column.as_deref()?)?;
    Some(there.validated || (there.no_inherit && !context.ddl.only))
}

/// Whether SET NOT NULL needs no scan. Since 12 a valid CHECK (column IS NOT NULL) spares the scan. If the column has a NOT NULL that
/// is NOT VALID (18), the CHECK does not spare it, and the rows are read.
pub(super) fn proven_not_null(context: &PlanContext<'_>, part: &Part) -> bool {
    if let Some(is_there) = has_not_null(context, part) {
        return is_there;
    }
    let Some((column, table)) = part.column.as_ref().zip(context.target()) else { return false };
    let row_type = table.column(column).is_some_and(|column| column.row_type);
    let test = if row_type { "IS DISTINCT FROM NULL" } else { "IS NOT NULL" };
    let proofs = [column.clone(), quote_identifier(column)].map(|name| format!("CHECK (({name} {test}))"));
    context.version() >= 120_000 && table.constraints.iter().any(|c| c.validated && proofs.contains(&c.definition))
}

/// The statement's own lock blocks neither reads nor writes. It runs guarded if the transaction holds a stronger lock meanwhile.
fn long(context: &PlanContext<'_>) -> Plan {
    let held =
        context.facts.session.strongest_lock.filter(|mode| context.in_transaction() && mode.blocks_application());
    if let (Some(_), Some(part)) = (held, context.ddl.parts.first()) {
        return guarded(context, &[(part.form, "the transaction keeps its stronger locks while every row is read")]);
    }
    let locks = locks::needs(context, locks::as_written);
    let phase =
        Phase { locks, ..context.phase(PhaseKind::Long, "the lock of the statement blocks neither reads nor writes") };
    Plan { phases: vec![phase], ..context.empty() }
}

/// One guarded step, and a WARNING for every hazard.
fn guarded(context: &PlanContext<'_>, hazards: &[(Form, &'static str)]) -> Plan {
    let mut phase = Phase { locks: locks::needs(context, locks::as_written), ..context.phase(PhaseKind::Guarded, "") };
    // LOCK TABLE holds its lock to the end of the transaction, so it is of no use outside a transaction.
    phase.locks.iter_mut().for_each(|need| need.lockable &= phase.in_transaction);
    let mut notes: Vec<Report> = Vec::new();
    for (form, hazard) in hazards.iter().filter(|(_, hazard)| !hazard.is_empty()) {
        let note = warning(context, *form, hazard);
        if !notes.contains(&note) {
            notes.push(note);
        }
    }
    let purpose = if notes.is_empty() {
        "the locks of the statement are not known"
    } else {
        "the statement is not safe as one step"
    };
    purpose.clone_into(&mut phase.purpose);
    Plan { notes, phases: vec![phase], ..context.empty() }
}

/// The plan of a statement if nothing can be asked about its names, and none of them can be locked.
///
/// # Errors
/// The statement may be long, and the settings refuse such a statement.
pub(super) fn plan_unnamed(context: &PlanContext<'_>, why: NamesUnknown) -> Result<Plan, Refusal> {
    let (purpose, detail, hint) = match why {
        NamesUnknown::Encoding => (
            "the names in the statement cannot be read in the session's encoding",
            "The names in the statement cannot be read in the session's encoding, so the statement runs as it is written.",
            "Set client_encoding to UTF8. The statement then runs in phases, if it can.",
        ),
        NamesUnknown::TooMuch => (
            "the statement names more objects than pgsluice plans for",
            "The statement names more objects than pgsluice plans for, so it runs as it is written.",
            "Split it into several statements.",
        ),
    };
    let forms = || context.ddl.parts.iter().map(|part| part.form);
    if context.must_leave_transaction() || forms().all(|form| form.row().way == ExecutionKind::Relay) {
        return Ok(context.relayed(purpose));
    }
    if forms().all(|form| form.row().way == ExecutionKind::Long) {
        return Ok(Plan { phases: vec![context.phase(PhaseKind::Long, purpose)], ..context.empty() });
    }
    let mut hazards: Vec<Form> = Vec::new();
    for part in &context.ddl.parts {
        let constant = part.form == Form::AddColumnDefault && is_kept_beside_rows(context, part);
        if !part.form.row().hazard.is_empty() && !constant && !hazards.contains(&part.form) {
            hazards.push(part.form);
        }
    }
    if let Some(form) = hazards.iter().find(|form| is_refused(context, **form, form.row().hazard)) {
        return Err(refusal(context, *form, form.row().hazard));
    }
    let mut phase = context.phase(PhaseKind::Guarded, purpose);
    // The table of a REINDEX or CLUSTER may be partitioned, and the statement then runs outside a transaction block only.
    phase.in_transaction &= !context.has_form(Form::Reindex) && !context.has_form(Form::Cluster);
    let note = |form: Form| warning(context, form, form.row().hazard).detail(detail).hint(hint);
    Ok(Plan { notes: hazards.into_iter().map(note).collect(), phases: vec![phase], ..context.empty() })
}

fn is_refused(context: &PlanContext<'_>, form: Form, hazard: &str) -> bool {
    let refused = context.limits.refuse_unsafe || (context.limits.refuse_exclude && form == Form::AddExclude);
    context.limits.rewrite && refused && !hazard.is_empty()
}

fn refusal(context: &PlanContext<'_>, form: Form, hazard: &str) -> Refusal {
    let setting = if form == Form::AddExclude { "exclude" } else { "unsafe" };
    let message = format!("{} is refused, because {hazard}", place(context, form));
    let report = told(context, form, Report::error(sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE, message));
    let ways = report.hint.clone().map(|hint| hint + " ").unwrap_or_default();
    Refusal {
        report: report
            .hint(format!("{ways}To run the statement all the same, set {setting} = \"warn\" in [ddl] of proxy.toml.")),
    }
}

fn warning(context: &PlanContext<'_>, form: Form, hazard: &str) -> Report {
    let message = format!("{} may make the application wait, because {hazard}", place(context, form));
    told(context, form, Report::warning(sqlstate::WARNING, message))
}

/// The form and the largest relation that it works on, for people.
fn place(context: &PlanContext<'_>, form: Form) -> String {
    let title = form.row().title;
    match context.worked_on().into_iter().max_by_key(|relation| table_bytes(relation)) {
        Some(relation) => format!("{title} on {} ({})", relation.id.full_name(), size(table_bytes(relation))),
        None => title.to_owned(),
    }
}

/// Adds to a report: why the statement has no safe way, how long it may take, what to do instead.
fn told(context: &PlanContext<'_>, form: Form, report: Report) -> Report {
    let obstacle = context.facts.backfill.as_ref().and_then(|facts| facts.obstacle.as_ref());
    let obstacle =
        obstacle.map(|obstacle| format!("The rows of the table cannot be filled in batches, because {obstacle}."));
    let not_copied = copying_distrusted(context)
        .map(|reason| format!("The statement was not tried on a copy of the table first, because {reason}."));
    let details: Vec<String> = obstacle
        .into_iter()
        .chain(not_copied)
        .chain(no_sequence(context, form))
        .chain(all_read(context, form))
        .chain(estimate(context, form))
        .collect();
    let report = if details.is_empty() { report } else { report.detail(details.join(" ")) };
    let distrusted = context.facts.backfill.as_ref().is_some_and(|facts| facts.distrust.is_some());
    if distrusted || copying_distrusted(context).is_some() {
        return report.hint(hint::CODE_OF_OTHERS);
    }
    match hint::hint(context, form) {
        Some(hint) => report.hint(hint),
        None => report,
    }
}

/// Why nothing could be tried on copies of the table. It says whose code that would run.
fn copying_distrusted<'a>(context: &PlanContext<'a>) -> Option<&'a String> {
    let attach = context.facts.attach.as_ref().and_then(|facts| facts.distrust.as_ref());
    context.facts.distrust.as_ref().or(attach)
}

/// Why a column's sequence cannot be made beforehand.
fn no_sequence(context: &PlanContext<'_>, form: Form) -> Option<String> {
    let facts = context.facts.backfill.as_ref().filter(|facts| facts.sequences.is_none())?;
    matches!(form, Form::AddColumnSerial | Form::AddColumnIdentity).then(|| {
        let BackfillFacts { role, owner, .. } = facts;
        format!(
            "The sequence of the column must belong to the table's owner {owner}, and the role {role} cannot create it so."
        )
    })
}

/// The tables that ALTER DOMAIN reads. It locks all of them until it ends.
fn all_read(context: &PlanContext<'_>, form: Form) -> Option<String> {
    const NAMED: usize = 10;
    let tables = context.worked_on();
    let mut names: Vec<String> = tables.iter().map(|table| table.id.full_name().to_string()).collect();
    let more = names.len().saturating_sub(NAMED);
    names.truncate(NAMED);
    if more > 0 {
        names.push(format!("{more} more"));
    }
    (form == Form::AlterDomain && tables.len() > 1).then(|| {
        format!(
            "The statement reads these tables one after the other, and locks all of them until it ends: {}.",
            names.join(", ")
        )
    })
}

/// How long the lock may be held. The text says the assumed pace, since the pace of the disk is not known.
fn estimate(context: &PlanContext<'_>, form: Form) -> Option<String> {
    const MEGABYTE: u64 = 1 << 20;
    let pace = match form.row().cost {
        Cost::Scan => 500,
        Cost::Build | Cost::Rewrite => 100,
        Cost::Brief | Cost::Unknown => return None,
    };
    let each = context.worked_on().into_iter().map(table_bytes);
    let bytes = if form == Form::AlterDomain { each.sum() } else { each.max()? };
    let seconds = bytes / (pace * MEGABYTE);
    let time = in_words(Duration::from_secs(seconds));
    (seconds > 0).then(|| format!("At {pace} MB/s the statement would hold its lock for {time}."))
}

/// The plan of a text that may hide DDL. Only `lock_timeout` guards it.
pub(super) fn hidden_ddl(statement: &Statement) -> Plan {
    unseen(statement, PhaseKind::Guarded, "the statement may hide DDL, and lock_timeout guards it", Cost::Unknown)
}

/// The plan of a statement that a newer server knows and this grammar does not. It runs under `lock_timeout`, since its locks cannot
/// be told. A CONCURRENTLY form gets no `lock_timeout`: it takes its strongest lock at its end, and would lose all of its work.
pub(super) fn newer(statement: &Statement) -> Plan {
    let concurrently = has_word(statement.text.as_bytes(), &["concurrently"]);
    let (kind, purpose, hazard) = match concurrently {
        true => (
            PhaseKind::Relay,
            "the statement is long, and waits for its locks itself",
            "it may wait for a lock at its end, and others then wait behind it",
        ),
        false => (
            PhaseKind::Guarded,
            "the locks of the statement are not known, and lock_timeout guards it",
            "it is not known what the statement does under its lock",
        ),
    };
    let message = format!("this statement may make the application wait, because {hazard}");
    let note = Report::warning(sqlstate::WARNING, message)
        .detail("The grammar of the statement is newer than the grammar that pgsluice was built with.");
    Plan { notes: vec![note], ..unseen(statement, kind, purpose, Cost::Unknown) }
}

/// The plan of any other statement. It is relayed.
pub(super) fn not_ddl(statement: &Statement) -> Plan {
    unseen(statement, PhaseKind::Relay, "no DDL", Cost::Brief)
}

fn unseen(statement: &Statement, kind: PhaseKind, purpose: &str, cost: Cost) -> Plan {
    let phase = Phase {
        kind,
        purpose: purpose.to_owned(),
        in_transaction: false,
        locks: Vec::new(),
        steps: vec![Step::as_written(&statement.text)],
        undo: None,
        backfill: None,
        detach: None,
        tidies: false,
    };
    Plan {
        statement: statement.text.clone(),
        tag: String::new(),
        forms: Vec::new(),
        lock: None,
        cost,
        notes: Vec::new(),
        answer: None,
        phases: vec![phase],
        meanwhile: Vec::new(),
    }
}
