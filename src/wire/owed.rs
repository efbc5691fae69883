//! Counts what the backend still owes the client: the ReadyForQuery messages to come.
//!
//! The proxy may speak for the server only when nothing is owed. To count one ReadyForQuery for each Query and Sync is
//! wrong, as other libraries have learnt: a backend in copy-in ignores Sync, and after an error in the extended protocol the
//! backend skips everything up to Sync. So this file follows the backend. It queues the client's messages, and the backend's
//! replies show what became of each of them.
//!
//! Invariant: `owed()` is never too small. If the messages leave two readings (a Query amid extended messages without
//! Sync), `certain()` becomes false for good, and the session intercepts nothing more.

use std::collections::VecDeque;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    /// Query or FunctionCall. The backend answers it with one ReadyForQuery of its own.
    Cycle,
    Sync,
    /// One or more CopyData, sent before it was known whether a copy is under way.
    CopyData,
    /// CopyDone or CopyFail.
    CopyEnd,
    /// One or more extended messages other than Sync and Flush.
    Extended,
}

impl Sent {
    fn of_copy(self) -> bool {
        matches!(self, Self::CopyData | Self::CopyEnd)
    }
}

#[derive(Debug, Default)]
pub struct Owed {
    queue: VecDeque<Sent>,
    /// Entries of `queue` that a ReadyForQuery will answer, as far as known.
    owed: u32,
    /// A copy-in is under way and its end has not been sent.
    copying: bool,
    /// An extended message failed, and the Sync that ends the skipping has not been sent.
    skipping: bool,
    uncertain: bool,
}

impl Owed {
    /// Begins a session: the backend answers the startup packet with one ReadyForQuery.
    pub fn startup() -> Self {
        let mut owed = Self::default();
        owed.push(Sent::Cycle);
        owed
    }

    pub fn certain(&self) -> bool {
        !self.uncertain
    }

    /// The number of ReadyForQuery messages to come.
    pub fn owed(&self) -> u32 {
        self.owed
    }

    /// Whether extended messages were sent that no Sync has closed yet.
    pub fn unsynced(&self) -> bool {
        // CopyData, CopyDone and CopyFail close nothing.
        self.queue.iter().rev().find(|sent| !sent.of_copy()) == Some(&Sent::Extended)
    }

    /// Whether the backend skips the messages before the next Sync, because an earlier message has failed.
    pub fn skipping(&self) -> bool {
        self.skipping
    }

    /// Whether the backend takes the data of a copy, as far as known, and no end of the copy has been sent.
    pub fn copying(&self) -> bool {
        self.copying
    }

    /// Whether extended messages are open and the end of a copy was sent before the copy could begin. It is not known yet
    /// whether the copy swallowed a Sync among them.
    fn behind_a_copy(&self) -> bool {
        let of_copy = self.queue.iter().rev().take_while(|sent| sent.of_copy());
        of_copy.clone().any(|sent| *sent == Sent::CopyEnd)
            && self.queue.iter().rev().skip(of_copy.count()).find(|sent| **sent != Sent::Sync) == Some(&Sent::Extended)
    }

    fn push(&mut self, sent: Sent) {
        if matches!(sent, Sent::Cycle | Sent::Sync) {
            self.owed += 1;
        }
        self.queue.push_back(sent);
    }

    /// Records a frontend's message that goes to the backend.
    pub fn sent(&mut self, tag: u8) {
        if self.skipping && tag != b'S' {
            return;
        }
        self.skipping = false;
        if self.copying && !matches!(tag, b'd' | b'c' | b'f' | b'H' | b'S') {
            // The copy swallows the message and fails because of it, unless the copy has just failed for another reason.
            self.copying = false;
            self.uncertain = true;
            return;
        }
        self.uncertain |= matches!(tag, b'P' | b'B' | b'E' | b'D' | b'C' | b'Q' | b'F') && self.behind_a_copy();
        match tag {
            b'Q' | b'F' => {
                if self.unsynced() {
                    self.uncertain = true;
                }
                self.push(Sent::Cycle);
            }
            b'S' => {
                // The backend ignores the Sync if the copy still runs, and answers it if the copy has just failed. The proxy
                // cannot tell which.
                self.uncertain |= self.copying;
                self.push(Sent::Sync);
            }
            b'c' | b'f' => {
                let known = std::mem::take(&mut self.copying);
                // The end of a copy is worth remembering only while a copy may yet begin.
                if !known && !self.queue.is_empty() {
                    self.uncertain |= self.queue.contains(&Sent::CopyEnd);
                    self.push(Sent::CopyEnd);
                }
            }
            b'd' if !self.copying && !matches!(self.queue.back(), None | Some(Sent::CopyData)) => {
                self.push(Sent::CopyData);
            }
            b'P' | b'B' | b'E' | b'D' | b'C' if !self.unsynced() => self.push(Sent::Extended),
            _ => {}
        }
    }

    /// Records a message of the backend's.
    pub fn received(&mut self, tag: u8) {
        match tag {
            b'Z' => self.ready(),
            b'G' => self.copy_in(),
            b'E' => self.error(),
            _ => {}
        }
    }

    fn ready(&mut self) {
        self.copying = false;
        self.skipping = false;
        while let Some(sent) = self.queue.pop_front() {
            if matches!(sent, Sent::Cycle | Sent::Sync) {
                self.owed -= 1;
                break;
            }
        }
        // The backend does not answer copy messages that came after their copy had failed.
        while self.queue.front().is_some_and(|sent| sent.of_copy()) {
            self.queue.pop_front();
        }
    }

    /// CopyInResponse: from here the backend ignores each Sync until the copy ends.
    fn copy_in(&mut self) {
        let i = usize::from(!self.queue.is_empty());
        self.copying = true;
        while let Some(sent) = self.queue.get(i).copied() {
            match sent {
                Sent::Sync => self.owed -= 1,
                // The data may have failed. Then the backend answers the Sync behind them.
                Sent::CopyData => self.uncertain |= self.queue.get(i + 1) == Some(&Sent::Sync),
                Sent::CopyEnd => self.copying = false,
                // Copy-in refuses the message, so the copy ends here too.
                Sent::Cycle | Sent::Extended => {
                    self.copying = false;
                    return;
                }
            }
            self.queue.remove(i);
            if sent == Sent::CopyEnd {
                break;
            }
        }
    }

    /// ErrorResponse in the extended protocol: the backend skips everything up to the next Sync.
    fn error(&mut self) {
        self.copying = false;
        if self.queue.front() != Some(&Sent::Extended) {
            return;
        }
        while let Some(sent) = self.queue.get(1) {
            match sent {
                Sent::Sync => break,
                Sent::Cycle => self.owed -= 1,
                Sent::CopyData | Sent::CopyEnd | Sent::Extended => {}
            }
            self.queue.remove(1);
        }
        self.skipping = self.queue.len() == 1;
    }
}

#[cfg(test)]
mod tests {
    use super::Owed;

    /// Plays a script: `F:` stands before the frontend's tags, `B:` before the backend's. Returns what is owed at the end,
    /// and whether that is certain.
    fn play(script: &str) -> (u32, bool) {
        let mut owed = Owed::default();
        for word in script.split_whitespace() {
            let (side, tags) = word.split_at(2);
            for tag in tags.bytes() {
                if side == "F:" { owed.sent(tag) } else { owed.received(tag) }
            }
        }
        (owed.owed(), owed.certain())
    }

    #[test]
    fn ordinary_cycles() {
        assert_eq!(play("F:Q"), (1, true));
        assert_eq!(play("F:Q B:TDCZ"), (0, true));
        assert_eq!(play("F:PBDES F:PBES B:12nCZ"), (1, true));
        assert_eq!(play("F:QQQ B:CZCZ"), (1, true));
        assert_eq!(play("F:F B:VZ"), (0, true));
    }

    #[test]
    fn an_error_skips_to_sync() {
        assert_eq!(play("F:PBEPBES B:EZ"), (0, true));
        assert_eq!(play("F:PBES F:PBES B:EZ"), (1, true));
        assert_eq!(play("F:Q B:EZ"), (0, true));
        // The backend skips every message after the error, even a Query.
        assert_eq!(play("F:PBE B:E F:PQ"), (0, true));
        assert_eq!(play("F:PBE B:E F:PBEQS"), (1, true));
        assert_eq!(play("F:PBE B:E F:PBEQS B:Z F:Q"), (1, true));
    }

    #[test]
    fn copy_in_ignores_sync() {
        // tokio-postgres sends Execute and Sync, then data, CopyDone and Sync. One ReadyForQuery answers them.
        assert_eq!(play("F:PBES B:12G F:ddcS B:CZ"), (0, true));
        // The client sent everything before CopyInResponse came.
        assert_eq!(play("F:PBESddcS B:12GCZ"), (0, true));
        // A Flush stands in place of the first Sync.
        assert_eq!(play("F:PBEH B:12G F:dcS B:CZ"), (0, true));
        // The server refuses the data.
        assert_eq!(play("F:PBES B:12G F:d B:E F:dcS B:Z"), (0, true));
        // The COPY itself fails: the backend answers each Sync.
        assert_eq!(play("F:PBESddcS B:EZ"), (1, true));
        assert_eq!(play("F:PBESddcS B:EZZ"), (0, true));
        // The copy is of the simple protocol; the second one fails before its end is sent.
        assert_eq!(play("F:Q B:G F:ddc B:CZ"), (0, true));
        assert_eq!(play("F:Q B:G F:d B:EZ F:c F:Q B:CZ"), (0, true));
    }

    #[test]
    fn a_copy_ends_once() {
        // A Flush starts the copy, and further messages follow in the same pipeline.
        assert_eq!(play("F:PBEH B:12G F:dcPBES B:C12CZ"), (0, true));
        // The data and the end come before the copy begins, and a Query follows.
        assert_eq!(play("F:Qdc F:Q B:GCZ"), (1, true));
    }

    #[test]
    fn what_has_two_readings_is_uncertain() {
        // A Sync follows data that may have failed. The backend ignores or answers it.
        assert!(!play("F:QdS B:G").1);
        assert!(!play("F:PBEdS B:12G").1);
        // A Query follows a copy that swallowed its only Sync.
        assert!(!play("F:ESc F:Q B:G").1);
        // Two copies are under way at once.
        assert!(!play("F:Qdcdc").1);
        assert!(!play("F:PESdcESdc").1);
        assert!(!play("F:ESdcd F:F").1);
        // The end of a copy comes before the copy could begin.
        assert!(!play("F:PcES").1);
        assert_eq!(play("F:Q B:G F:dQ B:EZ"), (0, false));
        assert!(!play("F:PBE F:Q").1);
        assert!(!play("F:PBEc F:Q").1);
        assert!(!play("F:PBES B:12G F:dS").1);
    }
}
