//! Whoever dies at whatever step of a transaction with statements ahead of it: all of the transaction is there, or nothing.
//!
//! The steps are the statements that the proxy sends to the server, from the client's first one to the answer of its last one. They are counted on
//! an undisturbed run. At each one the proxy, the backend or the client dies. Afterwards the same migration finishes when it is run again, or
//! another statement finds nothing of it.

#[path = "parity/catalog.rs"]
mod catalog;
mod common;
#[path = "ahead_faults/shapes.rs"]
mod shapes;
#[path = "ahead_faults/stage.rs"]
mod stage;
#[allow(dead_code, reason = "the parity test compares sessions, too")]
#[path = "parity/state.rs"]
mod state;
#[path = "ahead_faults/wire.rs"]
mod wire;

use common::postgres;
use pgsluice::dev::{Options, Postgres};
use shapes::{COLUMN, FILLED, KEY, ROLLED_BACK, SAVEPOINT, STRING, Shape};
use stage::{Case, Stage, States, Then, Victim};
use std::sync::LazyLock;
use wire::Side;

static SERVER: LazyLock<Postgres> = LazyLock::new(postgres);

/// How many cases of a shape are played at a time. Mostly they wait for processes.
const AT_ONCE: usize = 3;

/// The steps of an undisturbed run, and the cases that `cases` makes for each.
fn cases_of(postgres: &Postgres, shape: &Shape, cases: impl Fn(usize, &str) -> Vec<Case>) -> (Vec<String>, Vec<Case>) {
    let mut stage = Stage::new(postgres);
    let steps = stage.steps(shape);
    stage.end();
    if std::env::var_os("SHOW_STEPS").is_some() {
        steps.iter().enumerate().for_each(|(at, sql)| eprintln!("{:3} {sql}", at + 1));
    }
    let all = steps.iter().enumerate().flat_map(|(at, sql)| cases(at + 1, sql)).collect();
    (steps, all)
}

/// Plays the cases, so many at a time, and fails with all that is wrong.
fn play(postgres: &Postgres, shape: &Shape, steps: &[String], all: &[Case], at_once: usize) {
    let states = States::of(postgres, shape);
    // For whoever looks at one step.
    let only: Option<usize> = std::env::var("FAULTS_AT").ok().and_then(|at| at.parse().ok());
    let begun = std::time::Instant::now();
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let parts = (0..at_once).map(|part| {
            let states = &states;
            scope.spawn(move || {
                let mut stage = Stage::new(postgres);
                let mut wrong = Vec::new();
                for case in all.iter().filter(|case| only.is_none_or(|at| case.at == at)).skip(part).step_by(at_once) {
                    if let Err(what) = stage.play(shape, states, *case) {
                        wrong.push(format!("{case:?} at {}\n{what}", steps[case.at - 1]));
                    }
                }
                stage.end();
                wrong
            })
        });
        let parts: Vec<_> = parts.collect();
        parts.into_iter().flat_map(|part| part.join().expect("no case panics")).collect()
    });
    eprintln!("{}: {} cases of {} steps in {:?}", shape.name, all.len(), steps.len(), begun.elapsed());
    assert!(wrong.is_empty(), "{}: {} of {} cases\n{}", shape.name, wrong.len(), all.len(), wrong.join("\n\n"));
}

/// Whether a statement of the proxy's changes anything, or takes or gives back a lock.
fn changes(sql: &str) -> bool {
    let is_question = sql.starts_with("/* pgsluice: ") || (sql.starts_with("SELECT ") && !sql.contains("advisory"));
    let is_setting = sql.starts_with("SET LOCAL ");
    let is_savepoint =
        ["SAVEPOINT pgsluice", "RELEASE SAVEPOINT pgsluice", "ROLLBACK TO SAVEPOINT pgsluice"].contains(&sql);
    !is_question && !is_setting && !is_savepoint
}

/// At a step that changes something, the proxy and the backend die before it, the backend behind it, and the client beside it. What follows takes
/// turns.
fn each_victim(at: usize) -> [Case; 4] {
    let then = |nth: usize| {
        let all = [Then::Again, Then::Other, Then::AgainElsewhere, Then::OtherElsewhere, Then::OtherInBlock];
        all[(at + nth) % all.len()]
    };
    let client = [Victim::Closed, Victim::Reset][at % 2];
    [
        Case { at, side: Side::Before, victim: Victim::Proxy, then: then(0) },
        Case { at, side: Side::Before, victim: Victim::Backend, then: then(1) },
        Case { at, side: Side::Behind, victim: Victim::Backend, then: then(2) },
        Case { at, side: Side::Before, victim: client, then: then(3) },
    ]
}

/// At a question and the like, the victims take turns.
fn every_step(shape: &Shape) {
    let cases = |at, sql: &str| if changes(sql) { each_victim(at).to_vec() } else { vec![each_victim(at)[at / 2 % 4]] };
    let (steps, all) = cases_of(&SERVER, shape, cases);
    let changing = steps.iter().filter(|sql| changes(sql)).count();
    assert!(changing >= 25, "{changing} steps change something");
    assert_eq!(all.len(), steps.len() + 3 * changing, "each step has its cases");
    play(&SERVER, shape, &steps, &all, AT_ONCE);
}

/// The steps that change something.
fn every_change(shape: &Shape) {
    let cases = |at, sql: &str| if changes(sql) { each_victim(at).to_vec() } else { Vec::new() };
    let (steps, all) = cases_of(&SERVER, shape, cases);
    assert!(all.len() >= 4 * 25, "{} cases of {} steps", all.len(), steps.len());
    play(&SERVER, shape, &steps, &all, AT_ONCE);
}

#[test]
fn a_column_with_its_key_and_its_index() {
    every_step(&COLUMN);
}

#[test]
fn a_key_and_a_unique_index_behind_an_insert() {
    every_change(&KEY);
}

#[test]
fn a_column_that_is_filled() {
    every_change(&FILLED);
}

#[test]
fn one_string_without_begin() {
    every_change(&STRING);
}

#[test]
fn a_transaction_that_is_rolled_back() {
    every_change(&ROLLED_BACK);
}

#[test]
fn the_extended_protocol_with_a_savepoint() {
    every_change(&SAVEPOINT);
}

/// A killed backend takes all sessions with it. The server recovers from its log.
#[test]
fn the_server_recovers() {
    // Otherwise the last commits are in the memory of the server alone.
    let postgres =
        Postgres::start(Options::default().setting("synchronous_commit", "on")).expect("a throw-away server");
    let cases = |at, sql: &str| {
        let then = [Then::Again, Then::Other, Then::AgainElsewhere][at % 3];
        let case = |side| Case { at, side, victim: Victim::Server, then };
        let sides = if ["COMMIT", "ROLLBACK"].contains(&sql) || sql.starts_with("CREATE") { 2 } else { 0 };
        [Side::Before, Side::Behind].into_iter().take(sides).map(case).collect()
    };
    let (steps, all) = cases_of(&postgres, &COLUMN, cases);
    assert!(all.len() >= 2 * 5, "{} cases", all.len());
    play(&postgres, &COLUMN, &steps, &all, 1);
}
