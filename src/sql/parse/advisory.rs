//! `SELECT pg_advisory_lock(…)`: a wait for an advisory lock of the client's own.
//!
//! Invariant: only a SELECT of that one call is recognized, with arguments that give the same value whenever they are
//! computed, and change nothing. Any other call of such a function is [`Class::Other`] and is relayed.

#[cfg(doc)]
use crate::sql::Class;

use super::names::strings;
use super::tokens::Scanned;
use crate::sql::AdvisoryLock;
use pg_query::NodeEnum;
use pg_query::protobuf::{FuncCall, Node, SelectStmt, Token};

/// PostgreSQL's own functions by which tools turn a name into a number.
const NUMBERS: [&str; 12] = [
    "hashtext",
    "hashtextextended",
    "hashint4",
    "hashint8",
    "md5",
    "abs",
    "mod",
    "length",
    "substring",
    "current_database",
    "current_schema",
    "concat",
];

/// The deepest nesting of expressions. Nobody writes a deeper one.
const DEEPEST: usize = 16;

pub(super) fn lock(stmt: &SelectStmt, scanned: &Scanned<'_>) -> Option<AdvisoryLock> {
    let [target] = stmt.target_list.as_slice() else { return None };
    let alone = SelectStmt {
        target_list: stmt.target_list.clone(),
        limit_option: stmt.limit_option,
        op: stmt.op,
        ..SelectStmt::default()
    };
    let Some(NodeEnum::ResTarget(target)) = &target.node else { return None };
    let Some(NodeEnum::FuncCall(call)) = target.val.as_ref()?.node.as_ref() else { return None };
    let (session, shared) = form(call)?;
    let constant = call.args.iter().all(|arg| is_constant(arg, DEEPEST));
    if *stmt != alone || !is_plain(call) || !constant || !(1..=2).contains(&call.args.len()) {
        return None;
    }
    let arguments = arguments(scanned)?;
    let suffix = if shared { "_shared" } else { "" };
    let calling = |function: &str| format!("SELECT pg_catalog.{function}{suffix}{arguments}");
    Some(AdvisoryLock {
        session,
        try_of_session: calling("pg_try_advisory_lock"),
        try_of_transaction: calling("pg_try_advisory_xact_lock"),
        unlock: calling("pg_advisory_unlock"),
    })
}

/// Whether the lock is the session's, and whether it is shared.
fn form(call: &FuncCall) -> Option<(bool, bool)> {
    let name = match strings(&call.funcname).as_slice() {
        ["pg_catalog", name] | [name] => (*name).to_owned(),
        _ => return None,
    };
    match name.as_str() {
        "pg_advisory_lock" => Some((true, false)),
        "pg_advisory_lock_shared" => Some((true, true)),
        "pg_advisory_xact_lock" => Some((false, false)),
        "pg_advisory_xact_lock_shared" => Some((false, true)),
        _ => None,
    }
}

/// The text after the function's name. Only `SELECT [pg_catalog .] name` may stand before it.
fn arguments<'a>(scanned: &Scanned<'a>) -> Option<&'a str> {
    let words = scanned.tokens();
    let at = if words.get(2)?.token == Token::Ascii46 { 4 } else { 2 };
    let open = words.get(at).filter(|word| word.token == Token::Ascii40)?;
    scanned.source(open.range.start..scanned.range().end)
}

fn is_plain(call: &FuncCall) -> bool {
    let odd = call.agg_within_group || call.agg_star || call.agg_distinct || call.func_variadic;
    !odd && call.agg_order.is_empty() && call.agg_filter.is_none() && call.over.is_none()
}

fn is_constant(node: &Node, depth: usize) -> bool {
    let Some(depth) = depth.checked_sub(1) else { return false };
    let inner = |node: &Option<Box<Node>>| node.as_ref().is_none_or(|node| is_constant(node, depth));
    match node.node.as_ref() {
        Some(NodeEnum::AConst(_) | NodeEnum::ParamRef(_)) => true,
        Some(NodeEnum::TypeCast(cast)) => inner(&cast.arg),
        Some(NodeEnum::AExpr(expression)) => inner(&expression.lexpr) && inner(&expression.rexpr),
        Some(NodeEnum::FuncCall(call)) => {
            let known = match strings(&call.funcname).as_slice() {
                ["pg_catalog", name] | [name] => NUMBERS.contains(name),
                _ => false,
            };
            known && is_plain(call) && call.args.iter().all(|arg| is_constant(arg, depth))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use crate::sql::{AdvisoryLock, Class, may_carry_ddl, parse};

    fn read(sql: &str) -> Option<AdvisoryLock> {
        match parse(sql).unwrap().pop()?.class {
            Class::AdvisoryLock(lock) => Some(*lock),
            _ => None,
        }
    }

    #[test]
    fn the_plain_ones() {
        for (sql, session, tried) in [
            ("SELECT pg_advisory_lock(4711)", true, "SELECT pg_catalog.pg_try_advisory_lock(4711)"),
            (" select  PG_ADVISORY_LOCK ( $1 , -2 ) ;", true, "SELECT pg_catalog.pg_try_advisory_lock( $1 , -2 )"),
            (
                "SELECT pg_catalog.pg_advisory_xact_lock(hashtext('a'), 1::int) AS lock",
                false,
                "SELECT pg_catalog.pg_try_advisory_lock(hashtext('a'), 1::int) AS lock",
            ),
            (
                "SELECT \"pg_advisory_lock_shared\"(('x'||md5($1))::bit(64)::bigint)",
                true,
                "SELECT pg_catalog.pg_try_advisory_lock_shared(('x'||md5($1))::bit(64)::bigint)",
            ),
            (
                "/* pg */ SELECT pg_advisory_xact_lock_shared(1, 2)",
                false,
                "SELECT pg_catalog.pg_try_advisory_lock_shared(1, 2)",
            ),
        ] {
            let lock = read(sql).unwrap_or_else(|| panic!("{sql}"));
            assert_eq!((lock.session, lock.try_of_session.as_str()), (session, tried), "{sql}");
            assert!(lock.try_of_transaction.contains(".pg_try_advisory_xact_lock"), "{sql}");
            assert_eq!(lock.unlock.contains("_unlock_shared("), sql.contains("_shared"), "{sql}");
            assert!(may_carry_ddl(sql.as_bytes()), "{sql}");
        }
    }

    #[test]
    fn the_others_are_relayed() {
        for sql in [
            "SELECT pg_try_advisory_lock(1)",
            "SELECT pg_advisory_unlock(1)",
            "SELECT pg_advisory_lock(1), 2",
            "SELECT 1 FROM pg_advisory_lock(1)",
            "SELECT * FROM pg_advisory_lock(1)",
            "SELECT pg_advisory_lock(id) FROM t",
            "SELECT pg_advisory_lock(1) WHERE false",
            "SELECT pg_advisory_lock(1) LIMIT 1",
            "SELECT pg_advisory_lock(nextval('s'))",
            "SELECT pg_advisory_lock((SELECT 1))",
            "SELECT pg_advisory_lock(1)::text",
            "SELECT x.pg_advisory_lock(1)",
            "SELECT pg_advisory_lock(1) UNION SELECT pg_advisory_lock(2)",
            "WITH a AS (SELECT 1) SELECT pg_advisory_lock(1)",
            "SELECT pg_advisory_lock()",
            "SELECT pg_advisory_lock(1, 2, 3)",
            "SELECT ALL pg_advisory_lock(1)",
            "SELECT pg_advisory_lock(key => 1)",
        ] {
            assert_eq!(read(sql), None, "{sql}");
        }
    }
}
