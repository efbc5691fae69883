//! The question whether a materialized view can be refreshed without blocking readers.
//!
//! The server requires a populated view with a valid unique index on plain columns that covers all of its rows
//! (`RefreshMatViewStmt` and `is_usable_unique_index` in `commands/matview.c`). The question checks the same.

/// The question about the view `$1` (an oid as text): one row, `t` or `f`.
pub const REFRESHABLE_SQL: &str = "SELECT (c.relispopulated AND EXISTS (SELECT FROM pg_catalog.pg_index i \
    JOIN pg_catalog.pg_class x ON x.oid OPERATOR(pg_catalog.=) i.indexrelid \
    JOIN pg_catalog.pg_am a ON a.oid OPERATOR(pg_catalog.=) x.relam \
    WHERE i.indrelid OPERATOR(pg_catalog.=) c.oid AND i.indisunique AND i.indimmediate AND i.indisvalid \
    AND a.amname OPERATOR(pg_catalog.=) 'btree' AND i.indpred IS NULL AND i.indexprs IS NULL))::pg_catalog.text \
    FROM pg_catalog.pg_class c WHERE c.oid OPERATOR(pg_catalog.=) $1::pg_catalog.text::pg_catalog.oid";
