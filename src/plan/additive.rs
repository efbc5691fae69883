//! Which plans may go on by themselves when their clients have left: those whose long work would be lost, and which only add something.
//!
//! It is pure. It keeps true: a plan that drops, detaches or rewrites anything, or that is over in a moment, is not among them.

use crate::plan::{PhaseKind, Plan};
use crate::sql::form::Form;

/// Whether the plan goes on without its client if no setting says otherwise. `recorded`: plans of several phases are on record. An index that is built
/// in one phase needs no record: the server's catalogue shows how far it is.
pub fn continues(plan: &Plan, recorded: bool) -> bool {
    let mut kinds = plan.phases.iter().map(|phase| phase.kind);
    let is_long = plan.phases.iter().any(|phase| matches!(phase.kind, PhaseKind::Long | PhaseKind::Backfill));
    let others_are_brief =
        kinds.all(|kind| matches!(kind, PhaseKind::Relay | PhaseKind::Brief | PhaseKind::Long | PhaseKind::Backfill));
    let on_record = recorded || plan.phases.len() == 1;
    is_long && others_are_brief && on_record && !plan.forms.is_empty() && plan.forms.iter().all(|form| adds(*form))
}

/// Whether the form only adds something, or checks what is there.
fn adds(form: Form) -> bool {
    matches!(
        form,
        Form::AddColumn
            | Form::AddColumnDefault
            | Form::AddColumnSerial
            | Form::AddColumnIdentity
            | Form::AddColumnGenerated
            | Form::AddColumnUserType
            | Form::AddColumnCheck
            | Form::AddColumnUnique
            | Form::AddColumnReferences
            | Form::AddColumnReferencesDefault
            | Form::SetNotNull
            | Form::AddCheck
            | Form::AddCheckNotValid
            | Form::AddNotNullConstraint
            | Form::AddNotNullNotValid
            | Form::AddForeignKey
            | Form::AddForeignKeyNotValid
            | Form::AddUnique
            | Form::AddPrimaryKey
            | Form::AddConstraintUsingIndex
            | Form::ValidateConstraint
            | Form::EnforceConstraint
            | Form::CreateIndex
            | Form::CreateIndexConcurrently
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::supposed::{self, SupposedSize};
    use crate::plan::{Limits, plan};
    use crate::sql::parse;

    #[test]
    fn long_work_that_adds_goes_on_and_nothing_else() {
        let limits = Limits { small_table: 0, rewrite: true, refuse_unsafe: false, refuse_exclude: false };
        let plan_of = |text: &str| {
            let statement = &parse(text).unwrap()[0];
            plan(statement, &supposed::facts(statement, SupposedSize::Large), &limits).unwrap()
        };
        for (text, alone, recorded) in [
            ("CREATE INDEX i ON t (a)", true, true),
            ("CREATE INDEX CONCURRENTLY i ON t (a)", true, true),
            ("ALTER TABLE t VALIDATE CONSTRAINT c", true, true),
            ("ALTER TABLE t ALTER a SET NOT NULL", false, true),
            ("ALTER TABLE t ADD CHECK (a > 0)", false, true),
            ("ALTER TABLE t ADD UNIQUE (a)", false, true),
            ("ALTER TABLE t ADD b serial", false, true),
            ("ALTER TABLE t ADD b int", false, false),
            ("ALTER TABLE t ADD CHECK (a > 0), DROP COLUMN b", false, false),
            ("ALTER TABLE t ALTER a TYPE text", false, false),
            ("DROP INDEX CONCURRENTLY i", false, false),
            ("REINDEX TABLE CONCURRENTLY t", false, false),
            ("REFRESH MATERIALIZED VIEW CONCURRENTLY t", false, false),
            ("DROP TABLE t", false, false),
            ("TRUNCATE t", false, false),
        ] {
            let plan = plan_of(text);
            assert_eq!((continues(&plan, false), continues(&plan, true)), (alone, recorded), "{text}");
        }
    }
}
