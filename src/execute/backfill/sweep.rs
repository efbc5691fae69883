//! What comes behind the last page: rows that were moved meanwhile, and statistics.
//!
//! A row that the application updates before its batch comes may be moved to a page that is done already, or behind the
//! last one, or to another partition. So one look over all tables, in one snapshot, brings the pages of rows that still
//! want; these are filled, until a look brings none: that look is the proof that nothing was forgotten. Nobody makes new
//! rows that want, unless the application itself writes NULL, or the default may give it: then the sweep ends as well.

use super::filling::{BackfillRun, BatchKind};
use super::range::Walk;
use super::short::{BatchOutcome, COVER, row_timeout, short};
use super::tables::listing;
use super::watch::{not_any_more, open_look};
use crate::catalog::trust;
use crate::execute::context::Context;
use crate::execute::outcome::RunError;
use crate::execute::state::RunState;
use crate::execute::timing::set_local;
use crate::lanes::nap_sql;
use crate::pg::{RelationKind, RelationName, sqlstate};
use crate::plan::Filled;
use crate::wire::error_response::ServerError;
use crate::wire::message::Batch;
use std::collections::VecDeque;
use std::time::Duration;

/// Rows that one look brings at most: their pages must fit in memory, and be filled before many are moved again.
const LOOK_ROWS: u64 = 100_000;

/// Looks that brought all there was. Rows that come faster than they are filled are written so by the application.
const MOST_WHOLE_LOOKS: u32 = 10;

/// What a look brought: for each table (its place in the list) the pages with rows that want.
struct SweepFinding {
    pages: Vec<(usize, Vec<u64>)>,
    /// There are no others.
    whole: bool,
}

impl BackfillRun<'_> {
    pub(super) async fn sweep(&mut self, context: &mut Context<'_>, state: &mut RunState) -> Result<(), RunError> {
        self.progress.sweeping = true;
        let mut whole_looks = 0;
        loop {
            self.between(context, state).await?;
            let found = self.look(context).await?;
            if found.pages.is_empty() {
                return Ok(());
            }
            self.still = 0;
            self.fill_pages(context, state, &found.pages).await?;
            whole_looks += u32::from(found.whole);
            if found.whole && (self.still > 0 || whole_looks >= MOST_WHOLE_LOOKS) {
                tracing::info!(table = %self.what.table, "rows without a value remain: it is what they were given");
                return Ok(());
            }
            if self.still > 0 {
                // Every row gets its chance once, those of which the look has not told too.
                return self.all_pages_again(context, state).await;
            }
        }
    }

    /// Those with locked rows come last, and are waited for only when there is nothing else to do.
    async fn fill_pages(
        &mut self,
        context: &mut Context<'_>,
        state: &mut RunState,
        pages: &[(usize, Vec<u64>)],
    ) -> Result<(), RunError> {
        let what = self.what;
        let mut queue: VecDeque<(usize, &[Filled], Walk)> = VecDeque::new();
        for (leaf, pages) in pages {
            for range in self.places.of_pages(pages) {
                let walks = subsets(&what.columns).map(|columns| (*leaf, columns, Walk::new(range.clone())));
                queue.extend(walks);
            }
        }
        let (mut in_vain, mut times) = (0, 0);
        while let Some((leaf, columns, mut walk)) = queue.pop_front() {
            let before = walk.at();
            self.walk(context, state, leaf, columns, &mut walk, BatchKind::Counting).await?;
            if walk.at() > before {
                (in_vain, times) = (0, 0);
            } else {
                in_vain += 1;
            }
            if !walk.is_done() {
                queue.push_back((leaf, columns, walk));
            }
            if in_vain > 0 && in_vain >= queue.len() {
                (in_vain, times) = (0, times + 1);
                self.locked(context, times).await?;
            }
        }
        Ok(())
    }

    async fn all_pages_again(&mut self, context: &mut Context<'_>, state: &mut RunState) -> Result<(), RunError> {
        let what = self.what;
        let listing = listing(context, what, self.phase, self.waiting).await?;
        for leaf in 0..self.leaves.len() {
            let known = self.leaves.get(leaf).map(|leaf| leaf.oid);
            let now = listing.leaves.iter().find(|now| Some(now.oid) == known);
            let end = now.map_or(0, |now| now.pages) * self.places.lines;
            for columns in subsets(&what.columns) {
                self.walk(context, state, leaf, columns, &mut Walk::new(0..end), BatchKind::Plain).await?;
            }
        }
        Ok(())
    }

    /// Reads all tables, in one snapshot.
    async fn look(&mut self, context: &mut Context<'_>) -> Result<SweepFinding, RunError> {
        let what = self.what;
        let oids: Vec<String> = self.leaves.iter().map(|leaf| leaf.oid.to_string()).collect();
        // A table that has come meanwhile has no old rows of ours.
        let sql = format!(
            "/* pgsluice: looking for old rows that were moved */ \
             SELECT w.leaf::pg_catalog.int8, w.page, pg_catalog.count(*) FROM (\
             SELECT tableoid AS leaf, (ctid::pg_catalog.text::pg_catalog.point)[0]::pg_catalog.int8 AS page FROM {} \
             WHERE ({}) AND tableoid OPERATOR(pg_catalog.=) ANY ('{{{}}}'::pg_catalog.oid[]) LIMIT {LOOK_ROWS}) AS w \
             GROUP BY 1, 2 ORDER BY 1, 2",
            what.table.quoted(),
            what.wanting(),
            oids.join(",")
        );
        let nap = nap_sql(COVER, &context.channel().words(&format!("backfill of {}", what.table)));
        let mut times = 0;
        loop {
            let mut batch = open_look(context, what)?;
            batch.statement(&sql, &[]);
            batch.statement("COMMIT", &[]);
            match short(context, batch, &nap, None).await? {
                BatchOutcome::Done(answer) => return Ok(found(self, &answer.rows)),
                BatchOutcome::Locked | BatchOutcome::TooLong => {
                    times += 1;
                    self.locked(context, times).await?;
                }
                BatchOutcome::Refused(error) | BatchOutcome::Moved(error) => {
                    if let Some(reason) = trust::untrue(error.message()).filter(|_| what.watched) {
                        return Err(not_any_more(reason));
                    }
                    return Err(RunError::Server(ServerError::new(error.with_position(|_| None))));
                }
            }
        }
    }

    /// Statistics of what was filled. Who keeps it from that (a VACUUM, say) will make them himself.
    pub(super) async fn analyze(&self, context: &mut Context<'_>) -> Result<(), RunError> {
        if !context.config().backfill.analyze {
            return Ok(());
        }
        let what = self.what;
        let mut tables: Vec<RelationName> = vec![what.table.clone()];
        // A partitioned table's takes its partitions along; an inheritance parent's knows of its children only as a whole.
        let root =
            context.facts().relations.iter().filter_map(|asked| asked.found.as_ref()).find(|r| r.id.oid == what.oid);
        if root.is_none_or(|root| root.kind != RelationKind::PartitionedTable) {
            tables.extend(self.leaves.iter().filter(|leaf| leaf.oid != what.oid).map(|leaf| leaf.name.clone()));
        }
        let columns: Vec<&str> = what.columns.iter().map(|filled| filled.column.as_str()).collect();
        for table in tables {
            if let Some(stop) = context.interrupted() {
                return Err(stop);
            }
            let analyze = format!("ANALYZE {} ({})", table.quoted(), columns.join(", "));
            analyze_table(context, &table, &analyze).await?;
        }
        Ok(())
    }
}

/// Outside a transaction, so that the locks of a partitioned table's parts are not held together.
async fn analyze_table(context: &mut Context<'_>, table: &RelationName, analyze: &str) -> Result<(), RunError> {
    let own = Duration::from_millis(context.facts().session.lock_timeout_ms);
    let mut before = Batch::new();
    before.statement(&session_wide(row_timeout(context)), &[]);
    context.channel_mut().ask(before, None).await?;
    let error = context.channel_mut().ask_one(analyze, &[]).await?.error;
    context.channel().cancel_settled().await;
    context.channel_mut().ask_one(&session_wide(own), &[]).await?;
    match error {
        // The session's timeout is no reason to undo what is done.
        Some(error)
            if error.sqlstate() == sqlstate::QUERY_CANCELED && !error.message().contains("statement timeout") =>
        {
            context.cancelled_by(Some(error))
        }
        Some(error) => {
            tracing::debug!(%table, sqlstate = error.sqlstate(), "the filled columns were not analysed");
            Ok(())
        }
        None => Ok(()),
    }
}

/// All columns together, and then each by itself: a row may want some of them, and what the others hold stays.
fn subsets(columns: &[Filled]) -> impl Iterator<Item = &[Filled]> {
    let each = if columns.len() > 1 { columns.chunks(1) } else { [].chunks(1) };
    std::iter::once(columns).chain(each)
}

/// For what stands in no transaction.
fn session_wide(lock_timeout: Duration) -> String {
    set_local("lock_timeout", lock_timeout).replacen("SET LOCAL", "SET", 1)
}

/// Reads a look's answer: oid, page, rows.
fn found(filling: &BackfillRun<'_>, rows: &[Vec<Option<String>>]) -> SweepFinding {
    let mut pages: Vec<(usize, Vec<u64>)> = Vec::new();
    let mut total = 0;
    for row in rows {
        let number = |at: usize| row.get(at)?.as_deref()?.parse::<u64>().ok();
        let (Some(oid), Some(page), Some(count)) = (number(0), number(1), number(2)) else { continue };
        total += count;
        let Some(leaf) = filling.leaves.iter().position(|leaf| u64::from(leaf.oid) == oid) else { continue };
        match pages.last_mut() {
            Some((last, pages)) if *last == leaf => pages.push(page),
            _ => pages.push((leaf, vec![page])),
        }
    }
    SweepFinding { pages, whole: total < LOOK_ROWS }
}
