//! What SHOW shows: types, LIKE, and the sessions and schema changes of a proxy with a server behind it.

use crate::Proxy;
use crate::common::{self, Client, wait_until};
use pgsluice::config::{Address, Operator, Secret};

#[test]
fn like_keeps_rows() {
    let proxy = Proxy::alone();
    let session = proxy.session("vic", "viewer secret");
    let keys = |pattern: &str| session.rows(&format!("SHOW CONFIG LIKE '{pattern}'")).len();
    assert_eq!(keys("%"), pgsluice::config::Config::keys().len());
    assert_eq!(keys("console.%"), 3);
    assert_eq!(keys("nothing"), 0);
    assert_eq!(session.rows("SHOW LISTENERS").len(), 2);
    assert!(session.rows("SHOW MEMORY LIKE 'resident'")[0][1].as_ref().unwrap().parse::<u64>().unwrap() > 1000);
    assert_eq!(session.value("SHOW log.level"), "info");
}

#[test]
fn no_secret_is_shown() {
    let proxy = Proxy::start(|config| {
        config.operator =
            Operator { user: Some("op".to_owned()), password: Some(Secret::new("hunter2")), ..Operator::default() };
    });
    let session = proxy.admin();
    for view in pgsluice_views(&session) {
        let all = format!("{:?}", session.rows(&format!("SHOW {view}")));
        for secret in ["hunter2", "NW7KOWvdd", "yBfhQisCh", "c2FsdCBvZiBh"] {
            assert!(!all.contains(secret), "{view}: {all}");
        }
    }
    assert_eq!(session.rows("SHOW CONFIG LIKE 'operator.password'")[0][1].as_deref(), Some("(not shown)"));
    assert_eq!(session.value("SHOW console.users"), "[\"ann\", \"vic\"]");
}

/// The names of the views, as HELP has them.
fn pgsluice_views(session: &crate::Session) -> Vec<String> {
    let help = session.rows("SHOW HELP LIKE 'SHOW % [LIKE%'");
    let names = help.iter().map(|row| row[0].as_ref().unwrap().split(' ').nth(1).unwrap().to_owned());
    let names: Vec<String> = names.collect();
    assert_eq!(names.len(), 14);
    names
}

/// A change that waits: who waits for whom, and how an operator ends it.
#[test]
fn changes_and_their_blockers() {
    let postgres = common::postgres();
    let proxy = Proxy::start(|config| {
        config.proxy.backend = Address::tcp("127.0.0.1", postgres.port);
        config.ddl.small_table = 0;
    });
    let admin = proxy.admin();
    let mut owner = Client::connect(proxy.port, &postgres.user, "postgres");
    owner.ok("CREATE TABLE held (id int, note text DEFAULT 'hunter2')");
    let mut holder = Client::connect(proxy.port, &postgres.user, "postgres");
    holder.ok("BEGIN; SELECT * FROM held");
    let sessions = admin.rows("SHOW SESSIONS LIKE 'pgsluice test'");
    let pids: Vec<&str> = sessions.iter().map(|row| row[6].as_deref().unwrap()).collect();
    assert_eq!(pids, [owner.pid.to_string(), holder.pid.to_string()]);
    owner.send_query("ALTER TABLE held ALTER note SET DEFAULT 'hunter3', ADD COLUMN more int");
    let blockers = || admin.rows("SHOW BLOCKERS");
    wait_until("the change waits", || !blockers().is_empty());
    let blocker = blockers().remove(0);
    assert_eq!(blocker[1].as_deref(), Some(holder.pid.to_string().as_str()));
    assert_eq!(blocker[2].as_deref(), Some("pgsluice test"));
    assert_eq!((blocker[6].as_deref(), blocker[7].as_deref()), (Some("ACCESS SHARE"), Some("public.held")));
    let change = admin.rows("SHOW CHANGES").remove(0);
    assert_eq!(change[1], sessions[0][0]);
    assert_eq!(change[5].as_deref(), Some("ALTER TABLE held ALTER note SET DEFAULT '***', ADD COLUMN more int"));
    let waiting = change[9].as_deref().unwrap();
    assert!(waiting.starts_with("waiting for ACCESS EXCLUSIVE on public.held, blocked by pid"), "{waiting}");
    assert_eq!(admin.rows("SHOW STATE LIKE 'changes_waiting'")[0][1].as_deref(), Some("1"));
    let lanes = admin.rows("SHOW LANES");
    assert_eq!(lanes[0][2], change[0], "{lanes:?}");
    admin.rows(&format!("CANCEL {} REASON 'the test is over'", change[0].as_deref().unwrap()));
    assert_eq!(owner.outcome().error.as_deref(), Some("57014"));
    wait_until("the change is over", || admin.rows("SHOW CHANGES").is_empty());
    assert!(blockers().is_empty());
    // The session goes on, and the change can be done later.
    holder.ok("COMMIT");
    owner.ok("ALTER TABLE held ADD COLUMN more int");
    assert!(admin.rows("SHOW STATS LIKE 'ddl_seen'")[0][1].as_ref().unwrap().parse::<u64>().unwrap() >= 2);
}

/// A change of several phases says in which one it is.
#[test]
fn phases_of_a_change() {
    let postgres = common::postgres();
    let proxy = Proxy::start(|config| {
        config.proxy.backend = Address::tcp("127.0.0.1", postgres.port);
        config.ddl.small_table = 0;
    });
    let admin = proxy.admin();
    let mut owner = Client::connect(proxy.port, &postgres.user, "postgres");
    owner.ok("CREATE TABLE t (id int NOT NULL)");
    owner.ok("INSERT INTO t SELECT generate_series(1, 1000)");
    // A concurrent build waits for this transaction, and the constraint behind it for the build.
    let mut holder = Client::connect(proxy.port, &postgres.user, "postgres");
    holder.ok("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT * FROM t LIMIT 1");
    owner.send_query("ALTER TABLE t ADD PRIMARY KEY (id)");
    let change = || admin.rows("SHOW CHANGES").pop();
    wait_until("the build has begun", || change().is_some_and(|row| row[6].is_some()));
    let row = change().expect("a change");
    assert_eq!((row[6].as_deref(), row[7].as_deref()), (Some("1"), Some("2")), "{row:?}");
    holder.ok("COMMIT");
    assert_eq!(owner.outcome().error, None);
}
