//! `pgsluice install` and `pgsluice uninstall`: the ledger in the operator's database.
//!
//! It owns nothing. It keeps true: both are one transaction, and installing again changes nothing.

use super::check_config::load;
use super::failure::Failure;
use super::pgpass;
use crate::config::{Config, Overrides, Secret};
use crate::ledger;
use crate::net::{Keepalive, Target};
use crate::operator;
use crate::tls;
use clap::Args;
use std::env::var;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Builder;
use tokio_postgres::Client;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// `pgsluice install`'s arguments.
#[derive(Debug, Args)]
pub(super) struct Install {
    #[command(flatten)]
    place: Place,
    /// Print the SQL and do nothing
    #[arg(long)]
    print: bool,
}

/// `pgsluice uninstall`'s arguments.
#[derive(Debug, Args)]
pub(super) struct Uninstall {
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, Args)]
struct Place {
    /// The file of settings, whose [operator] says which database it is
    #[arg(long, value_name = "FILE", default_value = "proxy.toml")]
    config: PathBuf,
    /// The role that does it, instead of the one in [operator]; PGPASSWORD or the password file has its password
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
}

impl Install {
    pub(super) fn run(self) -> Result<(), Failure> {
        let config = self.place.config()?;
        let role = config.operator.user.clone();
        if self.print {
            println!("BEGIN;\n{}COMMIT;", ledger::script(role.as_deref()));
            return Ok(());
        }
        self.place.with_client(config, async |client| {
            ledger::install(client, role.as_deref()).await.map_err(Failure::from)
        })?;
        println!("the ledger, version {}, is installed in the schema pgsluice", ledger::VERSION);
        println!("GRANT pgsluice_operator TO name lets a role decide, and GRANT pgsluice_viewer TO name lets it look.");
        Ok(())
    }
}

impl Uninstall {
    pub(super) fn run(self) -> Result<(), Failure> {
        let config = self.place.config()?;
        self.place.with_client(config, async |client| ledger::uninstall(client).await.map_err(Failure::from))?;
        println!("the ledger is gone");
        Ok(())
    }
}

impl Place {
    fn config(&self) -> Result<Config, Failure> {
        let (config, _) = load(Some(&self.config), Overrides::default())?;
        if config.operator.user.is_none() {
            let file = self.config.display();
            return Err(Failure(format!(
                "{file}: operator.user is not set; [operator] says where the ledger is, and whose it is"
            )));
        }
        Ok(config)
    }

    /// Does something by a connection to the operator's database.
    fn with_client(
        &self,
        mut config: Config,
        work: impl AsyncFnOnce(&mut Client) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let target = Target {
            address: config.proxy.backend.clone(),
            timeout: CONNECT_TIMEOUT,
            keepalive: Keepalive::default(),
            tls: Arc::new(tls::Back::new(config.backend_tls.clone()).map_err(Failure)?),
        };
        let address = operator::address(&config, &target);
        if let Some(user) = &self.user {
            let operator = &mut config.operator;
            operator.dbname = operator.dbname.take().or_else(|| operator.user.clone());
            let database = operator.dbname.clone().unwrap_or_default();
            operator.user = Some(user.clone());
            let password = var("PGPASSWORD").ok().or_else(|| pgpass::password(&address, &database, user));
            operator.password = password.map(|password| Secret::new(&password));
        }
        let settings = operator::settings(&config, &target);
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Failure(format!("could not start a runtime: {error}")))?;
        runtime.block_on(async {
            let opened = operator::open(&settings).await;
            let (mut client, connection) =
                opened.map_err(|error| Failure(format!("could not connect to {address}: {error}")))?;
            // The task ends with the runtime. Its error shows in the client's next call.
            tokio::spawn(async { drop(connection.await) });
            work(&mut client).await
        })
    }
}
