//! What is fuzzed: functions of bytes that must hold for all of them.
//!
//! Shared by the fuzz targets, which find the bytes, and by `tests/fuzz_smoke.rs`, which plays the corpus. Each
//! function panics where an invariant is broken, and checks against a second reading of its own wherever there is one.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod owed;
mod relay;
mod settings;
mod sql;
mod wire;

pub use owed::owed;
pub use relay::relay;
pub use settings::config;
pub use sql::{pieces, prefilter};
pub use wire::{frames, messages, startup};

/// A target's name, which is its corpus' too, and how many mutations of each file a quick look makes.
pub type Target = (&'static str, fn(&[u8]), usize);

pub const TARGETS: [Target; 8] = [
    ("startup", startup, 4000),
    ("frames", frames, 4000),
    ("messages", messages, 4000),
    ("relay", relay, 120),
    ("owed", owed, 5000),
    ("prefilter", prefilter, 600),
    ("pieces", pieces, 400),
    ("config", config, 1000),
];
