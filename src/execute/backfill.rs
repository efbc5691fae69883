//! Backfills: old rows get what new rows get already, in short transactions of one batch each.
//!
//! A batch is a range of places in one table, walked in physical order, so that nothing is read twice, and one round
//! trip. It promises: no writer waits for ours longer than a batch, whose size follows `batch_time` and whose
//! `statement_timeout` is the stall budget; a batch waits for a writer no longer than its `lock_timeout`, which is less
//! than `deadlock_timeout`; the session's role, `search_path` and own timeouts hold; the backend is busy all the time, if
//! only with a nap, so that a cancel from anywhere strikes (the pause behind a batch is sent together with it).
//!
//! What the application moves meanwhile, and rows that want some of several columns, are the sweep's
//! (`backfill/sweep.rs`). That new rows are right is the plan's.

mod fault;
mod pace;
mod range;
mod sweep;
mod throttle;
mod watch;

use self::pace::{BatchSize, Progress};
use self::range::{PageLayout, Walk};
use self::throttle::Throttle;
use crate::backend::Answer;
use crate::catalog::trust;
use crate::execute::context::Context;
use crate::execute::lock_wait::LockWait;
use crate::execute::outcome::RunError;
use crate::execute::record::BackfillPosition;
use crate::execute::state::RunState;
use crate::execute::timing::set_local;
use crate::lanes::nap_sql;
use crate::pg::{RelationName, sqlstate};
use crate::plan::{Backfill, Filled, Phase};
use crate::report::Report;
use crate::wire::error_response::ServerError;
use crate::wire::message::Batch;
use serde::Deserialize;
use std::cmp::Ordering;
use std::ops::Range;
use std::time::{Duration, Instant};

/// A nap behind what has no pause, so that the backend is not idle before the next question comes.
const COVER: Duration = Duration::from_millis(2);

/// The same, as a share of the batch before: on a busy machine the proxy may be slow, too.
const LEAST_PAUSE: f64 = 0.05;

/// A batch that has met locks so often leaves the rows that are locked to the sweep.
const SKIP_AFTER: u32 = 3;

/// A table with rows of its own.
#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Leaf {
    oid: u32,
    #[serde(flatten)]
    name: RelationName,
    pages: u64,
    /// `pg_relation_filenode`
    file: u32,
    /// Of all pages, as far as the statistics know.
    rows: Option<f64>,
    /// What tells whether code of others could have come since it was looked at (`backfill/watch.rs`).
    #[serde(skip)]
    known: Option<String>,
}

impl Leaf {
    /// The pages to be done if the backfill had come to this place. The tables are in the order of their oids.
    fn left(&self, place: Option<BackfillPosition>) -> Range<u64> {
        let Some(place) = place else { return 0..self.pages };
        match self.oid.cmp(&place.table) {
            Ordering::Less => self.pages..self.pages,
            Ordering::Equal if self.file == place.file => {
                let end = self.pages.min(place.end);
                place.page.min(end)..end
            }
            Ordering::Equal | Ordering::Greater => 0..self.pages,
        }
    }
}

/// The tables of a backfill, and how the server pages them.
#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Listing {
    block_size: u64,
    leaves: Vec<Leaf>,
}

/// How a batch is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BatchKind {
    Plain,
    /// Without the rows that others have locked.
    Skipping,
    /// It tells how many rows it has updated, and how many of them still want.
    Counting,
}

/// How a short transaction ended, if the backfill goes on.
enum BatchOutcome {
    Done(Answer),
    /// A lock was not to be had in time.
    Locked,
    /// It took longer than it may.
    TooLong,
    Refused(ServerError),
    /// The table's name finds another one.
    Moved(ServerError),
}

/// One backfill under way.
struct BackfillRun<'a> {
    what: &'a Backfill,
    phase: &'a Phase,
    waiting: &'a mut LockWait,
    leaves: Vec<Leaf>,
    places: PageLayout,
    pace: BatchSize,
    /// The longest that a batch may take now.
    longest: Duration,
    progress: Progress,
    throttle: Throttle,
    begun: Instant,
    told: Instant,
    /// The table and the place that the first walk has come to.
    at: Option<(usize, u64)>,
    /// Rows that still wanted after their update: the default may give NULL.
    still: u64,
}

impl BackfillRun<'_> {
    /// What another session had done is no work of this one's. The pages that are left, of each table.
    fn go_on(&mut self, from: Option<BackfillPosition>) -> Vec<Range<u64>> {
        let progress = &mut self.progress;
        progress.rows = from.map_or(0, |place| place.rows);
        let mut all = Vec::with_capacity(self.leaves.len());
        for table in &mut self.leaves {
            let left = table.left(from);
            let behind = table.pages - left.end;
            let rows = table.rows.unwrap_or_default() * behind as f64 / table.pages.max(1) as f64;
            progress.of_rows = progress.of_rows.map(|of| of - rows.round());
            progress.of_pages -= behind as f64;
            progress.pages += left.start as f64;
            table.pages = left.end;
            all.push(left);
        }
        progress.before = (progress.rows, progress.pages);
        all
    }

    /// The statement of one batch: of rows that want all of its columns.
    fn update(&self, leaf: usize, batch: &Range<u64>, how: BatchKind, columns: &[Filled]) -> String {
        let name = self.leaves.get(leaf).map(|leaf| leaf.name.quoted()).unwrap_or_default();
        let each = |words: fn(&Filled) -> String, between: &str| {
            columns.iter().map(words).collect::<Vec<_>>().join(between) //
        };
        let (set, wanting) = (each(Filled::set, ", "), each(|filled| format!("({})", filled.wanting), " AND "));
        let wanted = format!("{} AND {wanting}", self.places.condition(batch));
        let update = format!("UPDATE ONLY {name} SET {set} WHERE");
        match how {
            BatchKind::Plain => format!("/* pgsluice: filling old rows */ {update} {wanted}"),
            BatchKind::Skipping => format!(
                "/* pgsluice: filling old rows that nobody has locked */ {update} ctid OPERATOR(pg_catalog.=) ANY (ARRAY(\
                 SELECT ctid FROM ONLY {name} WHERE {wanted} FOR NO KEY UPDATE SKIP LOCKED))"
            ),
            BatchKind::Counting => format!(
                "/* pgsluice: filling old rows that were moved */ WITH pgsluice AS ({update} {wanted} RETURNING {} AS still) \
                 SELECT pg_catalog.count(*), pg_catalog.count(*) FILTER (WHERE still) FROM pgsluice",
                each(|filled| format!("({})", filled.wanting), " OR ")
            ),
        }
    }

    /// For the record: whole pages.
    fn reached(&self) -> Option<BackfillPosition> {
        let (leaf, place) = self.at?;
        let Leaf { oid: table, file, pages: end, .. } = *self.leaves.get(leaf)?;
        Some(BackfillPosition { table, file, page: place / self.places.lines, end, rows: self.progress.rows })
    }

    /// A batch of this many places is done.
    fn done(&mut self, places: u64, answer: &Answer) {
        let counted = |at: usize| answer.rows.first()?.get(at)?.as_deref()?.parse::<u64>().ok();
        // A record may say anything.
        let rows = answer.updated + counted(0).unwrap_or_default();
        self.progress.rows = self.progress.rows.saturating_add(rows);
        self.still += counted(1).unwrap_or_default();
        self.pace.took(places, answer.took);
    }
}

/// Fills all rows that want it. The lanes are held by the caller.
pub(super) async fn backfill(
    context: &mut Context<'_>,
    state: &mut RunState,
    phase: &Phase,
    what: &Backfill,
    waiting: &mut LockWait,
) -> Result<(), RunError> {
    let listing = listing(context, what, phase, waiting).await?;
    let places = PageLayout::new(listing.block_size, context.facts().session.server_version);
    let of_rows: Option<f64> = listing.leaves.iter().map(|leaf| leaf.rows).sum();
    let of_pages = listing.leaves.iter().map(|leaf| leaf.pages as f64).sum();
    let now = Instant::now();
    let mut filling = BackfillRun {
        what,
        phase,
        waiting,
        leaves: listing.leaves,
        places,
        pace: BatchSize::new(places.lines, places.most(), context.config().backfill.batch_time),
        longest: longest(context),
        progress: Progress { of_rows, of_pages, ..Progress::default() },
        throttle: Throttle::default(),
        begun: now,
        told: now,
        at: None,
        still: 0,
    };
    for (leaf, left) in filling.go_on(state.record().position()).into_iter().enumerate() {
        let mut walk = Walk::new(left.start * places.lines..left.end * places.lines);
        filling.walk(context, state, leaf, &what.columns, &mut walk, BatchKind::Plain).await?;
        filling.at = Some((leaf, walk.at()));
    }
    filling.sweep(context, state).await?;
    filling.analyze(context).await?;
    let BackfillRun { progress, begun, .. } = filling;
    tracing::info!(rows = progress.rows, seconds = begun.elapsed().as_secs_f64(), table = %what.table, "backfilled");
    Ok(())
}

impl BackfillRun<'_> {
    /// Batch by batch through a range of one table, to its end. With `Counting` only up to a lock that is not to be had.
    async fn walk(
        &mut self,
        context: &mut Context<'_>,
        state: &mut RunState,
        leaf: usize,
        columns: &[Filled],
        walk: &mut Walk,
        how: BatchKind,
    ) -> Result<(), RunError> {
        while let Some(batch) = walk.next(self.pace.size()) {
            if !self.progress.sweeping {
                self.at = Some((leaf, batch.start));
            }
            self.between(context, state).await?;
            let skips = how == BatchKind::Plain && walk.locked >= SKIP_AFTER;
            let sql = self.update(leaf, &batch, if skips { BatchKind::Skipping } else { how }, columns);
            let places = batch.end - batch.start;
            let ended = match self.look_whose_code(context, leaf).await? {
                Some(ended) => ended,
                None => self.batch(context, leaf, &sql).await?,
            };
            match ended {
                BatchOutcome::Done(answer) => {
                    self.done(places, &answer);
                    self.longest = longest(context);
                    walk.done(&batch);
                    if !self.progress.sweeping {
                        self.progress.pages += places as f64 / self.places.lines as f64;
                    }
                }
                BatchOutcome::Locked => {
                    walk.locked += 1;
                    self.pace.too_much(places);
                    if how == BatchKind::Counting {
                        return Ok(());
                    }
                    self.locked(context, walk.locked).await?;
                }
                BatchOutcome::TooLong if self.pace.is_least() => self.longest *= 2,
                BatchOutcome::TooLong => self.pace.too_much(places),
                BatchOutcome::Refused(error) if self.what.watched && trust::untrue(error.message()).is_some() => {
                    self.leaves.iter_mut().for_each(|leaf| leaf.known = None);
                }
                BatchOutcome::Refused(error) | BatchOutcome::Moved(error) if is_elsewhere(&error) => {
                    if !self.still_there(context, leaf, error).await? {
                        walk.leave();
                    }
                }
                BatchOutcome::Refused(error) | BatchOutcome::Moved(error) => {
                    if !fault::is_of_a_row(error.sqlstate()) || !walk.narrow(&batch) {
                        return Err(self.at_fault(context, leaf, &batch, error).await?);
                    }
                }
            }
        }
        Ok(())
    }

    /// One batch, with its pause.
    async fn batch(&self, context: &mut Context<'_>, leaf: usize, sql: &str) -> Result<BatchOutcome, RunError> {
        context.metrics().backfill_batches.add();
        let ratio = self.throttle.ratio(&context.config().backfill).max(LEAST_PAUSE);
        let pause = self.pace.last.mul_f64(ratio);
        let pause = time_left(context)?.map_or(pause, |left| pause.min(left)).max(COVER);
        let nap =
            nap_sql(pause, &context.channel().words(&format!("backfill of {}, between two batches", self.what.table)));
        let mut batch = self.open_batch(context, leaf)?;
        batch.statement(sql, &[]);
        batch.statement("COMMIT", &[]);
        let ended = short(context, batch, &nap, Some(self.longest)).await?;
        if !matches!(ended, BatchOutcome::Done(_)) {
            context.metrics().backfill_batches_failed.add();
        }
        Ok(ended)
    }
}

/// The beginning of a short transaction. `longest`: for each of its statements; none: as the session allows.
fn open(context: &Context<'_>, longest: Option<Duration>, quiet: bool) -> Result<Batch, RunError> {
    let mut batch = Batch::new();
    batch.statement("BEGIN ISOLATION LEVEL READ COMMITTED", &[]);
    put_settings(context, &mut batch, longest, quiet)?;
    Ok(batch)
}

/// What holds in it.
fn put_settings(
    context: &Context<'_>,
    batch: &mut Batch,
    longest: Option<Duration>,
    quiet: bool,
) -> Result<(), RunError> {
    let version = context.facts().session.server_version;
    batch.statement(&set_local("lock_timeout", row_timeout(context)), &[]);
    let timeout = match (longest, time_left(context)?) {
        (Some(longest), Some(left)) => Some(longest.min(left)),
        (longest, left) => longest.or(left),
    };
    if let Some(timeout) = timeout {
        batch.statement(&set_local("statement_timeout", timeout), &[]);
        // There the clock of a statement is set by the first one behind a change of the transaction's state.
        if version < 110_000 {
            batch.statement("SAVEPOINT pgsluice", &[]);
        }
    }
    batch.statement("SET LOCAL enable_tidscan = on", &[]);
    if quiet {
        batch.statement("SET LOCAL session_replication_role = replica", &[]);
    }
    Ok(())
}

/// Runs a short transaction, with a nap right behind it; what fails is taken back.
async fn short(
    context: &mut Context<'_>,
    batch: Batch,
    nap: &str,
    longest: Option<Duration>,
) -> Result<BatchOutcome, RunError> {
    let (answer, struck) = context.channel_mut().ask_then_nap(batch, nap).await?;
    let took = answer.took;
    // Whatever struck the nap before: no failed transaction is left open.
    if answer.error.is_some() && context.channel().status() != b'I' {
        let mut rollback = Batch::new();
        rollback.statement("ROLLBACK", &[]);
        nap_behind(context, rollback, COVER, "backfill: after a batch that failed").await?;
    }
    context.cancelled_by(struck)?;
    let error = match answer.ok() {
        Ok(answer) => return Ok(BatchOutcome::Done(answer)),
        Err(error) => error,
    };
    if context.channel().client_gone() {
        return Err(RunError::ClientGone);
    }
    match error.sqlstate() {
        sqlstate::LOCK_NOT_AVAILABLE | sqlstate::DEADLOCK_DETECTED => Ok(BatchOutcome::Locked),
        sqlstate::QUERY_CANCELED => {
            if longest.is_some_and(|longest| is_timeout(&error, took, longest)) && !context.channel().take_cancelled() {
                return Ok(BatchOutcome::TooLong);
            }
            context.cancelled_by(Some(error))?;
            Ok(BatchOutcome::TooLong)
        }
        _ => Ok(BatchOutcome::Refused(error)),
    }
}

impl BackfillRun<'_> {
    /// What is looked at between two batches.
    async fn between(&mut self, context: &mut Context<'_>, state: &mut RunState) -> Result<(), RunError> {
        if let Some(stop) = context.interrupted() {
            return Err(stop);
        }
        state.record_mut().note_position(context, || self.reached()).await?;
        self.throttle(context).await?;
        self.tell_progress(context);
        Ok(())
    }

    /// A lock was not to be had, for the `times`th time at this place: waits until it may be.
    async fn locked(&mut self, context: &mut Context<'_>, times: u32) -> Result<(), RunError> {
        if times == 1 {
            self.waiting.begin_anew();
        }
        // Where rows are in the way, nobody is seen to be: the pauses grow.
        if let Some(more) = times.checked_sub(SKIP_AFTER).filter(|more| *more > 0) {
            let pause = (context.config().locks.poll * more).min(Duration::from_secs(1));
            let why = format!("backfill of {}, waiting for rows that others have locked", self.what.table);
            nap(context, pause, &why).await?;
        }
        self.waiting.wait(context, self.phase).await.map(|_| ())
    }
}

/// The next question is sent while it lasts, and answered when it is over.
async fn nap(context: &mut Context<'_>, time: Duration, why: &str) -> Result<(), RunError> {
    nap_behind(context, Batch::new(), time, why).await
}

/// A nap behind what needs no answer.
async fn nap_behind(context: &mut Context<'_>, batch: Batch, time: Duration, why: &str) -> Result<(), RunError> {
    let nap = nap_sql(time, &context.channel().words(why));
    let (_, struck) = context.channel_mut().ask_then_nap_always(batch, &nap).await?;
    context.cancelled_by(struck)
}

/// The longest that a batch waits for a lock: less than after which the server looks for a deadlock.
fn row_timeout(context: &Context<'_>) -> Duration {
    let session = &context.facts().session;
    let deadlock = Duration::from_millis(session.deadlock_timeout_ms) / 2;
    let mut timeout = context.config().backfill.lock_timeout.min(context.config().locks.stall_budget).min(deadlock);
    if session.lock_timeout_ms > 0 {
        timeout = timeout.min(Duration::from_millis(session.lock_timeout_ms));
    }
    timeout.max(Duration::from_millis(1))
}

/// The longest that a batch may take, as long as it is more than one row.
fn longest(context: &Context<'_>) -> Duration {
    context.config().locks.stall_budget.max(context.config().backfill.batch_time * 2)
}

/// Of the session's `statement_timeout`, which counts from the statement's begin; none: there is none.
fn time_left(context: &Context<'_>) -> Result<Option<Duration>, RunError> {
    let limit = match context.facts().session.statement_timeout_ms {
        0 => return Ok(None),
        ms => Duration::from_millis(ms),
    };
    match limit.checked_sub(context.begun().elapsed()).filter(|left| *left >= Duration::from_millis(1)) {
        Some(left) => Ok(Some(left)),
        None => Err(RunError::Report(Report::error(
            sqlstate::QUERY_CANCELED,
            "canceling statement due to statement timeout",
        ))),
    }
}

/// The tables that have rows, as they are now.
async fn listing(
    context: &mut Context<'_>,
    what: &Backfill,
    phase: &Phase,
    waiting: &mut LockWait,
) -> Result<Listing, RunError> {
    let nap = nap_sql(COVER, &context.channel().words(&format!("backfill of {}", what.table)));
    let mut times = 0;
    loop {
        let mut batch = open(context, None, false)?;
        context.channel().put_question(&mut batch, include_str!("backfill/leaves.sql"), &[&what.oid.to_string()]);
        batch.statement("COMMIT", &[]);
        match short(context, batch, &nap, None).await? {
            BatchOutcome::Done(answer) => {
                let json = answer.rows.first().and_then(|row| row.first()?.clone()).unwrap_or_default();
                return serde_json::from_str(&context.channel().text(&json)).map_err(|error| {
                    let message = format!("cannot read what tables there are to fill: {error}");
                    RunError::Report(Report::error(sqlstate::INTERNAL_ERROR, message))
                });
            }
            BatchOutcome::Locked | BatchOutcome::TooLong => {
                times += 1;
                if times == 1 {
                    waiting.begin_anew();
                }
                waiting.wait(context, phase).await?;
            }
            BatchOutcome::Refused(error) | BatchOutcome::Moved(error) => {
                return Err(RunError::Server(ServerError::new(error.with_position(|_| None))));
            }
        }
    }
}

impl BackfillRun<'_> {
    /// Whether a table that its name does not find is still part of the whole; if so, by its new name.
    async fn still_there(
        &mut self,
        context: &mut Context<'_>,
        leaf: usize,
        error: ServerError,
    ) -> Result<bool, RunError> {
        let listing = listing(context, self.what, self.phase, self.waiting).await?;
        let Some(old) = self.leaves.get_mut(leaf) else { return Ok(false) };
        let Some(now) = listing.leaves.into_iter().find(|now| now.oid == old.oid) else { return Ok(false) };
        if now.name == old.name {
            return Err(RunError::Server(ServerError::new(error.with_position(|_| None))));
        }
        old.name = now.name;
        Ok(true)
    }

    /// At most once per `progress_interval`, but soon once.
    fn tell_progress(&mut self, context: &mut Context<'_>) {
        let now = Instant::now();
        let interval = context.config().ddl.progress_interval;
        let first = self.told == self.begun;
        if now - self.told < if first { interval.min(Duration::from_secs(1)) } else { interval } {
            return;
        }
        self.told = now;
        let words = self.progress.words(now - self.begun);
        let throttle = self.throttle.words(&context.config().backfill);
        let message = format!("backfilling {}: {words}; {throttle}", self.what.table);
        tracing::info!("{message}");
        if context.config().ddl.notices {
            context.notify(&Report::notice(sqlstate::SUCCESSFUL_COMPLETION, message));
        }
    }
}

/// The name of a table finds none, or another one.
fn is_elsewhere(error: &ServerError) -> bool {
    error.sqlstate() == sqlstate::UNDEFINED_TABLE || trust::untrue(error.message()).is_some()
}

/// A cancel has the same SQLSTATE as a timeout. Where the words are in another language, the time must tell; the
/// server's clock has started a little before ours.
fn is_timeout(error: &ServerError, took: Duration, longest: Duration) -> bool {
    let message = error.message();
    message.contains("statement timeout") || (!message.contains("user request") && took >= longest.mul_f64(0.8))
}
