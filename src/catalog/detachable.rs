//! A partition that can be detached before it is dropped, with the data to attach it again.
//!
//! This file owns [`Detachable`], plain data that [`super::inquiry::detachable`] asks for.

use super::relation::RelationRef;
use serde::{Deserialize, Serialize};

/// A partition that DROP TABLE names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detachable {
    pub parent: RelationRef,
    /// The session's role may act as the parent's owner.
    pub owned: bool,
    /// The size of the parent with all its partitions, by the catalogue's own count of pages.
    pub bytes: u64,
    /// `FOR VALUES …`
    pub bound: String,
    /// The partition has hash bounds. For these the server leaves no CHECK that would prove them.
    #[serde(default)]
    pub hash: bool,
    /// Another partition of the parent is half detached.
    #[serde(default)]
    pub another: bool,
    /// The server would refuse DROP TABLE, since another object or an extension depends on the partition.
    #[serde(default)]
    pub needed: bool,
    /// The partition has triggers from its parent that are not enabled as they are there.
    #[serde(default)]
    pub own_triggers: bool,
}
