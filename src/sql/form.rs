//! Every form of DDL with its row: lock mode, cost, whether it may run in a transaction, and how the proxy runs it.
//!
//! Plans, the documentation (`docs/forms.md`) and the tests of locks read this one table. Lock modes and costs were measured on
//! servers 11 to 18. Where the rewrite probe can answer, its answer overrides the row.

use crate::pg::LockMode;
use serde::Serialize;

/// The cost of a statement while it holds its lock, if it runs directly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Cost {
    /// A catalogue change only.
    Brief,
    /// Reads the whole table.
    Scan,
    /// Builds an index, or a view's rows.
    Build,
    /// Writes the whole table anew, and its indexes.
    Rewrite,
    /// The cost cannot be known (user code, other relations).
    Unknown,
}

/// How the proxy runs a form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ExecutionKind {
    /// Takes no lock that others could wait for. The statement is sent as written.
    Relay,
    /// Safe once the lock is held. The plan is one brief step.
    Run,
    /// Brief if the rewrite probe finds no rewrite, otherwise as `Guarded`.
    Probe,
    /// Brief if the rewrite probe finds no rewrite, otherwise as `Phases`.
    Fill,
    /// Rerouted to the CONCURRENTLY form.
    Concurrently,
    /// The form's own lock blocks neither reads nor writes. The statement waits long, without lock attempts.
    Long,
    /// Brief phases, and long ones that block neither reads nor writes. Where phases are impossible (in a transaction block, beside
    /// other subcommands), the plan is one guarded step, with a WARNING.
    Phases,
    /// The statement may be long under its lock. The plan is one guarded step, with a WARNING.
    Guarded,
}

/// One form's row.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct FormRow {
    pub form: Form,
    /// The form as users call it.
    pub title: &'static str,
    /// The lock on the statement's target.
    pub lock: Option<LockMode>,
    /// The lock on the further relations of the part ([`super::Part::others`]).
    pub other_lock: Option<LockMode>,
    pub cost: Cost,
    /// The statement may run in a transaction block, as the author wrote it.
    pub in_transaction: bool,
    pub way: ExecutionKind,
    /// The hazard of the form: a fragment that follows "because"; empty if there is none.
    pub hazard: &'static str,
}

impl Cost {
    /// Its place in the order of costs, the lightest first.
    pub fn weight(self) -> u8 {
        match self {
            Self::Brief => 0,
            Self::Unknown => 1,
            Self::Scan => 2,
            Self::Build => 3,
            Self::Rewrite => 4,
        }
    }
}

/// One kind of DDL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub enum Form {
    AddColumn,
    AddColumnDefault,
    AddColumnSerial,
    AddColumnIdentity,
    AddColumnGenerated,
    AddColumnUserType,
    AddColumnCheck,
    AddColumnUnique,
    AddColumnReferences,
    AddColumnReferencesDefault,
    DropColumn,
    SetDefault,
    DropDefault,
    SetNotNull,
    DropNotNull,
    SetColumnStatistics,
    SetStorage,
    SetExpression,
    DropExpression,
    AlterIdentity,
    AlterColumnType,
    RenameColumn,
    AddCheck,
    AddCheckNotValid,
    AddNotNullConstraint,
    AddNotNullNotValid,
    AddForeignKey,
    AddForeignKeyNotValid,
    AddUnique,
    AddPrimaryKey,
    AddConstraintUsingIndex,
    AddExclude,
    ValidateConstraint,
    AlterConstraint,
    EnforceConstraint,
    UnenforceConstraint,
    DropConstraint,
    RenameConstraint,
    CreateIndex,
    CreateIndexConcurrently,
    DropIndex,
    DropIndexConcurrently,
    Reindex,
    ReindexConcurrently,
    ReindexMany,
    AlterIndexRename,
    AlterIndexSet,
    AlterIndexAttach,
    AlterIndexStatistics,
    CreateStatistics,
    RefreshMaterializedView,
    RefreshConcurrently,
    CreateTable,
    CreateTableReferences,
    CreateTablePartitionOf,
    CreateTableInherits,
    CreateTableAs,
    CreateMaterializedView,
    CreateView,
    ReplaceView,
    DropTable,
    DropView,
    DropMaterializedView,
    DropSequence,
    Truncate,
    RenameTable,
    SetSchema,
    OwnerTo,
    ReplicaIdentity,
    RowSecurity,
    SetTableOptions,
    SetTriggers,
    SetRules,
    SetLogged,
    SetTablespace,
    SetAccessMethod,
    Inherit,
    OfType,
    AttachPartition,
    DetachPartition,
    DetachConcurrently,
    CreateTrigger,
    AlterTrigger,
    DropTrigger,
    CreateRule,
    AlterRule,
    DropRule,
    CreatePolicy,
    AlterPolicy,
    DropPolicy,
    Comment,
    SecurityLabel,
    Grant,
    Publication,
    AlterSequence,
    AlterView,
    AlterMaterializedView,
    AlterForeignTable,
    DropForeignTable,
    AlterEnum,
    AlterCompositeType,
    AlterDomain,
    AlterDomainBrief,
    Cluster,
    VacuumFull,
    Vacuum,
    DropObject,
    DropOwned,
    DropSchema,
    Extension,
    ImportForeignSchema,
    CreateObject,
    AlterObject,
    ClusterWide,
    Other,
}

impl Form {
    /// The form's row.
    pub fn row(self) -> &'static FormRow {
        // The table is in the order of the enum. A test checks this.
        &FORMS[self as usize]
    }

    /// The locks that the form takes on a server of this `server_version_num`: on the target, and on the further relations.
    pub fn locks(self, version: i32) -> (Option<LockMode>, Option<LockMode>) {
        let row = self.row();
        match self {
            // The lock is weaker since 12.
            Self::AlterIndexRename | Self::AlterIndexAttach | Self::AttachPartition if version < 120_000 => {
                (AX, row.other_lock)
            }
            // The lock is stronger since 14.
            Self::DetachPartition if version < 140_000 => (row.lock, SUX),
            _ => (row.lock, row.other_lock),
        }
    }

    /// Whether the form's cost depends on the server, so that the rewrite probe is asked.
    pub fn needs_probe(self) -> bool {
        matches!(self.row().way, ExecutionKind::Probe | ExecutionKind::Fill)
    }
}

const fn row(
    form: Form,
    title: &'static str,
    locks: (Option<LockMode>, Option<LockMode>),
    cost: Cost,
    in_transaction: bool,
    way: ExecutionKind,
    hazard: &'static str,
) -> FormRow {
    FormRow { form, title, lock: locks.0, other_lock: locks.1, cost, in_transaction, way, hazard }
}

const AX: Option<LockMode> = Some(LockMode::AccessExclusive);
const X: Option<LockMode> = Some(LockMode::Exclusive);
const SRX: Option<LockMode> = Some(LockMode::ShareRowExclusive);
const S: Option<LockMode> = Some(LockMode::Share);
const SUX: Option<LockMode> = Some(LockMode::ShareUpdateExclusive);
const RS: Option<LockMode> = Some(LockMode::RowShare);
const AS: Option<LockMode> = Some(LockMode::AccessShare);
const NO: Option<LockMode> = None;

/// All rows, in the order of [`Form`].
#[rustfmt::skip] // one row a line, so that the table reads as a table
pub static FORMS: &[FormRow] = &[
    row(Form::AddColumn, "ADD COLUMN", (AX, NO), Cost::Brief, true, ExecutionKind::Run, ""),
    row(Form::AddColumnDefault, "ADD COLUMN with a default", (AX, NO), Cost::Rewrite, true, ExecutionKind::Fill, "the server rewrites the whole table for a volatile default, and before PostgreSQL 11 for any default"),
    row(Form::AddColumnSerial, "ADD COLUMN of type serial", (AX, NO), Cost::Rewrite, true, ExecutionKind::Phases, "every row gets a value of the sequence, and so the server rewrites the whole table"),
    row(Form::AddColumnIdentity, "ADD COLUMN as identity", (AX, NO), Cost::Rewrite, true, ExecutionKind::Phases, "every row gets a value of the sequence, and so the server rewrites the whole table"),
    row(Form::AddColumnGenerated, "ADD COLUMN as generated column", (AX, NO), Cost::Rewrite, true, ExecutionKind::Probe, "the server computes a stored generated column for every row and rewrites the whole table, and PostgreSQL has no online way"),
    row(Form::AddColumnUserType, "ADD COLUMN of a user-defined type", (AX, NO), Cost::Rewrite, true, ExecutionKind::Probe, "the server rewrites the whole table for a domain with a constraint, and PostgreSQL has no online way"),
    row(Form::AddColumnCheck, "ADD COLUMN with a CHECK", (AX, NO), Cost::Scan, true, ExecutionKind::Phases, "every row is checked while nobody can read or write the table"),
    row(Form::AddColumnUnique, "ADD COLUMN with UNIQUE or PRIMARY KEY", (AX, NO), Cost::Build, true, ExecutionKind::Phases, "the index is built while nobody can read or write the table"),
    row(Form::AddColumnReferences, "ADD COLUMN with a foreign key", (AX, SRX), Cost::Brief, true, ExecutionKind::Run, ""),
    row(Form::AddColumnReferencesDefault, "ADD COLUMN with a foreign key and a default", (AX, SRX), Cost::Scan, true, ExecutionKind::Phases, "every row is checked against the referenced table while nobody can read or write the table"),
    row(Form::DropColumn, "DROP COLUMN", (AX, NO), Cost::Brief, true, ExecutionKind::Run, ""),
    row(Form::SetDefault, "ALTER COLUMN SET DEFAULT", (AX, NO), Cost::Brief, true, ExecutionKind::Run, ""),
    row(Form::DropDefault, "ALTER COLUMN DROP DEFAULT", (AX, NO), Cost::Brief, true, ExecutionKind::Run, ""),
    row(Form::SetNotNull, "ALTER COLUMN SET NOT NULL", (AX, NO), Cost::Scan, true, ExecutionKind::Phases, "every row is read while nobody else can read or write the table"),
    row(Form::DropNotNull, "ALTER COLUMN DROP NOT NULL", (AX, NO), Cost::Brief, true, ExecutionKind::Run, ""),
    row(Form::SetColumnStatistics, "ALTER COLUMN SET STATISTICS or options", (SUX, NO), Cost::Brief, true, ExecutionKind::Run, ""),
    row(Form::SetStorage, "ALTER COLUMN SET STORAGE or COMPRESSION", (AX, NO), Cost::Brief, true, ExecutionKind::Run, ""),
    row(Form::SetExpression, "ALTER COLUMN SET EXPRESSION", (AX, NO), Cost::Rewrite, true, ExecutionKind::Probe, "the server computes the generated column anew for every row and rewrites the whole table"),
    row(Form::DropExpression, "ALTER COLUMN DROP EXPRESSION", (AX, NO), Cost::Brief, true, ExecutionKind::Run, ""),
    row(Form::AlterIdentity, "ALTER COLUMN ADD, SET or DROP IDENTITY", (AX, NO), Cost::Brief, true, ExecutionKind::Run, ""),
    row(Form::AlterColumnType, "ALTER COLUMN TYPE", (AX, NO), Cost::Rewrite, true, ExecutionKind::Probe, "the server rewrites the whole table, or rebuilds indexes, while nobody can read or write the table"),
    row(Form::RenameColumn, "RENAME COLUMN", (AX, NO), Cost::Brief, true, ExecutionKind::Run, ""),
    row(Form::AddCheck, "ADD CHECK", (AX, NO), Cost::Scan, true, ExecutionKind::Phases, "every row is read while nobody else can read or write the table"),
    row(Form::AddCheckNotValid, "ADD CHECK NOT VALID or NOT ENFORCED", (AX, NO), Cost::Brief, true, ExecutionKind::Run, ""),
    row(Form::AddNotNullConstraint, "ADD NOT NULL constraint", (AX, NO), Cost::Scan, true, ExecutionKind::Phases, "every row is read while nobody else can read or write the table"),
    row(Form::AddNotNullNotValid, "ADD NOT NULL constraint NOT VALID", (AX, NO), Cost::Brief, true, ExecutionKind::Run, ""),
    row(Form::AddForeignKey, "ADD FOREIGN KEY", (SRX, SRX), Cost::Scan, true, ExecutionKind::Phases, "every row is checked while nobody can write to either table"),
    row(Form::AddForeignKeyNotValid, "ADD FOREIGN KEY NOT VALID or NOT ENFORCED", (SRX, SRX), Cost::Brief, true, ExecutionKind::Run, ""),
    row(Form::AddUnique, "ADD UNIQUE", (AX, NO), Cost::Build, true, ExecutionKind::Phases, "the index is built while nobody can read or write the table"),
    row(Form::AddPrimaryKey, "ADD PRIMARY KEY", (AX, NO), Cost::Build, true, ExecutionKind::Phases, "the index is built while nobody can read or write the table"),
    row(Form::AddConstraintUsingIndex, "ADD UNIQUE or PRIMARY KEY USING INDEX", (AX, NO), Cost::Brief, true, ExecutionKind::Run, ""),
    row(Form::AddExclude, "ADD EXCLUDE", (AX, NO), Cost::Build, true, ExecutionKind::Guarded, "the index is built while nobody can read or write the table, and PostgreSQL has no online way"),
    row(Form::ValidateConstraint, "VALIDATE CONSTRAINT", (SUX, RS), Cost::Scan, true, ExecutionKind::Long, ""),
    row(Form::AlterConstraint, "ALTER CONSTRAINT", (AX, NO), Cost::Brief, true, ExecutionKind::Run, ""),
    row(Form::EnforceConstraint, "ALTER CONSTRAINT ENFORCED", (AX, SRX), Cost::Scan, true, ExecutionKind::Phases, "every row is checked while nobody can read or write the table"),
    row(Form::UnenforceConstraint, "ALTER CONSTRAINT NOT ENFORCED", (AX, AX), Cost::Brief, true, ExecutionKind::Run, ""),
    row(Form::DropConstraint, "DROP CONSTRAINT", (AX, AX), Cost::Brief, true, ExecutionKind::Run, ""),
    row(Form::RenameConstraint, "RENAME CONSTRAINT", (AX, NO), Cost::Brief, true, ExecutionKind::Run, ""),
    row(Form::CreateIndex, "CREATE INDEX", (S, NO), Cost::Build, true, ExecutionKind::Concurrently, "nobody can write to the table while the index is built"),
    row(Form::CreateIndexConcurrently, "CREATE INDEX CONCURRENTLY", (SUX, NO), Cost::Build, false, ExecutionKind::Long, ""),
    row(Form::DropIndex, "DROP INDEX", (AX, NO), Cost::Brief, true, ExecutionKind::Concurrently, ""),
    row(Form::DropIndexConcurrently, "DROP INDEX CONCURRENTLY", (SUX, NO), Cost::Brief, false, ExecutionKind::Long, ""),
    row(Form::Reindex, "REINDEX", (S, NO), Cost::Build, true, ExecutionKind::Concurrently, "nobody can write to the table, and no query of it can be planned, while the index is rebuilt"),
    row(Form::ReindexConcurrently, "REINDEX CONCURRENTLY", (SUX, NO), Cost::Build, false, ExecutionKind::Long, ""),
    row(Form::ReindexMany, "REINDEX DATABASE or SYSTEM", (S, NO), Cost::Build, false, ExecutionKind::Guarded, "every index is rebuilt in turn while nobody can write to its table"),
    row(Form::AlterIndexRename, "ALTER INDEX RENAME", (SUX, NO), Cost::Brief, true, ExecutionKind::Run, ""),
    row(Form::AlterIndexSet, "ALTER INDEX SET or RESET", (SUX, NO), Cost::Brief, true, ExecutionKind::Run, ""),
    row(Form::AlterIndexAttach, "ALTER INDEX ATTACH PARTITION", (SUX, AX), Cost::Brief, true, ExecutionKind::Run, ""),
    row(Form::AlterIndexStatistics, "ALTER INDEX ALTER COLUMN SET STATISTICS", (SUX, NO), Cost::Brief, true, ExecutionKind::Run, ""),
    row(Form::CreateStatistics, "CREATE STATISTICS", (SUX, NO), Cost::Brief, true, ExecutionKind::Run, ""),
    row(Form::RefreshMaterializedView, "REFRESH MATERIALIZED VIEW", (AX, NO), Cost::Build, true, ExecutionKind::Concurrently, "the query runs while nobody can read the view"),
    row(Form::RefreshConcurrently, "REFRESH MATERIALIZED VIEW CONCURRENTLY", (X, NO), Cost::Build, true, ExecutionKind::Long, ""),
    row(Form::CreateTable, "CREATE TABLE", (NO, NO), Cost::Brief, true, ExecutionKind::Run, ""),
    row(Form::CreateTableReferences, "CREATE TABLE with a foreign key", (NO, SRX), Cost::Brief, true, ExecutionKind::Run, ""),
    row(Form::CreateTablePartitionOf, "CREATE TABLE PARTITION OF", (NO, AX), Cost::Brief, true, ExecutionKind::Run, ""),
    row(Form::CreateTableInherits, "CREATE TABLE INHERITS", (NO, SUX), Cost::Brief, true, ExecutionKind::Run, ""),
    row(Form::CreateTableAs, "CREATE TABLE AS, SELECT INTO", (NO, NO), Cost::Build, true, ExecutionKind::Relay, ""),
    row(Form::CreateMaterializedView, "CREATE MATERIALIZED VIEW", (NO, NO), Cost::Build, true, ExecutionKind::Relay, ""),
    row(Form::CreateView, "CREATE VIEW", (NO, NO), Cost::Brief, true, ExecutionKind::Relay, ""),
    row(Form::ReplaceView, "CREATE OR REPLACE VIEW", (AX, NO), Cost::Brief, true, ExecutionKind::Run, ""),
    row(Form::DropTable, "DROP TABLE", (AX, AX), Cost::Brief, true, ExecutionKind::Run, ""),
    row(Form::DropView, "DROP VIEW", (AX, NO), Cost::Brief, true, ExecutionKind::Run, ""),
    row(Form::DropMaterializedView, "DROP MATERIALIZED VIEW", (AX, NO), Cost::Brief, true, ExecutionKind::Run, ""),
    row(Form::DropSequence, "DROP SEQUENCE", (AX, NO), Cost::Brief, true, ExecutionKind::Run, ""),
    row(Form::Truncate, "TRUNCATE", (AX, AX), Cost::Brief, true, ExecutionKind::Run, ""),
    row(Form::RenameTable, "RENAME TABLE", (AX, NO), Cost::Brief, true, ExecutionKind::Run, ""),
    row(Form::SetSchema, "SET SCHEMA", (AX, NO), Cost::Brief, true, ExecutionKind::Run, ""),
    row(Form::OwnerTo, "OWNER TO", (AX, NO), Cost::Brief, true, ExecutionKind::Run, ""),
    row(Form::ReplicaIdentity, "REPLICA IDENTITY", (AX, NO), Cost::Brief, true, ExecutionKind::Run, ""),
    row(Form::RowSecurity, "ROW LEVEL SECURITY", (AX, NO), Cost::Brief, true, ExecutionKind::Run, ""),
    row(Form::SetTableOptions, "SET or RESET storage parameters, CLUSTER ON", (SUX, NO), Cost::Brief, true, ExecutionKind::Run, ""),
    row(Form::SetTriggers, "ENABLE or DISABLE TRIGGER", (SRX, NO), Cost::Brief, true, ExecutionKind::Run, ""),
    row(Form::SetRules, "ENABLE or DISABLE RULE", (AX, NO), Cost::Brief, true, ExecutionKind::Run, ""),
    row(Form::SetLogged, "SET LOGGED or UNLOGGED", (AX, NO), Cost::Rewrite, true, ExecutionKind::Guarded, "the server rewrites the whole table while nobody can read or write it"),
    row(Form::SetTablespace, "SET TABLESPACE", (AX, NO), Cost::Rewrite, true, ExecutionKind::Guarded, "the server copies the whole table while nobody can read or write it"),
    row(Form::SetAccessMethod, "SET ACCESS METHOD", (AX, NO), Cost::Rewrite, true, ExecutionKind::Guarded, "the server rewrites the whole table while nobody can read or write it"),
    row(Form::Inherit, "INHERIT, NO INHERIT", (AX, SUX), Cost::Brief, true, ExecutionKind::Run, ""),
    row(Form::OfType, "OF, NOT OF", (AX, NO), Cost::Brief, true, ExecutionKind::Run, ""),
    row(Form::AttachPartition, "ATTACH PARTITION", (SUX, AX), Cost::Scan, true, ExecutionKind::Phases, "every row of the partition is read while nobody else can read or write it, unless a valid CHECK proves its bounds"),
    row(Form::DetachPartition, "DETACH PARTITION", (AX, AX), Cost::Brief, true, ExecutionKind::Concurrently, ""),
    row(Form::DetachConcurrently, "DETACH PARTITION CONCURRENTLY, FINALIZE", (SUX, SUX), Cost::Brief, false, ExecutionKind::Long, ""),
    row(Form::CreateTrigger, "CREATE TRIGGER", (SRX, SRX), Cost::Brief, true, ExecutionKind::Run, ""),
    row(Form::AlterTrigger, "ALTER TRIGGER", (AX, NO), Cost::Brief, true, ExecutionKind::Run, ""),
    row(Form::DropTrigger, "DROP TRIGGER", (AX, NO), Cost::Brief, true, ExecutionKind::Run, ""),
    row(Form::CreateRule, "CREATE RULE", (AX, NO), Cost::Brief, true, ExecutionKind::Run, ""),
    row(Form::AlterRule, "ALTER RULE", (AX, NO), Cost::Brief, true, ExecutionKind::Run, ""),
    row(Form::DropRule, "DROP RULE", (AX, NO), Cost::Brief, true, ExecutionKind::Run, ""),
    row(Form::CreatePolicy, "CREATE POLICY", (AX, NO), Cost::Brief, true, ExecutionKind::Run, ""),
    row(Form::AlterPolicy, "ALTER POLICY", (AX, NO), Cost::Brief, true, ExecutionKind::Run, ""),
    row(Form::DropPolicy, "DROP POLICY", (AX, NO), Cost::Brief, true, ExecutionKind::Run, ""),
    row(Form::Comment, "COMMENT", (SUX, NO), Cost::Brief, true, ExecutionKind::Run, ""),
    row(Form::SecurityLabel, "SECURITY LABEL", (SUX, NO), Cost::Brief, true, ExecutionKind::Run, ""),
    row(Form::Grant, "GRANT, REVOKE", (AS, NO), Cost::Brief, true, ExecutionKind::Relay, ""),
    row(Form::Publication, "CREATE or ALTER PUBLICATION", (SUX, NO), Cost::Brief, true, ExecutionKind::Run, ""),
    row(Form::AlterSequence, "ALTER SEQUENCE", (SRX, NO), Cost::Brief, true, ExecutionKind::Run, ""),
    row(Form::AlterView, "ALTER VIEW", (AX, NO), Cost::Brief, true, ExecutionKind::Run, ""),
    row(Form::AlterMaterializedView, "ALTER MATERIALIZED VIEW", (AX, NO), Cost::Brief, true, ExecutionKind::Run, ""),
    row(Form::AlterForeignTable, "ALTER FOREIGN TABLE", (AX, NO), Cost::Brief, true, ExecutionKind::Run, ""),
    row(Form::DropForeignTable, "DROP FOREIGN TABLE", (AX, NO), Cost::Brief, true, ExecutionKind::Run, ""),
    row(Form::AlterEnum, "ALTER TYPE … VALUE", (NO, NO), Cost::Brief, true, ExecutionKind::Relay, ""),
    row(Form::AlterCompositeType, "ALTER TYPE … ATTRIBUTE", (AX, NO), Cost::Brief, true, ExecutionKind::Run, ""),
    row(Form::AlterDomain, "ALTER DOMAIN", (NO, S), Cost::Scan, true, ExecutionKind::Guarded, "every table that uses the domain is read while nobody can write to it"),
    row(Form::AlterDomainBrief, "ALTER DOMAIN without a check of rows", (NO, NO), Cost::Brief, true, ExecutionKind::Relay, ""),
    row(Form::Cluster, "CLUSTER", (AX, NO), Cost::Rewrite, true, ExecutionKind::Guarded, "the server rewrites the whole table while nobody can read or write it"),
    row(Form::VacuumFull, "VACUUM FULL", (AX, NO), Cost::Rewrite, false, ExecutionKind::Guarded, "the server rewrites the whole table while nobody can read or write it"),
    row(Form::Vacuum, "VACUUM, ANALYZE", (SUX, NO), Cost::Scan, false, ExecutionKind::Relay, ""),
    row(Form::DropObject, "DROP of an object that is no relation", (NO, NO), Cost::Unknown, true, ExecutionKind::Guarded, ""),
    row(Form::DropOwned, "DROP OWNED, REASSIGN OWNED", (AX, NO), Cost::Unknown, true, ExecutionKind::Guarded, ""),
    row(Form::DropSchema, "DROP SCHEMA, DROP EXTENSION, DROP TYPE", (AX, NO), Cost::Unknown, true, ExecutionKind::Guarded, ""),
    row(Form::Extension, "CREATE or ALTER EXTENSION", (NO, NO), Cost::Unknown, true, ExecutionKind::Guarded, ""),
    row(Form::ImportForeignSchema, "IMPORT FOREIGN SCHEMA", (NO, NO), Cost::Brief, true, ExecutionKind::Relay, ""),
    row(Form::CreateObject, "CREATE of an object that is no table", (NO, NO), Cost::Brief, true, ExecutionKind::Relay, ""),
    row(Form::AlterObject, "ALTER of an object that is no table", (NO, NO), Cost::Brief, true, ExecutionKind::Relay, ""),
    row(Form::ClusterWide, "databases, roles, tablespaces, ALTER SYSTEM", (NO, NO), Cost::Unknown, false, ExecutionKind::Relay, ""),
    row(Form::Other, "other DDL", (NO, NO), Cost::Unknown, true, ExecutionKind::Guarded, ""),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_in_the_order_of_the_enum() {
        for (i, row) in FORMS.iter().enumerate() {
            assert_eq!(row.form as usize, i, "{}", row.title);
        }
    }
}
