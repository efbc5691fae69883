//! Fuzzes what comes to the console: the reader of commands, and the answers to what drivers and tools send on their own.

use async_trait::async_trait;
use pgsluice::config::{Address, Config, Role};
use pgsluice::console::{Host, Rehearsed, Reloaded, Stop, rehearse};
use pgsluice::gate::Rules;
use pgsluice::holds::{Actor, Holds, Scope, ScopeHold};
use pgsluice::metrics::Metrics;
use pgsluice::registry::Registry;
use pgsluice::report::Report;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use tokio::runtime::{Builder, Runtime};

/// A proxy on which nothing can be done. It notes that something was to be done.
#[derive(Debug, Default)]
struct Stage {
    config: Config,
    metrics: Metrics,
    registry: Registry,
    holds: Holds,
    acted: AtomicBool,
}

impl Stage {
    fn acts<T>(&self, result: T) -> T {
        self.acted.store(true, Ordering::Relaxed);
        result
    }
}

#[async_trait]
impl Host for Stage {
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
        Arc::default()
    }

    fn holds(&self) -> &Holds {
        &self.holds
    }

    async fn hold(&self, _: ScopeHold) -> Result<(), Report> {
        self.acts(Ok(()))
    }

    async fn let_go(&self, _: &Scope, _: &Actor<'_>) -> Result<(), Report> {
        self.acts(Ok(()))
    }

    fn listening(&self) -> &[Address] {
        &[]
    }

    fn is_draining(&self) -> bool {
        false
    }

    fn set(&self, _: &str, _: &str) -> Result<(), Report> {
        self.acts(Ok(()))
    }

    fn reload(&self) -> Result<Reloaded, Report> {
        self.acts(Ok(Reloaded::default()))
    }

    fn stop(&self, _: Stop) {
        self.acts(());
    }
}

static STAGE: LazyLock<Arc<Stage>> = LazyLock::new(Arc::default);

thread_local! {
    static RUNTIME: Runtime = Builder::new_current_thread().build().expect("a runtime");
}

fn answers(host: &Arc<dyn Host>, role: Role, text: &str) -> Result<Vec<Rehearsed>, Report> {
    RUNTIME.with(|runtime| runtime.block_on(rehearse(host, role, text)))
}

/// The first words of all that acts on a proxy.
const VERBS: [&str; 15] = [
    "set",
    "reload",
    "approve",
    "reject",
    "retry",
    "force",
    "unforce",
    "hold",
    "release",
    "cancel",
    "kill",
    "drain",
    "shutdown",
    "throttle",
    "unthrottle",
];

/// Every string is answered or is an error. A row has a value for each column, and the columns are those with which the command was described. What acts
/// names a verb, is the same command with a reason behind it, and does nothing for a viewer.
pub fn console(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let stage = Arc::clone(&STAGE);
    let host: Arc<dyn Host> = stage.clone();
    stage.acted.store(false, Ordering::Relaxed);
    let seen = answers(&host, Role::Viewer, text);
    assert!(!stage.acted.load(Ordering::Relaxed), "a viewer has acted: {text:?}");
    let Ok(seen) = seen else {
        assert!(answers(&host, Role::Admin, text).is_err(), "{text:?}");
        return;
    };
    for one in &seen {
        shaped(text, one);
        assert!(!one.is_verb || one.answer.is_err(), "a viewer has done {}: {text:?}", one.command);
    }
    let done = answers(&host, Role::Admin, text).expect("it was understood");
    done.iter().for_each(|one| shaped(text, one));
    let lower = text.to_lowercase();
    if stage.acted.load(Ordering::Relaxed) || done.iter().any(|one| one.is_verb) {
        assert!(VERBS.iter().any(|verb| lower.contains(verb)), "{text:?}");
    }
    if let [verb] = done.as_slice()
        && verb.is_verb
        && !lower.contains("reason")
        && !text.contains(';')
    {
        // A comment at the end of the text ends with its line.
        let with = answers(&host, Role::Viewer, &format!("{text}\nREASON 'why'")).expect("a verb with a reason");
        let expected = verb.command.replace("why: None", "why: Some(\"why\")");
        assert_eq!(with.iter().map(|one| one.command.as_str()).collect::<Vec<_>>(), [expected], "{text:?}");
    }
}

fn shaped(text: &str, one: &Rehearsed) {
    let Ok((columns, rows)) = &one.answer else { return };
    assert_eq!(*columns, one.described, "{text:?}");
    assert!(rows.iter().all(|row| row.len() == columns.len()), "{text:?}: {one:?}");
}
