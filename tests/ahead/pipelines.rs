//! Blocks whose statements share a Sync, as drivers with pipelines send them.

use crate::blocks::BLOCKS;
use crate::common::Outcome;
use crate::stage::{SHOP, Stage, Told};

/// Plays pipelines on both sides: each is several statements under one Sync.
#[track_caller]
fn same(stage: &Stage, pipelines: &[Vec<&str>]) {
    let play = |mut client: crate::common::Client| -> Vec<Told> {
        pipelines.iter().map(|statements| Told::from(client.pipeline(statements))).collect()
    };
    let (direct, proxied) = (play(stage.directly()), play(stage.client()));
    for ((statements, direct), proxied) in pipelines.iter().zip(&direct).zip(&proxied) {
        assert_eq!(direct, proxied, "{statements:?}");
    }
    stage.same_state(&format!("{pipelines:?}"));
}

fn with<'a>(first: &[&'a str], block: &[&'a str], last: &[&'a str]) -> Vec<&'a str> {
    [first, block, last].concat()
}

/// pgjdbc: BEGIN stands under one Sync with the first statement.
#[test]
fn begin_shares_the_sync_of_the_first_statement() {
    for block in BLOCKS {
        for end in ["COMMIT", "ROLLBACK"] {
            let stage = Stage::new("jdbc", SHOP);
            let (first, rest) = block.split_first().unwrap();
            let pipelines: Vec<Vec<&str>> = [vec!["BEGIN", first]]
                .into_iter()
                .chain(rest.iter().map(|one| vec![*one]))
                .chain([vec![end]])
                .collect();
            same(&stage, &pipelines);
            assert!(stage.ahead() > 0, "nothing was done ahead: {block:?}");
            stage.end();
        }
    }
}

/// libpq and others: the whole transaction is one pipeline.
#[test]
fn a_whole_block_is_one_pipeline() {
    for block in BLOCKS {
        for last in [&["COMMIT"][..], &["ROLLBACK"], &["SELECT 1 / 0", "COMMIT"]] {
            let stage = Stage::new("pipeline", SHOP);
            same(&stage, &[with(&["BEGIN"], block, last), vec!["ROLLBACK"]]);
            assert!(stage.ahead() > 0, "nothing was done ahead: {block:?}");
            stage.end();
        }
    }
}

/// Statements under one Sync are one transaction without BEGIN. Their schema changes keep their places.
#[test]
fn a_pipeline_without_begin_is_a_transaction() {
    for block in BLOCKS.iter().filter(|block| block.iter().all(|sql| !sql.contains("SAVEPOINT"))) {
        for last in [&[][..], &["SELECT 1 / 0"]] {
            let stage = Stage::new("implicit", SHOP);
            same(&stage, &[with(&[], block, last), vec!["SELECT 1"]]);
            assert_eq!(stage.ahead(), 0);
            stage.end();
        }
    }
}

/// The end of a block and the next one may share a Sync.
#[test]
fn blocks_follow_each_other_in_one_pipeline() {
    for end in ["COMMIT", "ROLLBACK"] {
        let stage = Stage::new("two_blocks", SHOP);
        same(
            &stage,
            &[vec![
                "BEGIN",
                "INSERT INTO schema_migrations VALUES ('2')",
                "CREATE INDEX a ON orders (note)",
                end,
                "BEGIN",
                "INSERT INTO schema_migrations VALUES ('3')",
                "CREATE INDEX b ON orders (total)",
                "COMMIT",
            ]],
        );
        assert_eq!(stage.ahead(), 2);
        stage.end();
    }
}

/// The order of the answers is that of the statements.
#[test]
fn answers_keep_their_order() {
    let stage = Stage::new("order", SHOP);
    let Outcome { tags, status, .. } = stage.client().pipeline(&[
        "BEGIN",
        "INSERT INTO schema_migrations VALUES ('2')",
        "CREATE INDEX a ON orders (note)",
        "DELETE FROM schema_migrations WHERE version = '2'",
        "COMMIT",
    ]);
    assert_eq!(tags, ["BEGIN", "INSERT 0 1", "CREATE INDEX", "DELETE 1", "COMMIT"]);
    assert_eq!(status, 'I');
    stage.end();
}
