//! Tests of the roles that may follow a record of a schema change: the role that wrote it may, and a role that its author could
//! mislead may not.

use crate::common::{no_table_is_small, postgres, proxy, wait_until};
use crate::trust::{SENDERS, Stage};
use pgsluice::catalog::identity::INDEX_SQL;
use std::time::Duration;

/// The comment that says how far a change is, is the table owner's to write.
#[test]
fn a_forged_record_is_not_followed() {
    let postgres = postgres();
    let mut stage = Stage::new(&postgres);
    stage.watcher.ok("CREATE SEQUENCE safe.calls; GRANT ALL ON SEQUENCE safe.calls TO PUBLIC;
        CREATE FUNCTION safe.deadly() RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
        DECLARE n bigint := nextval('safe.calls');
        BEGIN
          IF n = 2000 THEN PERFORM pg_terminate_backend(pg_backend_pid()), pg_sleep(10); END IF;
          RETURN n;
        END $$");
    let (mut alice, mut mallory) = (stage.direct("alice"), stage.direct("mallory"));
    alice.ok("CREATE TABLE a.t (id int); CREATE INDEX alices ON a.t (id)");
    mallory.ok("CREATE TABLE m.t (id int); INSERT INTO m.t SELECT generate_series(1, 5000)");
    let add = "ALTER TABLE m.t ADD COLUMN r bigint DEFAULT safe.deadly() UNIQUE";
    let mut client = stage.proxied("mallory");
    client.send_query(add);
    client.last_words();
    let record = "SELECT coalesce(obj_description(reltype, 'pg_type'), '') FROM pg_class WHERE oid = 'm.t'::regclass";
    let text = stage.watcher.value(record);
    assert!(text.contains(r#""built":[]"#), "{text}");
    let index = stage.watcher.value("SELECT 'a.alices'::regclass::oid");
    let forged = text.replace(r#""built":[]"#, &format!(r#""built":[[2,{index}]]"#));
    // As if the column had gone: the change fails, and undoes what it believes it has built.
    mallory.ok(&format!("COMMENT ON TYPE m.t IS $forged${forged}$forged$"));
    for (role, first) in SENDERS {
        let another = proxy(&postgres, |config| {
            no_table_is_small(config);
            config.ddl.record_interval = Duration::from_millis(1);
        });
        std::mem::replace(&mut stage.running, another).stop_now();
        let mut client = stage.proxied(role);
        client.ok(first);
        let outcome = client.query(add);
        let why = ": a role other than the one that has logged in may have written its record";
        let warned = |notice: &String| notice.contains("not continuing this statement") && notice.contains(why);
        assert!(outcome.notices.iter().any(warned), "{role}: {first}: {outcome:?}");
        assert_eq!(outcome.error.as_deref(), Some("42701"), "{role}: {first}: {outcome:?}");
        assert_eq!(stage.watcher.value("SELECT to_regclass('a.alices') IS NOT NULL"), "t", "{role}: {first}");
    }
    // An index is asked for by its table too.
    let asked = |stage: &mut Stage<'_>, table: &str| {
        let table = stage.watcher.value(&format!("SELECT '{table}'::regclass::oid"));
        let sql = INDEX_SQL.replace("$1", &format!("'{index}'")).replace("$2", &format!("'{table}'"));
        stage.watcher.ok(&sql).rows.len()
    };
    assert_eq!((asked(&mut stage, "a.t"), asked(&mut stage, "m.t")), (1, 0));
    // Who has its lock and no rights on the table is at work on nothing. It is not waited for.
    let oid = stage.watcher.value("SELECT 'm.t'::regclass::oid::int");
    let mut stranger = stage.direct("stranger");
    stranger.ok(&format!("SELECT pg_advisory_lock(1885827946, {oid})"));
    let outcome = stage.proxied("mallory").query(add);
    let why = ": a session whose role has no rights on the table holds the advisory lock";
    let warned = |notice: &String| notice.contains("not continuing this statement") && notice.contains(why);
    assert!(outcome.notices.iter().any(warned), "{outcome:?}");
    assert_eq!(outcome.error.as_deref(), Some("42701"), "{outcome:?}");
    stranger.ok("SELECT pg_advisory_unlock_all()");
    // He who wrote it may follow it, as far as it tells of his own table.
    let outcome = stage.proxied("mallory").ok(add);
    assert!(outcome.notices.iter().any(|notice| notice.contains("continuing this ALTER TABLE")), "{outcome:?}");
    assert_eq!(stage.watcher.value("SELECT to_regclass('a.alices') IS NOT NULL"), "t");
    stage.running.stop_now();
}

/// The one role for migrations that the tables' owner has as a member, where the owner cannot log in.
#[test]
fn the_only_member_of_an_owner_continues_what_it_has_begun() {
    let postgres = postgres();
    let mut stage = Stage::new(&postgres);
    stage.watcher.ok(
        "CREATE ROLE app; CREATE ROLE deployer LOGIN; GRANT app TO deployer; GRANT CREATE ON SCHEMA public TO app;
        CREATE TABLE public.t (id int); ALTER TABLE public.t OWNER TO app;
        INSERT INTO public.t SELECT generate_series(1, 5000); CREATE SEQUENCE safe.calls; GRANT ALL ON SEQUENCE safe.calls TO PUBLIC;
        CREATE FUNCTION safe.deadly() RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
        DECLARE n bigint := nextval('safe.calls');
        BEGIN
          IF n = 2000 THEN PERFORM pg_terminate_backend(pg_backend_pid()), pg_sleep(10); END IF;
          RETURN n;
        END $$",
    );
    let add = "ALTER TABLE public.t ADD COLUMN r bigint NOT NULL DEFAULT safe.deadly()";
    let mut client = stage.proxied("deployer");
    client.send_query(add);
    client.last_words();
    let recorded =
        "SELECT obj_description(reltype, 'pg_type') LIKE 'pgsluice %' FROM pg_class WHERE oid = 'public.t'::regclass";
    assert_eq!(stage.watcher.value(recorded), "t");
    // Not one who is a member beside it.
    stage.watcher.ok("GRANT app TO migrator");
    let outcome = stage.proxied("deployer").query(add);
    assert_eq!(outcome.error.as_deref(), Some("42701"), "{outcome:?}");
    stage.watcher.ok("REVOKE app FROM migrator");
    let mut client = stage.proxied("deployer");
    client.ok("SET ROLE app");
    let outcome = client.ok(add);
    assert!(outcome.notices.iter().any(|notice| notice.contains("continuing this ALTER TABLE")), "{outcome:?}");
    assert_eq!(stage.watcher.value("SELECT count(DISTINCT r) FROM public.t"), "5000");
    // Where others can write it, nothing is recorded; what a lost session has left is undone by the next.
    stage.watcher.ok("GRANT app TO migrator; ALTER TABLE public.t DROP COLUMN r; SELECT setval('safe.calls', 1)");
    let mut client = stage.proxied("deployer");
    client.send_query(add);
    let pid = client.pid;
    client.last_words();
    let gone = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}");
    wait_until("its backend is gone", || stage.watcher.value(&gone) == "0");
    assert_eq!(stage.watcher.value(recorded), "");
    let outcome = stage.proxied("deployer").ok(add);
    assert!(outcome.notices.iter().any(|notice| notice.contains("undid the unfinished ALTER TABLE")), "{outcome:?}");
    assert_eq!(stage.watcher.value("SELECT count(DISTINCT r) FROM public.t"), "5000");
    stage.running.stop_now();
}
