//! Tests that a plan locks its tables by name, all at once, before the statement runs. Every table that the server is seen
//! to lock is in the plan, with a mode that is as strong. So a statement never holds one lock while it waits for another.

mod common;

use common::versions::server;
use common::{Client, new_database, no_table_is_small, port, postgres, proxy};
use pgsluice::config::Mode;
use pgsluice::dev::Postgres;
use pgsluice::pg::LockMode;
use std::collections::BTreeMap;

const TABLES: &str = "
    CREATE TABLE a (id int PRIMARY KEY, u int UNIQUE);
    CREATE TABLE b (id int PRIMARY KEY REFERENCES a, u int REFERENCES a (u));
    CREATE TABLE c (id int PRIMARY KEY REFERENCES b, a int REFERENCES a, self int REFERENCES c);
    CREATE TABLE d (id int REFERENCES c);
    CREATE TABLE p (id int PRIMARY KEY, a int REFERENCES a) PARTITION BY RANGE (id);
    CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10);
    CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20) PARTITION BY LIST (id);
    CREATE TABLE p2_rest PARTITION OF p2 DEFAULT;
    CREATE TABLE q (id int, a int REFERENCES a) PARTITION BY RANGE (id);
    CREATE TABLE q1 PARTITION OF q FOR VALUES FROM (0) TO (10);
    ALTER TABLE q1 ADD FOREIGN KEY (id) REFERENCES b;
    CREATE TABLE q_rest PARTITION OF q DEFAULT;
    CREATE TABLE e (id int, p int REFERENCES p);
    CREATE TABLE loose (id int NOT NULL);
    CREATE TABLE parted (id int REFERENCES a) PARTITION BY RANGE (id);
    CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (10)";

const STATEMENTS: &[&str] = &[
    "ALTER TABLE b DROP CONSTRAINT b_id_fkey",
    "ALTER TABLE c DROP CONSTRAINT c_self_fkey",
    "ALTER TABLE p DROP CONSTRAINT p_a_fkey",
    "ALTER TABLE e DROP CONSTRAINT e_p_fkey",
    "ALTER TABLE q1 DROP CONSTRAINT q1_id_fkey",
    "ALTER TABLE a DROP CONSTRAINT a_pkey CASCADE",
    "ALTER TABLE a DROP CONSTRAINT a_u_key CASCADE",
    "ALTER TABLE p DROP CONSTRAINT p_pkey CASCADE",
    "ALTER TABLE b DROP COLUMN u",
    "ALTER TABLE a DROP COLUMN u CASCADE",
    "ALTER TABLE p DROP COLUMN a",
    "TRUNCATE d",
    "TRUNCATE a CASCADE",
    "TRUNCATE b CASCADE",
    "TRUNCATE p CASCADE",
    "TRUNCATE q1, parted",
    "TRUNCATE a, b, c, d, e, p, q, parted",
    "DROP TABLE d",
    "DROP TABLE c, d",
    "DROP TABLE a CASCADE",
    "DROP TABLE p CASCADE",
    "DROP TABLE q",
    "DROP TABLE q1",
    "DROP TABLE parted_1",
    "ALTER TABLE q DETACH PARTITION q1",
    "ALTER TABLE p DETACH PARTITION p1",
    "ALTER TABLE p DETACH PARTITION p2",
    "ALTER TABLE parted ATTACH PARTITION loose FOR VALUES FROM (10) TO (20)",
    "CREATE TABLE p3 PARTITION OF p FOR VALUES FROM (20) TO (30)",
    "CREATE TABLE q2 PARTITION OF q FOR VALUES FROM (20) TO (30)",
    "ALTER TABLE e ADD FOREIGN KEY (id) REFERENCES p",
    "ALTER TABLE parted ADD FOREIGN KEY (id) REFERENCES c",
    "ALTER TABLE a ALTER COLUMN u TYPE bigint",
    "ALTER TABLE b ALTER COLUMN u TYPE bigint",
    "CREATE TABLE f (id int REFERENCES p)",
];

/// The tables that were there before and that the transaction has locked against others, with the strongest lock on each.
const LOCKED: &str = "
    SELECT string_agg(relname || ':' || mode, ',')
      FROM pg_locks JOIN before ON oid = relation WHERE pid = pg_backend_pid() AND locktype = 'relation'
       AND mode IN ('ShareUpdateExclusiveLock', 'ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')";

const TREE: &str = "
    WITH RECURSIVE tree(oid) AS (
      SELECT 'ROOT'::regclass::oid UNION SELECT inhrelid FROM tree JOIN pg_inherits ON inhparent = tree.oid)
    SELECT string_agg(oid::regclass::text, ',') FROM tree";

fn strongest(locks: impl Iterator<Item = (String, LockMode)>) -> BTreeMap<String, LockMode> {
    let mut all = BTreeMap::new();
    for (table, mode) in locks {
        let have = all.entry(table).or_insert(mode);
        *have = mode.max(*have);
    }
    all
}

/// Of the plan: the descendants of what is not locked alone are locked too.
fn planned(client: &mut Client, sql: &str) -> BTreeMap<String, LockMode> {
    let lines = client.ok(&format!("EXPLAIN {sql}")).rows;
    let lines = lines.into_iter().filter_map(|row| row.into_iter().next().flatten());
    let mut locks = Vec::new();
    for line in lines.filter_map(|line| line.strip_prefix("  lock   ").map(str::to_owned)) {
        let (only, rest) = line.strip_prefix("ONLY ").map_or((false, line.as_str()), |rest| (true, rest));
        let (table, mode) = rest.split_once(' ').unwrap();
        let mode = serde_json::from_value(mode.into()).unwrap_or_else(|_| panic!("{line}"));
        let name = table.trim_start_matches("public.");
        let tree = if only { String::new() } else { client.value(&TREE.replace("ROOT", name)) };
        locks.push((name.to_owned(), mode));
        locks.extend(tree.split(',').filter(|leaf| !leaf.is_empty()).map(|leaf| (leaf.to_owned(), mode)));
    }
    strongest(locks.into_iter())
}

#[test]
fn every_table_is_locked_by_name() {
    is_locked_by_name(&postgres());
}

#[test]
fn on_postgresql_10() {
    is_locked_by_name(&server(10));
}

#[test]
fn on_postgresql_12() {
    is_locked_by_name(&server(12));
}

#[test]
fn on_postgresql_18() {
    is_locked_by_name(&server(18));
}

fn is_locked_by_name(postgres: &Postgres) {
    let running = proxy(postgres, |config| {
        no_table_is_small(config);
        config.proxy.mode = Mode::Guard;
    });
    let database = new_database(postgres, "lock_sets");
    let mut direct = Client::connect(postgres.port, &postgres.user, &database);
    let mut through = Client::connect(port(&running), &postgres.user, &database);
    // 10 has neither keys of partitioned tables nor default partitions: it goes without such tables.
    for table in TABLES.split(';') {
        let outcome = direct.query(table);
        assert!(outcome.error.is_none() || postgres.version < 12, "{table}: {outcome:?}");
    }
    // What is dropped has no name any more when its lock is looked at.
    direct.ok("CREATE TEMP TABLE before AS SELECT oid, relname FROM pg_class
               WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace");
    let mut missing = Vec::new();
    let mut run = 0;
    for sql in STATEMENTS {
        let outcome = direct.query(&format!("BEGIN; {sql}"));
        if outcome.error.is_some() {
            assert!(postgres.version < 12, "{sql}: {outcome:?}");
            direct.ok("ROLLBACK");
            continue;
        }
        run += 1;
        let locked = direct.value(LOCKED);
        direct.ok("ROLLBACK");
        let plan = planned(&mut through, sql);
        let locked = locked.split(',').filter_map(|lock| lock.split_once(':'));
        let locked = strongest(locked.map(|(table, mode)| (table.to_owned(), LockMode::from_pg_locks(mode).unwrap())));
        for (table, mode) in locked {
            if plan.get(&table).is_none_or(|planned| *planned < mode) {
                missing.push(format!("{sql}: {table} {mode}, not {:?}", plan.get(&table)));
            }
        }
    }
    assert!(run == STATEMENTS.len() || (postgres.version < 12 && run >= 10), "{run} statements");
    assert!(missing.is_empty(), "{}", missing.join("\n"));
    running.stop_now();
}
