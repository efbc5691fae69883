//! First, do no harm: what works directly works through the proxy, at the first try. A file per kind.

mod common;

#[path = "no_worse/advisory.rs"]
mod advisory;
#[path = "no_worse/pooler.rs"]
mod pooler;
#[path = "no_worse/privileges.rs"]
mod privileges;
#[path = "no_worse/waiting_builds.rs"]
mod waiting_builds;
#[path = "no_worse/older_servers.rs"]
mod older_servers;
