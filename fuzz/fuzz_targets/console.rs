//! The fuzz target of the function `console` in `fuzz/targets`.

#![no_main]

#[path = "../targets/mod.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::console(data));
