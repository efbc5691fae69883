//! What outlives the ROLLBACK of the client's transaction.
//!
//! [`Suspended`] owns the settings that the transaction has changed, the advisory locks that it holds, and what the client knows of its locked
//! rows. It keeps true: an advisory lock is named as the server's functions take it.

use crate::session::ahead_statements::Told;

/// What outlives the ROLLBACK.
#[derive(Debug)]
pub(super) struct Suspended {
    /// The settings that the session has outside the transaction, each with its name, for those that the transaction has changed.
    pub(super) settings: Vec<(String, String)>,
    /// The same settings as the transaction had them.
    pub(super) inside: Vec<(String, String)>,
    pub(super) locks: Vec<AdvisoryKey>,
    /// What the client knows of rows that the transaction had locked.
    pub(super) told: Vec<Told>,
}

impl Suspended {
    /// A transaction of which no settings outlive the ROLLBACK.
    pub(super) fn knowing(locks: Vec<AdvisoryKey>, told: Vec<Told>) -> Self {
        Self { settings: Vec::new(), inside: Vec::new(), locks, told }
    }
}

/// An advisory lock, as pg_locks shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AdvisoryKey {
    /// The arguments of the advisory lock functions: one bigint, or two integers.
    key: String,
    shared: bool,
}

impl AdvisoryKey {
    /// `classid`, `objid`, `objsubid`, `mode` of pg_locks. A lock of one bigint has the objsubid 1.
    pub(super) fn read(row: &[Option<String>]) -> Option<Self> {
        let number = |at: usize| row.get(at)?.as_deref()?.parse::<u32>().ok();
        let (class, object) = (number(0)?, number(1)?);
        let key = match number(2)? {
            1 => ((u64::from(class) << 32) | u64::from(object)).cast_signed().to_string(),
            2 => format!("{}, {}", class.cast_signed(), object.cast_signed()),
            _ => return None,
        };
        Some(Self { key, shared: row.get(3)?.as_deref()? == "ShareLock" })
    }

    /// The call of an advisory lock function. `before`: the function's name without `_shared`.
    pub(super) fn call(&self, function: &str) -> String {
        let shared = if self.shared { "_shared" } else { "" };
        format!("SELECT pg_catalog.{function}{shared}({})", self.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_the_functions_take_them() {
        let row = |class: &str, object: &str, sub: &str, mode: &str| {
            AdvisoryKey::read(&[class, object, sub, mode].map(|value| Some(value.to_owned())))
                .map(|key| key.call("pg_advisory_lock"))
        };
        assert_eq!(
            row("0", "7", "1", "ExclusiveLock").as_deref(),
            Some("SELECT pg_catalog.pg_advisory_lock(7)") //
        );
        assert_eq!(
            row("4294967295", "4294967295", "1", "ShareLock").as_deref(),
            Some("SELECT pg_catalog.pg_advisory_lock_shared(-1)")
        );
        assert_eq!(
            row("4294967295", "3", "2", "ExclusiveLock").as_deref(),
            Some("SELECT pg_catalog.pg_advisory_lock(-1, 3)")
        );
        assert_eq!(row("1", "1", "3", "ExclusiveLock"), None);
    }
}
