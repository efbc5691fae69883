//! The [`Effect`] of a statement, from PostgreSQL's tree.
//!
//! Invariants: the effect of a statement that is not understood, or whose node is not listed here, is [`EffectKind::Once`].
//! A statement that is read in part is never harmless in the rest: the calls and the writes are found wherever they stand ([`tree`]).

mod create_type;
mod objects;
mod returning;
#[cfg(test)]
mod tests;
mod tree;

use super::grammar::grammar;
use super::options::ParseOptions;
use super::{large, names};
use crate::pg::RelationName;
use crate::sql::effect::functions::{Known, changes_with_time, known, known_of_extension};
use crate::sql::effect::kind::{Effect, EffectKind};
use crate::sql::{Class, Ddl, Statement};
use pg_query::NodeEnum;
use pg_query::protobuf::{
    CopyStmt, DiscardMode, ExplainStmt, Node, SelectStmt, TransactionStmt, TransactionStmtKind, VariableSetKind,
    VariableSetStmt,
};
use tree::{Call, Found};

const UNKNOWN: EffectKind = EffectKind::Once("the proxy does not know what it does");
const SEVERAL: EffectKind = EffectKind::Once("it does several things at once");

/// The statement with its effect.
pub(in crate::sql) fn with_effect(statement: Statement, options: ParseOptions) -> (Statement, Effect) {
    let effect = match &statement.class {
        Class::ExplainDdl(_) => of_kind(EffectKind::Read),
        Class::Newer => of_kind(UNKNOWN),
        _ => of_text(&statement, options),
    };
    (statement, effect)
}

fn of_kind(kind: EffectKind) -> Effect {
    Effect { kind, relations: Vec::new(), functions: Vec::new() }
}

fn of_text(statement: &Statement, options: ParseOptions) -> Effect {
    let large = EffectKind::Once("it is too large to be parsed");
    match large::parse(&statement.text, options) {
        Ok(None) => {}
        Ok(Some(_)) | Err(_) => return of_kind(large),
    }
    let Ok(raw) = grammar(&statement.text, options) else { return of_kind(UNKNOWN) };
    let [raw] = raw.as_slice() else { return of_kind(UNKNOWN) };
    match raw.stmt.as_ref().and_then(|node| node.node.as_ref()) {
        Some(node) => of_node(node, statement.ddl(), options),
        None => of_kind(UNKNOWN),
    }
}

fn of_node(node: &NodeEnum, ddl: Option<&Ddl>, options: ParseOptions) -> Effect {
    let Some((tree, mut found)) = tree::walk(node) else { return of_kind(UNKNOWN) };
    let is_analyze = matches!(node, NodeEnum::VacuumStmt(stmt) if !stmt.is_vacuumcmd);
    let kind = match ddl.filter(|_| !is_analyze) {
        Some(ddl) => {
            let others = ddl.parts.iter().flat_map(|part| &part.others);
            ddl.targets.iter().chain(others).cloned().for_each(|name| found.add(name));
            objects::add(&tree, &mut found);
            EffectKind::Ddl
        }
        None => kind(node, &mut found, options),
    };
    Effect { kind, functions: asked(&found.calls), relations: found.relations }
}

/// The functions that only the catalogue knows, each once.
fn asked(calls: &[Call]) -> Vec<RelationName> {
    let mut functions: Vec<RelationName> = Vec::new();
    for call in calls {
        if meaning(call) == Known::Ask && !functions.contains(&call.name) {
            functions.push(call.name.clone());
        }
    }
    functions
}

fn meaning(call: &Call) -> Known {
    match call.name.schema.as_deref() {
        None | Some("pg_catalog") => known(&call.name.name),
        Some(_) => known_of_extension(&call.name.name),
    }
}

fn kind(node: &NodeEnum, found: &mut Found, options: ParseOptions) -> EffectKind {
    use EffectKind::{Again, Keep, Once, Read, Set};
    use NodeEnum as N;
    match node {
        N::SelectStmt(stmt) => select(stmt, found),
        N::InsertStmt(stmt) => write(found, returning::of_insert(stmt)),
        N::UpdateStmt(stmt) => write(found, returning::of_update(stmt)),
        N::DeleteStmt(stmt) => write(found, stmt.returning_clause.is_none()),
        N::MergeStmt(stmt) => write(found, stmt.returning_clause.is_none()),
        N::CopyStmt(stmt) => copy(stmt, found),
        N::ExplainStmt(stmt) => explain(stmt, found),
        N::CreateTableAsStmt(_) => EffectKind::Ddl,
        N::VariableShowStmt(_) => Read,
        N::VariableSetStmt(stmt) => set(stmt),
        N::ConstraintsSetStmt(_) => Set(Vec::new()),
        N::TransactionStmt(stmt) => transaction(stmt),
        N::LockStmt(_) => EffectKind::Lock,
        N::DoStmt(stmt) => match create_type::types(stmt, options) {
            Some(types) => {
                types.into_iter().for_each(|name| found.add(name));
                Again
            }
            None => Once("DO may do anything"),
        },
        N::CallStmt(_) => Once("CALL may commit"),
        N::ExecuteStmt(_) => Once("the proxy does not know what EXECUTE runs"),
        N::DeclareCursorStmt(_) => Once("it opens a cursor"),
        // LISTEN, UNLISTEN and NOTIFY take effect at COMMIT.
        N::ListenStmt(_) | N::UnlistenStmt(_) | N::NotifyStmt(_) => Again,
        // ANALYZE writes statistics, which ROLLBACK takes back. (VACUUM is DDL, and is not allowed in a block.)
        N::VacuumStmt(_) => Again,
        // A prepared statement, a loaded library and a checkpoint are still there after ROLLBACK. A cursor that these statements can
        // name is either older than the block and holdable, so that it keeps its position, or the block has opened it: then its
        // DECLARE cannot be run again.
        N::PrepareStmt(_) => {
            // It calls nothing yet.
            found.calls.clear();
            Keep
        }
        N::DeallocateStmt(_) | N::LoadStmt(_) | N::CheckPointStmt(_) | N::FetchStmt(_) | N::ClosePortalStmt(_) => Keep,
        N::DiscardStmt(stmt) => match stmt.target() {
            // The cached plans and the last values of sequences are forgotten, and stay so.
            DiscardMode::DiscardPlans | DiscardMode::DiscardSequences => Keep,
            // ROLLBACK brings the temporary tables back.
            DiscardMode::DiscardTemp => Again,
            _ => UNKNOWN,
        },
        _ => UNKNOWN,
    }
}

fn select(stmt: &SelectStmt, found: &Found) -> EffectKind {
    use EffectKind::{AdvisoryXact, Again, Keep, Once, Read};
    if stmt.into_clause.is_some() {
        return EffectKind::Ddl;
    }
    if found.writes > 0 {
        return Once("it returns rows that a statement within it has written");
    }
    let known: Vec<Known> = found.calls.iter().map(meaning).collect();
    let has = |wanted: Known| known.contains(&wanted);
    if let Some(why) = never(&known) {
        return why;
    }
    if has(Known::TellsChosen) {
        return Once("it tells which value a sequence gave");
    }
    let survives = has(Known::Survives) || has(Known::Sequence);
    match [has(Known::SetConfig), has(Known::AdvisoryXact), has(Known::Again), survives, found.locks_rows] {
        [false, false, false, false, false] => Read,
        [true, false, false, false, false] => set_config(found),
        // The answer says at most whether the transaction has the lock, and it still has it.
        [false, true, false, false, false] => AdvisoryXact,
        [false, false, true, false, false] if gives_void(stmt) => Again,
        [false, false, false, true, false] => Keep,
        [false, false, false, false, true] => lock_rows(found),
        _ => SEVERAL,
    }
}

fn never(known: &[Known]) -> Option<EffectKind> {
    known.iter().find_map(|known| match known {
        Known::Never(why) => Some(EffectKind::Once(why)),
        _ => None,
    })
}

/// Whether the answer consists of the void of functions that are called again.
fn gives_void(stmt: &SelectStmt) -> bool {
    let one = |node: &Node| {
        let Some(NodeEnum::ResTarget(target)) = node.node.as_ref() else { return false };
        let Some(NodeEnum::FuncCall(call)) = target.val.as_ref().and_then(|value| value.node.as_ref()) else {
            return false;
        };
        match names::strings(&call.funcname).as_slice() {
            ["pg_catalog", name] | [name] => known(name) == Known::Again,
            _ => false,
        }
    };
    !stmt.target_list.is_empty() && stmt.target_list.iter().all(one)
}

/// A SELECT of set_config, whose answer is the new value of the setting.
fn set_config(found: &Found) -> EffectKind {
    let computes = |call: &&Call| meaning(call) != Known::SetConfig && call.name.name != "current_setting";
    if !found.relations.is_empty() || found.session_values || found.calls.iter().any(|call| computes(&call)) {
        return EffectKind::Once("it computes the value of a setting");
    }
    let setting = |call: &Call| Some(call.first.as_ref()?.to_lowercase());
    let settings = found.calls.iter().filter(|call| meaning(call) == Known::SetConfig).map(setting);
    match settings.collect() {
        Some(settings) => EffectKind::Set(settings),
        None => EffectKind::Once("it computes the name of a setting"),
    }
}

/// SELECT … FOR UPDATE and the like. Its rows are compared when it has been run again.
fn lock_rows(found: &Found) -> EffectKind {
    if found.skips_locked {
        EffectKind::Once("SKIP LOCKED gives other rows the next time")
    } else if found.session_values || found.calls.iter().any(|call| changes_with_time(&call.name.name)) {
        EffectKind::Once("its answer depends on the time or on chance")
    } else {
        EffectKind::LockRows
    }
}

/// `given`: the answer is a tag, or RETURNING gives only values that the statement itself gave.
fn write(found: &Found, given: bool) -> EffectKind {
    let known: Vec<Known> = found.calls.iter().map(meaning).collect();
    if let Some(why) = never(&known) {
        return why;
    }
    // Run again, the call would have its effect twice, or nobody would hold the lock in the gap.
    if [Known::Survives, Known::SetConfig, Known::AdvisoryXact].iter().any(|known_one| known.contains(known_one)) {
        return SEVERAL;
    }
    if given { EffectKind::Write } else { EffectKind::Once("RETURNING gives values that the server chose") }
}

fn copy(stmt: &CopyStmt, found: &Found) -> EffectKind {
    if !stmt.is_from {
        return EffectKind::Once("COPY … TO gives rows");
    }
    if stmt.is_program { EffectKind::Once("COPY … PROGRAM runs a program") } else { write(found, true) }
}

fn explain(stmt: &ExplainStmt, found: &mut Found) -> EffectKind {
    if !names::is_on(&stmt.options, "analyze") {
        found.calls.clear();
        return EffectKind::Read;
    }
    let read = match stmt.query.as_ref().and_then(|query| query.node.as_ref()) {
        Some(NodeEnum::SelectStmt(stmt)) => select(stmt, found) == EffectKind::Read,
        _ => false,
    };
    if read { EffectKind::Read } else { EffectKind::Once("EXPLAIN ANALYZE runs the statement") }
}

fn set(stmt: &VariableSetStmt) -> EffectKind {
    let characteristics = || {
        let names = stmt.args.iter().filter_map(|arg| match arg.node.as_ref()? {
            NodeEnum::DefElem(option) => Some(format!("default_{}", option.defname)),
            _ => None,
        });
        EffectKind::Set(names.collect())
    };
    match stmt.kind() {
        VariableSetKind::VarSetMulti => match stmt.name.as_str() {
            "TRANSACTION" => EffectKind::Set(Vec::new()),
            "SESSION CHARACTERISTICS" => characteristics(),
            _ => EffectKind::Once("it takes the snapshot of another transaction"),
        },
        VariableSetKind::VarResetAll | VariableSetKind::Undefined => EffectKind::Once("it resets every setting"),
        _ => EffectKind::Set(vec![stmt.name.to_lowercase()]),
    }
}

fn transaction(stmt: &TransactionStmt) -> EffectKind {
    use TransactionStmtKind as K;
    let name = || stmt.savepoint_name.clone();
    match stmt.kind() {
        K::TransStmtBegin | K::TransStmtStart => EffectKind::Begin,
        K::TransStmtCommit | K::TransStmtRollback | K::TransStmtPrepare => EffectKind::End,
        K::TransStmtSavepoint => EffectKind::Savepoint(name()),
        K::TransStmtRollbackTo => EffectKind::RollbackTo(name()),
        K::TransStmtRelease => EffectKind::Release(name()),
        K::TransStmtCommitPrepared | K::TransStmtRollbackPrepared | K::Undefined => {
            EffectKind::Once("it ends another transaction")
        }
    }
}
