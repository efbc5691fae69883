//! The state that all sessions of a proxy share.
//!
//! It owns the configuration, the rules of the gate, the changes that are held, the counters, the places for long work, the registry of sessions and changes, the drain that was asked for, and four
//! tables: clients by address, sessions by backend for cancels, pending undo, and the roles that may ask the questions of a plan. It keeps true:
//!
//! - A client counts for its address exactly as long as its [`Seat`] lives.
//! - A session is found by a CancelRequest exactly as long as its [`Registered`] lives, and only by its whole key.

use super::aside::Aside;
use crate::backend::{CancelRequests, ServerChannel};
use crate::config::{Address, Config, LiveConfig, Mode, RuleSettings, Unsafe};
use crate::execute::pending_undo::PendingUndos;
use crate::gate::Rules;
use crate::holds::Holds;
use crate::metrics::Metrics;
use crate::net::{Keepalive, Target};
use crate::plan::Limits;
use crate::registry::{Registry, SessionEntry};
use crate::tls;
use crate::webhook::Webhook;
use bytes::Bytes;
use dashmap::DashMap;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use tokio::sync::watch;

/// Whether sessions go on, or are to end because the proxy stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drain {
    No,
    /// Sessions end when they are idle and outside a transaction.
    Idle,
    /// Sessions end.
    Now,
}

/// The number of pairs of a database and a role that are remembered.
const MOST_ROLES: usize = 10_000;

/// The state that all sessions of a proxy share.
#[derive(Debug)]
pub struct Shared {
    pub config: LiveConfig,
    pub target: Arc<Target>,
    pub front_tls: tls::Front,
    pub metrics: Arc<Metrics>,
    pub webhook: Webhook,
    pub registry: Arc<Registry>,
    /// The addresses that the proxy listens on, once it does.
    pub listening: OnceLock<Vec<Address>>,
    /// The drain that the proxy is asked for, by a signal or on the console.
    asked: watch::Sender<Drain>,
    /// The number of clients of each address, if there is a limit.
    seats: DashMap<IpAddr, usize>,
    /// The session of each backend, by the backend's pid.
    cancels: DashMap<i32, Cancellable>,
    aside: Aside,
    /// The changes that are held.
    holds: Arc<Holds>,
    /// The rules of the gate. Other rules may take their place while sessions are served.
    rules: RwLock<Arc<Rules>>,
    /// The undo of plans whose backends are gone.
    pending_undos: PendingUndos,
    /// The databases and roles for which the questions of a plan are allowed, and no pooler stands in between.
    planning_roles: DashMap<(String, String), ()>,
}

/// The limits of plans, from these settings.
pub(super) fn limits_of(config: &Config) -> Limits {
    let ddl = &config.ddl;
    Limits {
        small_table: ddl.small_table,
        rewrite: config.proxy.mode == Mode::Plan,
        refuse_unsafe: ddl.unsafe_ddl == Unsafe::Refuse,
        refuse_exclude: ddl.exclude == Unsafe::Refuse,
    }
}

impl Shared {
    /// # Errors
    /// A file of `[listen.tls]` or `[backend.tls]` cannot be read, or has other contents than the setting demands. A rule of the gate names
    /// something that does not exist, or can never match.
    pub fn new(config: Config) -> Result<Self, tls::SettingError> {
        let rules = Rules::new(&config).map_err(|error| error.to_string())?;
        let metrics = Arc::<Metrics>::default();
        let proxy = &config.proxy;
        let target = Target {
            address: proxy.backend.clone(),
            timeout: proxy.connect_timeout,
            keepalive: Keepalive { idle: proxy.keepalive, user_timeout: proxy.user_timeout },
            tls: Arc::new(tls::Back::new(config.backend_tls.clone())?),
        };
        Ok(Self {
            target: Arc::new(target),
            front_tls: tls::Front::new(config.listen_tls.clone())?,
            webhook: Webhook::new(&config.webhook, &metrics)?,
            metrics,
            registry: Arc::default(),
            listening: OnceLock::new(),
            asked: watch::Sender::new(Drain::No),
            seats: DashMap::new(),
            cancels: DashMap::new(),
            aside: Aside::default(),
            holds: Arc::default(),
            rules: RwLock::new(Arc::new(rules)),
            pending_undos: PendingUndos::default(),
            planning_roles: DashMap::new(),
            config: LiveConfig::new(config),
        })
    }

    /// The drain that the proxy is asked for. The server's acceptor follows it.
    pub fn asked(&self) -> &watch::Sender<Drain> {
        &self.asked
    }

    /// Reads the files of `[listen.tls]` and `[backend.tls]` anew. Sessions keep the contents with which they began. The errors are those of the
    /// sections whose old contents stay in use.
    pub fn reload_tls(&self) -> Vec<tls::SettingError> {
        [self.front_tls.reload(), self.target.tls.reload()].into_iter().filter_map(Result::err).collect()
    }

    /// The limits of plans, from the settings.
    pub(super) fn limits(&self) -> Limits {
        limits_of(&self.config)
    }

    /// The rules of the gate, as they are now. A statement reads them once for each verdict. `None`: no rule is to be asked, since there is
    /// none, or since the mode is one in which the proxy does not act.
    pub(super) fn rules_to_ask(&self) -> Option<Arc<Rules>> {
        if !matches!(self.config.proxy.mode, Mode::Guard | Mode::Plan) {
            return None;
        }
        let rules = self.rules.read().unwrap_or_else(PoisonError::into_inner);
        (!rules.is_empty()).then(|| Arc::clone(&rules))
    }

    /// The rules of the gate, as they are now.
    pub(super) fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.rules.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts other rules in the place of the present ones. Statements that are under way keep the verdict that they have.
    pub fn set_rules(&self, rules: Rules) {
        let mut current = self.rules.write().unwrap_or_else(PoisonError::into_inner);
        *current = Arc::new(rules.with_holds(&self.held_by_hand()));
    }

    /// The rules hold what operators hold by hand, and no longer what they held by hand before.
    pub fn follow_holds(&self) {
        let mut current = self.rules.write().unwrap_or_else(PoisonError::into_inner);
        *current = Arc::new(current.with_holds(&self.held_by_hand()));
    }

    fn held_by_hand(&self) -> Vec<RuleSettings> {
        self.holds.scopes().iter().filter_map(|hold| hold.scope.rule()).collect()
    }

    /// The changes that are held.
    pub fn holds(&self) -> &Arc<Holds> {
        &self.holds
    }

    /// The places for work that takes long.
    pub(super) fn aside(&self) -> &Aside {
        &self.aside
    }

    /// The undo of plans whose backends are gone.
    pub(super) fn pending_undos(&self) -> &PendingUndos {
        &self.pending_undos
    }

    /// Whether the role is known to be allowed to ask the questions of a plan.
    pub(super) fn may_plan(&self, database: &str, role: &str) -> bool {
        self.planning_roles.contains_key(&(database.to_owned(), role.to_owned()))
    }

    pub(super) fn note_may_plan(&self, database: &str, role: &str) {
        if self.planning_roles.len() < MOST_ROLES {
            self.planning_roles.insert((database.to_owned(), role.to_owned()), ());
        }
    }

    pub(super) fn forget_may_plan(&self, database: &str, role: &str) {
        self.planning_roles.remove(&(database.to_owned(), role.to_owned()));
    }

    /// The session that a CancelRequest is for, and the request that the session has under way. If the session is between two of its
    /// statements, the server's own cancel has no effect. `request` is pid and key. Every byte must be right, as the server demands, too.
    pub(super) fn cancellable(&self, request: &[u8]) -> Option<(Arc<CancelRequests>, u32)> {
        let found = self.cancels.get(&pid_of(request)?)?;
        // Every byte is compared, so that the time of the comparison tells nothing about the key.
        let differ = found.key.iter().zip(request).fold(0, |acc, (a, b)| acc | (a ^ b));
        let right = differ == 0 && found.key.len() == request.len();
        right.then(|| (Arc::clone(&found.cancels), found.cancels.current()))
    }
}

/// The body of BackendKeyData, and the session's counter of requests.
#[derive(Debug)]
struct Cancellable {
    key: Bytes,
    cancels: Arc<CancelRequests>,
}

/// A session's place in the table of cancels and in the registry, for as long as it lives.
#[derive(Debug)]
pub(super) struct Registered {
    shared: Arc<Shared>,
    /// The pid of the backend and its whole key. Another session's backend may later get the same pid. Empty: the backend has told none.
    key: Bytes,
    /// The session as the registry has it.
    entry: Arc<SessionEntry>,
}

impl Registered {
    pub(super) fn new(shared: &Arc<Shared>, channel: &ServerChannel, entry: &Arc<SessionEntry>) -> Self {
        let key = channel.backend_key().clone();
        let pid = pid_of(&key);
        if let Some(pid) = pid {
            let cancels = Arc::clone(channel.cancels().requests());
            shared.cancels.insert(pid, Cancellable { key: key.clone(), cancels });
        }
        // A session of the console has no backend.
        if !entry.console {
            shared.metrics.measures.session_begins();
        }
        shared.registry.enter(Arc::clone(entry), pid.unwrap_or(0));
        Self { shared: Arc::clone(shared), key, entry: Arc::clone(entry) }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        if !self.entry.console {
            self.shared.metrics.measures.session_ends();
        }
        self.shared.registry.leave(&self.entry);
        if let Some(pid) = pid_of(&self.key) {
            self.shared.cancels.remove_if(&pid, |_, registered| registered.key == self.key);
        }
    }
}

/// The backend's pid, with which BackendKeyData and CancelRequest begin.
pub(super) fn pid_of(key: &[u8]) -> Option<i32> {
    key.first_chunk::<4>().map(|pid| i32::from_be_bytes(*pid))
}

/// The place of one of the clients that an address may have, taken until it is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    shared: Arc<Shared>,
    address: IpAddr,
}

impl Seat {
    /// `None`: the address has as many clients as it may have.
    pub(super) fn new(shared: &Arc<Shared>, address: IpAddr, limit: usize) -> Option<Self> {
        let mut count = shared.seats.entry(address).or_default();
        if *count >= limit {
            return None;
        }
        *count += 1;
        drop(count);
        Some(Self { shared: Arc::clone(shared), address })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(mut count) = self.shared.seats.get_mut(&self.address) {
            *count -= 1;
        }
        self.shared.seats.remove_if(&self.address, |_, count| *count == 0);
    }
}
