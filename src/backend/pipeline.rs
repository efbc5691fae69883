//! Questions of the proxy's amid the client's pipeline.
//!
//! It owns the answers that are held back until it is known whether they are the client's or the proxy's. It keeps true:
//!
//! - The server answers in the order in which it was asked. So the last answers before a known one of the proxy's are the proxy's too, and
//!   all answers before those are the client's.
//! - The client gets every answer to its own messages, and none to the proxy's.
//! - The client's messages and the proxy's Sync are accounted for.

use super::answer::{Answer, data_row};
use super::channel::ServerChannel;
use crate::pg::sqlstate;
use crate::relay::BackendLost;
use crate::wire::error_response::ServerError;
use crate::wire::message::{Batch, FLUSH, put_frame};
use bytes::{BufMut, Bytes, BytesMut};
use std::collections::VecDeque;

/// The result of ending a part of a pipeline by a Sync of the proxy's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SealOutcome {
    Sealed,
    /// The part is sealed, and BEGIN has found the client in a transaction block of its own.
    InClientsBlock,
    /// One of the client's messages has failed, and the client has the error.
    Failed,
}

/// The proxy's own part of a pipeline, behind the client's.
struct OwnPart<'a> {
    /// The tags of the proxy's answers before the one that ends the part.
    answers: &'a [u8],
    /// A Sync stands behind the part, so that ReadyForQuery follows an error of the client's.
    has_sync: bool,
    /// The part has a BEGIN of the proxy's. The one notice that BEGIN may give is not for the client.
    begins: bool,
}

/// The result of passing on the answers before the end of the proxy's own part.
enum Passed {
    ToTheEnd {
        in_clients_block: bool,
        end: Bytes,
    },
    /// The client has an error.
    Failed,
}

impl ServerChannel {
    /// As [`ServerChannel::ask`], in one pipeline with the client's messages, without a Sync in between. The client's messages must have
    /// executed nothing so far. If one of them fails, nothing of the batch is done, the client has the error, and the answer is `None`.
    /// The batch begins as [`Batch::behind`].
    ///
    /// # Errors
    /// As [`ServerChannel::ask`].
    pub async fn ask_in_pipeline(
        &mut self,
        batch: Batch,
        visible: Option<usize>,
    ) -> Result<Option<Answer>, BackendLost> {
        // The answers are those to three Close, and to Parse and Bind of the first statement.
        let own = OwnPart { answers: b"33312", has_sync: true, begins: false };
        self.account(b'S');
        self.send(batch.sync());
        // The client's messages have executed nothing, so the first CommandComplete is the proxy's.
        match self.pass_answers(own, |frame| frame.first() == Some(&b'C')).await? {
            Passed::Failed => Ok(None),
            Passed::ToTheEnd { .. } => {
                let begun = Answer { parsed: 1, done: 1, ..Answer::default() };
                let answer = self.read_rest(begun, visible).await?;
                self.received(b'Z');
                Ok(Some(answer))
            }
        }
    }

    /// Asks for the text of the client's portal amid its pipeline. `Some(None)`: there is no such portal. `None`: one of the client's
    /// messages has failed, the client has the error, and the server skips to the client's Sync.
    ///
    /// # Errors
    /// The backend is gone.
    pub async fn portal_text(&mut self, portal: &str) -> Result<Option<Option<String>>, BackendLost> {
        // A row of the proxy's own marks where the client's answers end.
        const MARK: &[u8] = b"pgsluice mark";
        const SQL: &str = "SELECT (SELECT c.statement FROM pg_catalog.pg_cursors c \
             WHERE c.name OPERATOR(pg_catalog.=) $1), 'pgsluice mark'";
        /// The number of answers behind the row: CommandComplete and those to two Close.
        const BEHIND: usize = 3;
        // The answers are those to two Close, Parse and Bind.
        let own = OwnPart { answers: b"3312", has_sync: false, begins: false };
        let mut batch = Batch::new();
        batch.statement(SQL, &[portal]);
        self.account(b'P');
        self.send(batch);
        self.send_to_server(&FLUSH);
        let is_mark = |frame: &Bytes| frame.first() == Some(&b'D') && frame.ends_with(MARK);
        let Passed::ToTheEnd { end, .. } = self.pass_answers(own, is_mark).await? else { return Ok(None) };
        let mut left = BEHIND;
        while left > 0 {
            let frame = self.next_server_frame().await?;
            if !self.pass_if_asynchronous(&frame) {
                left -= 1;
            }
        }
        let speech = self.speech();
        let read = |text: &[u8]| String::from_utf8_lossy(&speech.readable(text)).into_owned();
        let row = data_row(&end[5..], read).unwrap_or_default();
        Ok(Some(row.into_iter().next().flatten()))
    }

    /// Ends the client's pipeline so far by a Sync of the proxy's, whose ReadyForQuery the client never sees.
    ///
    /// `portal`: a portal that has been run, and is closed. `begin`: the pipeline's implicit transaction first becomes a transaction
    /// block, with all that was done in it. A BEGIN amid a pipeline does this.
    ///
    /// # Errors
    /// The backend is gone.
    pub async fn seal(&mut self, portal: Option<&str>, begin: bool) -> Result<SealOutcome, BackendLost> {
        let mut batch = Batch::new();
        let mut answers = b"33".to_vec();
        if let Some(portal) = portal {
            batch.close_portal(portal);
            answers.extend(b"3");
        }
        if begin {
            batch.statement("BEGIN", &[]);
            answers.extend(b"12C33");
        }
        let executes = self.executes();
        self.account(b'S');
        self.set_executes(executes);
        self.send(batch.sync());
        let own = OwnPart { answers: &answers, has_sync: true, begins: begin };
        Ok(match self.pass_answers(own, |frame| frame.first() == Some(&b'Z')).await? {
            Passed::Failed => SealOutcome::Failed,
            Passed::ToTheEnd { in_clients_block: true, .. } => SealOutcome::InClientsBlock,
            Passed::ToTheEnd { in_clients_block: false, .. } => SealOutcome::Sealed,
        })
    }

    /// Makes the server skip the client's messages up to its Sync, after the client has got an error of its pipeline. A Bind to a statement
    /// that does not exist makes the server do so. The client does not get the error of this Bind.
    ///
    /// # Errors
    /// The backend is gone.
    pub async fn skip_to_sync(&mut self) -> Result<(), BackendLost> {
        let mut bind = BytesMut::new();
        put_frame(&mut bind, b'B', |b| {
            b.put_slice(b"\0pgsluice: skipping to Sync after the error before\0");
            b.put_slice(&[0; 6]);
        });
        self.account(b'B');
        self.send_to_server(&bind);
        loop {
            let frame = self.next_server_frame().await?;
            if self.pass_if_asynchronous(&frame) || frame.first() != Some(&b'E') {
                continue;
            }
            let error = ServerError::new(frame);
            if error.is_fatal() {
                self.send_to_client(&error.frame);
                return Err(BackendLost);
            }
            self.received(b'E');
            return Ok(());
        }
    }

    /// Passes on the answers to the client's messages, up to the answer that ends the proxy's own part.
    async fn pass_answers(&mut self, own: OwnPart<'_>, ends: impl Fn(&Bytes) -> bool) -> Result<Passed, BackendLost> {
        let mut held: VecDeque<Bytes> = VecDeque::new();
        let (mut failed, mut in_clients_block) = (false, false);
        loop {
            let frame = self.next_server_frame().await?;
            let tag = frame.first().copied().unwrap_or_default();
            self.received(tag);
            match tag {
                b'N' if own.begins && is_in_a_block(&frame) => in_clients_block = true,
                _ if self.pass_if_asynchronous(&frame) => {}
                b'Z' if failed => return Ok(Passed::Failed),
                b'E' => {
                    failed = true;
                    // Only a cancel can make the proxy's own part fail.
                    let cancelled = ServerError::new(frame.clone()).sqlstate() == sqlstate::QUERY_CANCELED;
                    let own = if cancelled { own_at_the_end(&held, own.answers) } else { 0 };
                    let clients = held.len() - own;
                    held.drain(..).take(clients).for_each(|frame| self.pass_answer(&frame));
                    self.pass_answer(&frame);
                }
                _ if ends(&frame) => return Ok(Passed::ToTheEnd { in_clients_block, end: frame }),
                _ => {
                    held.push_back(frame);
                    // If the proxy's own part cannot have this answer, it and all answers before it are the client's.
                    let most = if own.answers.contains(&tag) { own.answers.len() } else { 0 };
                    let clients = held.len().saturating_sub(most);
                    held.drain(..clients).for_each(|frame| self.pass_answer(&frame));
                }
            }
            if failed && !own.has_sync {
                return Ok(Passed::Failed);
            }
        }
    }

    /// Passes on a message that the server may send at any time, since it is for the client. `true`: the frame was such a message.
    fn pass_if_asynchronous(&mut self, frame: &Bytes) -> bool {
        match frame.first() {
            Some(b'S' | b'N') => self.send_to_client(frame),
            Some(b'A') => self.hold_notification(frame),
            _ => return false,
        }
        true
    }
}

fn is_in_a_block(notice: &Bytes) -> bool {
    ServerError::new(notice.clone()).sqlstate() == sqlstate::ACTIVE_SQL_TRANSACTION
}

/// How many of the last frames can be the first answers of the proxy's own part, by their tags.
fn own_at_the_end(held: &VecDeque<Bytes>, own: &[u8]) -> usize {
    let tags: Vec<u8> = held.iter().filter_map(|frame| frame.first().copied()).collect();
    (0..=own.len()).rev().find(|count| tags.ends_with(&own[..*count])).unwrap_or_default()
}
