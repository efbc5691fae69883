//! CREATE INDEX and REINDEX.
//!
//! Invariant: `concurrently_at` is set exactly if that one word would make the statement a concurrent one.

use super::names::{is_on, relation, some};
use super::probe;
use super::tokens::Scanned;
use crate::sql::Ddl;
use crate::sql::form::Form;
use pg_query::protobuf::{IndexStmt, ReindexObjectType, ReindexStmt, Token};

pub(super) fn create(stmt: &IndexStmt, scanned: &Scanned<'_>) -> Ddl {
    let form = if stmt.concurrent { Form::CreateIndexConcurrently } else { Form::CreateIndex };
    let mut ddl = Ddl::new("CREATE INDEX", form);
    for part in &mut ddl.parts {
        part.probe = probe::index(stmt);
    }
    Ddl {
        targets: relation(stmt.relation.as_ref()).into_iter().collect(),
        only: stmt.relation.as_ref().is_some_and(|range| !range.inh),
        if_not_exists: stmt.if_not_exists,
        concurrently: stmt.concurrent,
        index_name: some(&stmt.idxname),
        concurrently_at: if stmt.concurrent { None } else { scanned.concurrently_at() },
        tail_at: scanned.tail_at(&[Token::On]),
        ..ddl
    }
}

pub(super) fn reindex(stmt: &ReindexStmt, scanned: &Scanned<'_>) -> Ddl {
    let concurrently = is_on(&stmt.params, "concurrently");
    let many = matches!(stmt.kind(), ReindexObjectType::ReindexObjectDatabase | ReindexObjectType::ReindexObjectSystem);
    let form = match (concurrently, many) {
        (true, _) => Form::ReindexConcurrently,
        (false, true) => Form::ReindexMany,
        (false, false) => Form::Reindex,
    };
    let ddl = Ddl::new("REINDEX", form);
    Ddl {
        targets: relation(stmt.relation.as_ref()).into_iter().collect(),
        concurrently,
        concurrently_at: if concurrently { None } else { scanned.concurrently_at() },
        ..ddl
    }
}
