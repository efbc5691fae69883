//! What the console may see and do of the proxy: [`Host`] for the state that all sessions share.
//!
//! It owns nothing. It keeps true: settings that are wrong change nothing, and a setting is changed only if a running proxy follows it.

use super::shared::{Drain, Shared};
use crate::config::{Address, Config, Mode, is_live};
use crate::console::{Host, Reloaded, Stop};
use crate::gate::Rules;
use crate::holds::{Actor, Holds, Scope, ScopeHold};
use crate::logging;
use crate::metrics::Metrics;
use crate::pg::sqlstate;
use crate::registry::Registry;
use crate::report::Report;
use async_trait::async_trait;
use std::sync::Arc;

impl Shared {
    /// Reads `proxy.toml`, certificates and keys anew, and follows the rules, the windows, and the settings that a running proxy can follow. Without
    /// a file the settings stay.
    ///
    /// # Errors
    /// The file, a rule, a certificate or a key is wrong. The old settings, rules and certificates stay.
    pub fn reload(&self) -> Result<Reloaded, Report> {
        let new = match self.config.origin.has_file() {
            true => Some(self.config.loaded_again().map_err(|error| error.report())?),
            false => None,
        };
        if let Some(error) = self.reload_tls().into_iter().next() {
            return Err(Report::error(sqlstate::CONFIG_FILE_ERROR, error));
        }
        let Some(new) = new else { return Ok(Reloaded::default()) };
        let rules_differ = self.config.gate.differs(&new.gate);
        let (before, after) = (self.config.values(), new.values());
        let changed = before.into_iter().zip(after).filter(|(old, new)| old.1 != new.1).map(|(old, _)| old.0);
        let (mut live, waiting): (Vec<String>, Vec<String>) = changed.partition(|key| is_live(key));
        live.extend(rules_differ.then(|| "rules and windows".to_owned()));
        self.replace(|config| Ok(config.with_live_of(new)))?;
        Ok(Reloaded { live, waiting })
    }

    fn replace(&self, change: impl FnOnce(&Config) -> Result<Config, Report>) -> Result<(), Report> {
        let change = |config: &Config| {
            let config = change(config)?;
            // The rules are checked beside the settings that they stand in for, and follow them in the order of the changes.
            self.set_rules(Rules::new(&config).map_err(|error| error.report())?);
            Ok(config)
        };
        self.config.change(change).map_err(|error| {
            error.unwrap_or_else(|| {
                Report::error(sqlstate::CONFIGURATION_LIMIT_EXCEEDED, "the settings were changed too often")
                    .hint("Restart the proxy.")
            })
        })?;
        logging::set_level(self.config.log.level);
        Ok(())
    }
}

#[async_trait]
impl Host for Shared {
    fn config(&self) -> &Config {
        &self.config
    }

    fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    fn registry(&self) -> &Registry {
        &self.registry
    }

    fn rules(&self) -> Arc<Rules> {
        Self::rules(self)
    }

    fn holds(&self) -> &Holds {
        Self::holds(self)
    }

    async fn hold(&self, hold: ScopeHold) -> Result<(), Report> {
        let mode = self.config.proxy.mode;
        if !matches!(mode, Mode::Guard | Mode::Plan) {
            return Err(Report::error(
                sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("nothing can be held in the mode {mode}"),
            )
            .hint("The proxy stops schema changes in the modes guard and plan."));
        }
        if let Some(keeper) = Self::holds(self).keeper() {
            keeper.hold(&hold).await?;
            keeper.refresh().await;
            return Ok(());
        }
        let (name, is_new) = (hold.scope.to_string(), Self::holds(self).hold(hold));
        self.follow_holds();
        if is_new {
            return Ok(());
        }
        Err(Report::error(sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE, format!("{name} is in force already"))
            .hint("SHOW HOLDS shows who has said it."))
    }

    async fn let_go(&self, scope: &Scope, actor: &Actor<'_>) -> Result<(), Report> {
        if let Some(keeper) = Self::holds(self).keeper() {
            keeper.let_go(scope, actor).await?;
            keeper.refresh().await;
            return Ok(());
        }
        let was_held = Self::holds(self).let_go(scope);
        self.follow_holds();
        if was_held {
            return Ok(());
        }
        Err(Report::error(sqlstate::UNDEFINED_OBJECT, format!("{scope} is not in force"))
            .hint("SHOW HOLDS shows what is."))
    }

    fn listening(&self) -> &[Address] {
        self.listening.get().map_or(&[], Vec::as_slice)
    }

    fn is_draining(&self) -> bool {
        *self.asked().borrow() != Drain::No
    }

    fn set(&self, key: &str, value: &str) -> Result<(), Report> {
        self.replace(|config| {
            config.with(key, value).map_err(|error| Report::error(sqlstate::INVALID_PARAMETER_VALUE, error.to_string()))
        })
    }

    fn reload(&self) -> Result<Reloaded, Report> {
        Self::reload(self)
    }

    fn stop(&self, stop: Stop) {
        self.asked().send_replace(match stop {
            Stop::WhenIdle => Drain::Idle,
            Stop::Now => Drain::Now,
        });
    }
}
