//! The gate of `pgsluice dev`: a rule, a ledger, and two people who decide.
//!
//! It owns nothing. It keeps true: the passwords are for a server that is thrown away.

use super::client::Client;
use super::server::Postgres;
use super::shop;
use crate::config::{Config, Overrides};
use crate::ledger;
use crate::report::Report;

/// One holds changes, and lets them be seen.
const RULE: &str = "[[rule]]
name = \"customers need a second pair of eyes\"
match = { relation = \"customers\" }
verdict = \"hold\"
";

const ROLES: &str = "SET password_encryption = 'scram-sha-256';
    CREATE ROLE ann LOGIN PASSWORD 'ann'; CREATE ROLE vic LOGIN PASSWORD 'vic';
    GRANT pgsluice_operator TO ann; GRANT pgsluice_viewer TO vic;";

/// Installs the ledger in the shop, and lets the operators in.
pub(super) fn let_in(server: &Postgres, config: &mut Config) -> Result<(), Report> {
    let superuser = Client::connect(&shop::address(server), &server.user, shop::DATABASE)?;
    superuser.run(&ledger::script(None))?;
    superuser.run(ROLES)?;
    let mut users = String::from("[console]\n");
    for (name, role) in [("ann", "admin"), ("vic", "viewer")] {
        let verifier =
            superuser.text(&format!("SELECT rolpassword FROM pg_catalog.pg_authid WHERE rolname = '{name}'"))?;
        users += &format!("[[console.users]]\nname = \"{name}\"\nrole = \"{role}\"\nverifier = \"{verifier}\"\n");
    }
    let parsed = Config::parse(&format!("{users}{RULE}"), Overrides::default()).map_err(|error| error.report())?;
    config.console = parsed.console;
    config.gate = parsed.gate;
    config.operator.ledger = true;
    Ok(())
}
