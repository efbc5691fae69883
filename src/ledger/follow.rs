//! The thread of the ledger: it keeps the connection open, follows what other proxies and operators do, and takes down what this proxy has to say.
//!
//! It keeps true: what was told is taken down in its order, and once. After a connection was lost, everything is read anew before the ledger counts as
//! one that can be asked.

use super::ask::{Inbox, Ledger, LedgerLink};
use super::install::{self, failed};
use super::rows::{self, ELSEWHERE, HELD, Ordered, SCOPES, whole};
use crate::gate::change::Event;
use crate::holds::{EndedChange, Holds, Keeper, Told};
use crate::logging::AUDIT;
use crate::metrics::Metrics;
use crate::operator;
use crate::pg::sqlstate;
use crate::registry::{ChangeEntry, Order, Registry, TEMPORARY, Throttled};
use crate::report::Report;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::future::poll_fn;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio_postgres::types::ToSql;
use tokio_postgres::{AsyncMessage, Client};

/// The pause before the next connection: at first, and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// How often this proxy says that it is alive. After a minute of silence others end what it has begun.
const BEAT: Duration = Duration::from_secs(5);
/// How often the progress of changes that run is taken down, and how long a change has to run for that.
const PROGRESS: Duration = Duration::from_secs(1);
/// Numbers are fetched when fewer are left.
const FEW_NUMBERS: u64 = 50;
/// The numbers that are fetched at a time, as the sequence in `tables.sql` has it.
const NUMBERS: u64 = 100;
/// The most that is kept of what is told while the ledger cannot be asked. What is over is not taken down, but for the ends of changes.
const MOST_TOLD: usize = 10_000;
/// The longest that the end of the proxy waits for the ledger.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What the ledger of a proxy follows, and what follows it.
pub struct Follow {
    pub connection: operator::Settings,
    /// How people call the proxy: the address that it listens on.
    pub name: String,
    /// How long events are kept. Zero: for ever.
    pub keep: Duration,
    /// The role that proxies log in as.
    pub role: Option<String>,
    pub holds: Weak<Holds>,
    pub registry: Arc<Registry>,
    pub metrics: Arc<Metrics>,
    /// Called when other scopes are held by hand than before.
    pub scopes_differ: Box<dyn Fn() + Send + Sync>,
}

impl fmt::Debug for Follow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follow").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The ledger of a proxy, and its work, which is to be run on a thread of its own.
pub fn start(follow: Follow) -> (Arc<Ledger>, LedgerThread) {
    let (inbox, received) = mpsc::unbounded_channel();
    let ledger = Arc::new(Ledger::new(inbox));
    follow.registry.numbers_are_shared();
    // Until the first connection.
    follow.metrics.measures.ledger_is_lost(true);
    let run = LedgerThread {
        ledger: Arc::clone(&ledger),
        follow,
        inbox: received,
        untold: VecDeque::new(),
        proxy: None,
        progress: BTreeMap::new(),
    };
    (ledger, run)
}

/// The work of a ledger.
pub struct LedgerThread {
    ledger: Arc<Ledger>,
    follow: Follow,
    inbox: mpsc::UnboundedReceiver<Inbox>,
    /// What was told and is not taken down.
    untold: VecDeque<Told>,
    /// The number of this proxy in the ledger, once it has one.
    proxy: Option<i64>,
    /// The changes whose progress was taken down, with the last of it.
    progress: BTreeMap<u64, (i32, i32, Option<String>)>,
}

impl fmt::Debug for LedgerThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LedgerThread").field("follow", &self.follow).finish_non_exhaustive()
    }
}

type Noted = mpsc::UnboundedReceiver<String>;

impl LedgerThread {
    /// Keeps the ledger until the other end of `end` is gone.
    pub async fn run(mut self, end: oneshot::Receiver<()>) {
        let mut end = std::pin::pin!(end);
        let mut pause = PAUSES.0;
        loop {
            let why = match self.connect().await {
                Ok((link, mut noted)) => {
                    pause = PAUSES.0;
                    tracing::info!("the ledger is kept");
                    self.ledger.is_up(link.clone());
                    self.follow.metrics.measures.ledger_is_lost(false);
                    let serving = self.serve(&link, &mut noted);
                    tokio::select! {
                        why = serving => why,
                        _ = &mut end => {
                            let _ = tokio::time::timeout(LAST_WORDS, self.say_farewell(&link)).await;
                            return;
                        }
                    }
                }
                Err(report) => report,
            };
            self.ledger.is_down(&in_a_line(&why));
            self.follow.metrics.measures.ledger_is_lost(true);
            self.keep_what_is_told();
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = &mut end => return,
            }
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// Opens a connection, and reads all that is to be known.
    async fn connect(&mut self) -> Result<(LedgerLink, Noted), Report> {
        let opened = operator::open(&self.follow.connection).await;
        let (mut client, mut connection) = opened.map_err(|error| {
            Report::error(sqlstate::CONNECTION_FAILURE, format!("could not connect to the ledger: {error}"))
        })?;
        let (noting, noted) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(message) = poll_fn(|cx| connection.poll_message(cx)).await {
                match message {
                    Ok(AsyncMessage::Notification(note)) if noting.send(note.payload().to_owned()).is_err() => return,
                    Ok(_) => {}
                    Err(error) => return tracing::debug!(%error, "the connection to the ledger ended"),
                }
            }
        });
        // A lock that is not to be had must not keep statements waiting.
        let settings =
            "SET statement_timeout = '10s'; SET lock_timeout = '4s'; SET idle_in_transaction_session_timeout = '10s'";
        client.batch_execute(settings).await.map_err(|error| failed("ask the ledger", &error))?;
        if install::installed(&client).await? != Some(install::VERSION) {
            install::install(&mut client, self.follow.role.as_deref()).await?;
        }
        client.batch_execute("LISTEN pgsluice").await.map_err(|error| failed("listen to the ledger", &error))?;
        let proxy = match self.proxy {
            Some(proxy) => proxy,
            None => number(&client, "SELECT pgsluice.begin_proxy($1)", &[&self.follow.name]).await?,
        };
        self.proxy = Some(proxy);
        let link = LedgerLink { client: Arc::new(client), proxy };
        self.beat(&link).await?;
        self.take_down(&link).await?;
        self.numbers(&link).await?;
        let recent = format!(
            "{HELD} (c.state OPERATOR(pg_catalog.=) ANY (ARRAY['held', 'approved', 'running', 'rejected']) \
             OR c.changed OPERATOR(pg_catalog.>) (pg_catalog.now() OPERATOR(pg_catalog.-) pg_catalog.make_interval(days => 1))) \
             ORDER BY c.id DESC LIMIT 1000"
        );
        self.read(&link, &recent, &[]).await?;
        self.read_more(&link).await?;
        Ok((link, noted))
    }

    /// Follows the ledger until the connection is lost. The value says why.
    async fn serve(&mut self, link: &LedgerLink, noted: &mut Noted) -> Report {
        let mut beats = tokio::time::interval(BEAT);
        let mut looks = tokio::time::interval(PROGRESS);
        let ledger = Arc::clone(&self.ledger);
        loop {
            let done = tokio::select! {
                note = noted.recv() => match note {
                    Some(note) => self.follow_notes(link, note, noted).await,
                    None => return Report::error(sqlstate::CONNECTION_FAILURE, "the connection to the ledger was lost"),
                },
                Some(message) = self.inbox.recv() => self.receive(link, message, noted).await,
                _ = beats.tick() => self.beat(link).await,
                _ = looks.tick() => self.look(link).await,
                () = ledger.breaks() => Err(Report::error(sqlstate::CONNECTION_FAILURE, ledger.why_down())),
            };
            if let Err(report) = done {
                return report;
            }
        }
    }

    /// Reads what notifications are about: those that have come, at once.
    async fn follow_notes(&self, link: &LedgerLink, first: String, noted: &mut Noted) -> Result<(), Report> {
        let notes = std::iter::once(first).chain(std::iter::from_fn(|| noted.try_recv().ok()));
        let notes: BTreeSet<String> = notes.collect();
        // Anybody may notify. What is no number is a reason to look, and nothing else.
        let numbers: Vec<i64> = notes.iter().filter_map(|note| note.parse().ok()).collect();
        if !numbers.is_empty() {
            self.read(link, &format!("{HELD} c.id OPERATOR(pg_catalog.=) ANY ($1) LIMIT 10000"), &[&numbers]).await?;
        }
        self.read_more(link).await
    }

    async fn receive(&mut self, link: &LedgerLink, message: Inbox, noted: &mut Noted) -> Result<(), Report> {
        match message {
            Inbox::Told(told) => {
                self.untold.push_back(told);
                self.take_down(link).await?;
                self.numbers(link).await
            }
            Inbox::Refresh(done) => {
                // The round trip brings the notifications of whatever was committed before.
                number(&link.client, "SELECT 1::pg_catalog.int8", &[]).await?;
                tokio::task::yield_now().await;
                self.follow_notes(link, String::new(), noted).await?;
                drop(done);
                Ok(())
            }
        }
    }

    /// Takes down what was told. What fails is told again after the next connection.
    async fn take_down(&mut self, link: &LedgerLink) -> Result<(), Report> {
        while let Some(told) = self.untold.front() {
            take_down(link, told).await?;
            self.untold.pop_front();
        }
        Ok(())
    }

    /// Keeps what is told while there is no connection, within a bound.
    fn keep_what_is_told(&mut self) {
        while let Ok(message) = self.inbox.try_recv() {
            if let Inbox::Told(told) = message {
                self.untold.push_back(told);
            }
        }
        if self.untold.len() > MOST_TOLD {
            let before = self.untold.len();
            self.untold.retain(|told| !matches!(told, Told::Ended(_) | Told::Verb { .. }));
            let lost = before - self.untold.len();
            tracing::error!(lost, "events were not taken down, as the ledger cannot be asked; they are in the log");
        }
    }

    /// Reads changes that a rule holds or has held.
    async fn read(&self, link: &LedgerLink, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<(), Report> {
        let rows = link.client.query(sql, values).await.map_err(|error| failed("read the ledger", &error))?;
        if let Some(holds) = self.follow.holds.upgrade() {
            holds.follow(rows.iter().filter_map(rows::held).collect());
        }
        Ok(())
    }

    /// Reads what is held by hand, what runs in other proxies, and what operators ask of what runs here.
    async fn read_more(&self, link: &LedgerLink) -> Result<(), Report> {
        let failed = |error: tokio_postgres::Error| failed("read the ledger", &error);
        let Some(holds) = self.follow.holds.upgrade() else { return Ok(()) };
        let scopes = link.client.query(SCOPES, &[]).await.map_err(failed)?;
        let scopes = scopes.iter().map(rows::scope).collect::<Result<_, _>>().map_err(failed)?;
        if holds.follow_scopes(scopes) {
            (self.follow.scopes_differ)();
        }
        let others = link.client.query(ELSEWHERE, &[&link.proxy]).await.map_err(failed)?;
        holds.follow_elsewhere(others.iter().map(rows::elsewhere).collect::<Result<_, _>>().map_err(failed)?);
        let sql = "SELECT o.change, o.verb, o.ratio, o.by, o.\"from\", o.why FROM pgsluice.take_orders($1) AS o";
        for row in link.client.query(sql, &[&link.proxy]).await.map_err(failed)? {
            self.carry_out(&rows::ordered(&row).map_err(failed)?);
        }
        Ok(())
    }

    /// Does what an operator has asked of a change that runs here.
    fn carry_out(&self, ordered: &Ordered) {
        let Ordered { change: number, verb, ratio, order } = ordered;
        let changes = self.follow.registry.changes().into_iter().filter(|change| change.known_as() == *number);
        let mut done = false;
        for change in changes {
            let steering = &change.steering;
            done |= match (verb.as_str(), ratio) {
                ("cancel", _) => {
                    change.cancel();
                    true
                }
                ("hold", _) => steering.hold(order.clone()).is_ok(),
                ("release", _) => steering.release(order.since),
                ("throttle", Some(ratio)) => {
                    let throttled = Throttled { ratio: *ratio, order: order.clone() };
                    steering.throttle(throttled, change.progress().phase)
                }
                ("unthrottle", _) => steering.unthrottle(),
                _ => false,
            };
        }
        let Order { by, from, why, .. } = order;
        tracing::warn!(target: AUDIT, change = number, verb, by, from, why, done, "an operator asks something of a schema change that runs");
        if !done {
            let what = format!("{verb} {number} had no effect");
            self.ledger.tell(Told::Verb { what, by: by.clone(), from: from.clone(), why: why.clone() });
        }
    }

    async fn beat(&self, link: &LedgerLink) -> Result<(), Report> {
        let keep = i64::try_from(self.follow.keep.as_millis()).unwrap_or_default();
        let sql = "SELECT pgsluice.beat($1, $2, $3)";
        let beat = link.client.execute(sql, &[&link.proxy, &self.follow.name, &keep]).await;
        beat.map(|_| ()).map_err(|error| failed("write to the ledger", &error))
    }

    async fn numbers(&self, link: &LedgerLink) -> Result<(), Report> {
        if self.follow.registry.numbers_left() < FEW_NUMBERS {
            let first = number(&link.client, "SELECT pgsluice.take_numbers()", &[]).await?;
            self.follow.registry.give_numbers(rows::natural(first), NUMBERS);
        }
        Ok(())
    }

    /// Takes down how far the changes are that run for longer than a moment.
    async fn look(&mut self, link: &LedgerLink) -> Result<(), Report> {
        let changes = self.follow.registry.changes();
        let long = |change: &Arc<ChangeEntry>| {
            change.number < TEMPORARY && change.began.elapsed().is_ok_and(|since| since >= PROGRESS)
        };
        let changes: Vec<_> = changes.into_iter().filter(long).collect();
        let here: BTreeSet<u64> = changes.iter().map(|change| change.known_as()).collect();
        for change in changes {
            let progress = change.progress();
            let small = |number: usize| i32::try_from(number).unwrap_or(i32::MAX);
            let now = (small(progress.phase), small(progress.phases), progress.waiting.map(|(words, _)| words));
            if self.progress.get(&change.known_as()) != Some(&now) {
                self.runs(link, &change, &now).await?;
                self.progress.insert(change.known_as(), now);
            }
        }
        let gone: Vec<u64> = self.progress.keys().filter(|number| !here.contains(number)).copied().collect();
        for number in gone {
            self.progress.remove(&number);
            let sql = "SELECT pgsluice.change_left($1, $2)";
            let left = link.client.execute(sql, &[&link.proxy, &whole(number)]).await;
            left.map_err(|error| failed("write to the ledger", &error))?;
        }
        self.numbers(link).await
    }

    async fn runs(
        &self,
        link: &LedgerLink,
        change: &ChangeEntry,
        now: &(i32, i32, Option<String>),
    ) -> Result<(), Report> {
        let session = self.follow.registry.session(change.session);
        let client = session.as_ref().map(|session| &session.client);
        let user = client.map(|client| client.user.clone()).unwrap_or_default();
        let database = client.map(|client| client.database.clone()).filter(|name| !name.is_empty());
        let database = database.unwrap_or_else(|| user.clone());
        let application = client.map(|client| client.application_name.clone()).unwrap_or_default();
        let address = session.as_ref().and_then(|session| session.address);
        let address = address.map_or_else(|| "a Unix socket".to_owned(), |address| address.to_string());
        let (number, session) = (whole(change.known_as()), whole(change.session));
        let sql = "SELECT pgsluice.change_runs($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";
        let values: [&(dyn ToSql + Sync); 11] = [
            &link.proxy,
            &number,
            &user,
            &database,
            &application,
            &address,
            &session,
            &change.statement,
            &now.0,
            &now.1,
            &now.2,
        ];
        link.client.execute(sql, &values).await.map(|_| ()).map_err(|error| failed("write to the ledger", &error))
    }

    /// Takes down what is left to say, and that this proxy is gone.
    async fn say_farewell(&mut self, link: &LedgerLink) {
        self.keep_what_is_told();
        if self.take_down(link).await.is_ok() {
            let _ = link.client.execute("SELECT pgsluice.bury($1)", &[&link.proxy]).await;
        }
    }
}

/// Takes one thing down.
async fn take_down(link: &LedgerLink, told: &Told) -> Result<(), Report> {
    let result = match told {
        Told::Happens(number, event) => {
            let done = matches!(event, Event::Finish { done: true });
            let sql = "SELECT pgsluice.step($1, $2, NULL, $3, NULL, NULL, NULL, NULL, $4)";
            link.client.execute(sql, &[&whole(*number), &event.word(), &done, &link.proxy]).await
        }
        Told::Left(number) | Told::Withdrawn(number) => {
            let withdrawn = matches!(told, Told::Withdrawn(_));
            let sql = "SELECT pgsluice.leave_change($1, $2, $3)";
            link.client.execute(sql, &[&link.proxy, &whole(*number), &withdrawn]).await
        }
        Told::Ended(change) => {
            let EndedChange { number, author, database, client, statement, failure } = &**change;
            let number = Some(*number).filter(|number| *number < TEMPORARY).map(whole);
            let sql = "SELECT pgsluice.change_ends($1, $2, $3, $4, $5, $6, $7, $8)";
            let done = failure.is_none();
            let values: [&(dyn ToSql + Sync); 8] =
                [&link.proxy, &number, &done, author, database, client, statement, failure];
            link.client.execute(sql, &values).await
        }
        Told::Verb { what, by, from, why } => {
            link.client
                .execute("SELECT pgsluice.note_event($1, $2, $3, $4, $5)", &[&link.proxy, what, by, from, why])
                .await
        }
    };
    match result {
        Ok(_) => Ok(()),
        // What the ledger refuses would be refused again.
        Err(error) if error.as_db_error().is_some() && !error.is_closed() => {
            tracing::error!(reason = operator::said(&error), "the ledger has refused an event");
            Ok(())
        }
        Err(error) => Err(failed("write to the ledger", &error)),
    }
}

/// A report as one line, for the log and SHOW STATE.
fn in_a_line(report: &Report) -> String {
    let parts = [Some(&report.message), report.detail.as_ref(), report.hint.as_ref()];
    parts.into_iter().flatten().map(|part| part.trim_end_matches('.')).collect::<Vec<_>>().join("; ")
}

/// Asks for one number.
async fn number(client: &Client, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<i64, Report> {
    let row = client.query_one(sql, values).await.map_err(|error| failed("ask the ledger", &error))?;
    row.try_get(0).map_err(|error| failed("ask the ledger", &error))
}
