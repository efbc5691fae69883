//! First, do no harm: what works directly works through the proxy, at the first try, for anybody.
//!
//! A file for each kind of harm that was found, in `tests/no_worse/`.

mod common;
#[path = "no_worse/encodings.rs"]
mod encodings;
#[path = "no_worse/large.rs"]
mod large;
#[path = "no_worse/notices.rs"]
mod notices;
