//! The throttle of a backfill: the reasons to pause it (a replica that lags, a busy server, a condition of the operator's), and the length
//! of the pause after each batch.
//!
//! The throttle looks at the server about once per second, on the session's own backend, and every progress notice shows the last look.
//! While there is a reason to pause, the backfill naps, with the reason in the comment of the nap. This file owns the last look. It keeps
//! true that a value that the role may not read, such as a lag, does not pause the backfill; that a condition that fails pauses it, because
//! its result is not known; and that a pause as long as `pause_limit` ends the backfill with an error.

use super::short::{self, BatchOutcome, COVER, open, short, time_left};
use crate::config::Backfill as Settings;
use crate::execute::context::ExecutionContext;
use crate::execute::outcome::RunError;
use crate::lanes::nap_sql;
use crate::pg::{RelationName, sqlstate};
use crate::report::{Report, in_words};
use serde::Deserialize;
use std::time::{Duration, Instant};

/// The interval of looks at the server.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The interval of looks while the backfill pauses.
const PAUSED_LOOK_EVERY: Duration = Duration::from_millis(250);
/// The longest that the condition may take. A condition that takes longer counts as failed, so that it does not delay a cancel.
const CONDITION_TIMEOUT: Duration = Duration::from_secs(1);

/// The pause after a batch if no other session is at work, as a multiple of the batch's time. It is less if the settings say less.
const ALONE: f64 = 1.0;
/// Other sessions are at work if they end this many transactions per second. A person at a console and a monitoring tool end fewer.
const AT_WORK: f64 = 10.0;
/// The transactions of one batch or look and of the nap after it.
const OWN: f64 = 2.0;

/// The rate of other sessions' transactions, by the counters of all databases, which every role may read.
///
/// A backend reports its own counts about once per second. So transactions of this session may be counted one interval late, and the rate
/// of others in the interval before is then negative. The mean of two intervals is right.
#[derive(Debug, Default, Clone, PartialEq)]
struct Others {
    /// The last count of the server, and its time.
    last: Option<(f64, Instant)>,
    /// The transactions of this session since then.
    own: f64,
    /// The transactions per second of other sessions and of this one.
    rates: Option<(f64, f64)>,
}

impl Others {
    /// Takes a count of the server and computes the rates.
    fn counted(&mut self, total: f64, now: Instant) {
        let Some((before, at)) = self.last else {
            (self.last, self.own) = (Some((total, now)), 0.0);
            return;
        };
        let seconds = now.saturating_duration_since(at).as_secs_f64();
        // The counters say nothing new before the interval is over.
        if seconds < LOOK_EVERY.as_secs_f64() {
            return;
        }
        let (others, own) = ((total - before - self.own) / seconds, self.own / seconds);
        let before = self.rates.unwrap_or((others, own));
        self.rates = Some((f64::midpoint(before.0, others), f64::midpoint(before.1, own)));
        (self.last, self.own) = (Some((total, now)), 0.0);
    }

    /// Whether other sessions are at work. They count as at work until the rates are known. If this session's own rate is high, half of it
    /// is within its jitter.
    fn at_work(&self) -> bool {
        self.rates.is_none_or(|(others, own)| others >= AT_WORK.max(own / 2.0))
    }
}

/// The result of the last look at the server.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct Throttle {
    others: Others,
    looked: Option<Instant>,
    /// When the pause began.
    paused: Option<Instant>,
    seen: Seen,
    condition: Option<Condition>,
}

/// The values that the server has returned.
#[derive(Debug, Default, Clone, PartialEq, Deserialize)]
struct Seen {
    /// The lag in seconds.
    lag: Option<f64>,
    active: Option<usize>,
    /// The transactions that have ended, of all databases.
    ended: Option<f64>,
}

/// The result of the operator's condition.
#[derive(Debug, Clone, PartialEq)]
enum Condition {
    True,
    NotTrue,
    /// The condition failed, with this message of the server.
    Failed(String),
}

impl Throttle {
    /// Returns the pause after a batch, as a multiple of the batch's time.
    pub(super) fn ratio(&self, settings: &Settings) -> f64 {
        if self.others.at_work() { settings.pause_ratio } else { settings.pause_ratio.min(ALONE) }
    }

    /// Returns the reason to pause, if there is one.
    fn reason(&self, settings: &Settings) -> Option<String> {
        if let Some(lag) = self.seen.lag.filter(|lag| is_on(settings.max_lag) && *lag > settings.max_lag.as_secs_f64())
        {
            return Some(format!("a replica lags by {lag:.1} s of at most {}", in_words(settings.max_lag)));
        }
        let too_many = |active: &usize| settings.max_active > 0 && *active > settings.max_active;
        if let Some(active) = self.seen.active.filter(too_many) {
            return Some(format!("{active} clients are active of at most {}", settings.max_active));
        }
        match (&settings.condition, &self.condition) {
            (None, _) | (_, None | Some(Condition::True)) => None,
            (_, Some(Condition::NotTrue)) => Some("the condition in [backfill] is not true".to_owned()),
            (_, Some(Condition::Failed(message))) => Some(format!("the condition in [backfill] fails: {message}")),
        }
    }

    /// Returns the kind of the reason to pause, as it is counted.
    fn reason_word(&self, settings: &Settings) -> &'static str {
        if self.seen.lag.is_some_and(|lag| is_on(settings.max_lag) && lag > settings.max_lag.as_secs_f64()) {
            return "lag";
        }
        if self.seen.active.is_some_and(|active| settings.max_active > 0 && active > settings.max_active) {
            return "active";
        }
        if matches!(self.condition, Some(Condition::Failed(_))) { "condition_failed" } else { "condition" }
    }

    /// Returns the last look in words, such as `pause 9 x a batch, lag 0.2 s of 10 s, active 3 of 8, condition true`.
    pub(super) fn words(&self, settings: &Settings) -> String {
        let (ratio, most) = (self.ratio(settings), settings.pause_ratio);
        let beside_others = if ratio < most { format!(" ({most} beside others)") } else { String::new() };
        let mut words = vec![format!("pause {ratio} x a batch{beside_others}")];
        if is_on(settings.max_lag) {
            let lag = self.seen.lag.map_or_else(|| "none seen".to_owned(), |lag| format!("{lag:.1} s"));
            words.push(format!("lag {lag} of {}", in_words(settings.max_lag)));
        }
        if settings.max_active > 0 {
            let active = self.seen.active.map_or_else(|| "none seen".to_owned(), |active| active.to_string());
            words.push(format!("active {active} of {}", settings.max_active));
        }
        match (&settings.condition, &self.condition) {
            (None, _) | (_, None) => {}
            (_, Some(Condition::True)) => words.push("condition true".to_owned()),
            (_, Some(Condition::NotTrue)) => words.push("condition not true".to_owned()),
            (_, Some(Condition::Failed(_))) => words.push("condition fails".to_owned()),
        }
        if let Some(reason) = self.reason(settings) {
            words.push(format!("paused: {reason}"));
        }
        words.join(", ")
    }
}

/// Whether a limit is set.
fn is_on(time: Duration) -> bool {
    time > Duration::ZERO
}

/// Returns the query for the values that the settings limit. `None` means that they limit none.
fn question(settings: &Settings) -> Option<String> {
    let mut fields = Vec::new();
    if is_on(settings.max_lag) {
        fields.push(
            "'lag', (SELECT pg_catalog.date_part('epoch', pg_catalog.max(r.replay_lag)) FROM pg_catalog.pg_stat_replication r)",
        );
    }
    if settings.max_active > 0 {
        fields.push(
            "'active', (SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_activity a \
             WHERE a.backend_type OPERATOR(pg_catalog.=) 'client backend' AND a.state OPERATOR(pg_catalog.=) 'active' \
             AND a.pid OPERATOR(pg_catalog.<>) pg_catalog.pg_backend_pid())",
        );
    }
    if settings.pause_ratio > ALONE {
        fields.push(
            "'ended', (SELECT pg_catalog.sum(d.xact_commit OPERATOR(pg_catalog.+) d.xact_rollback) \
             FROM pg_catalog.pg_stat_database d)",
        );
    }
    (!fields.is_empty())
        .then(|| format!("SELECT pg_catalog.jsonb_build_object({})::pg_catalog.text", fields.join(", ")))
}

impl Throttle {
    /// Returns when there is no reason to pause. During the pause `tell` is called, which notifies the client.
    pub(super) async fn pause(
        &mut self,
        context: &mut ExecutionContext<'_>,
        table: &RelationName,
        mut tell: impl FnMut(&Self, &mut ExecutionContext<'_>),
    ) -> Result<(), RunError> {
        self.others.own += OWN;
        if self.looked.is_some_and(|at| at.elapsed() < LOOK_EVERY) {
            return Ok(());
        }
        loop {
            self.look_at_load(context, table).await?;
            self.looked = Some(Instant::now());
            if self.reason(&context.config().backfill).is_none() {
                self.paused = None;
                return Ok(());
            }
            if self.paused.is_none() {
                let reason = self.reason_word(&context.config().backfill);
                context.metrics().measures.backfill_pauses(reason);
            }
            let since = *self.paused.get_or_insert_with(Instant::now);
            if since.elapsed() >= context.config().backfill.pause_limit {
                return Err(self.paused_too_long(context));
            }
            if let Some(stop) = context.interrupted() {
                return Err(stop);
            }
            time_left(context)?;
            tell(self, context);
        }
    }

    /// Asks for the values and the condition, each with a nap after it. The nap is short, or as long as the interval of looks during a
    /// pause.
    async fn look_at_load(&mut self, context: &mut ExecutionContext<'_>, table: &RelationName) -> Result<(), RunError> {
        let settings = &context.config().backfill;
        let (nap, why) = match self.reason(settings) {
            Some(reason) => (PAUSED_LOOK_EVERY, format!("backfill of {table}, paused: {reason}")),
            None => (COVER, format!("backfill of {table}, between two batches")),
        };
        let nap = nap_sql(nap, &context.channel().words(&why));
        if let Some(question) = question(settings) {
            let mut batch = open(context, None, false)?;
            context.channel().put_question(&mut batch, &question, &[]);
            batch.statement("COMMIT", &[]);
            let ended = short(context, batch, &nap, None).await?;
            self.others.own += OWN;
            self.seen = match ended {
                BatchOutcome::Done(answer) => {
                    serde_json::from_str(&context.channel().text(answer.value().unwrap_or_default()))
                        .unwrap_or_default()
                }
                _ => Seen::default(),
            };
            if let Some(ended) = self.seen.ended {
                self.others.counted(ended, Instant::now());
            }
        }
        if let Some(condition) = &settings.condition {
            let mut batch = open(context, Some(CONDITION_TIMEOUT), false)?;
            batch.statement("SET TRANSACTION READ ONLY", &[]);
            // The line break ends a comment at the end of the condition.
            batch.statement(&format!("SELECT CASE WHEN (\n{condition}\n) THEN 1 ELSE 0 END"), &[]);
            batch.statement("COMMIT", &[]);
            self.others.own += OWN;
            self.condition = Some(match short(context, batch, &nap, Some(CONDITION_TIMEOUT)).await? {
                BatchOutcome::Done(answer) if answer.value() == Some("1") => Condition::True,
                BatchOutcome::Done(_) => Condition::NotTrue,
                BatchOutcome::Locked => Condition::Failed("it waits for a lock".to_owned()),
                BatchOutcome::TooLong => {
                    Condition::Failed(format!("it takes longer than {}", in_words(CONDITION_TIMEOUT)))
                }
                BatchOutcome::Refused(error) | BatchOutcome::Moved(error) => {
                    Condition::Failed(error.message().to_owned())
                }
            });
            // A condition that failed had no nap after it.
            if matches!(self.condition, Some(Condition::Failed(_))) {
                short::nap(context, PAUSED_LOOK_EVERY, &why).await?;
            }
        }
        Ok(())
    }

    /// Returns the error that the pause has reached its limit.
    fn paused_too_long(&self, context: &ExecutionContext<'_>) -> RunError {
        let limit = in_words(context.config().backfill.pause_limit);
        let reason = self.reason(&context.config().backfill).unwrap_or_default();
        RunError::Report(
            Report::error(sqlstate::QUERY_CANCELED, format!("canceling a backfill that has paused for {limit}"))
                .detail(format!("The backfill paused because {reason}."))
                .hint("Try again when this is over, or change the setting in [backfill] of proxy.toml."),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_and_words() {
        let mut settings = Settings { max_active: 8, ..Settings::default() };
        let seen = Seen { lag: Some(0.2), active: Some(3), ended: None };
        let mut throttle = Throttle { seen, ..Throttle::default() };
        assert_eq!(throttle.reason(&settings), None);
        assert_eq!(throttle.words(&settings), "pause 9 x a batch, lag 0.2 s of 10 s, active 3 of 8");
        throttle.seen.lag = Some(12.0);
        assert!(throttle.words(&settings).ends_with(", paused: a replica lags by 12.0 s of at most 10 s"));
        settings.max_lag = Duration::ZERO;
        throttle.seen.active = Some(9);
        assert_eq!(throttle.reason(&settings).as_deref(), Some("9 clients are active of at most 8"));
        settings.max_active = 0;
        assert_eq!(throttle.reason(&settings), None);
        settings.condition = Some("true".to_owned());
        throttle.condition = Some(Condition::NotTrue);
        assert!(throttle.reason(&settings).is_some());
        assert!(throttle.words(&settings).contains("condition not true"));
    }

    #[test]
    fn nothing_is_asked_that_is_off() {
        let off = Settings { max_lag: Duration::ZERO, pause_ratio: 1.0, ..Settings::default() };
        assert_eq!(question(&off), None);
        assert!(!question(&Settings::default()).unwrap().contains("active"));
    }

    /// Makes looks at an interval of one second.
    fn after(looks: &[(f64, f64)]) -> Throttle {
        let mut throttle = Throttle::default();
        let (mut total, mut now) = (1000.0, Instant::now());
        throttle.others.counted(total, now);
        for (counted, own) in looks {
            throttle.others.own = *own;
            (total, now) = (total + counted, now + LOOK_EVERY);
            throttle.others.counted(total, now);
        }
        throttle
    }

    #[test]
    fn beside_others_it_pauses_for_longer() {
        let settings = Settings::default();
        assert_eq!(after(&[]).ratio(&settings), settings.pause_ratio, "nothing is known yet");
        assert_eq!(after(&[(500.0, 14.0)]).ratio(&settings), settings.pause_ratio);
        let alone = after(&[(16.0, 14.0)]);
        assert_eq!(alone.ratio(&settings), ALONE);
        assert!(alone.words(&settings).starts_with("pause 1 x a batch (9 beside others), "));
        // The first small batches are counted one interval late.
        assert_eq!(after(&[(0.0, 400.0), (414.0, 14.0)]).ratio(&settings), ALONE);
        // Batches of a millisecond.
        assert_eq!(after(&[(900.0, 800.0)]).ratio(&settings), ALONE);
        let none = Settings { pause_ratio: 0.0, ..Settings::default() };
        assert_eq!((after(&[]).ratio(&none), alone.ratio(&none)), (0.0, 0.0));
    }

    #[test]
    fn a_look_too_soon_tells_nothing() {
        let mut throttle = after(&[(16.0, 14.0)]);
        let (total, at) = throttle.others.last.unwrap();
        throttle.others.counted(total + 500.0, at + PAUSED_LOOK_EVERY);
        assert_eq!(throttle.ratio(&Settings::default()), ALONE);
    }
}
