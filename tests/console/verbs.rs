//! The verbs: what an admin may do and a viewer may not, and the events that they leave.

use crate::Proxy;
use crate::common::program::Program;
use crate::common::{self, Client, wait_until};
use pgsluice::config::{Address, Mode};

#[test]
fn a_viewer_looks_and_does_nothing() {
    let proxy = Proxy::alone();
    let viewer = proxy.session("vic", "viewer secret");
    for verb in [
        "SET locks.poll = '1ms'",
        "RELOAD",
        "DRAIN",
        "SHUTDOWN",
        "KILL 1",
        "CANCEL 1",
        "APPROVE 1",
        "REJECT 1",
        "RETRY 1",
        "FORCE 1",
        "UNFORCE 1",
        "HOLD ALL",
        "RELEASE ALL",
        "HOLD 1",
        "RELEASE 1",
        "THROTTLE 1 RATIO 0.5",
        "UNTHROTTLE 1",
    ] {
        assert_eq!(viewer.error(verb), "42501", "{verb}");
    }
    assert_eq!(viewer.value("SHOW locks.poll"), "50ms");
    assert_eq!(viewer.rows("SHOW STATE LIKE 'draining'")[0][1].as_deref(), Some("false"));
}

#[test]
fn settings_change_while_the_proxy_runs() {
    let proxy = Proxy::alone();
    let admin = proxy.admin();
    admin.rows("SET locks.stall_budget = '300ms' REASON 'a slow night'");
    let row = admin.rows("SHOW CONFIG LIKE 'locks.stall_budget'").remove(0);
    assert_eq!(row, ["locks.stall_budget", "300ms", "200ms", "SET", "t"].map(|text| Some(text.to_owned())));
    assert_eq!(proxy.running().shared().config.locks.stall_budget.as_millis(), 300);
    for (verb, code) in [
        ("SET locks.stall_budget = '1 parsec'", "22023"),
        ("SET locks.stall_budget = 'DEFAULT'", "22023"),
        // The ladder would begin above the budget.
        ("SET locks.stall_budget = '1ms'", "22023"),
        ("SET locks.stal_budget = '1s'", "42704"),
        ("SET proxy.listen = '127.0.0.1:1'", "0A000"),
        ("SET console.users = '[]'", "0A000"),
    ] {
        assert_eq!(admin.error(verb), code, "{verb}");
    }
    assert_eq!(admin.value("SHOW locks.stall_budget"), "300ms");
    admin.rows("SET backfill.max_active = 7; SET ddl.notices = false; SET backfill.pause_ratio = 0.5");
    assert_eq!(admin.value("SHOW backfill.max_active"), "7");
    assert_eq!(admin.value("SHOW ddl.notices"), "false");
    assert_eq!(admin.value("SHOW backfill.pause_ratio"), "0.5");
}

#[test]
fn kill_ends_one_session() {
    let postgres = common::postgres();
    let proxy = Proxy::start(|config| config.proxy.backend = Address::tcp("127.0.0.1", postgres.port));
    let admin = proxy.admin();
    let mut one = Client::connect(proxy.port, &postgres.user, "postgres");
    let mut other = Client::connect(proxy.port, &postgres.user, "postgres");
    let number = admin.rows("SHOW SESSIONS LIKE 'pgsluice test'")[0][0].clone().unwrap();
    admin.rows(&format!("KILL {number}"));
    let end = one.read();
    assert_eq!((end.tag, end.field(b'C').as_deref()), (b'E', Some("57P01")));
    assert_eq!(end.field(b'D').as_deref(), Some("An operator has ended this session."));
    assert!(one.try_read().is_none());
    assert_eq!(other.value("SELECT 1"), "1");
    wait_until("the session is gone", || admin.rows("SHOW SESSIONS LIKE 'pgsluice test'").len() == 1);
    assert_eq!(admin.error(&format!("KILL {number}")), "42704");
    // A session that waits with a schema change ends, too, and leaves nothing.
    let mut ddl = Client::connect(proxy.port, &postgres.user, "postgres");
    other.ok("CREATE TABLE t (id int)");
    other.ok("BEGIN; LOCK TABLE t IN ACCESS SHARE MODE");
    ddl.send_query("ALTER TABLE t ADD COLUMN c int");
    wait_until("it waits", || !admin.rows("SHOW BLOCKERS").is_empty());
    let number = admin.rows("SHOW CHANGES")[0][1].clone().unwrap();
    admin.rows(&format!("KILL {number}"));
    let codes: Vec<_> = ddl.last_words().iter().filter(|m| m.tag == b'E').filter_map(|m| m.field(b'C')).collect();
    assert_eq!(codes.last().map(String::as_str), Some("57P01"), "{codes:?}");
    other.ok("COMMIT");
    assert_eq!(other.value("SELECT count(*) FROM pg_attribute WHERE attrelid = 't'::regclass AND attnum > 0"), "1");
}

/// Such a session is relayed in another way, since its table is freed when it is idle for long.
#[test]
fn kill_ends_a_session_whose_transaction_holds_a_table() {
    let postgres = common::postgres();
    let proxy = Proxy::start(|config| {
        config.proxy.backend = Address::tcp("127.0.0.1", postgres.port);
        config.proxy.mode = Mode::Plan;
        // The table is not freed before the session is killed.
        config.locks.hold_budget = std::time::Duration::from_secs(600);
    });
    let admin = proxy.admin();
    let mut direct = Client::connect(postgres.port, &postgres.user, "postgres");
    direct.ok("CREATE TABLE t (id int); INSERT INTO t VALUES (1)");
    let mut client = Client::connect(proxy.port, &postgres.user, "postgres");
    client.ok("BEGIN");
    client.ok("ALTER TABLE t ADD COLUMN c int");
    assert_eq!(direct.query("BEGIN; LOCK TABLE t IN ACCESS SHARE MODE NOWAIT").error.as_deref(), Some("55P03"));
    direct.ok("ROLLBACK");
    let number = admin.rows("SHOW SESSIONS LIKE 'pgsluice test'")[0][0].clone().unwrap();
    admin.rows(&format!("KILL {number} REASON 'it holds t'"));
    let codes: Vec<_> = client.last_words().iter().filter(|m| m.tag == b'E').filter_map(|m| m.field(b'C')).collect();
    assert_eq!(codes, ["57P01"]);
    // What it held is free, and what it did is undone.
    wait_until("the table is free", || direct.query("SELECT id FROM t").error.is_none());
    assert_eq!(direct.value("SELECT count(*) FROM pg_attribute WHERE attrelid = 't'::regclass AND attnum > 0"), "1");
}

#[test]
fn the_proxy_stops_when_it_is_told() {
    for (verb, in_transaction) in [("SHUTDOWN", true), ("DRAIN", false)] {
        let postgres = common::postgres();
        let mut program = Program::with(&postgres, &users());
        let mut client = program.client(&postgres.user, "postgres");
        if in_transaction {
            client.ok("BEGIN");
        }
        let error = say(&program, verb);
        // The session that says it ends, too: at SHUTDOWN perhaps before its answer.
        assert!(error.is_empty() || error.starts_with("FATAL:  terminating connection"), "{verb}: {error}");
        assert!(program.wait().success(), "{verb}");
        assert_eq!(client.read().field(b'C').as_deref(), Some("57P01"), "{verb}");
        let log = program.log();
        let event = log.lines().find(|line| line.contains("done on the console")).expect("an event");
        assert!(event.contains("user=\"ann\"") && event.contains(&format!("verb=\"{verb}\"")), "{event}");
        assert!(event.contains("from=\"127.0.0.1\"") && event.contains("why=\"a test\""), "{event}");
    }
}

/// `[console]` of a program.
fn users() -> String {
    format!("[[console.users]]\nname = \"ann\"\nrole = \"admin\"\nverifier = \"{}\"\n", crate::ADMIN)
}

/// Says a verb by psql; gives what psql says of errors.
fn say(program: &Program, verb: &str) -> String {
    let mut command = std::process::Command::new("psql");
    command.env("PGPASSWORD", "admin secret").args(["-X", "-h", "127.0.0.1", "-p", &program.port.to_string()]);
    command.args(["-U", "ann", "-d", "pgsluice", "-c", &format!("{verb} REASON 'a test'")]);
    String::from_utf8_lossy(&command.output().expect("psql").stderr).into_owned()
}

#[test]
fn reload_reads_the_file_anew_and_keeps_the_old_one_on_an_error() {
    let postgres = common::postgres();
    let program = Program::with(&postgres, &format!("{}[locks]\npoll = \"20ms\"\n", users()));
    let own = std::fs::read_to_string(program.settings()).unwrap();
    let shown = || {
        let mut command = std::process::Command::new("psql");
        command.env("PGPASSWORD", "admin secret").args(["-XAt", "-h", "127.0.0.1", "-p", &program.port.to_string()]);
        command.args(["-U", "ann", "-d", "pgsluice", "-c", "SHOW CONFIG LIKE 'locks.poll'"]);
        String::from_utf8(command.output().expect("psql").stdout).unwrap()
    };
    let before = shown();
    assert!(before.starts_with("locks.poll|20ms|50ms|proxy.toml, line "), "{before}");
    std::fs::write(program.settings(), own.replace("20ms", "fast")).unwrap();
    let error = say(&program, "RELOAD");
    assert!(error.contains("ERROR:") && error.contains("locks.poll: \"fast\" is not allowed"), "{error}");
    assert_eq!(shown(), before);
    std::fs::write(program.settings(), own.replace("20ms", "30ms").replace("[proxy]", "[proxy]\nworkers = 7")).unwrap();
    let notice = say(&program, "RELOAD");
    assert!(notice.contains("NOTICE:  changed settings: locks.poll; after a restart: proxy.workers"), "{notice}");
    assert!(shown().starts_with("locks.poll|30ms|50ms|"), "{}", shown());
    // SIGHUP does the same.
    std::fs::write(program.settings(), own.replace("20ms", "40ms")).unwrap();
    program.signal("HUP");
    wait_until("the proxy has read its file", || shown().starts_with("locks.poll|40ms|"));
    let log = program.log();
    assert!(!log.contains("SCRAM-SHA-256$") && log.contains("refused on the console"), "{log}");
}

#[test]
fn reload_follows_rules_and_windows() {
    let postgres = common::postgres();
    let rule = |verdict: &str| {
        format!(
            "[[window]]\nname = \"night\"\nhours = \"22:00-05:00\"\n[[rule]]\nname = \"r\"\nmatch = {{ family = \"view\" }}\nverdict = \"{verdict}\"\n"
        )
    };
    let program = Program::with(&postgres, &users());
    let own = std::fs::read_to_string(program.settings()).unwrap();
    let mut client = program.client(&postgres.user, "postgres");
    client.ok("CREATE VIEW a AS SELECT 1");
    std::fs::write(program.settings(), format!("{own}{}", rule("refuse"))).unwrap();
    let notice = say(&program, "RELOAD");
    assert!(notice.contains("NOTICE:  changed settings: rules and windows"), "{notice}");
    assert_eq!(client.query("CREATE VIEW b AS SELECT 1").error.as_deref(), Some("55000"));
    let shown = |view: &str| {
        let mut command = std::process::Command::new("psql");
        command.env("PGPASSWORD", "admin secret").args(["-XAt", "-h", "127.0.0.1", "-p", &program.port.to_string()]);
        command.args(["-U", "ann", "-d", "pgsluice", "-c", view]);
        String::from_utf8(command.output().expect("psql").stdout).unwrap()
    };
    assert!(shown("SHOW RULES").starts_with("1|r|refuse|family|||"), "{}", shown("SHOW RULES"));
    assert!(shown("SHOW WINDOWS").starts_with("night|22:00-05:00"), "{}", shown("SHOW WINDOWS"));
    // A rule that is wrong changes nothing, and a setting that contradicts a rule cannot be set.
    std::fs::write(program.settings(), format!("{own}{}", rule("refuse").replace("view", "vieww"))).unwrap();
    let error = say(&program, "RELOAD");
    assert!(error.contains("ERROR:") && error.contains("vieww"), "{error}");
    assert_eq!(client.query("CREATE VIEW b AS SELECT 1").error.as_deref(), Some("55000"));
    std::fs::write(program.settings(), &own).unwrap();
    say(&program, "RELOAD");
    client.ok("CREATE VIEW b AS SELECT 1");
    assert_eq!(shown("SHOW RULES"), "");
}

/// Who has sent a change, who has decided, why, and how it ended; and no string of the statement.
#[test]
fn decisions_about_a_held_change_are_events() {
    let postgres = common::postgres();
    let rule = "[[rule]]\nname = \"r\"\nmatch = { relation = \"t\", form = \"ADD COLUMN*\" }\nverdict = \"hold\"\nwait_for = \"0\"\n";
    let program = Program::with(&postgres, &format!("{}{rule}[log]\nlevel = \"error\"\n", users()));
    let mut client = program.client(&postgres.user, "postgres");
    client.ok("CREATE TABLE t (id int)");
    let events = |what: &str| -> Vec<String> {
        let log = program.log();
        log.lines().filter(|line| line.contains(&format!("a schema change was {what}"))).map(str::to_owned).collect()
    };
    client.send_query("ALTER TABLE t ADD COLUMN c text DEFAULT 'hunter2'");
    wait_until("it is held", || !events("held").is_empty());
    let held = events("held").remove(0);
    // The line begins with the span of the change, and ends with the fields of the event.
    let number: String = held.rsplit("change=").next().unwrap().chars().take_while(char::is_ascii_digit).collect();
    assert!(held.contains("rule=\"r\"") && held.contains(&format!("author=\"{}\"", postgres.user)), "{held}");
    assert!(held.contains("ADD COLUMN c text DEFAULT '***'"), "{held}");
    assert!(say(&program, "APPROVE 4711").contains("is not held"));
    let said = say(&program, &format!("APPROVE {number}"));
    assert!(said.contains(&format!("NOTICE:  schema change {number} is approved")), "{said}");
    assert_eq!(client.outcome().error, None);
    let decided = events("decided").remove(0);
    assert!(
        decided.contains("by=\"ann\" from=\"127.0.0.1\" why=\"a test\"") && decided.contains("forced=false"),
        "{decided}"
    );
    assert_eq!((events("started").len(), events("done").len()), (1, 1));
    assert!(!program.log().contains("hunter2"), "{}", program.log());
}

#[test]
fn the_level_of_the_log_changes() {
    let postgres = common::postgres();
    let program = Program::with(&postgres, &users());
    assert_eq!(say(&program, "SET log.level = 'error'"), "");
    // Nobody hides what an operator has done.
    assert!(program.log().contains("verb=\"SET log.level = error\""), "{}", program.log());
    let before = program.log().lines().count();
    let mut client = program.client(&postgres.user, "postgres");
    client.ok("CREATE TABLE t (id int); ALTER TABLE t ADD COLUMN c int");
    assert_eq!(program.log().lines().count(), before);
    assert_eq!(say(&program, "SET log.level = 'info'"), "");
    client.ok("ALTER TABLE t ADD COLUMN d int");
    wait_until("it is logged", || program.log().contains("ADD COLUMN d int"));
    assert!(!program.log().contains("ADD COLUMN c int"));
}
