//! The client's backend, asked on the client's own connection: the [`ServerChannel`].
//!
//! - `channel`: asks, and reads the answers.
//! - `client`: the client's end of the session, for code that answers in place of the server.
//! - `cancel`: CancelRequests, the client's and the proxy's own.
//! - `activity`: what the proxy's own questions tell of the schema change that they are for.
//! - `answer`: what a batch of statements brought.
//! - `notices`: notices of the client's statement, on their way to the client while it runs.
//! - `pipeline`: what the proxy asks amid a pipeline of the client's.
//! - `words`: questions about names, in whatever encodings the session has.

mod activity;
mod answer;
mod cancel;
mod channel;
mod client;
mod notices;
mod pipeline;
mod words;

pub use self::answer::{Answer, data_row};
pub use self::cancel::{CancelRequests, Cancels, cancel};
pub use self::channel::ServerChannel;
pub use self::pipeline::SealOutcome;
pub use crate::relay::BackendLost;
