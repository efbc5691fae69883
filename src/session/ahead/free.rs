//! A table that the client's transaction has altered, and keeps from everybody until it ends, although what comes next may take long.
//!
//! `ALTER TABLE orders ADD COLUMN …; UPDATE orders SET …` keeps readers and writers from the table for as long as the UPDATE takes. So before such a
//! write the schema change is done ahead of the transaction, which then holds locks on rows alone. The same is done while the client is idle, when others
//! wait for the table.
//!
//! It owns nothing. It keeps true: the write itself is left alone. If the schema change cannot go ahead, the transaction goes on as the client has
//! written it, and a WARNING says so.

use super::{AheadRun, Hoisted};
use crate::execute::RunError;
use crate::pg::{RelationName, sqlstate};
use crate::plan::ahead::{NotAhead, free};
use crate::report::{Report, Severity};
use crate::session::text::parse_options;
use crate::sql::{EffectKind, Statement, effects, first_word, has_word};

impl AheadRun<'_> {
    /// Frees the tables that the transaction holds, if a statement of this text may take long.
    ///
    /// # Errors
    /// The client has cancelled the statement, or the transaction could not be run again. The transaction has failed.
    pub(in crate::session) async fn free_before(&mut self, text: &str) -> Result<(), RunError> {
        let Ok(statements) = effects(text, parse_options(self.channel, self.shared)) else { return Ok(()) };
        let mut writes = statements
            .into_iter()
            .filter(|(write, effect)| effect.kind == EffectKind::Write && may_take_long(write.text.as_bytes()));
        let Some((write, effect)) = writes.next() else { return Ok(()) };
        self.block.looks_at_write();
        if !self.is_large(&effect.relations).await? {
            return Ok(());
        }
        self.free(&write).await
    }

    /// Frees the tables that the transaction holds while its client is idle, if others wait for one of them.
    ///
    /// # Errors
    /// The transaction could not be run again. It has failed.
    pub(in crate::session) async fn free_idle(&mut self) -> Result<(), RunError> {
        if !self.is_so(OTHERS_WAIT_SQL, &[]).await? {
            return Ok(());
        }
        let nothing = effects("SELECT", parse_options(self.channel, self.shared)).ok().and_then(|mut all| all.pop());
        match nothing {
            Some((nothing, _)) => self.free(&nothing).await,
            None => Ok(()),
        }
    }

    /// Frees the tables that the transaction holds. `next`: what comes next in the transaction.
    async fn free(&mut self, next: &Statement) -> Result<(), RunError> {
        self.block.frees();
        let why = match self.case_by(next, free).await? {
            Ok(case) if case.ahead.is_empty() => return Ok(()),
            Ok(case) => match Box::pin(self.do_ahead(case, None)).await? {
                Hoisted::Done(_) => {
                    self.shared.metrics.blocks_freed.add();
                    return Ok(());
                }
                Hoisted::Failed(stop) => return Err(self.fail(stop).await?),
                Hoisted::NotAhead(why) => why,
            },
            Err(why) => why,
        };
        self.shared.metrics.blocks_not_freed.add();
        self.channel.notify(&keeps_its_locks(&why));
        Ok(())
    }

    /// Whether one of the relations, or what belongs to it, is larger than a small table.
    async fn is_large(&mut self, relations: &[RelationName]) -> Result<bool, RunError> {
        let Some(touched) = self.ask_relations(relations).await? else { return Ok(false) };
        let oids: Vec<String> = touched.iter().flatten().map(u32::to_string).collect();
        let oids = format!("{{{}}}", oids.join(","));
        let small = self.shared.config.ddl.small_table.to_string();
        self.is_so(LARGE_SQL, &[&oids, &small]).await
    }

    /// Asks a question whose answer is `yes` or nothing.
    async fn is_so(&mut self, sql: &str, parameters: &[&str]) -> Result<bool, RunError> {
        let answer = self.channel.question(sql, parameters).await?.ok().map_err(RunError::Server)?;
        Ok(answer.value().is_some_and(|value| self.channel.text(value) == "yes"))
    }
}

/// Whether a write of this text may be of many rows. INSERT of rows that are written out is not.
fn may_take_long(text: &[u8]) -> bool {
    !first_word(text).eq_ignore_ascii_case(b"insert") || has_word(text, &["select", "table"])
}

/// Whether somebody waits for a relation that this session holds.
const OTHERS_WAIT_SQL: &str = "SELECT CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_locks l \
     WHERE NOT l.granted AND l.locktype OPERATOR(pg_catalog.=) 'relation' \
     AND pg_catalog.pg_backend_pid() OPERATOR(pg_catalog.=) ANY (pg_catalog.pg_blocking_pids(l.pid))) THEN 'yes' END";

/// Whether one of the relations is larger than so many bytes.
const LARGE_SQL: &str = "SELECT CASE WHEN EXISTS (SELECT FROM pg_catalog.unnest($1::pg_catalog.text::pg_catalog.oid[]) AS r(oid) \
     WHERE pg_catalog.pg_relation_size(r.oid::pg_catalog.regclass) OPERATOR(pg_catalog.>) $2::pg_catalog.text::pg_catalog.int8) THEN 'yes' END";

fn keeps_its_locks(why: &NotAhead) -> Report {
    let message = "the transaction keeps the tables that it has altered locked until it ends";
    Report::new(Severity::Warning, sqlstate::SUCCESSFUL_COMPLETION, message)
        .detail(format!("What it has altered was not done ahead of it: {}", why.detail))
        .hint(why.hint.clone())
}
