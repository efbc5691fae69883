//! The server channel: the proxy sends questions to PostgreSQL on the session's own backend, unseen by the client.
//!
//! It owns the two ends of the session ([`Link`]), the nap that is under way, and the server's messages that wait for the end of a statement. It
//! keeps true:
//!
//! - The backend is asked only while it is idle and nothing is owed to the client, or amid the client's pipeline (`backend/pipeline.rs`).
//! - The proxy uses the extended protocol with a name of its own, so that the client's unnamed statement and portal do not change.
//! - An answer is read to its ReadyForQuery, whatever happens to the client meanwhile.
//! - Every message of the proxy's own goes through [`ServerChannel::send`], which puts it into the session's encodings (`wire/speech.rs`).
//!   If these encodings change names, answers that hold names are asked for in hexadecimal (`backend/words.rs`). A statement with a name that
//!   the encodings cannot carry runs as it is written, guarded by `lock_timeout`.

use super::answer::{Answer, data_row, updated};
use super::cancel::Cancels;
use super::notices::{self, SentNotices};
use crate::net::Target;
use crate::pg::sqlstate;
use crate::registry::ChangeEntry;
use crate::relay::{BackendLost, Link};
use crate::report::Report;
use crate::wire::error_response::ServerError;
use crate::wire::message::Batch;
use crate::wire::reply;
use bytes::{Bytes, BytesMut};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;
use tokio::sync::mpsc;

/// The session's backend, to which the proxy sends questions. It has the two ends of the session, its cancels, and the notices that the client has
/// got.
#[derive(Debug)]
pub struct ServerChannel {
    pub(super) link: Link,
    cancels: Cancels,
    /// The client's own Parse has brought the notices of the grammar already, such as the notice that a name is cut.
    client_has_parsed: bool,
    /// The proxy answers a Query of the client's in place of the server. At a Query the server first ends the unnamed statement and portal. This is
    /// still to be done.
    ends_unnamed: bool,
    /// A nap is under way, and its answer has not been read ([`ServerChannel::ask_then_nap_always`]).
    nap_pending: bool,
    /// The rows of the last batch that came before the backend was gone.
    #[expect(clippy::box_collection, reason = "an idle session should not take the memory of what is rare")]
    rows_before_loss: Option<Box<Vec<Vec<Option<String>>>>>,
    /// The server has said that it ends the session. All its earlier messages have come.
    server_has_ended: bool,
    /// NotificationResponse messages that came amid a statement and wait for its end.
    notifications: Option<Box<BytesMut>>,
    /// Bytes of notifications that may wait. Beyond this limit they go to the client at once, since the protocol lets them come at any time.
    notifications_limit: u32,
    /// The notices of its statement that the client has got, if there were any.
    sent_notices: Option<Box<SentNotices>>,
    /// Nothing of what the proxy asks is for the client, as long as its transaction is run again.
    muted: bool,
    /// The statement goes on if the client leaves.
    pub(super) continues: bool,
    /// The schema change that the questions are for.
    pub(super) change: Option<Arc<ChangeEntry>>,
    /// A name was read that the session's encodings cannot carry.
    pub(super) unsayable: AtomicBool,
}

impl ServerChannel {
    /// `notifications_limit`: bytes.
    pub fn new(link: Link, target: Arc<Target>, notifications_limit: u32) -> Self {
        Self {
            link,
            cancels: Cancels::new(target),
            client_has_parsed: false,
            ends_unnamed: false,
            nap_pending: false,
            rows_before_loss: None,
            server_has_ended: false,
            notifications: None,
            notifications_limit,
            sent_notices: None,
            muted: false,
            continues: false,
            change: None,
            unsayable: AtomicBool::new(false),
        }
    }

    /// The server of the session.
    pub fn target(&self) -> &Target {
        self.cancels.target()
    }

    /// The session's cancels.
    pub fn cancels(&self) -> &Cancels {
        &self.cancels
    }

    /// Whether a CancelRequest has come for the current request since the last call.
    pub fn take_cancelled(&self) -> bool {
        self.cancels.take_cancelled()
    }

    /// Waits until the server has acted on every CancelRequest that is under way, the client's or the proxy's own, so that none cancels the next
    /// question. A server signals the backend twice for one CancelRequest (`signal_child()` in its postmaster: the process, then its group), and
    /// the answer to the first signal may be here before the second.
    pub async fn cancel_settled(&self) {
        self.cancels.settled().await;
    }

    /// Reads the server's next message in place of the relay. If the client leaves meanwhile, the backend's work is cancelled, unless it goes on
    /// without the client.
    ///
    /// # Errors
    /// The backend is gone.
    pub async fn next_server_frame(&mut self) -> Result<Bytes, BackendLost> {
        let Self { link, cancels, change, continues, .. } = self;
        let continues = *continues;
        let mut leaves = |key: &[u8], without_a_word: bool| {
            if continues {
                change.iter().for_each(|change| change.client_leaves());
            } else if without_a_word {
                cancels.cancel_work(key);
            }
            !continues && without_a_word
        };
        link.next_back_frame(&mut leaves).await
    }

    /// Says whether the client's own Parse has brought the notices of the grammar.
    pub fn set_client_has_parsed(&mut self, has_parsed: bool) {
        self.client_has_parsed = has_parsed;
    }

    /// Says whether the proxy answers a Query in place of the server, so that the next question ends the unnamed statement and portal.
    pub fn set_ends_unnamed(&mut self, ends: bool) {
        self.ends_unnamed = ends;
    }

    /// Whether nothing has been asked since [`ServerChannel::set_ends_unnamed`].
    pub fn ends_unnamed(&self) -> bool {
        self.ends_unnamed
    }

    /// Says whether reports and notices are kept from the client. Its transaction is run again, and it has got them already.
    pub fn set_muted(&mut self, muted: bool) {
        self.muted = muted;
    }

    /// Says whether the statement goes on if the client leaves. Then the client counts as present.
    pub fn set_continues(&mut self, continues: bool) {
        self.continues = continues;
    }

    /// Another statement of the client's begins. All its notices are new to the client.
    pub fn forget_notices(&mut self) {
        self.sent_notices = None;
    }

    /// The rows of the last batch that came before the backend was gone.
    pub fn take_rows_before_loss(&mut self) -> Vec<Vec<Option<String>>> {
        self.rows_before_loss.take().map(|rows| *rows).unwrap_or_default()
    }

    /// Whether the server has said that it ends the session. Then all its earlier messages have come.
    pub fn server_has_ended(&self) -> bool {
        self.server_has_ended
    }

    /// Sends the notifications that waited for the end of a statement.
    pub fn send_notifications(&mut self) {
        if let Some(held) = self.notifications.take() {
            self.link.send_to_client(&held);
        }
    }

    fn pass_notices(&mut self, answer: &mut Answer) {
        let notices = self.sent_notices.get_or_insert_default().release(answer);
        if self.muted {
            return;
        }
        self.link.send_to_client(&notices);
    }

    fn hear(&mut self, answer: &mut Answer, notice: &Bytes) {
        if self.muted {
            return;
        }
        let due = self.sent_notices.get_or_insert_default().hear(answer, notice);
        due.into_iter().for_each(|notices| self.link.send_to_client(&notices));
    }

    /// Waits for the end of a CancelRequest if the statement was cancelled. The statement is over only when the server has acted on the whole of it.
    async fn settle_cancel(&self, answer: &Answer) {
        if answer.error.as_ref().is_some_and(|error| error.sqlstate() == sqlstate::QUERY_CANCELED) {
            self.cancel_settled().await;
        }
    }

    /// Sends the batch and reads its answers. `visible`: the statement (from 0) whose notices and
    /// completion are kept for the client.
    ///
    /// # Errors
    /// The backend is gone. Its last message has been put on the way to the client.
    pub async fn ask(&mut self, batch: Batch, visible: Option<usize>) -> Result<Answer, BackendLost> {
        let (_never, mut silent) = mpsc::channel(1);
        self.ask_with(batch, visible, &mut silent).await
    }

    /// Sends a batch with several visible statements, which are given in their order. Their notices stand in `completion`, each before the
    /// CommandComplete of its statement.
    ///
    /// # Errors
    /// As [`ServerChannel::ask`].
    pub async fn ask_each(&mut self, batch: Batch, visible: &[usize]) -> Result<Answer, BackendLost> {
        let (_never, mut silent) = mpsc::channel(1);
        self.asked(batch, visible, &mut silent).await
    }

    /// Sends a batch with `nap` right behind it. So the backend is not idle between this question and the next, and a cancel from any session takes
    /// effect. The answer to the nap before is read first. Its error is the second value.
    ///
    /// # Errors
    /// As [`ServerChannel::ask`].
    pub async fn ask_then_nap_always(
        &mut self,
        batch: Batch,
        nap: &str,
    ) -> Result<(Answer, Option<ServerError>), BackendLost> {
        self.change_asks(nap);
        let mut cover = Batch::new();
        cover.statement(nap, &[]);
        self.ask_with_nap(batch, cover).await
    }

    /// Sends a batch with `cover` behind it. `cover` ends with a nap.
    async fn ask_with_nap(&mut self, batch: Batch, cover: Batch) -> Result<(Answer, Option<ServerError>), BackendLost> {
        self.send_request(batch);
        self.send(cover.sync());
        let struck = self.finish_nap().await?;
        let answer = self.read_answer().await?;
        self.nap_pending = true;
        Ok((answer, struck))
    }

    /// As [`ServerChannel::ask_then_nap_always`], for a batch that begins a transaction and may fail in it. The transaction is rolled back before the
    /// nap.
    ///
    /// # Errors
    /// As [`ServerChannel::ask`].
    pub async fn ask_then_roll_back_and_nap(
        &mut self,
        batch: Batch,
        nap: &str,
    ) -> Result<(Answer, Option<ServerError>), BackendLost> {
        self.change_asks(nap);
        let mut cover = Batch::new();
        // Behind a COMMIT, ROLLBACK gives a WARNING, which nobody gets.
        cover.statement("ROLLBACK", &[]);
        cover.statement(nap, &[]);
        self.ask_with_nap(batch, cover).await
    }

    /// As [`ServerChannel::ask_then_nap_always`], but without a nap if a statement of the batch fails. A failed transaction is left as it is.
    ///
    /// # Errors
    /// As [`ServerChannel::ask`].
    pub async fn ask_then_nap(
        &mut self,
        batch: Batch,
        nap: &str,
    ) -> Result<(Answer, Option<ServerError>), BackendLost> {
        self.change_asks(nap);
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

    /// Naps, and gives the error of the nap: a cancel, or a timeout.
    ///
    /// # Errors
    /// As [`ServerChannel::ask`].
    pub async fn nap(&mut self, nap: &str) -> Result<Option<ServerError>, BackendLost> {
        self.finish_nap().await?;
        self.change_asks(nap);
        let mut batch = Batch::new();
        batch.statement(nap, &[]);
        self.send_request(batch);
        self.nap_pending = true;
        self.finish_nap().await
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

    /// Reads up to ReadyForQuery.
    async fn read_answer(&mut self) -> Result<Answer, BackendLost> {
        self.read_statements(usize::MAX).await
    }

    /// Reads up to the completion of this number of statements, or to ReadyForQuery.
    async fn read_statements(&mut self, statements: usize) -> Result<Answer, BackendLost> {
        let mut answer = Answer::default();
        let begun = Instant::now();
        loop {
            let frame = self.next_server_frame().await?;
            if self.read_frame(&mut answer, frame, &[])? || answer.done >= statements {
                answer.took = begun.elapsed();
                self.settle_cancel(&answer).await;
                return Ok(answer);
            }
        }
    }

    /// As [`ServerChannel::ask`]. Reports that come in `progress` meanwhile go to the client.
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
        self.change_goes_on();
        self.send_request(batch);
        self.read_on(Answer::default(), visible, progress).await
    }

    /// Reads the rest of an answer that has begun.
    ///
    /// # Errors
    /// As [`ServerChannel::ask`].
    pub(super) async fn read_rest(&mut self, begun: Answer, visible: Option<usize>) -> Result<Answer, BackendLost> {
        let (_never, mut silent) = mpsc::channel(1);
        self.read_on(begun, visible.as_slice(), &mut silent).await
    }

    /// Reads the rest of an answer. If the backend is lost, the rows are kept.
    async fn read_on(
        &mut self,
        mut answer: Answer,
        visible: &[usize],
        progress: &mut mpsc::Receiver<Report>,
    ) -> Result<Answer, BackendLost> {
        if self.read_into(&mut answer, visible, progress).await.is_err() {
            self.rows_before_loss = Some(Box::new(self.decoded(answer.rows)));
            return Err(BackendLost);
        }
        self.settle_cancel(&answer).await;
        Ok(answer)
    }

    async fn read_into(
        &mut self,
        answer: &mut Answer,
        visible: &[usize],
        progress: &mut mpsc::Receiver<Report>,
    ) -> Result<(), BackendLost> {
        let mut tidied = false;
        if let Some(heard) = self.sent_notices.as_mut().filter(|_| !visible.is_empty()) {
            heard.again();
        }
        loop {
            let frame = tokio::select! {
                frame = self.next_server_frame() => frame?,
                Some(report) = progress.recv() => {
                    self.notify(&report);
                    continue;
                }
                () = notices::held_long(answer.held_until) => {
                    self.pass_notices(answer);
                    continue;
                }
            };
            if !self.read_frame(answer, frame, visible)? {
                continue;
            }
            if answer.error.is_none() || tidied {
                return Ok(());
            }
            // The statement that failed is still prepared, and a client could see it in pg_prepared_statements.
            tidied = true;
            self.send(Batch::new().sync());
        }
    }

    /// Reads one frame into the answer. `true`: it was the last one.
    fn read_frame(&mut self, answer: &mut Answer, frame: Bytes, visible: &[usize]) -> Result<bool, BackendLost> {
        let shown = visible.contains(&answer.done);
        match frame.first() {
            Some(b'Z') => return Ok(true),
            Some(b'1') => answer.parsed += 1,
            Some(b'N') if shown && self.client_has_parsed && answer.parsed == answer.done => {}
            Some(b'D') => answer.rows.extend(data_row(&frame[5..], |value| self.link.speech().heard(value))),
            Some(b'C' | b'I') => {
                answer.updated += updated(&frame);
                if shown {
                    answer.completion.extend_from_slice(&frame);
                }
                answer.done += 1;
            }
            Some(b'N') if shown && visible.len() > 1 && answer.completion.len() < notices::TOGETHER => {
                answer.completion.extend_from_slice(&frame);
            }
            Some(b'N') if shown && self.muted => {}
            Some(b'N') if shown && visible.len() > 1 => self.link.send_to_client(&frame),
            Some(b'N') if shown => self.hear(answer, &frame),
            // ParameterStatus messages come at any time, and are for the client.
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

    /// Sends one statement of the proxy's own and reads its answer.
    ///
    /// # Errors
    /// As [`ServerChannel::ask`].
    pub async fn ask_one(&mut self, sql: &str, parameters: &[&str]) -> Result<Answer, BackendLost> {
        let mut batch = Batch::new();
        batch.statement(sql, parameters);
        self.finish_nap().await?;
        self.change_asks(sql);
        self.send_request(batch);
        let (_never, mut silent) = mpsc::channel(1);
        self.read_on(Answer::default(), &[], &mut silent).await
    }

    /// Puts a report on the way to the client.
    pub fn notify(&mut self, report: &Report) {
        if self.muted {
            return;
        }
        let report = reply::report(&self.worded(report));
        self.link.send_to_client(&report);
    }

    /// The report, with its texts as [`ServerChannel::words`] gives them.
    pub fn worded(&self, report: &Report) -> Report {
        let words = |text: &String| self.words(text).into_owned();
        let (detail, hint) = (report.detail.as_ref().map(words), report.hint.as_ref().map(words));
        Report { message: words(&report.message), detail, hint, ..report.clone() }
    }
}
