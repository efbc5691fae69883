//! Whether a condition holds, if that may not be known.
//!
//! It is plain data. It keeps true: what is not known is never taken for a yes or a no.

/// Whether a condition holds. The order is from No to Yes, so that *and* is the least and *or* is the greatest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Truth {
    No,
    /// It depends on something that is not known.
    Maybe,
    Yes,
}

impl Truth {
    /// The truth of something that may not be known.
    pub(super) fn of(known: Option<bool>) -> Self {
        known.map_or(Self::Maybe, Self::from)
    }

    /// Whether all of them hold. None: no.
    pub(super) fn all(some: impl Iterator<Item = Self>) -> Self {
        some.min().unwrap_or(Self::No)
    }

    /// Whether any of them holds.
    pub(super) fn any(some: impl Iterator<Item = Self>) -> Self {
        some.max().unwrap_or(Self::No)
    }
}

impl From<bool> for Truth {
    fn from(known: bool) -> Self {
        if known { Self::Yes } else { Self::No }
    }
}
