//! Installing the ledger, taking it away, and whether the one that is there may be used.
//!
//! It owns nothing. It keeps true: a schema `pgsluice` that somebody else has made is neither used nor changed, and a newer ledger is not written to.

use crate::operator::said;
use crate::pg::relation::{quote_identifier, quote_literal};
use crate::pg::sqlstate;
use crate::report::Report;
use tokio_postgres::Client;

/// The version of the ledger that this proxy knows.
pub const VERSION: i32 = 1;

const PARTS: [&str; 6] = [
    include_str!("sql/tables.sql"),
    include_str!("sql/transition.sql"),
    include_str!("sql/proxy.sql"),
    include_str!("sql/verbs.sql"),
    include_str!("sql/views.sql"),
    include_str!("sql/roles.sql"),
];
const UNINSTALL: &str = include_str!("sql/uninstall.sql");

/// One ledger is installed at a time. The number is "pgsl" in ASCII.
const LOCK: &str = "SELECT pg_catalog.pg_advisory_xact_lock(1885828972, 1)";

/// Whose the schema is: whether its owner is a role that may do anything here anyway, or the role that asks, or the owner of the database; whether
/// another role owns something in it; and whether there is a ledger in it.
const FOUND: &str = "SELECT pg_catalog.pg_get_userbyid(n.nspowner)::pg_catalog.text, \
       n.nspowner OPERATOR(pg_catalog.=) d.datdba OR r.rolsuper OR r.rolname OPERATOR(pg_catalog.=) current_user, \
       EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.relnamespace OPERATOR(pg_catalog.=) n.oid \
               AND c.relowner OPERATOR(pg_catalog.<>) n.nspowner) \
         OR EXISTS (SELECT FROM pg_catalog.pg_proc p WHERE p.pronamespace OPERATOR(pg_catalog.=) n.oid \
               AND p.proowner OPERATOR(pg_catalog.<>) n.nspowner) \
         OR EXISTS (SELECT FROM pg_catalog.pg_type t WHERE t.typnamespace OPERATOR(pg_catalog.=) n.oid \
               AND t.typowner OPERATOR(pg_catalog.<>) n.nspowner), \
       EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.relnamespace OPERATOR(pg_catalog.=) n.oid \
               AND c.relname OPERATOR(pg_catalog.=) 'ledger' AND c.relkind OPERATOR(pg_catalog.=) 'r'), \
       EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.relnamespace OPERATOR(pg_catalog.=) n.oid) \
     FROM pg_catalog.pg_namespace n \
     JOIN pg_catalog.pg_roles r ON r.oid OPERATOR(pg_catalog.=) n.nspowner \
     JOIN pg_catalog.pg_database d ON d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database() \
     WHERE n.nspname OPERATOR(pg_catalog.=) 'pgsluice'";

/// The version of the ledger that is installed. `None`: there is none.
///
/// # Errors
/// The schema belongs to somebody else, or the server refuses the question.
pub(super) async fn installed(client: &Client) -> Result<Option<i32>, Report> {
    let Some(row) = client.query_opt(FOUND, &[]).await.map_err(|error| failed("look for the ledger", &error))? else {
        return Ok(None);
    };
    let flag = |at: usize| row.try_get::<_, Option<bool>>(at).ok().flatten().unwrap_or_default();
    let owner: String = row.try_get(0).unwrap_or_default();
    if !flag(1) || flag(2) {
        let text = format!("the schema pgsluice, which belongs to the role {owner}, is not trusted");
        return Err(Report::error(sqlstate::INSUFFICIENT_PRIVILEGE, text)
            .detail("It or something in it belongs to a role that is no superuser, not the database's owner, and not the operator's.")
            .hint("Drop the schema, or give it another owner, and run pgsluice install."));
    }
    if !flag(3) {
        if !flag(4) {
            return Ok(None);
        }
        return Err(Report::error(sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE, "the schema pgsluice is no ledger")
            .hint("Drop or rename it, and run pgsluice install."));
    }
    let version = client.query_opt("SELECT version FROM pgsluice.ledger", &[]).await;
    let version = version.map_err(|error| failed("read the ledger's version", &error))?;
    let version = version.and_then(|row| row.try_get(0).ok());
    if let Some(newer) = version.filter(|version| *version > VERSION) {
        let text = format!("the ledger has version {newer}, and this proxy knows version {VERSION}");
        return Err(Report::error(sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE, text)
            .hint("Update the proxy. It writes nothing into a ledger that is newer."));
    }
    Ok(version)
}

/// Installs the ledger, or brings it to this version. `proxy`: the role that proxies log in as.
///
/// # Errors
/// The role may not do it, or the schema is not the ledger's.
pub async fn install(client: &mut Client, proxy: Option<&str>) -> Result<(), Report> {
    let failed = |error: &tokio_postgres::Error| {
        failed("install the ledger", error)
            .hint("Run pgsluice install as a superuser, or as a role with CREATEROLE that may create a schema in the database.")
    };
    client.batch_execute("BEGIN").await.map_err(|error| failed(&error))?;
    client.batch_execute(LOCK).await.map_err(|error| failed(&error))?;
    let done = match installed(client).await {
        Ok(_) => client.batch_execute(&script(proxy)).await.map_err(|error| failed(&error)),
        Err(report) => Err(report),
    };
    let end = if done.is_ok() { "COMMIT" } else { "ROLLBACK" };
    let ended = client.batch_execute(end).await.map_err(|error| failed(&error));
    done.and(ended)
}

/// What installs the ledger, without BEGIN and COMMIT.
pub fn script(proxy: Option<&str>) -> String {
    let mut text = String::from("CREATE SCHEMA IF NOT EXISTS pgsluice;\n");
    PARTS.iter().for_each(|part| text.push_str(part));
    text += &format!(
        "INSERT INTO pgsluice.ledger AS l (version) VALUES ({VERSION}) ON CONFLICT (one) DO UPDATE SET version = {VERSION};\n"
    );
    if let Some(proxy) = proxy {
        let name = quote_identifier(proxy);
        // The role that installs owns the schema, and needs no grant.
        text += &format!(
            "DO $body$ BEGIN IF current_user <> {} THEN GRANT pgsluice_proxy TO {name}; END IF; END $body$;\n",
            quote_literal(proxy)
        );
    }
    text
}

/// Takes the ledger away, with all that is in it.
///
/// # Errors
/// The role may not do it, or the schema is not the ledger's.
pub async fn uninstall(client: &mut Client) -> Result<(), Report> {
    installed(client).await?;
    client.batch_execute(UNINSTALL).await.map_err(|error| failed("uninstall the ledger", &error))
}

pub(super) fn failed(what: &str, error: &tokio_postgres::Error) -> Report {
    Report::error(sqlstate::CONNECTION_FAILURE, format!("could not {what}: {}", said(error)))
}
