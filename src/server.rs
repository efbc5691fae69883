//! The server process: listeners, workers, and the drain at its end.
//!
//! Each core has a worker with a single-threaded runtime, and a connection never leaves its worker. One acceptor hands
//! each new client to the worker that has the fewest. SO_REUSEPORT would spread few connections unevenly
//! (`docs/decisions/0003-one-acceptor.md`).

mod binding;
mod bound;
mod keep;
mod refused;
mod signals;

use crate::config::{Address, Config, Io};
use crate::metrics;
use crate::monitor::Monitor;
use crate::net::{self, Arrival, Listener};
use crate::pg::sqlstate;
use crate::report::Report;
use crate::session::{self, Drain, Shared};
use binding::check_binding;
use bound::{Bound, bind, socket_files};
use keep::LedgerWork;
use refused::Refused;
use signals::Signals;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc as std_mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, oneshot, watch};

/// A client on its way to its worker. `crowded` says that the client is above the limit.
struct Guest {
    arrival: Arrival,
    crowded: bool,
}

/// The worker of one core.
struct Worker {
    arrivals: mpsc::UnboundedSender<Guest>,
    clients: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
    /// The result of making a ring, which the worker's own thread must do.
    ring: std_mpsc::Receiver<std::io::Result<()>>,
}

/// A proxy that runs on threads of its own.
#[derive(Debug)]
pub struct Running {
    addresses: Vec<Address>,
    shared: Arc<Shared>,
    /// The drain that the acceptor is asked for. The acceptor passes it on to the sessions when no new client can come any
    /// more.
    asked: watch::Sender<Drain>,
    acceptor: JoinHandle<()>,
    monitor: Option<JoinHandle<()>>,
    /// The thread of the ledger, which outlives the sessions, and the end that it waits for.
    ledger: Option<(JoinHandle<()>, oneshot::Sender<()>)>,
    /// Where monitoring is answered.
    monitored_at: Option<Address>,
}

impl Running {
    /// The address that the proxy listens on. A port that was 0 is the one that the system chose.
    pub fn address(&self) -> &Address {
        &self.addresses[0]
    }

    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// The address of `/metrics`, if there is one.
    pub fn monitored_at(&self) -> Option<&Address> {
        self.monitored_at.as_ref()
    }

    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Takes no new clients, and ends each session when it is idle. Returns when all have ended; after the grace time the
    /// rest are cut off.
    pub fn stop(self) {
        self.asked.send_replace(Drain::Idle);
        self.join();
    }

    /// Ends every session now.
    pub fn stop_now(self) {
        self.asked.send_replace(Drain::Now);
        self.join();
    }

    fn join(self) {
        if self.acceptor.join().is_err() {
            tracing::error!("the acceptor ended by a panic");
        }
        if let Some((ledger, end)) = self.ledger {
            drop(end);
            if ledger.join().is_err() {
                tracing::error!("the thread of the ledger ended by a panic");
            }
        }
        if self.monitor.is_some_and(|monitor| monitor.join().is_err()) {
            tracing::error!("the thread of monitoring ended by a panic");
        }
    }
}

/// Serves until SIGTERM or SIGINT, and then drains. A second signal ends all sessions at once.
///
/// # Errors
/// The proxy cannot listen on an address, or the system refuses a thread.
pub fn run(config: Config) -> Result<(), Report> {
    let runtime = runtime()?;
    // Signals are heard before anybody can reach the proxy. A SIGHUP right after the start would end it otherwise.
    let mut signals = {
        let _inside = runtime.enter();
        Signals::new()?
    };
    let running = spawn(config)?;
    for address in running.addresses() {
        tracing::info!(%address, backend = %running.shared.target.address, mode = running.shared.config.proxy.mode.as_str(), "listening");
    }
    if let Some(address) = running.monitored_at() {
        tracing::info!(%address, "monitoring is answered");
    }
    runtime.block_on(async {
        let shared = Arc::clone(&running.shared);
        tokio::spawn(async move { check_binding(&shared).await });
        let mut asked = running.asked.subscribe();
        tokio::select! {
            () = signals.next(&running.shared) => {}
            // The console can ask for the end, too.
            _ = asked.wait_for(|state| *state != Drain::No) => {}
        }
        tracing::info!(grace = ?running.shared.config.proxy.drain_grace, "draining: no new clients are accepted, and sessions end when they are idle");
        running.asked.send_if_modified(|state| *state == Drain::No && { *state = Drain::Idle; true });
        tokio::select! {
            () = signals.next(&running.shared) => { running.asked.send_replace(Drain::Now); }
            _ = asked.wait_for(|state| *state == Drain::Now) => {}
            () = running.asked.closed() => {}
            () = finished(&running.acceptor) => {}
        }
        Ok::<(), Report>(())
    })?;
    let shared = Arc::clone(&running.shared);
    running.join();
    tracing::info!("stopped; {}", shared.metrics);
    Ok(())
}

/// Waits until the acceptor's thread has ended. The caller joins the thread.
async fn finished(thread: &JoinHandle<()>) {
    while !thread.is_finished() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Starts a proxy on threads of its own.
///
/// # Errors
/// The errors are those of [`run`].
pub fn spawn(config: Config) -> Result<Running, Report> {
    // Whoever reaches the proxy finds its monitoring, too.
    let monitoring = config.metrics.listen.as_ref().map(bind).transpose()?;
    let mut listeners = Vec::new();
    let mut addresses = Vec::new();
    for address in &config.proxy.listen {
        let (bound, at) = bind(address)?;
        listeners.extend(bound);
        addresses.push(at);
    }
    let count = match config.proxy.workers {
        0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        n => n,
    };
    let shared = Shared::new(config).map_err(|wrong| Report::fatal(sqlstate::CONFIG_FILE_ERROR, wrong))?;
    let shared = Arc::new(shared);
    let (drain, watched) = watch::channel(Drain::No);
    let workers = (0..count).map(|n| worker(n, &shared, &watched)).collect::<Result<Vec<_>, Report>>()?;
    let workers = with_rings(workers, shared.config.proxy.io)?;
    let asked = shared.asked().clone();
    // The cell is new.
    let _ = shared.listening.set(addresses.clone());
    let accept = Accept { listeners, workers, shared: Arc::clone(&shared), asked: asked.subscribe(), drain };
    let (ending, end) = oneshot::channel();
    let (bound, monitored_at) = monitoring.unzip();
    let monitor = monitor(&shared, bound.unwrap_or_default(), asked.subscribe(), end)?;
    let runtime = runtime()?;
    // Before the first client comes, since its statements ask the ledger.
    let ledger = match keep::ledger(&shared, &addresses) {
        Some(work) => Some(ledger_thread(work)?),
        None => None,
    };
    let acceptor = thread("accept", move || {
        runtime.block_on(accept.run());
        drop(ending);
    })?;
    Ok(Running { addresses, shared, asked, acceptor, monitor, ledger, monitored_at })
}

/// Starts the thread of the ledger.
fn ledger_thread(work: LedgerWork) -> Result<(JoinHandle<()>, oneshot::Sender<()>), Report> {
    let (ending, end) = oneshot::channel();
    let runtime = runtime()?;
    let thread = thread("ledger", move || {
        runtime.block_on(work(end));
        runtime.shutdown_background();
    })?;
    Ok((thread, ending))
}

/// Starts the thread that answers monitoring and delivers the events of the webhook, if there is one of these. It outlives the sessions, so
/// that a drain can be seen, and ends when the other end of `end` is gone.
fn monitor(
    shared: &Arc<Shared>,
    bound: Vec<Bound>,
    drain: watch::Receiver<Drain>,
    end: oneshot::Receiver<()>,
) -> Result<Option<JoinHandle<()>>, Report> {
    let deliveries = shared.webhook.take_deliveries();
    if bound.is_empty() && deliveries.is_none() {
        return Ok(None);
    }
    let monitor = Monitor::new(&shared.metrics, shared.config.proxy.mode.as_str(), Arc::clone(&shared.target), drain);
    let runtime = runtime()?;
    let serve = async move {
        for listener in bound {
            let Bound::Tcp(listener) = listener else { continue };
            match tokio::net::TcpListener::from_std(listener) {
                Ok(listener) => drop(tokio::spawn(Arc::clone(&monitor).serve(listener))),
                Err(error) => tracing::error!(%error, "could not answer monitoring"),
            }
        }
        // The acceptor's end is dropped, whatever has ended it.
        let end = async { drop(end.await) };
        match deliveries {
            Some(deliveries) => deliveries.run(end).await,
            None => end.await,
        }
    };
    let body = move || {
        runtime.block_on(serve);
        // The runtime does not wait for a name that is still being looked up.
        runtime.shutdown_background();
    };
    thread("monitor", body).map(Some)
}

/// The acceptor: it owns the listeners and the workers.
struct Accept {
    listeners: Vec<Bound>,
    workers: Vec<Worker>,
    shared: Arc<Shared>,
    asked: watch::Receiver<Drain>,
    drain: watch::Sender<Drain>,
}

impl Accept {
    async fn run(self) {
        let Self { listeners, workers, shared, mut asked, drain } = self;
        let (arrived, mut arrivals) = mpsc::channel(64);
        let files = socket_files(&shared.config.proxy.listen);
        let accepting: Vec<_> = listeners.into_iter().map(|l| tokio::spawn(accept_all(l, arrived.clone()))).collect();
        loop {
            tokio::select! {
                Some(arrival) = arrivals.recv() => hand_over(arrival, &workers, &shared),
                Ok(_) = asked.wait_for(|state| *state != Drain::No) => break,
            }
        }
        for task in accepting {
            task.abort();
            // The socket is closed when the task has ended. A client that receives a farewell can rely on nobody listening
            // here any more.
            let _ = task.await;
        }
        drop(arrivals);
        for file in files {
            let _ = std::fs::remove_file(file);
        }
        drain.send_replace(Drain::Idle);
        drain_workers(workers, &shared, asked, &drain).await;
    }
}

async fn accept_all(listener: Bound, arrived: mpsc::Sender<Arrival>) {
    let listener = match listener {
        Bound::Tcp(listener) => tokio::net::TcpListener::from_std(listener).map(Listener::Tcp),
        Bound::Unix(listener) => tokio::net::UnixListener::from_std(listener).map(Listener::Unix),
    };
    let listener = match listener {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "could not accept clients"),
    };
    let mut refused = Refused::default();
    loop {
        match listener.accept().await {
            Ok(arrival) => {
                refused.over();
                if arrived.send(arrival).await.is_err() {
                    return;
                }
            }
            Err(error) => tokio::time::sleep(refused.again(&error, Instant::now())).await,
        }
    }
}

/// Gives a client to the worker that has the fewest. A client above the limit is told so after its startup packet, and may
/// send a cancel request before that. Clients above twice the limit are not let in.
fn hand_over(arrival: Arrival, workers: &[Worker], shared: &Shared) {
    let total: usize = workers.iter().map(|w| w.clients.load(Ordering::Relaxed)).sum();
    let most = shared.config.proxy.max_clients;
    if total >= most.saturating_mul(2).saturating_add(16) {
        shared.metrics.sessions_refused.add();
        return;
    }
    if let Some(worker) = workers.iter().min_by_key(|w| w.clients.load(Ordering::Relaxed)) {
        worker.clients.fetch_add(1, Ordering::Relaxed);
        if worker.arrivals.send(Guest { arrival, crowded: total >= most }).is_err() {
            worker.clients.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Waits until the sessions have ended. After the grace time it ends those that are left.
async fn drain_workers(
    workers: Vec<Worker>,
    shared: &Shared,
    mut asked: watch::Receiver<Drain>,
    drain: &watch::Sender<Drain>,
) {
    let grace = shared.config.proxy.drain_grace;
    let idle = async {
        while workers.iter().any(|w| w.clients.load(Ordering::Relaxed) > 0) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let cut_off = tokio::select! {
        () = idle => false,
        () = tokio::time::sleep(grace) => true,
        Ok(_) = asked.wait_for(|state| *state == Drain::Now) => true,
    };
    if cut_off {
        let left: usize = workers.iter().map(|w| w.clients.load(Ordering::Relaxed)).sum();
        tracing::info!(left, "the grace time is over, and the sessions that are left are ended");
    }
    drain.send_replace(Drain::Now);
    let threads = workers.into_iter().map(|worker| worker.thread);
    for thread in threads {
        // The worker's channel is closed by now, and its sessions end.
        if tokio::task::spawn_blocking(move || thread.join()).await.is_err() {
            tracing::error!("a worker ended by a panic");
        }
    }
}

fn worker(n: usize, shared: &Arc<Shared>, drain: &watch::Receiver<Drain>) -> Result<Worker, Report> {
    let (arrivals, arrived) = mpsc::unbounded_channel::<Guest>();
    let clients = Arc::new(AtomicUsize::new(0));
    let runtime = runtime()?;
    let serving = Serving { shared: Arc::clone(shared), drain: drain.clone(), clients: Arc::clone(&clients) };
    let io = shared.config.proxy.io;
    let traffic = shared.metrics.measures.new_traffic();
    let worth = if io == Io::IoUring { 0 } else { net::ring::A_FEW };
    let (tell_ring, ring) = std_mpsc::channel();
    let thread = thread(&format!("worker {n}"), move || {
        metrics::count_here(traffic);
        runtime.block_on(async {
            let bell = (io != Io::Epoll).then(|| net::ring::start(worth)).transpose();
            let (bell, made) = bell.map_or_else(|error| (None, Err(error)), |bell| (bell, Ok(())));
            // The receiver may have failed meanwhile.
            let _ = tell_ring.send(made);
            net::tasks::work(bell, serving.serve_all(arrived)).await;
        });
        // The runtime does not wait for a long text that is still being parsed on another thread.
        runtime.shutdown_background();
        net::ring::stop();
    })?;
    Ok(Worker { arrivals, clients, thread, ring })
}

/// Waits until the workers know whether they have rings, and reports if one has none.
fn with_rings(workers: Vec<Worker>, io: Io) -> Result<Vec<Worker>, Report> {
    if io == Io::Epoll {
        return Ok(workers);
    }
    let gone = |_| Err(std::io::ErrorKind::Other.into());
    match workers.iter().map(|worker| worker.ring.recv().unwrap_or_else(gone)).find_map(Result::err) {
        None => tracing::debug!("the relay uses io_uring"),
        Some(error) if io == Io::IoUring => {
            let report = Report::fatal(sqlstate::CONFIG_FILE_ERROR, format!("io_uring cannot be used: {error}"));
            return Err(report.hint("io_uring needs Linux 6.1, and containers often forbid it. With io = \"auto\" in [proxy], the relay uses epoll instead."));
        }
        Some(error) => tracing::info!(%error, "io_uring cannot be used, so the relay uses epoll"),
    }
    Ok(workers)
}

/// What a worker needs to serve its sessions.
struct Serving {
    shared: Arc<Shared>,
    drain: watch::Receiver<Drain>,
    clients: Arc<AtomicUsize>,
}

impl Serving {
    /// Serves until no more guests can come, or until all sessions must end now.
    async fn serve_all(self, mut arrived: mpsc::UnboundedReceiver<Guest>) {
        let mut drain = self.drain.clone();
        loop {
            tokio::select! {
                guest = arrived.recv() => match guest {
                    Some(guest) => self.serve(guest),
                    None => break,
                },
                _ = drain.wait_for(|state| *state == Drain::Now) => break,
            }
        }
        // Sessions that must end clean up and send their last messages.
        let deadline = tokio::time::Instant::now() + session::CLEAN_UP + Duration::from_secs(1);
        while self.clients.load(Ordering::Relaxed) > 0 && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn serve(&self, guest: Guest) {
        let counted = Counted(Arc::clone(&self.clients));
        let Guest { arrival, crowded } = guest;
        let session = session::serve(arrival, crowded, Arc::clone(&self.shared), self.drain.clone());
        net::tasks::spawn(async move {
            session.await;
            drop(counted);
        });
    }
}

/// Counts a client until it is dropped, even if its session panics.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn runtime() -> Result<Runtime, Report> {
    Builder::new_current_thread().enable_all().build().map_err(|error| internal("could not start a runtime", &error))
}

fn thread(name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Report> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(body)
        .map_err(|error| internal("could not start a thread", &error))
}

fn internal(what: &str, error: &std::io::Error) -> Report {
    Report::fatal(sqlstate::CANNOT_CONNECT_NOW, format!("{what}: {error}"))
}
