//! VACUUM, ANALYZE, CLUSTER, REFRESH MATERIALIZED VIEW.
//!
//! Invariant: if the statement names no relation, `targets` is empty and the statement works on all relations.

use super::names::{is_on, relation, relations};
use super::tokens::Scanned;
use crate::sql::Ddl;
use crate::sql::form::Form;
use pg_query::protobuf::{ClusterStmt, RefreshMatViewStmt, VacuumStmt};

pub(super) fn vacuum(stmt: &VacuumStmt) -> Ddl {
    let full = stmt.is_vacuumcmd && is_on(&stmt.options, "full");
    let tag = if stmt.is_vacuumcmd { "VACUUM" } else { "ANALYZE" };
    let ddl = Ddl::new(tag, if full { Form::VacuumFull } else { Form::Vacuum });
    Ddl { targets: relations(&stmt.rels), ..ddl }
}

pub(super) fn cluster(stmt: &ClusterStmt) -> Ddl {
    let ddl = Ddl::new("CLUSTER", Form::Cluster);
    Ddl { targets: relation(stmt.relation.as_ref()).into_iter().collect(), ..ddl }
}

pub(super) fn refresh(stmt: &RefreshMatViewStmt, scanned: &Scanned<'_>) -> Ddl {
    let form = if stmt.concurrent { Form::RefreshConcurrently } else { Form::RefreshMaterializedView };
    let ddl = Ddl::new("REFRESH MATERIALIZED VIEW", form);
    Ddl {
        targets: relation(stmt.relation.as_ref()).into_iter().collect(),
        concurrently: stmt.concurrent,
        // WITH NO DATA leaves the server nothing to compare.
        concurrently_at: if stmt.concurrent || stmt.skip_data { None } else { scanned.concurrently_at() },
        ..ddl
    }
}
