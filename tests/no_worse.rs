//! Tests that the proxy is no worse than its absence: a statement that works directly works through the proxy, at the first
//! try, for any role.
//!
//! This is a fifth kind of parity. Each file has one kind of situation in which the proxy once did harm that its absence
//! would not have done. Each case runs directly and through the proxy, and fails if the proxy is worse.

mod common;

#[path = "parity/catalog.rs"]
mod catalog;

#[path = "no_worse/advisory.rs"]
mod advisory;
#[path = "no_worse/at_once.rs"]
mod at_once;
#[path = "no_worse/blocks.rs"]
mod blocks;
#[path = "no_worse/budgets.rs"]
mod budgets;
#[path = "no_worse/descriptors.rs"]
mod descriptors;
#[path = "no_worse/encodings.rs"]
mod encodings;
#[path = "no_worse/errors.rs"]
mod errors;
#[path = "no_worse/large.rs"]
mod large;
#[path = "no_worse/meanwhile.rs"]
mod meanwhile;
#[path = "no_worse/newer.rs"]
mod newer;
#[path = "no_worse/notices.rs"]
mod notices;
#[path = "no_worse/older_servers.rs"]
mod older_servers;
#[path = "no_worse/pooler.rs"]
mod pooler;
#[path = "no_worse/prepared.rs"]
mod prepared;
#[path = "no_worse/privileges.rs"]
mod privileges;
#[path = "no_worse/restore.rs"]
mod restore;
#[path = "no_worse/stalls.rs"]
mod stalls;
#[path = "no_worse/strings.rs"]
mod strings;
#[path = "no_worse/trust.rs"]
mod trust;
#[path = "no_worse/trust_records.rs"]
mod trust_records;
#[path = "no_worse/waiting_builds.rs"]
mod waiting_builds;
