//! Hints: what the author of a statement can do by hand today if the statement is not safe as one step.

use super::context::PlanContext;
use crate::pg::RelationKind;
use crate::sql::form::Form;

/// Where code of the table's owner would run with the rights of whoever has logged in.
pub(super) const CODE_OF_OTHERS: &str = "Log in as the table's owner and send it so: SET ROLE is not enough, as that code could take it back. \
     Or have what it calls belong to a superuser.";

/// The recipe, as sentences.
pub(super) fn hint(context: &PlanContext<'_>, form: Form) -> Option<&'static str> {
    match form {
        Form::CreateIndex | Form::Reindex | Form::ReindexMany => index_hint(context, form),
        Form::AddUnique | Form::AddPrimaryKey if is_partitioned(context) => Some(partitioned_key_hint(context, form)),
        _ => table_hint(form, context.version()),
    }
}

fn is_partitioned(context: &PlanContext<'_>) -> bool {
    context.target().is_some_and(|table| table.kind == RelationKind::PartitionedTable)
}

fn partitioned_key_hint(context: &PlanContext<'_>, form: Form) -> &'static str {
    match form {
        Form::AddPrimaryKey if context.version() >= 180_000 => {
            "Give each partition its own key first (CREATE UNIQUE INDEX CONCURRENTLY, then ADD CONSTRAINT … PRIMARY KEY USING \
             INDEX): they are attached then. It is not done for you, as what NOT NULL a partition has from its parent becomes \
             its own too by that, and outlives its parent's."
        }
        _ => {
            "Give each partition its own key first (CREATE UNIQUE INDEX CONCURRENTLY, then ADD CONSTRAINT … USING INDEX): they \
             are attached then."
        }
    }
}

fn index_hint(context: &PlanContext<'_>, form: Form) -> Option<&'static str> {
    let hint = match form {
        Form::CreateIndex if is_partitioned(context) => {
            "CREATE INDEX … ON ONLY the parent, CREATE INDEX on each partition, then ALTER INDEX … ATTACH PARTITION."
        }
        Form::CreateIndex if context.in_transaction() => {
            "Run CREATE INDEX outside a transaction block: then no write waits."
        }
        Form::CreateIndex => "Use CREATE INDEX CONCURRENTLY.",
        Form::Reindex if context.version() < 120_000 => {
            "CREATE INDEX of the same definition, then DROP INDEX of the old one."
        }
        Form::Reindex if context.in_transaction() => "Run REINDEX outside a transaction block: then no write waits.",
        Form::Reindex if context.limits.rewrite => {
            "REINDEX the indexes one by one, but for those of exclusion constraints."
        }
        Form::Reindex => "Use REINDEX CONCURRENTLY.",
        _ => "REINDEX one table after the other.",
    };
    Some(hint)
}

fn table_hint(form: Form, version: i32) -> Option<&'static str> {
    let hint = match form {
        Form::AddColumnUserType => {
            "Add a column of the domain's base type, and the domain's constraint as a CHECK: NOT VALID, then \
             VALIDATE CONSTRAINT."
        }
        Form::AddColumnDefault | Form::AddColumnSerial | Form::AddColumnIdentity => {
            "Add the column without a default, set the default, and fill the old rows in small batches."
        }
        Form::AddColumnGenerated if version >= 180_000 => {
            "Make it VIRTUAL, which is over in a moment, unless something needs it stored (an index, a function or type \
             of your own). Else add an ordinary column that a trigger keeps, and fill the old rows in small batches."
        }
        Form::AddColumnGenerated | Form::SetExpression => {
            "Add an ordinary column that a trigger keeps, and fill the old rows in small batches."
        }
        Form::AddColumnCheck | Form::AddColumnReferencesDefault => {
            "Add the column first, then the constraint NOT VALID, then VALIDATE CONSTRAINT."
        }
        Form::AddColumnUnique => "Add the column first, then CREATE UNIQUE INDEX, then ADD CONSTRAINT … USING INDEX.",
        Form::SetNotNull | Form::AddNotNullConstraint if version >= 180_000 => {
            "ADD CONSTRAINT … NOT NULL … NOT VALID, then VALIDATE CONSTRAINT."
        }
        Form::SetNotNull if version >= 120_000 => {
            "ADD CONSTRAINT … CHECK (… IS NOT NULL) NOT VALID, then VALIDATE CONSTRAINT, then SET NOT NULL, \
             then drop the constraint."
        }
        Form::SetNotNull | Form::AddCheck => "ADD CONSTRAINT … CHECK … NOT VALID, then VALIDATE CONSTRAINT.",
        Form::EnforceConstraint => {
            "Drop the constraint, ADD CONSTRAINT … FOREIGN KEY … NOT VALID, then VALIDATE CONSTRAINT."
        }
        Form::AddForeignKey => "ADD CONSTRAINT … FOREIGN KEY … NOT VALID, then VALIDATE CONSTRAINT.",
        Form::ValidateConstraint => "Run VALIDATE CONSTRAINT as a statement of its own, outside the transaction.",
        Form::AddUnique => "CREATE UNIQUE INDEX, then ADD CONSTRAINT … UNIQUE USING INDEX.",
        Form::AddPrimaryKey => {
            "Make the columns NOT NULL, CREATE UNIQUE INDEX, then ADD CONSTRAINT … PRIMARY KEY USING INDEX."
        }
        Form::AlterColumnType => {
            "Add a new column, keep it by a trigger, fill the old rows in small batches, then exchange the names."
        }
        Form::AttachPartition => {
            "Give the partition a CHECK that implies its bounds, NOT VALID, and VALIDATE it; then attach."
        }
        Form::RefreshMaterializedView => {
            "Create a unique index on the view and use REFRESH MATERIALIZED VIEW CONCURRENTLY."
        }
        Form::Cluster | Form::VacuumFull if version >= 190_000 => "Use REPACK (CONCURRENTLY).",
        Form::Cluster | Form::VacuumFull => "Use pg_repack or pg_squeeze, or do it when the application is idle.",
        Form::SetLogged | Form::SetTablespace | Form::SetAccessMethod | Form::AddExclude => {
            "Do it when the application is idle, or fill a new table and exchange the names."
        }
        Form::AlterDomain => {
            "ADD CONSTRAINT … NOT VALID reads nothing and holds for every new value. Old rows can be checked by a CHECK of each \
             table, NOT VALID, then VALIDATE CONSTRAINT."
        }
        _ => return None,
    };
    Some(hint)
}
