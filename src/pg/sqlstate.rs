//! The SQLSTATEs that the proxy reads or raises, by PostgreSQL's condition names (appendix A of its manual).

/// A SQLSTATE: five ASCII characters.
pub type SqlState = &'static str;

pub const SUCCESSFUL_COMPLETION: SqlState = "00000";
pub const WARNING: SqlState = "01000";
pub const CONNECTION_FAILURE: SqlState = "08006";
pub const PROTOCOL_VIOLATION: SqlState = "08P01";
pub const FEATURE_NOT_SUPPORTED: SqlState = "0A000";
pub const DIVISION_BY_ZERO: SqlState = "22012";
pub const CHARACTER_NOT_IN_REPERTOIRE: SqlState = "22021";
pub const UNTRANSLATABLE_CHARACTER: SqlState = "22P05";
pub const INVALID_TEXT_REPRESENTATION: SqlState = "22P02";
pub const NOT_NULL_VIOLATION: SqlState = "23502";
pub const CHECK_VIOLATION: SqlState = "23514";
pub const ACTIVE_SQL_TRANSACTION: SqlState = "25001";
pub const NO_ACTIVE_SQL_TRANSACTION: SqlState = "25P01";
pub const INVALID_AUTHORIZATION: SqlState = "28000";
pub const SERIALIZATION_FAILURE: SqlState = "40001";
pub const DEADLOCK_DETECTED: SqlState = "40P01";
pub const INSUFFICIENT_PRIVILEGE: SqlState = "42501";
pub const DUPLICATE_COLUMN: SqlState = "42701";
pub const UNDEFINED_TABLE: SqlState = "42P01";
pub const DUPLICATE_TABLE: SqlState = "42P07";
pub const OBJECT_NOT_IN_PREREQUISITE_STATE: SqlState = "55000";
pub const OBJECT_IN_USE: SqlState = "55006";
pub const LOCK_NOT_AVAILABLE: SqlState = "55P03";
pub const QUERY_CANCELED: SqlState = "57014";
pub const ADMIN_SHUTDOWN: SqlState = "57P01";
pub const CANNOT_CONNECT_NOW: SqlState = "57P03";
pub const CONFIGURATION_LIMIT_EXCEEDED: SqlState = "53400";
pub const CONFIG_FILE_ERROR: SqlState = "F0000";
pub const TOO_MANY_CONNECTIONS: SqlState = "53300";
pub const INTERNAL_ERROR: SqlState = "XX000";
