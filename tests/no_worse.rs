//! What works directly works through the proxy: nothing that the proxy adds makes it worse. One topic a file.

mod common;

#[path = "no_worse/trust.rs"]
mod trust;
