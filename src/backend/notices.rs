//! The notices of the client's statement, on their way to the client while the statement runs.
//!
//! A lock attempt that fails is rolled back and repeated. So each notice is held for a moment, and dropped if its attempt fails. [`SentNotices`]
//! owns the notices that the client has got. It keeps true: no more than [`HELD`] bytes are held, and none for longer than [`MOMENT`]. A notice
//! that the client has got is not sent again when the next attempt raises it again.

use super::answer::Answer;
use crate::wire::frame::{BACKEND_LIMIT, Header};
use bytes::Bytes;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;
use tokio::time::Instant;

/// Bytes of notices that may be held.
const HELD: usize = 64 << 10;

/// Bytes of notices of several statements that are tried together. Up to this limit, each notice stands in its place among their answers. Beyond
/// it, the notices go ahead of the answers.
pub(super) const TOGETHER: usize = 1 << 20;

/// The longest that a notice is held. An attempt that does not get its lock is over by then, and a person hardly notices the delay.
const MOMENT: Duration = Duration::from_millis(250);

/// The number of notices that are remembered.
const KNOWN: usize = 1 << 16;

/// The notices of one statement that the client has got from any of its attempts.
#[derive(Debug)]
pub(super) struct SentNotices {
    sent: Vec<u64>,
    /// How many of these the present attempt has raised. `None`: it has raised a notice that is not the next of these.
    said: Option<usize>,
}

impl Default for SentNotices {
    fn default() -> Self {
        Self { sent: Vec::new(), said: Some(0) }
    }
}

impl SentNotices {
    /// Takes a notice of the visible statement. The caller sends the returned bytes to the client.
    pub(super) fn hear(&mut self, answer: &mut Answer, notice: &Bytes) -> Option<Bytes> {
        if self.knows(notice) {
            return None;
        }
        answer.notices.extend_from_slice(notice);
        answer.held_until.get_or_insert_with(|| Instant::now() + MOMENT);
        (answer.notices.len() > HELD).then(|| self.release(answer))
    }

    /// Takes the notices of the answer that are still held. The caller sends them to the client.
    pub(super) fn release(&mut self, answer: &mut Answer) -> Bytes {
        answer.held_until = None;
        let notices = answer.notices.split().freeze();
        let mut rest = &notices[..];
        while let Ok(Some(header)) = Header::read(rest, BACKEND_LIMIT)
            && let Some((notice, behind)) = rest.split_at_checked(header.total())
        {
            self.sent(notice);
            rest = behind;
        }
        notices
    }

    /// Another attempt begins.
    pub(super) fn again(&mut self) {
        self.said = Some(0);
    }

    /// Whether the client has got the notice from an earlier attempt.
    fn knows(&mut self, notice: &[u8]) -> bool {
        let Some(said) = self.said else { return false };
        match self.sent.get(said) {
            Some(known) if *known == hash(notice) => self.said = Some(said + 1),
            Some(_) => self.said = None,
            None => return false,
        }
        self.said.is_some()
    }

    fn sent(&mut self, notice: &[u8]) {
        if self.said == Some(self.sent.len()) && self.sent.len() < KNOWN {
            self.sent.push(hash(notice));
            self.said = Some(self.sent.len());
        }
    }
}

fn hash(notice: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    notice.hash(&mut hasher);
    hasher.finish()
}

/// Waits until the held notices must go to the client. It waits for ever if none is held.
pub(super) async fn held_long(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::SentNotices;

    /// The notices among these that the client gets.
    fn heard(heard: &mut SentNotices, said: &[&str]) -> Vec<String> {
        heard.again();
        let new: Vec<String> =
            said.iter().filter(|notice| !heard.knows(notice.as_bytes())).map(|notice| (*notice).to_owned()).collect();
        new.iter().for_each(|notice| heard.sent(notice.as_bytes()));
        new
    }

    #[test]
    fn what_a_try_says_again_is_heard_once() {
        let mut all = SentNotices::default();
        assert_eq!(heard(&mut all, &["a", "b"]), ["a", "b"]);
        assert_eq!(heard(&mut all, &["a", "b", "c"]), ["c"]);
        assert_eq!(heard(&mut all, &["a"]), [""; 0]);
        assert_eq!(heard(&mut all, &["a", "b", "c", "c"]), ["c"]);
        // After the first notice that differs, all are new.
        assert_eq!(heard(&mut all, &["a", "x", "c"]), ["x", "c"]);
    }
}
