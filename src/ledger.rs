//! The ledger: the gate's decisions in a database, so that they outlive the process and every proxy has them.
//!
//! [`Ledger`] is the [`Keeper`] of a proxy. It asks by the operator's connection, which a thread of its own keeps open ([`follow`]). It keeps true:
//!
//! - The database decides: every step of a change and its event are one transaction there (`sql/`).
//! - While the ledger cannot be asked, nothing is allowed that a rule holds, and what is held by hand stays so. What a session has to say is kept until then.
//! - The schema `pgsluice` is used only if everything in it belongs to a role that the server trusts anyway ([`install`]).

mod ask;
mod follow;
mod install;
mod rows;

pub use ask::Ledger;
pub use follow::{Follow, LedgerThread, start};
pub use install::{VERSION, install, script, uninstall};
