//! A table that the client's transaction has altered, and keeps from everybody until it ends, although what comes next may take long.
//!
//! `ALTER TABLE orders ADD COLUMN …; UPDATE orders SET …` keeps readers and writers from the table for as long as the UPDATE takes. So before such a
//! write the schema change is done ahead of the transaction, which then holds locks on rows alone.
//!
//! It owns nothing. It keeps true: the write itself is left alone. If the schema change cannot go ahead, the transaction goes on as the client has
//! written it, and a WARNING says so.

use super::{AheadRun, Hoisted};
use crate::execute::RunError;
use crate::pg::{RelationName, sqlstate};
use crate::plan::ahead::{NotAhead, free};
use crate::report::{Report, Severity};
use crate::session::text::parse_options;
use crate::sql::{EffectKind, effects};

impl AheadRun<'_> {
    /// Frees the tables that the transaction holds, if a statement of this text may take long.
    ///
    /// # Errors
    /// The client has cancelled the statement, or the transaction could not be run again. The transaction has failed.
    pub(in crate::session) async fn free_before(&mut self, text: &str) -> Result<(), RunError> {
        let Ok(statements) = effects(text, parse_options(self.channel, self.shared)) else { return Ok(()) };
        let mut writes = statements.into_iter().filter(|(_, effect)| effect.kind == EffectKind::Write);
        let Some((write, effect)) = writes.next() else { return Ok(()) };
        self.block.looks_at_write();
        if !self.is_large(&effect.relations).await? {
            return Ok(());
        }
        self.block.frees();
        let why = match self.case_by(&write, free).await? {
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
        let answer = self.channel.question(LARGE_SQL, &[&oids, &small]).await?.ok().map_err(RunError::Server)?;
        Ok(answer.value() == Some("t"))
    }
}

/// Whether one of the relations is larger than so many bytes.
const LARGE_SQL: &str = "SELECT EXISTS (SELECT FROM pg_catalog.unnest($1::pg_catalog.text::pg_catalog.oid[]) AS r(oid) \
     WHERE pg_catalog.pg_relation_size(r.oid::pg_catalog.regclass) OPERATOR(pg_catalog.>) $2::pg_catalog.text::pg_catalog.int8)";

fn keeps_its_locks(why: &NotAhead) -> Report {
    let message = "the transaction keeps the tables that it has altered locked while this statement runs";
    Report::new(Severity::Warning, sqlstate::SUCCESSFUL_COMPLETION, message)
        .detail(format!("What it has altered was not done ahead of it: {}", why.detail))
        .hint(why.hint.clone())
}
