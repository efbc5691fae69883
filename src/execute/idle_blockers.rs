//! Sessions that are idle in a transaction and in the way of a lock: a rule of the gate may have them ended (`blockers = "terminate"`).
//!
//! This file owns no state; it works on [`LockWait`]. It keeps true:
//!
//! - Only a client's session is ended that is idle in its transaction for longer than the rule says, whose role the rule does not except, and that
//!   holds no lane. The server checks this in the statement that ends the session, so that a session which goes on is left alone.
//! - A session is ended only if the role of the statement may do so. Each one is an event.

use crate::catalog::query::LANE_CLASS;
use crate::config::{BlockersPolicy, BlockersSettings};
use crate::execute::context::ExecutionContext;
use crate::execute::lock_wait::LockWait;
use crate::execute::outcome::RunError;
use crate::lanes::Blocker;
use crate::logging::AUDIT;
use std::time::Duration;

/// How long a session has to be idle if the rule does not say so.
const AFTER: Duration = Duration::from_secs(60);

/// Ends a session. Its parameters: the pid, the transaction that holds the lock, and the seconds that it has to be idle. One row: whether the
/// session was ended, and its role, application and idle time; no row: it is not to be ended.
fn end_sql() -> String {
    format!(
        "/* pgsluice: ending a session that is idle in a transaction */ \
         SELECT CASE WHEN t.may THEN pg_catalog.pg_terminate_backend(t.pid) END, t.usename, t.application_name, t.idle FROM (\
         SELECT a.pid, a.usename::pg_catalog.text AS usename, a.application_name, \
           pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) a.state_change)::pg_catalog.int8::pg_catalog.text AS idle, \
           me.rolsuper OR (NOT o.rolsuper AND (pg_catalog.pg_has_role(me.oid, o.oid, 'USAGE') \
             OR pg_catalog.pg_has_role(me.oid, (SELECT s.oid FROM pg_catalog.pg_roles s \
               WHERE s.rolname OPERATOR(pg_catalog.=) 'pg_signal_backend'), 'USAGE'))) AS may \
         FROM pg_catalog.pg_stat_activity a \
         JOIN pg_catalog.pg_roles o ON o.oid OPERATOR(pg_catalog.=) a.usesysid \
         JOIN pg_catalog.pg_roles me ON me.rolname OPERATOR(pg_catalog.=) CURRENT_USER \
         WHERE a.pid OPERATOR(pg_catalog.=) $1::pg_catalog.text::pg_catalog.int4 AND a.pid OPERATOR(pg_catalog.<>) pg_catalog.pg_backend_pid() \
           AND a.backend_type OPERATOR(pg_catalog.=) 'client backend' \
           AND a.state OPERATOR(pg_catalog.=) ANY (ARRAY['idle in transaction', 'idle in transaction (aborted)']) \
           AND pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) a.state_change) \
             OPERATOR(pg_catalog.>=) $3::pg_catalog.text::pg_catalog.float8 \
           AND EXISTS (SELECT FROM pg_catalog.pg_locks l WHERE l.pid OPERATOR(pg_catalog.=) a.pid AND l.granted \
             AND l.locktype OPERATOR(pg_catalog.=) 'relation' AND l.virtualtransaction OPERATOR(pg_catalog.=) $2::pg_catalog.text) \
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_locks l WHERE l.pid OPERATOR(pg_catalog.=) a.pid \
             AND l.locktype OPERATOR(pg_catalog.=) 'advisory' \
             AND l.classid OPERATOR(pg_catalog.=) {LANE_CLASS}::pg_catalog.oid)) AS t"
    )
}

impl LockWait {
    /// Ends the sessions of the last look that a rule wants to be ended. In a transaction of the client's nothing is ended, since an error would end
    /// the transaction. Returns whether any was.
    pub(super) async fn end_idle_blockers(&self, context: &mut ExecutionContext<'_>) -> Result<bool, RunError> {
        let rule = &context.config().blockers;
        if rule.policy != Some(BlockersPolicy::Terminate) || context.in_transaction() {
            return Ok(false);
        }
        let rule = rule.clone();
        let candidates: Vec<Blocker> =
            self.last().blockers.iter().filter(|blocker| may_end(&rule, blocker)).cloned().collect();
        let mut ended = false;
        for blocker in candidates {
            ended |= end(context, &rule, &blocker).await?;
        }
        Ok(ended)
    }
}

/// Whether the rule has a session ended that is idle for long enough.
fn may_end(rule: &BlockersSettings, blocker: &Blocker) -> bool {
    let is_idle = blocker.state.as_deref().is_some_and(|state| state.starts_with("idle in transaction"));
    let is_excepted = |user: &str| rule.except.iter().any(|glob| glob.matches(user));
    let is_old = blocker.age_ms.is_some_and(|ms| Duration::from_millis(ms) >= rule.after.unwrap_or(AFTER));
    is_idle && is_old && !blocker.autovacuum && blocker.user.as_deref().is_some_and(|user| !is_excepted(user))
}

async fn end(context: &mut ExecutionContext<'_>, rule: &BlockersSettings, blocker: &Blocker) -> Result<bool, RunError> {
    let Some(pid) = blocker.pid else { return Ok(false) };
    let after = rule.after.unwrap_or(AFTER).as_secs_f64();
    let parameters = [pid.to_string(), blocker.transaction.clone(), after.to_string()];
    context.finish_nap().await?;
    let answer = context.channel_mut().ask_rows(&end_sql(), &parameters.each_ref().map(String::as_str)).await?;
    if let Some(error) = answer.error {
        tracing::warn!(pid, sqlstate = error.sqlstate(), "cannot end a session that is in the way of a schema change");
        return Ok(false);
    }
    let Some([ended, user, application, idle]) = answer.rows.first().map(Vec::as_slice) else { return Ok(false) };
    let (change, relation) = (context.channel().change_number(), &blocker.relation);
    let ended = ended.as_deref() == Some("t");
    let outcome = if ended { "ended" } else { "not ended, since the role may not" };
    tracing::warn!(
        target: AUDIT,
        change,
        pid,
        user,
        application,
        idle_seconds = idle,
        relation,
        outcome,
        "a session idle in a transaction was in the way of a schema change"
    );
    if ended {
        context.metrics().blockers_ended.add();
    }
    Ok(ended)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocker(state: &str, user: &str, age_ms: u64) -> Blocker {
        Blocker {
            pid: Some(1),
            transaction: "1/1".to_owned(),
            application: None,
            user: Some(user.to_owned()),
            state: Some(state.to_owned()),
            age_ms: Some(age_ms),
            autovacuum: false,
            to_prevent_wraparound: false,
            prepared: None,
            relation: "public.t".to_owned(),
            oid: 1,
            mode: "AccessShareLock".to_owned(),
            waits_for_us: false,
        }
    }

    #[test]
    fn whom_a_rule_has_ended() {
        let except = ["backup".to_owned()].iter().filter_map(|text| crate::config::Glob::new(text)).collect();
        let rule = BlockersSettings { after: Some(Duration::from_secs(10)), except, ..BlockersSettings::default() };
        assert!(may_end(&rule, &blocker("idle in transaction", "app", 10_000)));
        assert!(may_end(&rule, &blocker("idle in transaction (aborted)", "app", 20_000)));
        assert!(!may_end(&rule, &blocker("idle in transaction", "app", 9_999)));
        assert!(!may_end(&rule, &blocker("idle in transaction", "backup", 20_000)));
        assert!(!may_end(&rule, &blocker("active", "app", 20_000)));
        assert!(!may_end(&BlockersSettings::default(), &blocker("idle in transaction", "app", 59_000)));
    }
}
