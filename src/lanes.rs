//! Lanes and blockers: which session has its turn to change a relation, and which sessions hold a lock that is needed.
//!
//! A lane is one advisory lock for each relation. PostgreSQL itself releases it when a session dies, and several proxies
//! share it without a protocol of their own. A session tries a lane, and never waits for it inside PostgreSQL. A session
//! inside `pg_advisory_lock()` holds a snapshot, and every concurrent index build would have to wait for that snapshot.
//!
//! The file is pure. It has the SQL, the meaning of the answers, and the times at which to try again. The caller sends the
//! SQL, and passes the time as an argument.

use crate::catalog::query::{LANE_CLASS, may_change};
use crate::pg::LockMode;
use crate::pg::relation::quote_identifier;
use crate::plan::LockNeed;
use crate::registry::BlockerSeen;
use crate::report::in_words;
use serde::Deserialize;
use std::fmt;
use std::sync::LazyLock;
use std::time::Duration;

/// A backend, or a prepared transaction, that holds a lock which a step needs.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Blocker {
    /// `None`: the blocker is a prepared transaction.
    pub pid: Option<i32>,
    /// `virtualtransaction`. It tells one transaction of a backend from the next one.
    pub transaction: String,
    pub application: Option<String>,
    pub user: Option<String>,
    pub state: Option<String>,
    /// Milliseconds since its transaction began, if the role may see that.
    pub age_ms: Option<u64>,
    pub autovacuum: bool,
    pub to_prevent_wraparound: bool,
    /// The global identifier of a prepared transaction.
    pub prepared: Option<String>,
    pub relation: String,
    pub oid: u32,
    pub mode: String,
    /// The blocker waits for a lock that this session holds.
    pub waits_for_us: bool,
}

impl Blocker {
    /// The blocker as operators see it.
    pub fn seen(&self) -> BlockerSeen {
        BlockerSeen {
            pid: self.pid,
            application: self.application.clone(),
            user: self.user.clone(),
            state: self.state.clone(),
            age_ms: self.age_ms,
            mode: LockMode::from_pg_locks(&self.mode).map_or_else(|| self.mode.clone(), |mode| mode.sql().to_owned()),
            relation: self.relation.clone(),
        }
    }
}

/// One look at the blockers and the lanes.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
pub struct View {
    #[serde(default)]
    pub blockers: Vec<Blocker>,
    /// Another backend that holds a lane which this session needs.
    pub lane_holder: Option<i32>,
    /// Lanes that are held only by sessions whose role may not change the relation. This session does without these lanes.
    #[serde(default)]
    pub lanes_of_strangers: Vec<u32>,
    /// The role may cancel an autovacuum worker.
    pub may_cancel: bool,
}

/// The SQL of a look. Its parameters: `$1` the oids that are needed (text[]); `$2` for each of these a lock mode that conflicts
/// (text[], the names of `pg_locks`); `$3` the oids of the lanes; `$4` for each of the first whether it is needed without its
/// descendants. The result is one row with one JSON value. The query reads `pg_locks` and `pg_stat_activity` only, and takes no lock
/// on any table of the user's. The descendants of a relation that is needed with them count as the relation, since `LOCK TABLE` locks
/// them, too.
pub fn view_sql() -> &'static str {
    static SQL: LazyLock<String> =
        LazyLock::new(|| include_str!("lanes/view.sql").replace("holder_counts", &may_change("a.usesysid")));
    &SQL
}

/// In a transaction the server gives the `pg_stat_activity` of the first query for it, until it is told to forget that.
pub const CLEAR_SQL: &str = "SELECT pg_catalog.pg_stat_clear_snapshot()";

/// The SQL of a glance: whether a blocker still holds the lock with which it was seen. The server plans and answers it in a tenth of
/// the time of a look. Its parameters: the transaction of the blocker, the oid of the relation, the mode.
pub const GLANCE_SQL: &str = "/* pgsluice: a glance */ SELECT EXISTS (SELECT FROM pg_catalog.pg_locks l \
     WHERE l.locktype OPERATOR(pg_catalog.=) 'relation' AND l.granted \
     AND l.virtualtransaction OPERATOR(pg_catalog.=) $1::pg_catalog.text \
     AND l.relation OPERATOR(pg_catalog.=) $2::pg_catalog.text::pg_catalog.oid \
     AND l.mode OPERATOR(pg_catalog.=) $3::pg_catalog.text)";

/// The parameters of [`view_sql`].
pub fn view_parameters(locks: &[LockNeed], lanes: &[u32]) -> [String; 4] {
    let mut oids = Vec::new();
    let mut modes = Vec::new();
    let mut alone = Vec::new();
    for lock in locks {
        for mode in lock.mode.conflicting() {
            oids.push(lock.oid.to_string());
            modes.push(mode.pg_locks().to_owned());
            alone.push(lock.only.to_string());
        }
    }
    let lanes: Vec<String> = lanes.iter().map(u32::to_string).collect();
    [array(&oids), array(&modes), array(&lanes), array(&alone)]
}

fn array(words: &[String]) -> String {
    format!("{{{}}}", words.join(","))
}

/// The lanes of a phase, in the one order in which all sessions take them.
pub fn lanes_of(locks: &[LockNeed]) -> Vec<u32> {
    let mut lanes: Vec<u32> = locks.iter().map(|lock| lock.oid).collect();
    lanes.sort_unstable();
    lanes.dedup();
    lanes
}

/// The SQL that tries to take a lane. It gives `t` or `f`. If a transaction is open, the lane is released when the transaction ends.
pub fn try_lane_sql(oid: u32, in_transaction: bool) -> String {
    format!("SELECT {}", try_lane(oid, in_transaction))
}

fn try_lane(oid: u32, in_transaction: bool) -> String {
    let function = if in_transaction { "pg_try_advisory_xact_lock" } else { "pg_try_advisory_lock" };
    format!("pg_catalog.{function}({LANE_CLASS}, {})", signed(oid))
}

pub fn give_lane_sql(oid: u32) -> String {
    format!("SELECT pg_catalog.pg_advisory_unlock({LANE_CLASS}, {})", signed(oid))
}

/// An oid as a key of an advisory lock. The two-key advisory locks take signed numbers, and oids are unsigned.
pub fn signed(oid: u32) -> i32 {
    i32::from_ne_bytes(oid.to_ne_bytes())
}

/// The SQL of a nap on the server. Its comment has the reason for the wait, so that `pg_stat_activity` shows it. A cancel ends the nap.
pub fn nap_sql(nap: Duration, waiting_for: &str) -> String {
    format!("{} SELECT pg_catalog.pg_sleep({:.3})", comment(waiting_for), nap.as_secs_f64())
}

/// The SQL of a nap and then a try of the lane. It gives `t` or `f`. (The value of `pg_sleep` is void, which is not NULL.)
pub fn nap_and_try_sql(nap: Duration, waiting_for: &str, oid: u32, in_transaction: bool) -> String {
    let (words, seconds) = (comment(waiting_for), nap.as_secs_f64());
    let tries = try_lane(oid, in_transaction);
    format!("{words} SELECT CASE WHEN pg_catalog.pg_sleep({seconds:.3}) IS NOT NULL THEN {tries} ELSE false END")
}

/// A comment of the proxy's, for `pg_stat_activity`.
pub fn comment(waiting_for: &str) -> String {
    let words: String =
        waiting_for.replace("*/", "* /").replace("/*", "/ *").chars().filter(|c| !c.is_control()).collect();
    format!("/* pgsluice: {words} */")
}

/// The `LOCK TABLE` statements of a lock attempt.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct LockSql {
    /// The statements with NOWAIT. They come first, since a request with NOWAIT makes nobody wait behind it.
    pub nowait: Vec<String>,
    /// The statements that wait in the server's lock queue.
    pub queued: Vec<String>,
}

/// The statements for all of `locks` that `LOCK TABLE` can name, the strongest mode first. They have NOWAIT, unless `wait`. If the
/// transaction already holds a lock on the relation, they never have NOWAIT: it would fail because of requests that wait for that
/// lock, although the server would put this request ahead of them.
pub fn lock_sql(locks: &[LockNeed], wait: bool) -> LockSql {
    let queues = |lock: &LockNeed| wait || lock.held;
    let mut kinds: Vec<(bool, LockMode, bool)> =
        locks.iter().filter(|l| l.lockable).map(|l| (!queues(l), l.mode, l.only)).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let mut sql = LockSql::default();
    for (nowait, mode, only) in kinds.into_iter().rev() {
        let names: Vec<String> = locks
            .iter()
            .filter(|l| l.lockable && queues(l) != nowait && l.mode == mode && l.only == only)
            .map(|l| format!("{}{}", if only { "ONLY " } else { "" }, l.relation.quoted()))
            .collect();
        let lock = format!("LOCK TABLE {} IN {mode} MODE", names.join(", "));
        match nowait {
            true => sql.nowait.push(lock + " NOWAIT"),
            false => sql.queued.push(lock),
        }
    }
    sql
}

/// The blocker, for people: `pid 4711 (psql, user ann, idle in transaction, for 14 min)`.
impl fmt::Display for Blocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.pid, &self.prepared) {
            (Some(pid), _) => write!(f, "pid {pid}")?,
            (None, Some(gid)) => return write!(f, "prepared transaction {}", quote_identifier(gid)),
            (None, None) => return f.write_str("a prepared transaction"),
        }
        let mut words = Vec::new();
        if self.autovacuum {
            words.push("autovacuum".to_owned());
        }
        words.extend(self.application.clone().filter(|name| !name.is_empty()));
        words.extend(self.user.as_ref().map(|user| format!("user {user}")));
        words.extend(self.state.clone());
        words.extend(self.age_ms.map(|ms| format!("for {}", in_words(Duration::from_millis(ms)))));
        if words.is_empty() { Ok(()) } else { write!(f, " ({})", words.join(", ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pg::RelationName;

    fn need(name: &str, oid: u32, mode: LockMode) -> LockNeed {
        LockNeed::alone(RelationName::new(Some("public"), name), oid, mode)
    }

    #[test]
    fn locks_are_named_together() {
        let locks = [need("b", 2, LockMode::ShareRowExclusive), need("a", 1, LockMode::ShareRowExclusive)];
        assert_eq!(
            lock_sql(&locks, false).nowait,
            [r#"LOCK TABLE "public"."b", "public"."a" IN SHARE ROW EXCLUSIVE MODE NOWAIT"#]
        );
        assert_eq!(
            lock_sql(&locks, true).queued,
            [r#"LOCK TABLE "public"."b", "public"."a" IN SHARE ROW EXCLUSIVE MODE"#]
        );
        assert_eq!(lanes_of(&locks), [1, 2]);
    }

    #[test]
    fn who_holds_a_lock_is_let_wait() {
        let held = LockNeed { held: true, ..need("a", 1, LockMode::AccessExclusive) };
        let sql = lock_sql(&[held, need("b", 2, LockMode::AccessExclusive)], false);
        assert_eq!(sql.nowait, [r#"LOCK TABLE "public"."b" IN ACCESS EXCLUSIVE MODE NOWAIT"#]);
        assert_eq!(sql.queued, [r#"LOCK TABLE "public"."a" IN ACCESS EXCLUSIVE MODE"#]);
    }

    #[test]
    fn a_comment_cannot_be_left() {
        let sql = nap_sql(Duration::from_millis(50), "x */; DROP TABLE t; /* \n y");
        assert_eq!(sql.matches("*/").count(), 1);
        assert!(!sql.contains('\n'));
    }
}
