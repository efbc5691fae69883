//! Tests that the cost of a statement with many parts or names grows only as its length does, since its worker has other
//! sessions.

use pgsluice::catalog::query::relations_of;
use pgsluice::catalog::supposed::{self, SupposedSize};
use pgsluice::catalog::{Facts, NamesUnknown};
use pgsluice::plan::block_locks::BlockLocks;
use pgsluice::plan::{Limits, optimistic, plan};
use pgsluice::sql::{Class, MOST_NAMES, MOST_PARTS, Statement, parse};
use std::hint::black_box;
use std::time::Duration;

fn list(many: usize, of: impl Fn(usize) -> String) -> String {
    (0..many).map(of).collect::<Vec<_>>().join(", ")
}

/// Each with so many parts or names.
fn statements(many: usize) -> Vec<(&'static str, String)> {
    vec![
        ("ADD COLUMN", format!("ALTER TABLE t {}", list(many, |n| format!("ADD COLUMN c{n} int")))),
        (
            "ADD COLUMN with a default",
            format!("ALTER TABLE t {}", list(many, |n| format!("ADD COLUMN c{n} int DEFAULT random()"))),
        ),
        ("SET NOT NULL", format!("ALTER TABLE t {}", list(many, |n| format!("ALTER c{n} SET NOT NULL")))),
        ("ADD CHECK", format!("ALTER TABLE t {}", list(many, |n| format!("ADD CONSTRAINT k{n} CHECK (c{n} > 0)")))),
        (
            "ADD FOREIGN KEY",
            format!("ALTER TABLE t {}", list(many, |n| format!("ADD FOREIGN KEY (c{n}) REFERENCES r{n}"))),
        ),
        ("ADD UNIQUE", format!("ALTER TABLE t {}", list(many, |n| format!("ADD UNIQUE (c{n})")))),
        ("TYPE", format!("ALTER TABLE t {}", list(many, |n| format!("ALTER c{n} TYPE bigint")))),
        ("DROP COLUMN", format!("ALTER TABLE t {}", list(many, |n| format!("DROP COLUMN IF EXISTS c{n}")))),
        ("DROP TABLE", format!("DROP TABLE {}", list(many, |n| format!("t{n}")))),
        ("DROP TABLE IF EXISTS", format!("DROP TABLE IF EXISTS {} CASCADE", list(many, |n| format!("s.t{n}")))),
        ("DROP INDEX", format!("DROP INDEX {}", list(many, |n| format!("i{n}")))),
        ("DROP VIEW", format!("DROP VIEW {}", list(many, |n| format!("v{n}")))),
        ("TRUNCATE", format!("TRUNCATE {} CASCADE", list(many, |n| format!("t{n}")))),
        ("CREATE TABLE", format!("CREATE TABLE t ({})", list(many, |n| format!("c{n} int REFERENCES r{n}")))),
        ("CREATE INDEX", format!("CREATE INDEX ON t ({})", list(many, |n| format!("c{n}")))),
        ("INHERITS", format!("CREATE TABLE t (id int) INHERITS ({})", list(many, |n| format!("p{n}")))),
        ("COMMENT", format!("COMMENT ON TABLE t IS '{}'", "c, ".repeat(many))),
        ("GRANT", format!("GRANT SELECT ON {} TO public", list(many, |n| format!("t{n}")))),
        ("VACUUM FULL", format!("VACUUM FULL {}", list(many, |n| format!("t{n}")))),
        ("PUBLICATION", format!("CREATE PUBLICATION p FOR TABLE {}", list(many, |n| format!("t{n}")))),
    ]
}

/// As a session has them.
fn facts_of(statement: &Statement, size: SupposedSize) -> Facts {
    match &statement.class {
        Class::Ddl(ddl) if ddl.names_too_much() => Facts { nameless: Some(NamesUnknown::TooMuch), ..Facts::default() },
        _ => supposed::facts(statement, size),
    }
}

/// What this thread has had of a processor: others may be busy beside it.
#[expect(unsafe_code, reason = "no crate of the tests tells it")]
fn thread_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a value of its own, for as long as the call takes.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) }, 0);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// What is done for a statement without asking the server, in the order of a session.
fn stages(sql: &str) -> Vec<(&'static str, Duration)> {
    let limits = Limits { small_table: 1 << 20, rewrite: true, refuse_unsafe: false, refuse_exclude: false };
    let mut took = Vec::new();
    let mut timed = |name, work: &mut dyn FnMut()| {
        let begun = thread_time();
        work();
        took.push((name, thread_time() - begun));
    };
    let mut parsed: Vec<Statement> = Vec::new();
    timed("parse", &mut || parsed = parse(sql).expect("a statement"));
    let statement = &parsed[0];
    timed("relations", &mut || drop(black_box(relations_of(statement))));
    timed("held", &mut || {
        let mut held = BlockLocks::default();
        black_box(held.suffices(statement, &limits));
        black_box(held.passes(statement));
    });
    timed("first", &mut || drop(black_box(optimistic::optimistic(statement, false, &limits))));
    for (name, size) in [("plan, small", SupposedSize::Small), ("plan, large", SupposedSize::Large)] {
        let facts = facts_of(statement, size);
        timed(name, &mut || drop(black_box(plan(statement, &facts, &limits))));
    }
    took
}

/// The ratio of what a stage takes for four times as much, at the quickest of some tries; what is quick in any case is left out.
fn ratios(few: &str, many: &str) -> Vec<(&'static str, f64)> {
    const TRIES: usize = 3;
    const QUICK: Duration = Duration::from_millis(2);
    let quickest = |sql: &str| {
        let tries: Vec<_> = (0..TRIES).map(|_| stages(sql)).collect();
        let stages = tries[0].iter().map(|(name, _)| *name).enumerate();
        stages.map(|(at, name)| (name, tries.iter().map(|took| took[at].1).min().unwrap())).collect::<Vec<_>>()
    };
    let (one, four) = (quickest(few), quickest(many));
    let ratio = |(one, four): (&(&'static str, Duration), &(&'static str, Duration))| {
        (four.1 > QUICK).then(|| (four.0, four.1.as_secs_f64() / one.1.max(Duration::from_micros(50)).as_secs_f64()))
    };
    one.iter().zip(&four).filter_map(ratio).collect()
}

/// 4, and room for a busy machine; what looks at each name beside every other takes 16 times as long.
const LINEAR: f64 = 10.0;

#[test]
fn time_grows_as_the_text_does() {
    let mut slow = Vec::new();
    for ((name, few), (_, many)) in statements(3000).into_iter().zip(statements(12_000)) {
        let ratios = ratios(&few, &many);
        slow.extend(ratios.into_iter().filter(|(_, ratio)| *ratio > LINEAR).map(|found| (name, found)));
    }
    assert!(slow.is_empty(), "{slow:?}");
}

#[test]
fn names_within_the_limit_are_looked_up() {
    let mut slow = Vec::new();
    for ((name, few), (_, many)) in statements(MOST_NAMES / 4).into_iter().zip(statements(MOST_NAMES)) {
        if few.starts_with("ALTER TABLE") {
            // Parts are looked at beside one another: so they have a limit of their own.
            continue;
        }
        let ratios = ratios(&few, &many);
        slow.extend(ratios.into_iter().filter(|(_, ratio)| *ratio > LINEAR).map(|found| (name, found)));
    }
    assert!(slow.is_empty(), "{slow:?}");
}

#[test]
fn what_names_too_much_goes_as_it_is_written() {
    let limits = Limits { small_table: 1 << 20, rewrite: true, refuse_unsafe: false, refuse_exclude: false };
    for many in [1, MOST_PARTS.max(MOST_NAMES) + 1] {
        for (name, sql) in statements(many) {
            let statement = &parse(&sql).expect("a statement")[0];
            let Class::Ddl(ddl) = &statement.class else { panic!("{name}") };
            let too_much = many > 1 && !["CREATE INDEX", "COMMENT"].contains(&name);
            assert_eq!(ddl.names_too_much(), too_much, "{name}");
            if too_much {
                let plan = plan(statement, &facts_of(statement, SupposedSize::Large), &limits).expect("a plan");
                let [phase] = plan.phases.as_slice() else { panic!("{name}: {plan:?}") };
                assert_eq!((phase.steps[0].sql.as_str(), phase.locks.as_slice()), (sql.as_str(), &[][..]), "{name}");
                assert!(optimistic::optimistic(statement, false, &limits).is_none(), "{name}");
            }
        }
    }
}
