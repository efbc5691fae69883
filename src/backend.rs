//! Asking PostgreSQL something on the session's own backend, unseen by the client.
//!
//! Invariants: asked only while the backend is idle and nothing is owed to the client; the extended
//! protocol with a name of our own is used, so the client's unnamed statement and portal stay what
//! they were; the answer is read to its ReadyForQuery, whatever happens to the client meanwhile.
//!
//! All that the proxy sends of its own goes through [`ServerChannel::send`], which says it in the session's encodings
//! (`wire/speech.rs`). Where these turn names into something else, answers that hold names are asked for in hexadecimal, and
//! what cannot be said makes the statement go as it is written, guarded by `lock_timeout` (`backend/words.rs`).

use crate::net::{Target, tasks};
use crate::pg::sqlstate;
use crate::relay::Link;
use crate::report::Report;
use crate::wire::error_response::ServerError;
use crate::wire::frame::HEADER_LEN;
use crate::wire::message::Batch;
use crate::wire::reply;
use bytes::{Bytes, BytesMut};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

mod heard;
mod words;

pub use self::heard::SentNotices;
pub use crate::relay::BackendLost;

/// What a batch of statements brought.
#[derive(Debug, Default)]
pub struct Answer {
    /// The rows of all statements, values as text.
    pub rows: Vec<Vec<Option<String>>>,
    /// Statements that were parsed, and that were completed.
    pub parsed: usize,
    pub done: usize,
    /// Rows that the statements have updated.
    pub updated: u64,
    /// From when the backend was free for it to when it had answered.
    pub took: Duration,
    /// What the next one failed with.
    pub error: Option<ServerError>,
    /// NoticeResponse messages of the visible statement, as they came, that have not gone to the client yet (`backend/heard.rs`).
    pub notices: BytesMut,
    held_until: Option<tokio::time::Instant>,
    /// CommandComplete of the visible statement, as it came.
    pub completion: BytesMut,
}

impl Answer {
    /// The first value of the first row.
    pub fn value(&self) -> Option<&str> {
        self.rows.first()?.first()?.as_deref()
    }

    /// # Errors
    /// The server's error, if there was one.
    pub fn ok(self) -> Result<Self, ServerError> {
        match self.error {
            Some(error) => Err(error),
            None => Ok(self),
        }
    }
}

/// A session's two ends, and what is needed to cancel what its backend does.
#[derive(Debug)]
pub struct ServerChannel {
    pub link: Link,
    /// Where it is.
    pub target: Arc<Target>,
    /// CancelRequests for this session that passed through; whoever waits looks at them.
    pub cancels: Arc<CancelRequests>,
    /// The client's own Parse has brought the notices of the grammar already (a name that is cut, say).
    pub client_has_parsed: bool,
    /// A Query of the client's is answered in place of the server, which would have begun by ending the unnamed statement and
    /// portal: that is still to be done.
    pub ends_unnamed: bool,
    /// A cancel of our own that is on its way, since the client left.
    pub cancel_task: CancelTask,
    /// A nap is on its way that nobody has read the end of ([`ServerChannel::ask_then_nap_always`]).
    pub nap_pending: bool,
    /// The rows that came of a batch before the backend was gone.
    pub rows_before_loss: Vec<Vec<Option<String>>>,
    /// The server has said that it ends the session: all that it had to say before has come.
    pub server_has_ended: bool,
    /// NotificationResponse messages that came amid a statement, and wait for its end.
    pub notifications: Option<Box<BytesMut>>,
    /// Bytes of them; then they go at once, as the protocol lets them come at any time.
    pub notifications_limit: u32,
    /// What the client has heard of its statement, if that said anything.
    pub sent_notices: Option<Box<SentNotices>>,
    /// Something was read that cannot be said again.
    pub unsayable: AtomicBool,
}

/// The task that sends it.
pub type CancelTask = Arc<Mutex<Option<JoinHandle<()>>>>;

/// Which of a session's requests was to be cancelled.
///
/// A cancel strikes on the server before the proxy hears that it did, and the client may have sent its next
/// request by then. So a cancel is for the request that was under way when it came, and for no later one.
#[derive(Debug, Default)]
pub struct CancelRequests {
    /// Counts the requests; 0 before the first.
    current: AtomicU32,
    to_cancel: AtomicU32,
    /// CancelRequests that the server is just acting on.
    in_flight: watch::Sender<u32>,
}

/// A CancelRequest that is on its way to the server, until this is dropped.
#[derive(Debug)]
pub struct CancelInFlight(Arc<CancelRequests>);

impl Drop for CancelInFlight {
    fn drop(&mut self) {
        self.0.in_flight.send_modify(|count| *count = count.saturating_sub(1));
    }
}

impl CancelRequests {
    pub fn current(&self) -> u32 {
        self.current.load(Ordering::Relaxed)
    }

    /// A request of the client's begins.
    pub fn begin(&self) {
        self.current.fetch_add(1, Ordering::Relaxed);
    }

    /// A CancelRequest sets out for the server.
    pub fn send(self: &Arc<Self>) -> CancelInFlight {
        self.in_flight.send_modify(|count| *count = count.saturating_add(1));
        CancelInFlight(Arc::clone(self))
    }

    /// That request is to be cancelled, if it is still under way.
    pub fn cancel(&self, request: u32) {
        self.to_cancel.store(request, Ordering::Relaxed);
    }
}

impl ServerChannel {
    /// Whether a CancelRequest came for what is under way, since this was last asked.
    pub fn take_cancelled(&self) -> bool {
        let under_way = self.cancels.current();
        self.cancels.to_cancel.compare_exchange(under_way, 0, Ordering::Relaxed, Ordering::Relaxed).is_ok()
            && under_way > 0
    }

    /// Waits until every cancel on its way, the client's or our own, has struck, so that it does not strike what is asked
    /// next. A server signals the backend twice for one CancelRequest (`signal_child()` in its postmaster: the process,
    /// then its group), and the answer to the first may be here before the second.
    pub async fn cancel_settled(&self) {
        let task = self.cancel_task.lock().ok().and_then(|mut task| task.take());
        if let Some(task) = task {
            let _ = task.await;
        }
        // The sender is ours: it is not closed.
        let _ = self.cancels.in_flight.subscribe().wait_for(|count| *count == 0).await;
    }

    /// What a cancel has struck is over only when the cancel is.
    async fn settle(&self, answer: &Answer) {
        if answer.error.as_ref().is_some_and(|error| error.sqlstate() == sqlstate::QUERY_CANCELED) {
            self.cancel_settled().await;
        }
    }

    /// What is done when the client leaves while its backend works: the work is cancelled.
    pub fn canceller(&self) -> impl FnMut(&[u8]) + use<> {
        let (target, cancelling) = (Arc::clone(&self.target), Arc::clone(&self.cancel_task));
        move |key| {
            let mut packet = u32::try_from(8 + key.len()).unwrap_or(8).to_be_bytes().to_vec();
            packet.extend(CANCEL_REQUEST.to_be_bytes());
            packet.extend(key);
            let target = Arc::clone(&target);
            let task = tasks::spawn(async move {
                if let Err(error) = cancel(&target, &packet).await {
                    tracing::warn!(%error, "could not cancel the work of a client that left");
                }
            });
            if let Ok(mut slot) = cancelling.lock() {
                *slot = Some(task);
            }
        }
    }

    /// Sends the batch and reads its answers. `visible`: the statement (from 0) whose notices and
    /// completion are kept for the client.
    ///
    /// # Errors
    /// The backend is gone; what it said last has been put on the way to the client.
    pub async fn ask(&mut self, batch: Batch, visible: Option<usize>) -> Result<Answer, BackendLost> {
        let (_never, mut silent) = mpsc::channel(1);
        self.ask_with(batch, visible, &mut silent).await
    }

    /// The same of several visible statements, in their order: their notices stand in `completion`, each before what it is about.
    ///
    /// # Errors
    /// As [`ServerChannel::ask`].
    pub async fn ask_each(&mut self, batch: Batch, visible: &[usize]) -> Result<Answer, BackendLost> {
        let (_never, mut silent) = mpsc::channel(1);
        self.asked(batch, visible, &mut silent).await
    }

    /// The same, with `nap` right behind it: the backend is not idle between this question and the next, so that a
    /// cancel from anywhere strikes. The nap before it is read first: an error of that one is the second value.
    ///
    /// # Errors
    /// As [`ServerChannel::ask`].
    pub async fn ask_then_nap_always(
        &mut self,
        batch: Batch,
        nap: &str,
    ) -> Result<(Answer, Option<ServerError>), BackendLost> {
        let mut cover = Batch::new();
        cover.statement(nap, &[]);
        self.ask_with_nap(batch, cover).await
    }

    /// `cover` ends with a nap.
    async fn ask_with_nap(&mut self, batch: Batch, cover: Batch) -> Result<(Answer, Option<ServerError>), BackendLost> {
        self.send_request(batch);
        self.send(cover.sync());
        let struck = self.finish_nap().await?;
        let answer = self.read_answer().await?;
        self.nap_pending = true;
        Ok((answer, struck))
    }

    /// The same of a batch that begins a transaction, and may fail amid it: it is rolled back before the nap.
    ///
    /// # Errors
    /// As [`ServerChannel::ask`].
    pub async fn ask_then_roll_back_and_nap(
        &mut self,
        batch: Batch,
        nap: &str,
    ) -> Result<(Answer, Option<ServerError>), BackendLost> {
        let mut cover = Batch::new();
        // Behind a COMMIT it has a WARNING for nobody.
        cover.statement("ROLLBACK", &[]);
        cover.statement(nap, &[]);
        self.ask_with_nap(batch, cover).await
    }

    /// As [`ServerChannel::ask_then_nap_always`], but with no nap where a statement of the batch fails: a transaction that has failed
    /// is left as it is.
    ///
    /// # Errors
    /// As [`ServerChannel::ask`].
    pub async fn ask_then_nap(
        &mut self,
        batch: Batch,
        nap: &str,
    ) -> Result<(Answer, Option<ServerError>), BackendLost> {
        let statements = batch.statements;
        let mut batch = batch.flush();
        batch.statement(nap, &[]);
        self.send_request(batch);
        let struck = self.finish_nap().await?;
        let answer = self.read_statements(statements).await?;
        self.nap_pending = answer.error.is_none();
        Ok((answer, struck))
    }

    /// Puts a batch on its way, with a Sync.
    fn send_request(&mut self, batch: Batch) {
        if std::mem::take(&mut self.ends_unnamed) {
            self.link.send_to_server(&Batch::end_unnamed());
        }
        self.send(batch.sync());
    }

    /// Waits for the end of the nap that [`ServerChannel::ask_then_nap_always`] left, and gives its error: a cancel, or a timeout.
    ///
    /// # Errors
    /// As [`ServerChannel::ask`].
    pub async fn finish_nap(&mut self) -> Result<Option<ServerError>, BackendLost> {
        if !std::mem::take(&mut self.nap_pending) {
            return Ok(None);
        }
        Ok(self.read_answer().await?.error)
    }

    /// Up to ReadyForQuery.
    async fn read_answer(&mut self) -> Result<Answer, BackendLost> {
        self.read_statements(usize::MAX).await
    }

    /// Up to the completion of so many statements, or to ReadyForQuery.
    async fn read_statements(&mut self, statements: usize) -> Result<Answer, BackendLost> {
        let mut answer = Answer::default();
        let mut gone = self.canceller();
        let begun = Instant::now();
        loop {
            let frame = self.link.next_back_frame(&mut gone).await?;
            if self.take_frame(&mut answer, frame, &[])? || answer.done >= statements {
                answer.took = begun.elapsed();
                self.settle(&answer).await;
                return Ok(answer);
            }
        }
    }

    /// The same as [`ServerChannel::ask`]; reports that come in `progress` meanwhile go to the client.
    ///
    /// # Errors
    /// As [`ServerChannel::ask`].
    pub async fn ask_with(
        &mut self,
        batch: Batch,
        visible: Option<usize>,
        progress: &mut mpsc::Receiver<Report>,
    ) -> Result<Answer, BackendLost> {
        self.asked(batch, visible.as_slice(), progress).await
    }

    async fn asked(
        &mut self,
        batch: Batch,
        visible: &[usize],
        progress: &mut mpsc::Receiver<Report>,
    ) -> Result<Answer, BackendLost> {
        self.finish_nap().await?;
        self.send_request(batch);
        self.read_on(Answer::default(), visible, progress).await
    }

    /// As [`ServerChannel::ask`], in one pipeline with what the client has sent of its own, which has executed nothing so far, and
    /// without a Sync in between: where that fails, nothing of the batch, which begins as [`Batch::behind`], is done.
    /// `None`: so it was; the client has the error.
    ///
    /// # Errors
    /// As [`ServerChannel::ask`].
    pub async fn ask_in_pipeline(
        &mut self,
        batch: Batch,
        visible: Option<usize>,
    ) -> Result<Option<Answer>, BackendLost> {
        self.link.account(b'S');
        self.send(batch.sync());
        let answer = match self.read_until_own_answer().await? {
            Some(begun) => {
                let (_never, mut silent) = mpsc::channel(1);
                Some(self.read_on(begun, visible.as_slice(), &mut silent).await?)
            }
            None => None,
        };
        self.link.owed.received(b'Z');
        Ok(answer)
    }

    /// Passes on the answers to the client's messages, up to the end of our first statement, with which our answer begins: before it
    /// nothing was executed, so it is the first that is complete. `None`: one of them is an error, and the server has skipped all up to
    /// our Sync.
    async fn read_until_own_answer(&mut self) -> Result<Option<Answer>, BackendLost> {
        /// The answers to what a batch begins with: three Close, and Parse and Bind of its first statement.
        const OWN: [u8; 5] = *b"33312";
        let mut gone = self.canceller();
        let mut held: Vec<Bytes> = Vec::new();
        let mut failed = false;
        loop {
            let frame = self.link.next_back_frame(&mut gone).await?;
            match frame.first().copied().unwrap_or_default() {
                b'Z' if failed => return Ok(None),
                b'A' => self.hold_notification(&frame),
                b'S' | b'N' => self.link.send_to_client(&frame),
                b'1' | b'2' | b'3' => held.push(frame),
                b'C' => {
                    let clients = held.len().saturating_sub(OWN.len());
                    held.drain(..clients).for_each(|frame| self.link.send_to_client(&frame));
                    return Ok(Some(Answer { parsed: 1, done: 1, ..Answer::default() }));
                }
                tag => {
                    let mut clients = held.len();
                    if tag == b'E' {
                        failed = true;
                        self.link.owed.received(tag);
                        // Nothing but a cancel can strike our own part.
                        if ServerError::new(frame.clone()).sqlstate() == sqlstate::QUERY_CANCELED {
                            clients -= own_at_the_end(&held, &OWN);
                        }
                    }
                    held.drain(..).take(clients).for_each(|frame| self.link.send_to_client(&frame));
                    self.link.send_to_client(&frame);
                }
            }
        }
    }

    /// Reads the rest of an answer. Of a backend that is lost the rows are kept.
    async fn read_on(
        &mut self,
        mut answer: Answer,
        visible: &[usize],
        progress: &mut mpsc::Receiver<Report>,
    ) -> Result<Answer, BackendLost> {
        if self.read_into(&mut answer, visible, progress).await.is_err() {
            self.rows_before_loss = self.decoded(answer.rows);
            return Err(BackendLost);
        }
        self.settle(&answer).await;
        Ok(answer)
    }

    async fn read_into(
        &mut self,
        answer: &mut Answer,
        visible: &[usize],
        progress: &mut mpsc::Receiver<Report>,
    ) -> Result<(), BackendLost> {
        let mut gone = self.canceller();
        let mut tidied = false;
        if let Some(heard) = self.sent_notices.as_mut().filter(|_| !visible.is_empty()) {
            heard.again();
        }
        loop {
            let frame = tokio::select! {
                frame = self.link.next_back_frame(&mut gone) => frame?,
                Some(report) = progress.recv() => {
                    self.notify(&report);
                    continue;
                }
                () = heard::held_long(answer.held_until) => {
                    self.pass_notices(answer);
                    continue;
                }
            };
            if !self.take_frame(answer, frame, visible)? {
                continue;
            }
            if answer.error.is_none() || tidied {
                return Ok(());
            }
            // What failed has not closed its statement, and a client may look at pg_prepared_statements.
            tidied = true;
            self.send(Batch::new().sync());
        }
    }

    /// Reads one frame into the answer; true at its end.
    fn take_frame(&mut self, answer: &mut Answer, frame: Bytes, visible: &[usize]) -> Result<bool, BackendLost> {
        let shown = visible.contains(&answer.done);
        match frame.first() {
            Some(b'Z') => return Ok(true),
            Some(b'1') => answer.parsed += 1,
            Some(b'N') if shown && self.client_has_parsed && answer.parsed == answer.done => {}
            Some(b'D') => answer.rows.extend(data_row(&frame[5..], |value| self.link.speech.heard(value))),
            Some(b'C' | b'I') => {
                answer.updated += updated(&frame);
                if shown {
                    answer.completion.extend_from_slice(&frame);
                }
                answer.done += 1;
            }
            Some(b'N') if shown && visible.len() > 1 && answer.completion.len() < heard::TOGETHER => {
                answer.completion.extend_from_slice(&frame);
            }
            Some(b'N') if shown && visible.len() > 1 => self.link.send_to_client(&frame),
            Some(b'N') if shown => self.hear(answer, &frame),
            // These come at any time and are the client's.
            Some(b'S') => self.link.send_to_client(&frame),
            Some(b'A') => self.hold_notification(&frame),
            Some(b'E') => {
                let error = ServerError::new(frame);
                if error.is_fatal() {
                    self.server_has_ended = error.sqlstate() == sqlstate::ADMIN_SHUTDOWN;
                    self.link.send_to_client(&error.frame);
                    return Err(BackendLost);
                }
                answer.error = Some(error);
            }
            _ => {}
        }
        Ok(false)
    }

    pub(crate) fn hold_notification(&mut self, frame: &[u8]) {
        let held = self.notifications.get_or_insert_default();
        held.extend_from_slice(frame);
        if held.len() > self.notifications_limit as usize {
            self.link.send_to_client(held);
            self.notifications = None;
        }
    }

    /// One statement of our own.
    ///
    /// # Errors
    /// As [`ServerChannel::ask`].
    pub async fn ask_one(&mut self, sql: &str, parameters: &[&str]) -> Result<Answer, BackendLost> {
        let mut batch = Batch::new();
        batch.statement(sql, parameters);
        self.ask(batch, None).await
    }

    /// Puts a report on the way to the client.
    pub fn notify(&mut self, report: &Report) {
        let report = reply::report(&self.worded(report));
        self.link.send_to_client(&report);
    }

    /// The report as the client's encoding can carry it.
    pub fn worded(&self, report: &Report) -> Report {
        let words = |text: &String| self.words(text).into_owned();
        let (detail, hint) = (report.detail.as_ref().map(words), report.hint.as_ref().map(words));
        Report { message: words(&report.message), detail, hint, ..report.clone() }
    }
}

/// How many of the frames, at their end, are as the first of our own answers are.
fn own_at_the_end(held: &[Bytes], own: &[u8]) -> usize {
    let tags: Vec<u8> = held.iter().filter_map(|frame| frame.first().copied()).collect();
    (0..=own.len()).rev().find(|count| tags.ends_with(&own[..*count])).unwrap_or_default()
}

/// The rows that CommandComplete says an UPDATE has changed.
fn updated(frame: &[u8]) -> u64 {
    let tag = frame.get(HEADER_LEN..).and_then(|body| body.strip_suffix(b"\0"));
    let rows = tag.and_then(|tag| std::str::from_utf8(tag).ok()?.strip_prefix("UPDATE ")?.parse().ok());
    rows.unwrap_or_default()
}

/// DataRow's values, as `read` has them; NULL is `None`.
pub fn data_row(body: &[u8], read: impl Fn(&[u8]) -> String) -> Option<Vec<Option<String>>> {
    let (count, mut rest) = body.split_first_chunk::<2>()?;
    let mut row = Vec::new();
    for _ in 0..u16::from_be_bytes(*count) {
        let (length, tail) = rest.split_first_chunk::<4>()?;
        match usize::try_from(i32::from_be_bytes(*length)) {
            Ok(length) => {
                row.push(Some(read(tail.get(..length)?)));
                rest = &tail[length..];
            }
            Err(_) => {
                row.push(None);
                rest = tail;
            }
        }
    }
    Some(row)
}

const CANCEL_REQUEST: u32 = 80_877_102;

/// Sends a CancelRequest to the server, and waits until the server has acted on it (it closes the connection).
///
/// # Errors
/// The server cannot be reached.
pub async fn cancel(target: &Target, packet: &[u8]) -> std::io::Result<()> {
    let mut stream = target.connect().await?;
    stream.write_all(packet).await?;
    stream.flush().await?;
    let mut rest = [0; 64];
    let _ = tokio::time::timeout(target.timeout, stream.read(&mut rest)).await;
    Ok(())
}
