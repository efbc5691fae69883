//! Hints: what the author of a statement can do by hand today if the statement is not safe as one step.

use super::context::PlanContext;
use crate::pg::RelationKind;
use crate::sql::form::Form;

/// The hint if code of the table's owner would run with the rights of the login role.
pub(super) const CODE_OF_OTHERS: &str = "Log in as the table's owner and send the statement again; SET ROLE is not enough, since that code could reset it. \
     Or give what that code calls to a superuser.";

/// The recipe for a form, as sentences.
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
             INDEX). The statement then attaches these keys. pgsluice does not do that for you, since a NOT NULL that a partition \
             has from its parent would become its own and outlive its parent's."
        }
        _ => {
            "Give each partition its own key first (CREATE UNIQUE INDEX CONCURRENTLY, then ADD CONSTRAINT … USING INDEX). \
             The statement then attaches these keys."
        }
    }
}

fn index_hint(context: &PlanContext<'_>, form: Form) -> Option<&'static str> {
    let hint = match form {
        Form::CreateIndex if is_partitioned(context) => {
            "Use CREATE INDEX … ON ONLY for the parent and CREATE INDEX for each partition, then ALTER INDEX … ATTACH PARTITION."
        }
        Form::CreateIndex if context.in_transaction() => {
            "Run CREATE INDEX outside a transaction block, so that no write waits."
        }
        Form::CreateIndex => "Use CREATE INDEX CONCURRENTLY.",
        Form::Reindex if context.version() < 120_000 => {
            "Create an index of the same definition, then drop the old one."
        }
        Form::Reindex if context.in_transaction() => "Run REINDEX outside a transaction block, so that no write waits.",
        Form::Reindex if context.limits.rewrite => {
            "Use REINDEX INDEX for one index after the other, except for indexes of exclusion constraints."
        }
        Form::Reindex => "Use REINDEX CONCURRENTLY.",
        _ => "Use REINDEX TABLE for one table after the other.",
    };
    Some(hint)
}

fn table_hint(form: Form, version: i32) -> Option<&'static str> {
    let hint = match form {
        Form::AddColumnUserType => {
            "Add a column of the domain's base type, add the domain's constraint as a CHECK NOT VALID, then use \
             VALIDATE CONSTRAINT."
        }
        Form::AddColumnDefault | Form::AddColumnSerial | Form::AddColumnIdentity => {
            "Add the column without a default, set the default, and fill the old rows in small batches."
        }
        Form::AddColumnGenerated if version >= 180_000 => {
            "Make the column VIRTUAL, which takes a moment, unless something needs it stored (an index, a function or type \
             of your own). Otherwise add an ordinary column that a trigger maintains, and fill the old rows in small batches."
        }
        Form::AddColumnGenerated | Form::SetExpression => {
            "Add an ordinary column that a trigger maintains, and fill the old rows in small batches."
        }
        Form::AddColumnCheck | Form::AddColumnReferencesDefault => {
            "Add the column first, then add the constraint NOT VALID, then use VALIDATE CONSTRAINT."
        }
        Form::AddColumnUnique => {
            "Add the column first, then use CREATE UNIQUE INDEX, then ADD CONSTRAINT … USING INDEX."
        }
        Form::SetNotNull | Form::AddNotNullConstraint if version >= 180_000 => {
            "Use ADD CONSTRAINT … NOT NULL … NOT VALID, then VALIDATE CONSTRAINT."
        }
        Form::SetNotNull if version >= 120_000 => {
            "Use ADD CONSTRAINT … CHECK (… IS NOT NULL) NOT VALID, then VALIDATE CONSTRAINT, then SET NOT NULL, \
             then drop the constraint."
        }
        Form::SetNotNull | Form::AddCheck => "Use ADD CONSTRAINT … CHECK … NOT VALID, then VALIDATE CONSTRAINT.",
        Form::EnforceConstraint => {
            "Drop the constraint, then use ADD CONSTRAINT … FOREIGN KEY … NOT VALID, then VALIDATE CONSTRAINT."
        }
        Form::AddForeignKey => "Use ADD CONSTRAINT … FOREIGN KEY … NOT VALID, then VALIDATE CONSTRAINT.",
        Form::ValidateConstraint => "Run VALIDATE CONSTRAINT as a statement of its own, outside the transaction.",
        Form::AddUnique => "Use CREATE UNIQUE INDEX, then ADD CONSTRAINT … UNIQUE USING INDEX.",
        Form::AddPrimaryKey => {
            "Make the columns NOT NULL, then use CREATE UNIQUE INDEX, then ADD CONSTRAINT … PRIMARY KEY USING INDEX."
        }
        Form::AlterColumnType => {
            "Add a new column, maintain it with a trigger, fill the old rows in small batches, then exchange the names."
        }
        Form::AttachPartition => {
            "Add a CHECK NOT VALID that implies the bounds to the partition, use VALIDATE CONSTRAINT, then attach the partition."
        }
        Form::RefreshMaterializedView => {
            "Create a unique index on the view and use REFRESH MATERIALIZED VIEW CONCURRENTLY."
        }
        Form::Cluster | Form::VacuumFull if version >= 190_000 => "Use REPACK (CONCURRENTLY).",
        Form::Cluster | Form::VacuumFull => {
            "Use pg_repack or pg_squeeze, or run the statement when the application is idle."
        }
        Form::SetLogged | Form::SetTablespace | Form::SetAccessMethod | Form::AddExclude => {
            "Run the statement when the application is idle, or fill a new table and exchange the names."
        }
        Form::AlterDomain => {
            "Use ADD CONSTRAINT … NOT VALID, which reads no row and holds for every new value. To check old rows, add a CHECK \
             NOT VALID to each table, then use VALIDATE CONSTRAINT."
        }
        _ => return None,
    };
    Some(hint)
}
