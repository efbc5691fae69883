//! The sessions of the proxy and the schema changes that run in it, for those who operate it.
//!
//! [`Registry`] owns both tables. It keeps true: a change is in its table exactly as long as its [`ChangePlace`] lives. A session is entered once, after its
//! login, and taken out once, and no message that is relayed touches the tables. A change's text is what the
//! log may show of it.

use crate::wire::startup::Parameters;
use dashmap::DashMap;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::task::{Poll, Waker};
use std::time::SystemTime;

/// The most characters of a reason for a wait that are kept.
const MOST_WORDS: usize = 500;

/// How every question of the proxy's that has a reason begins, as `pg_stat_activity` shows it.
const REASON: &str = "/* pgsluice: ";

/// The sessions of the proxy, and the schema changes that run in it.
#[derive(Debug, Default)]
pub struct Registry {
    sessions: DashMap<u64, Arc<SessionEntry>>,
    changes: DashMap<u64, Arc<ChangeEntry>>,
    sessions_so_far: AtomicU64,
    changes_so_far: AtomicU64,
    numbers: Numbers,
    /// The version of the protected server, as it has told a client.
    server_version: RwLock<Option<String>>,
}

/// Changes have numbers from here on while a ledger has given none. They are this proxy's own, and the ledger does not know them.
pub const TEMPORARY: u64 = 1 << 40;

/// The numbers of changes that a ledger has given this proxy, so that no two proxies give the same.
#[derive(Debug, Default)]
struct Numbers {
    /// A ledger gives the numbers.
    shared: AtomicBool,
    /// Those that are left.
    left: Mutex<VecDeque<Range<u64>>>,
}

impl Numbers {
    fn left(&self) -> MutexGuard<'_, VecDeque<Range<u64>>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> Option<u64> {
        let mut left = self.left();
        let number = left.iter_mut().find_map(Iterator::next);
        left.retain(|range| !range.is_empty());
        number
    }
}

/// One session.
#[derive(Debug)]
pub struct SessionEntry {
    pub number: u64,
    pub client: Arc<Parameters>,
    /// `None`: the client has come over a Unix socket.
    pub address: Option<IpAddr>,
    /// The client's end is encrypted.
    pub encrypted: bool,
    /// The session is one of the console.
    pub console: bool,
    /// The process id of its backend; 0 before the end of the login.
    backend: AtomicI32,
    pub began: SystemTime,
    ending: Ending,
}

/// Whether a session is to end.
#[derive(Debug, Default)]
struct Ending {
    asked: AtomicBool,
    /// The session's task. It is small, as thousands of sessions are idle at any time.
    waiting: Mutex<Option<Waker>>,
    /// Which task that is; 0: none.
    task: AtomicUsize,
}

impl Ending {
    fn waker(&self) -> MutexGuard<'_, Option<Waker>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SessionEntry {
    /// A session that begins now. `number` is from [`Registry::next_session`].
    pub fn new(number: u64, client: Arc<Parameters>, address: Option<IpAddr>, encrypted: bool) -> Self {
        let began = SystemTime::now();
        let ending = Ending::default();
        Self { number, client, address, encrypted, console: false, backend: AtomicI32::new(0), began, ending }
    }

    /// Asks the session to end.
    pub fn kill(&self) {
        self.ending.asked.store(true, Ordering::Release);
        let waiting = self.ending.waker().take();
        self.ending.task.store(0, Ordering::Release);
        if let Some(waiting) = waiting {
            waiting.wake();
        }
    }

    /// Waits until the session is asked to end. Only the task that has asked last hears of it.
    pub fn killed(&self) -> impl Future<Output = ()> {
        poll_fn(|cx| {
            if self.is_killed() {
                return Poll::Ready(());
            }
            // The future is polled whenever bytes arrive. It takes the lock for the first poll alone, and keeps nothing itself: idle sessions are small.
            let task = cx.waker().data().addr();
            if self.ending.task.load(Ordering::Acquire) == task {
                return Poll::Pending;
            }
            *self.ending.waker() = Some(cx.waker().clone());
            self.ending.task.store(task, Ordering::Release);
            // A call after the first question and before the waker was kept.
            if self.is_killed() { Poll::Ready(()) } else { Poll::Pending }
        })
    }

    /// The process id of the session's backend, once the login is over.
    pub fn backend(&self) -> Option<i32> {
        Some(self.backend.load(Ordering::Relaxed)).filter(|pid| *pid != 0)
    }

    /// Whether the session is asked to end.
    pub fn is_killed(&self) -> bool {
        self.ending.asked.load(Ordering::Acquire)
    }
}

/// One schema change that runs.
pub struct ChangeEntry {
    pub number: u64,
    pub session: u64,
    /// The statement, without its strings.
    pub statement: String,
    pub began: SystemTime,
    cancel: Box<dyn Fn() + Send + Sync>,
    progress: Mutex<Progress>,
}

impl std::fmt::Debug for ChangeEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChangeEntry")
            .field("number", &self.number)
            .field("session", &self.session)
            .finish_non_exhaustive()
    }
}

/// How far a change is, and what it waits for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// The number of the phase, from 1, and how many there are; 0 before the first.
    pub phase: usize,
    pub phases: usize,
    /// What the change waits for, and since when.
    pub waiting: Option<(String, SystemTime)>,
    pub blockers: Vec<BlockerSeen>,
    /// The change that is held for which this one was sent.
    pub joined: Option<u64>,
    /// The lanes that the change holds: the oids of the relations, and their names as far as they are known.
    pub lanes: Vec<(u32, Option<String>)>,
    /// The last wait, so that a wait that goes on after an attempt keeps its beginning.
    last_wait: Option<(String, SystemTime)>,
}

/// A session that is in the way of a change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BlockerSeen {
    pub pid: Option<i32>,
    pub application: Option<String>,
    pub user: Option<String>,
    pub state: Option<String>,
    /// Milliseconds since its transaction began.
    pub age_ms: Option<u64>,
    pub mode: String,
    pub relation: String,
}

impl ChangeEntry {
    /// Cancels the change, as its client would.
    pub fn cancel(&self) {
        (self.cancel)();
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        self.state().clone()
    }

    /// The change begins one of its phases.
    pub fn enters(&self, phase: usize, phases: usize) {
        let mut state = self.state();
        (state.phase, state.phases) = (phase, phases);
    }

    /// The change asks the server something on its own. A question that begins with a reason is a wait for that reason.
    pub fn asks(&self, sql: &str) {
        let mut state = self.state();
        let Some(words) = sql.strip_prefix(REASON).and_then(|rest| Some(rest.split_once(" */")?.0)) else {
            return state.goes_on();
        };
        let words: String = words.chars().take(MOST_WORDS).collect();
        let last = state.last_wait.take().filter(|(last, _)| *last == words);
        let wait = last.unwrap_or_else(|| (words, SystemTime::now()));
        state.waiting = Some(wait.clone());
        state.last_wait = Some(wait);
    }

    /// The change waits for nothing.
    pub fn goes_on(&self) {
        self.state().goes_on();
    }

    /// These sessions are in the way.
    pub fn sees(&self, blockers: Vec<BlockerSeen>) {
        self.state().blockers = blockers;
    }

    /// The change was sent for one that is held under this number.
    pub fn joins(&self, number: u64) {
        self.state().joined = Some(number);
    }

    /// The number under which operators know the change.
    pub fn known_as(&self) -> u64 {
        self.state().joined.unwrap_or(self.number)
    }

    /// The change holds these lanes.
    pub fn holds(&self, mut lanes: Vec<(u32, Option<String>)>) {
        lanes.dedup();
        self.state().lanes = lanes;
    }

    fn state(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress {
    fn goes_on(&mut self) {
        self.waiting = None;
    }
}

/// A change's place in the table, until it is dropped.
#[derive(Debug)]
pub struct ChangePlace {
    registry: Arc<Registry>,
    entry: Arc<ChangeEntry>,
}

impl ChangePlace {
    /// The change.
    pub fn entry(&self) -> &Arc<ChangeEntry> {
        &self.entry
    }
}

impl Drop for ChangePlace {
    fn drop(&mut self) {
        self.registry.changes.remove(&self.entry.number);
    }
}

impl Registry {
    /// The number of a session that begins.
    pub fn next_session(&self) -> u64 {
        self.sessions_so_far.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Enters a session whose login is over. `backend`: the process id of its backend.
    pub fn enter(&self, entry: Arc<SessionEntry>, backend: i32) {
        entry.backend.store(backend, Ordering::Relaxed);
        self.sessions.insert(entry.number, entry);
    }

    /// Takes a session out again.
    pub fn leave(&self, entry: &SessionEntry) {
        self.sessions.remove(&entry.number);
    }

    /// Enters a schema change. `cancel` cancels it.
    pub fn begin(
        self: &Arc<Self>,
        session: u64,
        statement: &str,
        cancel: impl Fn() + Send + Sync + 'static,
    ) -> ChangePlace {
        let entry = Arc::new(ChangeEntry {
            number: self.next_change(),
            session,
            statement: statement.to_owned(),
            began: SystemTime::now(),
            cancel: Box::new(cancel),
            progress: Mutex::default(),
        });
        self.changes.insert(entry.number, Arc::clone(&entry));
        ChangePlace { registry: Arc::clone(self), entry }
    }

    fn next_change(&self) -> u64 {
        let own = || self.changes_so_far.fetch_add(1, Ordering::Relaxed) + 1;
        match self.numbers.shared.load(Ordering::Relaxed) {
            true => self.numbers.next().unwrap_or_else(|| TEMPORARY + own()),
            false => own(),
        }
    }

    /// A ledger gives the numbers of changes from now on.
    pub fn numbers_are_shared(&self) {
        self.numbers.shared.store(true, Ordering::Relaxed);
    }

    /// The ledger has given these numbers of changes.
    pub fn give_numbers(&self, first: u64, count: u64) {
        self.numbers.left().push_back(first..first.saturating_add(count));
    }

    /// How many numbers of the ledger's are left.
    pub fn numbers_left(&self) -> u64 {
        self.numbers.left().iter().map(|range| range.end.saturating_sub(range.start)).sum()
    }

    /// The sessions, in the order in which they began.
    pub fn sessions(&self) -> Vec<Arc<SessionEntry>> {
        let mut all: Vec<_> = self.sessions.iter().map(|entry| Arc::clone(entry.value())).collect();
        all.sort_by_key(|entry| entry.number);
        all
    }

    /// The session of this number.
    pub fn session(&self, number: u64) -> Option<Arc<SessionEntry>> {
        self.sessions.get(&number).map(|entry| Arc::clone(entry.value()))
    }

    /// The changes, in the order in which they began.
    pub fn changes(&self) -> Vec<Arc<ChangeEntry>> {
        let mut all: Vec<_> = self.changes.iter().map(|entry| Arc::clone(entry.value())).collect();
        all.sort_by_key(|entry| entry.number);
        all
    }

    /// The change of this number.
    pub fn change(&self, number: u64) -> Option<Arc<ChangeEntry>> {
        self.changes.get(&number).map(|entry| Arc::clone(entry.value()))
    }

    /// The number of sessions.
    pub fn session_count(&self) -> usize {
        self.sessions.len()
    }

    /// The server has told a client its version.
    pub fn note_server_version(&self, version: &str) {
        let known = self.server_version.read().is_ok_and(|known| known.as_deref() == Some(version));
        if !known && let Ok(mut known) = self.server_version.write() {
            *known = Some(version.to_owned());
        }
    }

    /// The version of the protected server, if a client has logged in since the proxy began.
    pub fn server_version(&self) -> Option<String> {
        self.server_version.read().ok()?.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_end_with_their_guards() {
        let registry = Arc::new(Registry::default());
        let entry = SessionEntry::new(registry.next_session(), Arc::default(), None, false);
        let session = Arc::new(entry);
        registry.enter(Arc::clone(&session), 42);
        let cancelled = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&cancelled);
        let change = registry.begin(session.number, "DROP TABLE t", move || {
            seen.fetch_add(1, Ordering::Relaxed);
        });
        registry.change(change.entry().number).unwrap().cancel();
        assert_eq!(cancelled.load(Ordering::Relaxed), 1);
        assert_eq!((registry.sessions().len(), registry.changes().len()), (1, 1));
        assert_eq!(session.backend(), Some(42));
        registry.leave(&session);
        drop(change);
        assert_eq!((registry.sessions().len(), registry.changes().len()), (0, 0));
    }

    #[test]
    fn a_wait_keeps_its_beginning() {
        let registry = Arc::new(Registry::default());
        let change = registry.begin(1, "ALTER TABLE t ADD c int", || {});
        let entry = change.entry();
        entry.asks("/* pgsluice: waiting for x */ SELECT 1");
        let first = entry.progress().waiting.unwrap();
        assert_eq!(first.0, "waiting for x");
        entry.goes_on();
        assert_eq!(entry.progress().waiting, None);
        entry.asks("/* pgsluice: waiting for x */ SELECT 1");
        assert_eq!(entry.progress().waiting, Some(first));
        entry.asks("SELECT 1");
        assert_eq!(entry.progress().waiting, None);
    }

    #[tokio::test]
    async fn a_session_that_is_killed_hears_of_it() {
        let entry = SessionEntry::new(1, Arc::default(), None, false);
        entry.kill();
        entry.killed().await;
        entry.killed().await;
        assert!(entry.is_killed());
    }
}
