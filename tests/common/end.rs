//! The ways in which a statement ends early: its client ends it, or another session ends it.

use super::{Client, Message, Outcome};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// A CancelRequest through the proxy.
    Cancel,
    /// `pg_cancel_backend()`.
    CancelBackend,
    /// Reset: its machine died.
    Reset,
    /// Closed without a word: its process died.
    Close,
    /// `pg_terminate_backend()`.
    Terminate,
}

pub const ENDS: [End; 5] = [End::Cancel, End::CancelBackend, End::Reset, End::Close, End::Terminate];

impl End {
    /// It comes, from `watcher` if from the server, or through `port`. What is left of the client hears of it by
    /// [`End::heard`].
    pub fn come(self, client: Client, watcher: &mut Client, port: u16) -> Option<Client> {
        match self {
            Self::Cancel => client.cancel(port),
            Self::CancelBackend => drop(watcher.ok(&format!("SELECT pg_cancel_backend({})", client.pid))),
            Self::Terminate => drop(watcher.ok(&format!("SELECT pg_terminate_backend({})", client.pid))),
            Self::Reset => {
                client.reset();
                return None;
            }
            Self::Close => return None,
        }
        Some(client)
    }

    /// The client's session, if it still has one, and what it was told.
    pub fn heard(self, mut client: Client) -> Option<(Client, Outcome)> {
        if self == Self::Terminate {
            assert_fatal(&client.last_words(), "57P01");
            return None;
        }
        let outcome = client.outcome();
        assert_eq!(outcome.error.as_deref(), Some("57014"), "{self:?}: {outcome:?}");
        Some((client, outcome))
    }
}

/// The last message before the close is a FATAL error of this SQLSTATE.
#[track_caller]
pub fn assert_fatal(words: &[Message], sqlstate: &str) {
    let last = words.last().expect("last words");
    let told = [b'V', b'C'].map(|code| last.field(code).unwrap_or_default());
    assert_eq!(told, ["FATAL", sqlstate], "{words:?}");
}
