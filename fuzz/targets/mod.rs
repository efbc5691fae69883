//! The fuzzed functions: each takes any bytes, and its invariants must hold for all of them.
//!
//! The fuzz targets, which find the bytes, and `tests/fuzz_smoke.rs`, which plays the corpus, share these functions. Each
//! function panics when an invariant is broken. Where it can, it compares the result with a second reading of its own.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod console;
mod owed;
mod relay;
mod settings;
mod sql;
mod wire;

pub use console::console;
pub use owed::owed;
pub use relay::relay;
pub use settings::config;
pub use sql::{pieces, prefilter};
pub use wire::{frames, messages, startup};

/// A target's name, which is its corpus' too, and how many mutations of each file a quick look makes.
pub type Target = (&'static str, fn(&[u8]), usize);

pub const TARGETS: [Target; 9] = [
    ("startup", startup, 4000),
    ("frames", frames, 4000),
    ("messages", messages, 4000),
    ("relay", relay, 120),
    ("owed", owed, 5000),
    ("prefilter", prefilter, 600),
    ("pieces", pieces, 400),
    ("config", config, 1000),
    ("console", console, 300),
];
