//! The kinds of effects that a statement of a transaction block has.
//!
//! Plain data. `parse/effect.rs` fills it, and `plan/ahead.rs` and the session read it.

use crate::pg::RelationName;

/// What a statement does, and what running it again means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effect {
    pub kind: EffectKind,
    /// Every relation that the statement names, at any place, each once. Names of CTEs are not among them. For DDL, the names of
    /// other objects (types, functions, schemas) and new names are among them.
    pub relations: Vec<RelationName>,
    /// The functions that the statement calls, as written, except those whose volatility is known without the catalogue
    /// ([`super::functions`]).
    pub functions: Vec<RelationName>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EffectKind {
    /// The statement only reads. It is not run again, unless a function that it calls may be volatile. Then it cannot be run again.
    Read,
    /// The statement writes rows. It is run again. Its answer is a tag alone, or values that the statement itself gave (RETURNING).
    Write,
    /// SELECT … FOR UPDATE and the like: the statement locks the rows that it gives. It is run again.
    LockRows,
    /// The statement sets these settings (`role`, `search_path`, `session_authorization`, in lower case). It is run again. The list
    /// is empty for SET CONSTRAINTS and SET TRANSACTION.
    Set(Vec<String>),
    Begin,
    /// The statement ends the block: COMMIT, ROLLBACK, PREPARE TRANSACTION.
    End,
    Savepoint(String),
    RollbackTo(String),
    Release(String),
    /// The statement takes an advisory lock for the transaction. The proxy holds the lock in the gap, so the statement is not run
    /// again.
    AdvisoryXact,
    /// LOCK TABLE. It is run again.
    Lock,
    Ddl,
    /// The statement is run again. Its answer is a tag or void.
    Again,
    /// The effect of the statement survives ROLLBACK. It is not run again.
    Keep,
    /// The statement cannot be run again. The text is a fragment that says why: "it opens a cursor".
    Once(&'static str),
}
