//! Why the messages of a block cannot be told, in the words of a WARNING.
//!
//! The file owns [`Incomplete`]. It keeps true: each reason reads as the end of a sentence such as *it cannot be replayed, since …*.

use crate::relay::LogGap;
use std::fmt::{self, Display, Formatter};

/// Why a journal does not tell the whole block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::session) enum Incomplete {
    TooLarge,
    Failed,
    Suspended,
    Copy,
    FunctionCall,
    /// The transaction was ended, and another one was begun, in a way that the proxy does not follow.
    Chained,
    /// It is not certain where the block began.
    BeginUncertain,
    NotUnderstood,
    /// The answers do not match the messages.
    Mismatch,
}

impl Display for Incomplete {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLarge => "the transaction has sent more than journal_limit",
            Self::Failed => "a statement has failed before it in this transaction",
            Self::Suspended => "a portal with a row limit stands before it in this transaction",
            Self::Copy => "COPY of the client's own data stands before it in this transaction",
            Self::FunctionCall => "a function call message stands before it in this transaction",
            Self::Chained => "the transaction was begun by AND CHAIN, or amid a string",
            Self::BeginUncertain => "the transaction was begun amid a pipeline",
            Self::NotUnderstood => "the proxy has not understood a message before it in this transaction",
            Self::Mismatch => "the server's answers do not match the messages of this transaction",
        })
    }
}

impl From<LogGap> for Incomplete {
    fn from(gap: LogGap) -> Self {
        match gap {
            LogGap::TooLarge => Self::TooLarge,
            LogGap::Error => Self::Failed,
            LogGap::Suspended => Self::Suspended,
            LogGap::Copy => Self::Copy,
            LogGap::FunctionCall => Self::FunctionCall,
            LogGap::BlockEnded => Self::Chained,
            LogGap::BeginUncertain => Self::BeginUncertain,
        }
    }
}
