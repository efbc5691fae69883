//! The command tag that PostgreSQL answers, by the kind of object (its `CreateCommandTag`).
//!
//! Invariant: the tag follows the words of the statement and not the relation. ALTER TABLE on an index has the tag ALTER
//! TABLE.

use pg_query::protobuf::ObjectType;

pub(super) fn alter(kind: ObjectType) -> &'static str {
    match kind {
        ObjectType::ObjectTable | ObjectType::ObjectColumn | ObjectType::ObjectTabconstraint => "ALTER TABLE",
        ObjectType::ObjectIndex => "ALTER INDEX",
        ObjectType::ObjectView => "ALTER VIEW",
        ObjectType::ObjectMatview => "ALTER MATERIALIZED VIEW",
        ObjectType::ObjectSequence => "ALTER SEQUENCE",
        ObjectType::ObjectForeignTable => "ALTER FOREIGN TABLE",
        ObjectType::ObjectType | ObjectType::ObjectAttribute => "ALTER TYPE",
        ObjectType::ObjectDomain | ObjectType::ObjectDomconstraint => "ALTER DOMAIN",
        ObjectType::ObjectTrigger => "ALTER TRIGGER",
        ObjectType::ObjectPolicy => "ALTER POLICY",
        ObjectType::ObjectRule => "ALTER RULE",
        ObjectType::ObjectAggregate => "ALTER AGGREGATE",
        ObjectType::ObjectCast => "ALTER CAST",
        ObjectType::ObjectCollation => "ALTER COLLATION",
        ObjectType::ObjectConversion => "ALTER CONVERSION",
        ObjectType::ObjectDatabase => "ALTER DATABASE",
        ObjectType::ObjectEventTrigger => "ALTER EVENT TRIGGER",
        ObjectType::ObjectExtension => "ALTER EXTENSION",
        ObjectType::ObjectFdw => "ALTER FOREIGN DATA WRAPPER",
        ObjectType::ObjectForeignServer => "ALTER SERVER",
        ObjectType::ObjectFunction => "ALTER FUNCTION",
        ObjectType::ObjectLanguage => "ALTER LANGUAGE",
        ObjectType::ObjectLargeobject => "ALTER LARGE OBJECT",
        ObjectType::ObjectOpclass => "ALTER OPERATOR CLASS",
        ObjectType::ObjectOperator => "ALTER OPERATOR",
        ObjectType::ObjectOpfamily => "ALTER OPERATOR FAMILY",
        ObjectType::ObjectProcedure => "ALTER PROCEDURE",
        ObjectType::ObjectPublication => "ALTER PUBLICATION",
        ObjectType::ObjectRole => "ALTER ROLE",
        ObjectType::ObjectRoutine => "ALTER ROUTINE",
        ObjectType::ObjectSchema => "ALTER SCHEMA",
        ObjectType::ObjectStatisticExt => "ALTER STATISTICS",
        ObjectType::ObjectSubscription => "ALTER SUBSCRIPTION",
        ObjectType::ObjectTablespace => "ALTER TABLESPACE",
        ObjectType::ObjectTsconfiguration => "ALTER TEXT SEARCH CONFIGURATION",
        ObjectType::ObjectTsdictionary => "ALTER TEXT SEARCH DICTIONARY",
        ObjectType::ObjectTsparser => "ALTER TEXT SEARCH PARSER",
        ObjectType::ObjectTstemplate => "ALTER TEXT SEARCH TEMPLATE",
        // The server's own tag for a kind that it does not know.
        _ => "???",
    }
}

pub(super) fn drop(kind: ObjectType) -> &'static str {
    match kind {
        ObjectType::ObjectTable => "DROP TABLE",
        ObjectType::ObjectIndex => "DROP INDEX",
        ObjectType::ObjectView => "DROP VIEW",
        ObjectType::ObjectMatview => "DROP MATERIALIZED VIEW",
        ObjectType::ObjectSequence => "DROP SEQUENCE",
        ObjectType::ObjectForeignTable => "DROP FOREIGN TABLE",
        ObjectType::ObjectType => "DROP TYPE",
        ObjectType::ObjectDomain => "DROP DOMAIN",
        ObjectType::ObjectTrigger => "DROP TRIGGER",
        ObjectType::ObjectPolicy => "DROP POLICY",
        ObjectType::ObjectRule => "DROP RULE",
        ObjectType::ObjectSchema => "DROP SCHEMA",
        ObjectType::ObjectExtension => "DROP EXTENSION",
        ObjectType::ObjectAccessMethod => "DROP ACCESS METHOD",
        ObjectType::ObjectAggregate => "DROP AGGREGATE",
        ObjectType::ObjectCast => "DROP CAST",
        ObjectType::ObjectCollation => "DROP COLLATION",
        ObjectType::ObjectConversion => "DROP CONVERSION",
        ObjectType::ObjectEventTrigger => "DROP EVENT TRIGGER",
        ObjectType::ObjectFdw => "DROP FOREIGN DATA WRAPPER",
        ObjectType::ObjectForeignServer => "DROP SERVER",
        ObjectType::ObjectFunction => "DROP FUNCTION",
        ObjectType::ObjectLanguage => "DROP LANGUAGE",
        ObjectType::ObjectOpclass => "DROP OPERATOR CLASS",
        ObjectType::ObjectOperator => "DROP OPERATOR",
        ObjectType::ObjectOpfamily => "DROP OPERATOR FAMILY",
        ObjectType::ObjectProcedure => "DROP PROCEDURE",
        ObjectType::ObjectPublication => "DROP PUBLICATION",
        ObjectType::ObjectRoutine => "DROP ROUTINE",
        ObjectType::ObjectStatisticExt => "DROP STATISTICS",
        ObjectType::ObjectTransform => "DROP TRANSFORM",
        ObjectType::ObjectTsconfiguration => "DROP TEXT SEARCH CONFIGURATION",
        ObjectType::ObjectTsdictionary => "DROP TEXT SEARCH DICTIONARY",
        ObjectType::ObjectTsparser => "DROP TEXT SEARCH PARSER",
        ObjectType::ObjectTstemplate => "DROP TEXT SEARCH TEMPLATE",
        _ => "???",
    }
}

/// The tag of CREATE for objects that the grammar defines by a list of `name = value`.
pub(super) fn create(kind: ObjectType) -> &'static str {
    match kind {
        ObjectType::ObjectAggregate => "CREATE AGGREGATE",
        ObjectType::ObjectOperator => "CREATE OPERATOR",
        ObjectType::ObjectType => "CREATE TYPE",
        ObjectType::ObjectTsparser => "CREATE TEXT SEARCH PARSER",
        ObjectType::ObjectTsdictionary => "CREATE TEXT SEARCH DICTIONARY",
        ObjectType::ObjectTstemplate => "CREATE TEXT SEARCH TEMPLATE",
        ObjectType::ObjectTsconfiguration => "CREATE TEXT SEARCH CONFIGURATION",
        ObjectType::ObjectCollation => "CREATE COLLATION",
        ObjectType::ObjectAccessMethod => "CREATE ACCESS METHOD",
        _ => "???",
    }
}
