//! Tests of backfills that end early or have to wait: nothing of them is left, and the application goes on.

use crate::common::{Client, port, wait_until};
use crate::stage::{ADD, Stage, all};
use pgsluice::config::OnDisconnect;
use std::thread;
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// A CancelRequest through the proxy.
    Cancel,
    CancelBackend,
    /// The client's process died.
    Close,
}

/// While it pauses, in a batch, and while it waits for a row that is locked.
#[test]
fn an_end_leaves_nothing() {
    let mut stage = Stage::switched(|config| config.ddl.on_disconnect = OnDisconnect::Undo);
    stage.table(5_000);
    stage.watcher.ok(
        "CREATE FUNCTION slow() RETURNS float8 LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.05); RETURN 1; END $$",
    );
    for end in [End::Cancel, End::CancelBackend, End::Close] {
        for (place, pattern) in [
            ("paused", "/* pgsluice: backfill of %, paused: the condition%"),
            ("in a batch", "/* pgsluice: filling old rows */%"),
            ("in the sweep", "%waiting for rows that others have locked%"),
        ] {
            let what = format!("{end:?}, {place}");
            stage.watcher.ok("UPDATE switch SET go = false");
            let (mut client, mut holder) = (stage.client(), stage.direct());
            let default = if place == "in a batch" { "slow()" } else { "random()" };
            client.send_query(&format!("ALTER TABLE t ADD COLUMN r float8 DEFAULT {default}"));
            stage.until_paused(&client);
            holder.ok("BEGIN");
            if place == "in the sweep" {
                holder.ok("SELECT FROM t WHERE id = 2500 FOR UPDATE");
            }
            if place != "paused" {
                stage.go();
            }
            stage.until_runs(&client, pattern);
            let pid = client.pid;
            let client = come(end, &mut stage, client);
            if place == "in the sweep" {
                // Who has locked the row stands in the way of what undoes it, too.
                stage.until_runs_any("/* pgsluice: waiting to finish or undo */%");
            }
            holder.ok("COMMIT");
            if let Some(mut client) = client {
                let outcome = client.outcome();
                assert_eq!((outcome.error.as_deref(), outcome.status), (Some("57014"), 'I'), "{what}");
                // The session goes on as if nothing had been.
                assert_eq!(client.value("SHOW lock_timeout"), "0");
            }
            let gone = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}");
            wait_until(&what, || stage.watcher.value(&gone) == "0");
            stage.assert_undone(&what);
        }
    }
    stage.running.stop_now();
}

/// The end comes; the client, if it is there to hear of it.
fn come(end: End, stage: &mut Stage, client: Client) -> Option<Client> {
    match end {
        End::Cancel => client.cancel(port(&stage.running)),
        // As a person does: again, if it met the moment between two statements.
        End::CancelBackend => {
            let pid = client.pid;
            let fills = format!(
                "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE pid = {pid} AND (query LIKE '/* pgsluice: backfill of %' \
                 OR query LIKE '/* pgsluice: filling old rows */%' OR query LIKE '%waiting for rows that others have locked%')"
            );
            wait_until("the cancel struck", || stage.watcher.value(&fills) == "0");
        }
        End::Close => return None,
    }
    Some(client)
}

/// Nobody is left to drop the column: what is filled stays, new rows are right, and nothing else is left.
/// Who keeps a row locked for too long ends it, and keeps the column from being dropped: it is, before the next schema change.
#[test]
fn what_cannot_be_brought_back_now_is_later() {
    let mut stage = Stage::switched(|config| config.locks.deadline = Duration::from_secs(1));
    stage.table(1_000);
    let (mut client, mut holder) = (stage.client(), stage.direct());
    client.send_query(ADD);
    stage.until_paused(&client);
    holder.ok("BEGIN");
    holder.ok("SELECT FROM t WHERE id = 500 FOR UPDATE");
    stage.go();
    let told: Vec<_> = std::iter::from_fn(|| Some(client.read()).filter(|message| message.tag != b'Z')).collect();
    let error = told.iter().find(|message| message.tag == b'E').unwrap();
    assert_eq!(error.field(b'C').as_deref(), Some("55P03"));
    assert!(
        error.field(b'D').unwrap().contains("Other sessions have kept rows of the table locked"),
        "{:?}",
        error.field(b'D')
    );
    let notices: String = told.iter().filter(|message| message.tag == b'N').filter_map(|n| n.field(b'M')).collect();
    assert!(
        notices.contains("could not undo the earlier phases of this statement yet: its locks were not available"),
        "{notices}"
    );
    assert_eq!(stage.column(), "1");
    holder.ok("COMMIT");
    let outcome = client.ok("ALTER TABLE t ALTER COLUMN v SET STATISTICS 50");
    let undid = "undid the unfinished ALTER TABLE of a statement that failed";
    assert!(outcome.notices.iter().any(|notice| notice.contains(undid)), "{outcome:?}");
    stage.assert_undone("the next schema change");
}

#[test]
fn a_terminated_backend_leaves_the_column_alone() {
    let mut stage = Stage::switched(|_| {});
    stage.table(2_000);
    let mut client = stage.client();
    client.send_query(ADD);
    stage.until_paused(&client);
    stage.watcher.ok(&format!("SELECT pg_terminate_backend({})", client.pid));
    let mut heard = Vec::new();
    while let Some(message) = client.try_read() {
        heard.push(message);
    }
    let error = heard.iter().find(|message| message.tag == b'E').expect("a last word");
    assert_eq!(error.field(b'C').as_deref(), Some("57P01"));
    wait_until("its locks are gone", || {
        stage.watcher.value("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == "0"
    });
    stage.watcher.ok("INSERT INTO t VALUES (2001, 'new')");
    stage.watcher.ok("UPDATE t SET r = DEFAULT WHERE r IS NULL");
    assert_eq!(stage.counts("t"), all(2_001));
    // And from the beginning.
    stage.watcher.ok("ALTER TABLE t DROP COLUMN r");
    stage.go();
    stage.client().ok(ADD);
    assert_eq!(stage.counts("t"), all(2_001));
    stage.running.stop_now();
}

/// The session's timeouts are its own: the one of statements counts over all batches.
#[test]
fn a_timeout_of_the_session_ends_it() {
    let mut stage = Stage::switched(|_| {});
    stage.table(2_000);
    let mut client = stage.client();
    client.ok("SET statement_timeout = '1500ms'");
    let outcome = client.query(ADD);
    assert_eq!((outcome.error.as_deref(), outcome.status), (Some("57014"), 'I'), "{outcome:?}");
    assert_eq!(outcome.message.as_deref(), Some("canceling statement due to statement timeout"));
    assert_eq!(client.value("SHOW statement_timeout"), "1500ms");
    stage.assert_undone("timeout");
    stage.running.stop_now();
}

/// A lock on the whole table is waited for in the proxy, not in the server's queue, and not for ever.
#[test]
fn a_locked_table_is_waited_for() {
    let mut stage = Stage::switched(|config| config.locks.deadline = Duration::from_secs(3));
    stage.table(2_000);
    for patient in [true, false] {
        let (mut client, mut holder) = (stage.client(), stage.direct());
        stage.watcher.ok("UPDATE switch SET go = false");
        client.send_query(ADD);
        stage.until_paused(&client);
        holder.ok("BEGIN; LOCK TABLE t IN SHARE MODE");
        stage.go();
        stage.until_runs(&client, "/* pgsluice: waiting for ROW EXCLUSIVE on public.t, blocked by pid %");
        if patient {
            holder.ok("COMMIT");
            assert_eq!(client.outcome().error, None);
            assert_eq!(stage.counts("t"), all(2_000));
            stage.watcher.ok("ALTER TABLE t DROP COLUMN r");
        } else {
            // The undo waits for it too: it goes just after.
            let outcome = thread::spawn(move || client.outcome());
            stage.until_runs_any("/* pgsluice: waiting to finish or undo */%");
            holder.ok("COMMIT");
            assert_eq!(outcome.join().unwrap().error.as_deref(), Some("55P03"));
            stage.assert_undone("deadline");
        }
    }
    stage.running.stop_now();
}
