//! Questions about one parsed statement that several parts of a session ask.
//!
//! It owns nothing. Every function is pure: the answer depends on the statement alone.

use crate::plan::block_locks::BlockLocks;
use crate::plan::{self, Limits};
use crate::sql::{Class, Statement};
use crate::wire::speech;

/// Whether the proxy acts on a statement. It relays a statement that takes no lock that others could wait for, unless the gate is to be asked.
pub(super) fn acts(statement: &Statement) -> bool {
    match &statement.class {
        Class::Ddl(ddl) => statement.gated || plan::needs_plan(ddl),
        Class::ExplainDdl(_) | Class::Newer => true,
        Class::MayHideDdl { names_ddl, swallows } => *names_ddl && (statement.gated || !*swallows),
        Class::AdvisoryLock(_) => true,
        Class::Lock(lock) => lock.makes_others_wait(),
        Class::Transaction(_) | Class::Other => false,
    }
}

/// Whether the statement can pass in a block that holds these locks. A statement that the gate is to be asked about never passes unasked.
pub(super) fn suffices(held: &BlockLocks, statement: &Statement, limits: &Limits) -> bool {
    !statement.gated && held.suffices(statement, limits)
}

/// Whether the statement may stand neither in a transaction block nor amid a pipeline.
pub(super) fn stands_alone(statement: &Statement) -> bool {
    matches!(&statement.class, Class::Ddl(ddl) if ddl.parts.iter().any(|part| !part.form.row().in_transaction))
}

/// Whether this is the statement's text.
pub(super) fn is_of(statement: &Statement, text: &str) -> bool {
    text.get(statement.range.clone()) == Some(statement.text.as_str())
}

/// A statement for the log. This is the one place where a client's text gets into the log. The arguments of DO and CALL may be secret.
pub(super) fn shown(statement: &Statement) -> &str {
    match statement.class {
        Class::Ddl(_) | Class::ExplainDdl(_) | Class::Newer => &statement.logged,
        _ => "(text not shown)",
    }
}

/// How many characters a text has. PostgreSQL counts error positions in characters.
pub(super) fn characters(text: &[u8]) -> usize {
    String::from_utf8_lossy(text).chars().filter(|c| !speech::goes_on(*c)).count()
}
