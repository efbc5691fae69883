//! The eight table-level lock modes, from the weakest to the strongest.
//!
//! The conflict table is PostgreSQL's own ("Explicit Locking", table 13.2).

use serde::{Deserialize, Serialize};
use std::fmt;

/// A table-level lock mode. The order is PostgreSQL's (`lockdefs.h`), weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum LockMode {
    #[serde(rename = "ACCESS SHARE")]
    AccessShare,
    #[serde(rename = "ROW SHARE")]
    RowShare,
    #[serde(rename = "ROW EXCLUSIVE")]
    RowExclusive,
    #[serde(rename = "SHARE UPDATE EXCLUSIVE")]
    ShareUpdateExclusive,
    #[serde(rename = "SHARE")]
    Share,
    #[serde(rename = "SHARE ROW EXCLUSIVE")]
    ShareRowExclusive,
    #[serde(rename = "EXCLUSIVE")]
    Exclusive,
    #[serde(rename = "ACCESS EXCLUSIVE")]
    AccessExclusive,
}

impl LockMode {
    pub const ALL: [Self; 8] = [
        Self::AccessShare,
        Self::RowShare,
        Self::RowExclusive,
        Self::ShareUpdateExclusive,
        Self::Share,
        Self::ShareRowExclusive,
        Self::Exclusive,
        Self::AccessExclusive,
    ];

    /// The name in SQL, as in `LOCK TABLE … IN <name> MODE`.
    pub fn sql(self) -> &'static str {
        match self {
            Self::AccessShare => "ACCESS SHARE",
            Self::RowShare => "ROW SHARE",
            Self::RowExclusive => "ROW EXCLUSIVE",
            Self::ShareUpdateExclusive => "SHARE UPDATE EXCLUSIVE",
            Self::Share => "SHARE",
            Self::ShareRowExclusive => "SHARE ROW EXCLUSIVE",
            Self::Exclusive => "EXCLUSIVE",
            Self::AccessExclusive => "ACCESS EXCLUSIVE",
        }
    }

    /// The name in `pg_locks.mode`, e.g. `AccessExclusiveLock`.
    pub fn pg_locks(self) -> &'static str {
        match self {
            Self::AccessShare => "AccessShareLock",
            Self::RowShare => "RowShareLock",
            Self::RowExclusive => "RowExclusiveLock",
            Self::ShareUpdateExclusive => "ShareUpdateExclusiveLock",
            Self::Share => "ShareLock",
            Self::ShareRowExclusive => "ShareRowExclusiveLock",
            Self::Exclusive => "ExclusiveLock",
            Self::AccessExclusive => "AccessExclusiveLock",
        }
    }

    /// The mode that `pg_locks.mode` names, if it is the mode of a relation lock.
    pub fn from_pg_locks(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.pg_locks() == name)
    }

    /// Whether two transactions cannot hold these two modes on one relation at the same time.
    pub fn conflicts_with(self, other: Self) -> bool {
        let (low, high) = if self <= other { (self, other) } else { (other, self) };
        match low {
            Self::AccessShare => high == Self::AccessExclusive,
            Self::RowShare => high >= Self::Exclusive,
            Self::RowExclusive => high >= Self::Share,
            Self::ShareUpdateExclusive => high >= Self::ShareUpdateExclusive,
            Self::Share => high >= Self::ShareRowExclusive,
            Self::ShareRowExclusive | Self::Exclusive | Self::AccessExclusive => true,
        }
    }

    /// Whether a session that holds this mode gets the other mode without a wait: this mode already keeps out every mode that
    /// conflicts with the other one.
    pub fn covers(self, other: Self) -> bool {
        other.conflicting().all(|mode| self.conflicts_with(mode))
    }

    /// Every mode that conflicts with this one.
    pub fn conflicting(self) -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(move |other| self.conflicts_with(*other))
    }

    /// Whether a holder makes plain readers (ACCESS SHARE) or writers (ROW EXCLUSIVE) wait.
    pub fn blocks_application(self) -> bool {
        self.conflicts_with(Self::AccessShare) || self.conflicts_with(Self::RowExclusive)
    }
}

impl fmt::Display for LockMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.sql())
    }
}

#[cfg(test)]
mod tests {
    use super::LockMode as M;

    #[test]
    fn of_share_and_share_update_exclusive_neither_covers_the_other() {
        assert!(M::ALL.into_iter().all(|mode| M::AccessExclusive.covers(mode) && mode.covers(mode)));
        assert!(M::ShareRowExclusive.covers(M::Share) && M::ShareRowExclusive.covers(M::ShareUpdateExclusive));
        assert!(!M::Share.covers(M::ShareUpdateExclusive) && !M::ShareUpdateExclusive.covers(M::Share));
    }

    /// Table 13.2 of PostgreSQL's documentation, row by row.
    #[test]
    fn conflicts_are_postgresqls() {
        let table = [
            (M::AccessShare, "       X"),
            (M::RowShare, "      XX"),
            (M::RowExclusive, "    XXXX"),
            (M::ShareUpdateExclusive, "   XXXXX"),
            (M::Share, "  XX XXX"),
            (M::ShareRowExclusive, "  XXXXXX"),
            (M::Exclusive, " XXXXXXX"),
            (M::AccessExclusive, "XXXXXXXX"),
        ];
        for (mode, row) in table {
            for (other, cell) in M::ALL.into_iter().zip(row.chars()) {
                assert_eq!(mode.conflicts_with(other), cell == 'X', "{mode} against {other}");
            }
        }
    }
}
