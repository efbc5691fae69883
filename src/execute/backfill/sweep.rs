//! The work after the last page: the sweep for rows that were moved, and the statistics.
//!
//! If the application updates a row before its batch, the row may move to a page that is done already, behind the last page, or to another
//! partition. So a look reads all tables in one snapshot and returns the pages with rows that still need a value. These pages are filled,
//! until a look finds none. That last look proves that no row was forgotten. New rows without a value come only if the application writes
//! NULL or the default may be NULL. Then the sweep ends as well.
//!
//! This file owns the looks and their limits. It keeps true that the sweep ends, whatever the application writes.

use super::filling::{BackfillRun, BatchKind};
use super::range::Walk;
use super::short::{BatchOutcome, COVER, row_timeout, short};
use super::tables::listing;
use super::watch::{not_any_more, open_look};
use crate::catalog::trust;
use crate::execute::context::ExecutionContext;
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

/// The most rows that one look returns: their pages must fit in memory, and must be filled before many rows move again.
const LOOK_ROWS: u64 = 100_000;

/// The most complete looks. If rows without a value still come after so many, the application writes them.
const MOST_WHOLE_LOOKS: u32 = 10;

/// The result of a look: for each table, by its position in the list, the pages with rows that need a value.
struct SweepFinding {
    pages: Vec<(usize, Vec<u64>)>,
    /// The look has found all such rows.
    whole: bool,
}

impl BackfillRun<'_> {
    /// Looks for rows that need a value and fills them, until there are none or the rest is the application's own.
    pub(super) async fn sweep(
        &mut self,
        context: &mut ExecutionContext<'_>,
        state: &mut RunState,
    ) -> Result<(), RunError> {
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
                tracing::info!(table = %self.what.table, "rows without a value remain: the application or the default gives them NULL");
                return Ok(());
            }
            if self.still > 0 {
                // The look may not have returned all rows, so every row is tried once more.
                return self.all_pages_again(context, state).await;
            }
        }
    }

    /// Fills these pages. Pages with locked rows come last, and are waited for only when there is nothing else to do.
    async fn fill_pages(
        &mut self,
        context: &mut ExecutionContext<'_>,
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

    /// Walks all pages of all tables once more.
    async fn all_pages_again(
        &mut self,
        context: &mut ExecutionContext<'_>,
        state: &mut RunState,
    ) -> Result<(), RunError> {
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

    /// Reads all tables in one snapshot and returns the pages with rows that need a value.
    async fn look(&mut self, context: &mut ExecutionContext<'_>) -> Result<SweepFinding, RunError> {
        let what = self.what;
        let oids: Vec<String> = self.leaves.iter().map(|leaf| leaf.oid.to_string()).collect();
        // A table that was added after the backfill began has no old rows.
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

    /// Collects statistics of the filled columns. If another session blocks this ANALYZE (a VACUUM, for example), that session collects
    /// them.
    pub(super) async fn analyze(&self, context: &mut ExecutionContext<'_>) -> Result<(), RunError> {
        if !context.config().backfill.analyze {
            return Ok(());
        }
        let what = self.what;
        let mut tables: Vec<RelationName> = vec![what.table.clone()];
        // ANALYZE of a partitioned table includes its partitions. ANALYZE of an inheritance parent collects statistics of the whole tree
        // only, so that the children need their own.
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

/// Analyzes one table outside a transaction, so that the locks of partitions are not held together.
async fn analyze_table(
    context: &mut ExecutionContext<'_>,
    table: &RelationName,
    analyze: &str,
) -> Result<(), RunError> {
    let own = Duration::from_millis(context.facts().session.lock_timeout_ms);
    let mut before = Batch::new();
    before.statement(&session_wide(row_timeout(context)), &[]);
    context.channel_mut().ask(before, None).await?;
    let error = context.channel_mut().ask_one(analyze, &[]).await?.error;
    context.channel().cancel_settled().await;
    context.channel_mut().ask_one(&session_wide(own), &[]).await?;
    match error {
        // The session's timeout is no reason to undo the backfill.
        Some(error)
            if error.sqlstate() == sqlstate::QUERY_CANCELED && !error.message().contains("statement timeout") =>
        {
            context.cancelled_by(Some(error))
        }
        Some(error) => {
            tracing::debug!(%table, sqlstate = error.sqlstate(), "the filled columns were not analyzed");
            Ok(())
        }
        None => Ok(()),
    }
}

/// Returns all columns together, then each column by itself: a row may need only some of them, and the values of the others must stay.
fn subsets(columns: &[Filled]) -> impl Iterator<Item = &[Filled]> {
    let each = if columns.len() > 1 { columns.chunks(1) } else { [].chunks(1) };
    std::iter::once(columns).chain(each)
}

/// Returns the statement that sets `lock_timeout` for the session, for commands outside a transaction.
fn session_wide(lock_timeout: Duration) -> String {
    set_local("lock_timeout", lock_timeout).replacen("SET LOCAL", "SET", 1)
}

/// Reads the answer to a look: oid, page, number of rows.
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
