//! A partition that can be detached before it is dropped, and how it would be attached again.
//!
//! [`Detachable`] is plain data that [`super::inquiry::detachable`] asks for.

use super::relation::RelationRef;
use serde::{Deserialize, Serialize};

/// A partition that DROP TABLE names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detachable {
    pub parent: RelationRef,
    /// The session's role may act as the parent's owner.
    pub owned: bool,
    /// Of the parent with all its partitions, by the catalogue's own count of pages.
    pub bytes: u64,
    /// `FOR VALUES …`
    pub bound: String,
    /// Its bounds are of a hash, for which the server leaves no CHECK that would prove them.
    #[serde(default)]
    pub hash: bool,
    /// Another partition of the parent is half detached.
    #[serde(default)]
    pub another: bool,
    /// DROP TABLE would be refused: something else depends on it, or an extension does.
    #[serde(default)]
    pub needed: bool,
    /// Triggers that it has of its parent are enabled otherwise than there.
    #[serde(default)]
    pub own_triggers: bool,
}
