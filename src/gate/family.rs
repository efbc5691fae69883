//! What rules say of forms in one word: the family of a form, and whether a statement destroys data.
//!
//! It owns the list of the tables in which migration tools keep their versions. It keeps true: every form has a family.

use crate::sql::form::Form;
use crate::sql::{Ddl, Part};

/// A family of forms, as `family` in a rule names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    Column,
    Constraint,
    Index,
    Table,
    Partition,
    View,
    Trigger,
    Privilege,
    Type,
    Maintenance,
    /// Functions, schemas, extensions, comments, roles and all other objects.
    Object,
    /// DO and CALL whose text names DDL. The proxy does not see what they do.
    Hidden,
}

impl Family {
    pub const ALL: [Self; 12] = [
        Self::Column,
        Self::Constraint,
        Self::Index,
        Self::Table,
        Self::Partition,
        Self::View,
        Self::Trigger,
        Self::Privilege,
        Self::Type,
        Self::Maintenance,
        Self::Object,
        Self::Hidden,
    ];

    /// The word in `proxy.toml`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Column => "column",
            Self::Constraint => "constraint",
            Self::Index => "index",
            Self::Table => "table",
            Self::Partition => "partition",
            Self::View => "view",
            Self::Trigger => "trigger",
            Self::Privilege => "privilege",
            Self::Type => "type",
            Self::Maintenance => "maintenance",
            Self::Object => "object",
            Self::Hidden => "hidden",
        }
    }

    /// The family of a form.
    pub fn of(form: Form) -> Self {
        of_part(form).or_else(|| of_table(form)).unwrap_or_else(|| of_other(form))
    }
}

/// The family of a form that is about the parts of a table.
fn of_part(form: Form) -> Option<Family> {
    use Form as F;
    Some(match form {
        F::AddColumn
        | F::AddColumnDefault
        | F::AddColumnSerial
        | F::AddColumnIdentity
        | F::AddColumnGenerated
        | F::AddColumnUserType
        | F::AddColumnCheck
        | F::AddColumnUnique
        | F::AddColumnReferences
        | F::AddColumnReferencesDefault
        | F::DropColumn
        | F::SetDefault
        | F::DropDefault
        | F::SetNotNull
        | F::DropNotNull
        | F::SetColumnStatistics
        | F::SetStorage
        | F::SetExpression
        | F::DropExpression
        | F::AlterIdentity
        | F::AlterColumnType
        | F::RenameColumn => Family::Column,
        F::AddCheck
        | F::AddCheckNotValid
        | F::AddNotNullConstraint
        | F::AddNotNullNotValid
        | F::AddForeignKey
        | F::AddForeignKeyNotValid
        | F::AddUnique
        | F::AddPrimaryKey
        | F::AddConstraintUsingIndex
        | F::AddExclude
        | F::ValidateConstraint
        | F::AlterConstraint
        | F::EnforceConstraint
        | F::UnenforceConstraint
        | F::DropConstraint
        | F::RenameConstraint => Family::Constraint,
        _ => return None,
    })
}

/// The family of a form that is about a table as a whole, or its indexes and partitions.
fn of_table(form: Form) -> Option<Family> {
    use Form as F;
    Some(match form {
        F::CreateIndex
        | F::CreateIndexConcurrently
        | F::DropIndex
        | F::DropIndexConcurrently
        | F::AlterIndexRename
        | F::AlterIndexSet
        | F::AlterIndexAttach
        | F::AlterIndexStatistics => Family::Index,
        F::CreateTable
        | F::CreateTableReferences
        | F::CreateTableInherits
        | F::CreateTableAs
        | F::DropTable
        | F::Truncate
        | F::RenameTable
        | F::SetSchema
        | F::OwnerTo
        | F::ReplicaIdentity
        | F::RowSecurity
        | F::SetTableOptions
        | F::SetLogged
        | F::SetTablespace
        | F::SetAccessMethod
        | F::Inherit
        | F::OfType
        | F::AlterForeignTable
        | F::DropForeignTable => Family::Table,
        F::CreateTablePartitionOf | F::AttachPartition | F::DetachPartition | F::DetachConcurrently => {
            Family::Partition
        }
        _ => return None,
    })
}

fn of_other(form: Form) -> Family {
    use Form as F;
    match form {
        F::CreateView
        | F::ReplaceView
        | F::DropView
        | F::AlterView
        | F::CreateMaterializedView
        | F::DropMaterializedView
        | F::AlterMaterializedView
        | F::RefreshMaterializedView
        | F::RefreshConcurrently => Family::View,
        F::SetTriggers
        | F::SetRules
        | F::CreateTrigger
        | F::AlterTrigger
        | F::DropTrigger
        | F::CreateRule
        | F::AlterRule
        | F::DropRule => Family::Trigger,
        F::CreatePolicy | F::AlterPolicy | F::DropPolicy | F::SecurityLabel | F::Grant => Family::Privilege,
        F::AlterEnum | F::AlterCompositeType | F::AlterDomain | F::AlterDomainBrief => Family::Type,
        F::Reindex | F::ReindexConcurrently | F::ReindexMany | F::Cluster | F::VacuumFull | F::Vacuum => {
            Family::Maintenance
        }
        _ => Family::Object,
    }
}

/// Whether every statement of this form destroys data: rows, values of a column, or the values of a sequence.
pub(super) fn always_destroys(form: Form) -> bool {
    matches!(form, Form::DropTable | Form::Truncate | Form::DropColumn | Form::DropSequence)
}

/// Whether the statement destroys data, as far as its text says. Views and indexes can be made anew, so that dropping them does not count,
/// unless CASCADE takes along what depends on them.
pub(super) fn destroys(ddl: &Ddl) -> bool {
    let tags = ["DROP DATABASE", "DROP TABLESPACE", "DROP OWNED", "DROP SCHEMA", "DROP EXTENSION"];
    let part = |part: &Part| match part.form {
        form if always_destroys(form) => true,
        // A type may be that of a column.
        Form::DropSchema | Form::DropObject => ddl.cascade || part.cascade,
        _ => false,
    };
    tags.contains(&ddl.tag.as_str()) || ddl.parts.iter().any(part)
}

/// The tables in which migration tools keep the versions that they have run. A name that ends in `*` stands for all that begin so.
const VERSION_TABLES: [&str; 13] = [
    "schema_migrations",
    "ar_internal_metadata",
    "alembic_version",
    "flyway_schema_history",
    "databasechangelog*",
    "django_migrations",
    "_prisma_migrations",
    "knex_migrations*",
    "goose_db_version",
    "_sqlx_migrations",
    "__drizzle_migrations",
    "__EFMigrationsHistory",
    "__diesel_schema_migrations",
];

/// Whether the statement is about version tables of migration tools alone. Tools empty and drop these: golang-migrate truncates its own
/// twice for each migration.
pub(super) fn is_of_version_tables(ddl: &Ddl) -> bool {
    let known = |name: &str| {
        VERSION_TABLES.iter().any(|table| match table.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => name == *table,
        })
    };
    let cascades = ddl.cascade || ddl.parts.iter().any(|part| part.cascade);
    !cascades && !ddl.targets.is_empty() && ddl.targets.iter().all(|target| known(&target.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::parse;

    fn ddl(sql: &str) -> Ddl {
        parse(sql).unwrap()[0].ddl().unwrap().clone()
    }

    #[test]
    fn what_destroys_data() {
        for sql in [
            "DROP TABLE t",
            "TRUNCATE t",
            "ALTER TABLE t ADD COLUMN a int, DROP COLUMN b",
            "DROP SCHEMA s",
            "DROP TYPE y CASCADE",
            "DROP OWNED BY r",
            "DROP DATABASE d",
            "DROP EXTENSION e",
            "DROP SEQUENCE s",
        ] {
            assert!(destroys(&ddl(sql)), "{sql}");
        }
        for sql in [
            "CREATE TABLE t (a int)",
            "DROP INDEX i",
            "DROP VIEW v",
            "DROP TYPE y",
            "REASSIGN OWNED BY a TO b",
            "ALTER TABLE t DROP CONSTRAINT c",
            "ALTER TABLE t DETACH PARTITION p",
        ] {
            assert!(!destroys(&ddl(sql)), "{sql}");
        }
    }

    #[test]
    fn version_tables() {
        for sql in ["TRUNCATE public.schema_migrations", "DROP TABLE knex_migrations_lock, knex_migrations"] {
            assert!(is_of_version_tables(&ddl(sql)), "{sql}");
        }
        let more = ["TRUNCATE schema_migrations, orders", "DROP TABLE schema_migrations CASCADE", "DROP SCHEMA x"];
        for sql in more {
            assert!(!is_of_version_tables(&ddl(sql)), "{sql}");
        }
    }
}
