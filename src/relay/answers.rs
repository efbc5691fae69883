//! The answers that the client has got in its transaction block, as far as a replay of the block needs them.
//!
//! [`AnswerLog`] owns the tags of the commands that have completed, in their order, and the places of the ReadyForQuery messages between them.
//! Invariants: the log holds the answers to the messages of the block and no others, or it says by [`LogGap`] why it does not. Answers that the
//! proxy reads for itself are not logged.

use super::buffers::{give_back, take_buffer};

/// Why the log does not tell all answers of the block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogGap {
    /// There are more answers than the settings allow.
    TooLarge,
    /// The server has sent an ErrorResponse.
    Error,
    /// An Execute has reached its row limit.
    Suspended,
    Copy,
    FunctionCall,
    /// The server has reported that it is outside a transaction block.
    BlockEnded,
    /// The place of the block's first answer is not certain, or the server was in a transaction block before.
    BeginUncertain,
}

/// One entry of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answered<'a> {
    /// CommandComplete, and its tag. EmptyQueryResponse has an empty tag.
    Tag(&'a [u8]),
    Ready,
}

/// The answers to the messages of a transaction block.
#[derive(Debug)]
pub struct AnswerLog {
    /// A tag begins with [`TAG`] and ends with NUL. [`READY`] stands alone.
    entries: Vec<u8>,
    /// The most bytes of `entries`.
    limit: usize,
    /// The number of ReadyForQuery messages that answer earlier messages than the block's first.
    earlier: u32,
    gap: Option<LogGap>,
    /// The server's last status was `I`.
    ended: bool,
}

const TAG: u8 = b'C';
const READY: u8 = b'Z';

/// Whether the log needs the body of a message of this tag.
#[inline]
pub(super) fn logs_body(tag: u8) -> bool {
    matches!(tag, b'C' | b'I' | b'Z')
}

impl AnswerLog {
    /// Begins the log before the block's first message goes to the server. `earlier`: how many ReadyForQuery messages the server owes.
    /// `certain`: whether the first answer behind them is the block's.
    pub(crate) fn new(limit: u32, earlier: u32, certain: bool) -> Self {
        let gap = (!certain).then_some(LogGap::BeginUncertain);
        Self { entries: take_buffer(), limit: limit as usize, earlier, gap, ended: false }
    }

    /// The answers in their order.
    ///
    /// # Errors
    /// Why the log does not tell all answers.
    pub fn answers(&self) -> Result<impl Iterator<Item = Answered<'_>>, LogGap> {
        match self.gap {
            Some(gap) => Err(gap),
            None => Ok(Entries(&self.entries)),
        }
    }

    /// Whether the last status that the server has reported is that no block is open.
    #[inline]
    pub(super) fn block_has_ended(&self) -> bool {
        self.ended
    }

    /// The client gets a message of the server's. `body`: empty unless [`logs_body`].
    #[inline]
    pub(crate) fn observe(&mut self, tag: u8, body: &[u8]) {
        match tag {
            b'D' | b'T' | b'1' | b'2' | b'n' | b't' | b'S' | b'N' | b'A' => {}
            b'Z' => self.ready(body.first().copied().unwrap_or_default()),
            _ if self.earlier > 0 => {}
            b'C' => self.completed(body),
            b'I' => self.completed(b"\0"),
            b'E' => self.stop(LogGap::Error),
            b's' => self.stop(LogGap::Suspended),
            b'G' | b'H' | b'W' => self.stop(LogGap::Copy),
            b'V' => self.stop(LogGap::FunctionCall),
            _ => {}
        }
    }

    fn ready(&mut self, status: u8) {
        if self.earlier > 0 {
            self.earlier -= 1;
            if self.earlier == 0 && status != b'I' {
                self.stop(LogGap::BeginUncertain);
            }
            return;
        }
        self.ended = status == b'I';
        if self.ended {
            self.stop(LogGap::BlockEnded);
        } else if self.entries.last() != Some(&READY) {
            self.put(&[READY]);
        }
    }

    /// `tag` ends with NUL.
    fn completed(&mut self, tag: &[u8]) {
        if tag.last() == Some(&0) {
            self.put(&[TAG]);
            self.put(tag);
        }
    }

    fn put(&mut self, bytes: &[u8]) {
        if self.gap.is_some() {
            return;
        }
        if self.entries.len() + bytes.len() > self.limit {
            self.stop(LogGap::TooLarge);
        } else {
            self.entries.extend_from_slice(bytes);
        }
    }

    /// The first gap counts.
    #[cold]
    fn stop(&mut self, gap: LogGap) {
        self.gap.get_or_insert(gap);
        give_back(std::mem::take(&mut self.entries));
    }
}

impl Drop for AnswerLog {
    fn drop(&mut self) {
        give_back(std::mem::take(&mut self.entries));
    }
}

/// The entries of a log, from the first to the last.
struct Entries<'a>(&'a [u8]);

impl<'a> Iterator for Entries<'a> {
    type Item = Answered<'a>;

    fn next(&mut self) -> Option<Answered<'a>> {
        let (kind, rest) = self.0.split_first()?;
        if *kind == READY {
            self.0 = rest;
            return Some(Answered::Ready);
        }
        let end = rest.iter().position(|byte| *byte == 0)?;
        self.0 = &rest[end + 1..];
        Some(Answered::Tag(&rest[..end]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(log: &AnswerLog) -> Result<Vec<String>, LogGap> {
        let word = |answered| match answered {
            Answered::Tag(tag) => String::from_utf8_lossy(tag).into_owned(),
            Answered::Ready => "Z".to_owned(),
        };
        Ok(log.answers()?.map(word).collect())
    }

    #[test]
    fn tags_and_ends_of_cycles_are_kept() {
        let mut log = AnswerLog::new(1000, 0, true);
        for (tag, body) in [
            (b'C', &b"BEGIN\0"[..]),
            (b'Z', b"T"),
            (b'D', b""),
            (b'C', b"SELECT 1\0"),
            (b'I', b""),
            (b'Z', b"T"),
            (b'Z', b"T"),
        ] {
            log.observe(tag, body);
        }
        assert_eq!(of(&log).unwrap(), ["BEGIN", "Z", "SELECT 1", "", "Z"]);
        assert!(!log.block_has_ended());
    }

    #[test]
    fn answers_to_earlier_messages_are_left_out() {
        let mut log = AnswerLog::new(1000, 2, true);
        for (tag, body) in
            [(b'E', &b""[..]), (b'Z', b"E"), (b'C', b"ROLLBACK\0"), (b'Z', b"I"), (b'C', b"BEGIN\0"), (b'Z', b"T")]
        {
            log.observe(tag, body);
        }
        assert_eq!(of(&log).unwrap(), ["BEGIN", "Z"]);
        let mut log = AnswerLog::new(1000, 1, true);
        log.observe(b'Z', b"T");
        assert_eq!(of(&log), Err(LogGap::BeginUncertain));
        assert_eq!(of(&AnswerLog::new(1000, 0, false)), Err(LogGap::BeginUncertain));
    }

    #[test]
    fn gaps_are_for_good() {
        for (tag, gap) in [
            (b'E', LogGap::Error),
            (b's', LogGap::Suspended),
            (b'G', LogGap::Copy),
            (b'H', LogGap::Copy),
            (b'W', LogGap::Copy),
            (b'V', LogGap::FunctionCall),
        ] {
            let mut log = AnswerLog::new(1000, 0, true);
            log.observe(tag, b"");
            log.observe(b'C', b"INSERT 0 1\0");
            assert_eq!(of(&log), Err(gap));
        }
        let mut log = AnswerLog::new(10, 0, true);
        log.observe(b'C', b"UPDATE 12\0");
        assert_eq!(of(&log), Err(LogGap::TooLarge));
        log.observe(b'Z', b"I");
        assert!(log.block_has_ended());
    }
}
