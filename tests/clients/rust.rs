//! tokio-postgres: simple batches, prepared statements, pipelined futures, COPY, cancels and notifications.

use crate::{Way, both, server};
use futures_util::{SinkExt, StreamExt};
use std::fmt::Write;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_postgres::types::ToSql;
use tokio_postgres::{AsyncMessage, Client, Error, NoTls, SimpleQueryMessage};

/// A session, and the notifications that come to it.
async fn connect(port: u16, way: &Way) -> (Client, mpsc::UnboundedReceiver<String>) {
    let mut config = tokio_postgres::Config::new();
    config.host("127.0.0.1").port(port).user(&server().user).dbname(&way.database);
    let (client, mut connection) = config.connect(NoTls).await.expect("a session");
    let (heard, hear) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(message)) = std::future::poll_fn(|cx| connection.poll_message(cx)).await {
            if let AsyncMessage::Notification(notification) = message {
                let _ = heard.send(notification.payload().to_owned());
            }
        }
    });
    (client, hear)
}

fn told<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    match result {
        Ok(value) => format!("ok {value:?}"),
        Err(error) => match error.as_db_error() {
            Some(db) => format!("{} {} {:?}", db.code().code(), db.message(), db.position()),
            None => format!("{error}"),
        },
    }
}

/// Runs a part of its own on a fresh session, and gives what it told.
fn told_by(way: &Way, act: impl AsyncFn(&Way, &Client, &mut String)) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut said = String::new();
    runtime.block_on(async {
        let (client, _) = connect(way.port, way).await;
        act(way, &client, &mut said).await;
    });
    said
}

#[test]
fn tokio_postgres_statements() {
    both("tokio_statements", 10, |way| {
        told_by(way, async |_, client, said| {
            for sql in [
                "ALTER TABLE big ADD COLUMN a int; SELECT 1; CREATE INDEX big_a ON big (a)",
                "ALTER TABLE big ADD COLUMN b int; SELECT 1 / 0; SELECT 1",
                "CREATE INDEX big_n ON big (n)",
                "SELECT 'é'; ALTER TABLE big ADD COLUMN b nothing",
                "CREATE UNIQUE INDEX twice ON big (n)",
            ] {
                let outcome = client.simple_query(sql).await.map(|messages| {
                    let short = |m: &SimpleQueryMessage| match m {
                        SimpleQueryMessage::CommandComplete(n) => format!("complete {n}"),
                        SimpleQueryMessage::Row(row) => format!("row {:?}", row.get(0)),
                        _ => "description".to_owned(),
                    };
                    messages.iter().map(short).collect::<Vec<_>>()
                });
                writeln!(said, "{}", told(outcome)).expect("said");
            }
            let select = client.prepare("SELECT * FROM small WHERE id = $1").await.expect("prepared");
            let change = client.prepare("ALTER TABLE small ALTER COLUMN v SET DEFAULT 'x'").await.expect("prepared");
            for _ in 0..2 {
                writeln!(said, "{}", told(client.execute(&change, &[]).await)).expect("said");
                let count = client.query(&select, &[&1_i32]).await.map(|rows| rows.len());
                writeln!(said, "{}", told(count)).expect("said");
            }
            for sql in ["ALTER TABLE small ADD COLUMN c int", "ALTER TABLE small ADD COLUMN c int", "DROP INDEX big_n"]
            {
                writeln!(said, "{}", told(client.execute(sql, &[]).await)).expect("said");
                writeln!(said, "{}", told(client.query(&select, &[&1_i32]).await.map(|rows| rows.len())))
                    .expect("said");
            }
        })
    });
}

#[test]
fn tokio_postgres_pipelines() {
    both("tokio_pipelines", 8, |way| {
        told_by(way, async |_, client, said| {
            let select = client.prepare("SELECT count(*) FROM big WHERE id < $1").await.expect("prepared");
            let alter = client.prepare("ALTER TABLE big ADD COLUMN p int").await.expect("prepared");
            let build = client.prepare("CREATE INDEX big_p ON big (p)").await;
            writeln!(said, "{}", told(build.map(|_| ()))).expect("said");
            for round in 0..3_i32 {
                let parameters: [&(dyn ToSql + Sync); 1] = [&round];
                // Polled in turn: all are sent before any is answered.
                let (a, b, c, d, e) = tokio::join!(
                    client.query_one(&select, &parameters),
                    client.execute(&alter, &[]),
                    client.query_one(&select, &parameters),
                    client.batch_execute("ALTER TABLE big DROP COLUMN IF EXISTS q; ALTER TABLE big ADD COLUMN q int"),
                    client.query_one(&select, &parameters),
                );
                let count = |row: tokio_postgres::Row| row.get::<_, i64>(0);
                for outcome in [told(a.map(count)), told(b), told(c.map(count)), told(d), told(e.map(count))] {
                    writeln!(said, "{outcome}").expect("said");
                }
            }
        })
    });
}

#[test]
fn tokio_postgres_copies_and_transactions() {
    both("tokio_copies", 4, |way| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut said = String::new();
            let (mut client, _) = connect(way.port, way).await;
            let transaction = client.transaction().await.expect("a transaction");
            transaction.batch_execute("CREATE TABLE copied (id int, v text)").await.expect("a table");
            let sink = transaction.copy_in::<_, bytes::Bytes>("COPY copied FROM STDIN").await.expect("a copy");
            let mut sink = std::pin::pin!(sink);
            for n in 0..2000 {
                let line = bytes::Bytes::from(format!("{n}\t{}\n", "z".repeat(100)));
                sink.send(line).await.expect("a line");
            }
            writeln!(said, "{}", told(sink.finish().await)).expect("said");
            writeln!(said, "{}", told(transaction.execute("ALTER TABLE copied ADD COLUMN w int", &[]).await))
                .expect("said");
            writeln!(said, "{}", told(transaction.execute("ALTER TABLE big ADD COLUMN w int", &[]).await))
                .expect("said");
            transaction.commit().await.expect("a commit");
            let transaction = client.transaction().await.expect("a transaction");
            writeln!(said, "{}", told(transaction.execute("ALTER TABLE big ADD COLUMN undone int", &[]).await))
                .expect("said");
            transaction.rollback().await.expect("a rollback");
            let sink = client.copy_in::<_, bytes::Bytes>("COPY copied FROM STDIN").await.expect("a copy");
            let mut sink = std::pin::pin!(sink);
            sink.send(bytes::Bytes::from("not a number\n")).await.expect("a line");
            writeln!(said, "{}", told(sink.finish().await)).expect("said");
            writeln!(said, "{}", told(client.execute("CREATE INDEX copied_id ON copied (id)", &[]).await))
                .expect("said");
            let mut out = std::pin::pin!(client.copy_out("COPY copied TO STDOUT").await.expect("a copy"));
            let mut bytes = 0;
            while let Some(Ok(part)) = out.next().await {
                bytes += part.len();
            }
            writeln!(said, "{bytes} bytes").expect("said");
            said
        })
    });
}

#[test]
fn tokio_postgres_waits() {
    both("tokio_waits", 3, |way| {
        told_by(way, async |way, client, said| {
            let (blocker, _) = connect(way.direct, way).await;
            let (listener, mut heard) = connect(way.port, way).await;
            listener.batch_execute("LISTEN news").await.expect("listening");
            blocker.batch_execute("BEGIN; SELECT FROM big LIMIT 1").await.expect("in the way");
            // A cancel by the protocol's own way.
            let token = client.cancel_token();
            let alter = client.execute("ALTER TABLE big ADD COLUMN a int", &[]);
            let (outcome, ()) = tokio::join!(alter, async {
                tokio::time::sleep(Duration::from_millis(400)).await;
                token.cancel_query(NoTls).await.expect("a cancel");
            });
            writeln!(said, "{}", told(outcome)).expect("said");
            // A listener hears while its own DDL waits; then the way is free.
            let (outcome, ()) = tokio::join!(listener.execute("ALTER TABLE big ADD COLUMN a int", &[]), async {
                tokio::time::sleep(Duration::from_millis(200)).await;
                client.batch_execute("NOTIFY news, 'meanwhile'").await.expect("a word");
                blocker.batch_execute("COMMIT").await.expect("out of the way");
            });
            writeln!(said, "{} {:?}", told(outcome), heard.recv().await).expect("said");
            // A future that is dropped does not stop its statement; the next one waits for it.
            blocker.batch_execute("BEGIN; SELECT FROM big LIMIT 1").await.expect("in the way");
            let dropped = client.batch_execute("ALTER TABLE big ADD COLUMN b int");
            assert!(tokio::time::timeout(Duration::from_millis(300), dropped).await.is_err());
            blocker.batch_execute("COMMIT").await.expect("out of the way");
            let outcome = client.query_one("SELECT count(b) FROM big", &[]).await.map(|row| row.get::<_, i64>(0));
            writeln!(said, "{}", told(outcome)).expect("said");
        })
    });
}
