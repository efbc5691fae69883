//! Tests of `proxy.toml`: the file in the repository contains the defaults, and an error names the allowed values.

use pgsluice::config::{Address, Autovacuum, Config, LogFormat, Mode, Overrides, WebhookEvent};
use std::path::Path;
use std::time::Duration;

const FILE: &str = include_str!("../proxy.toml");

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(text, Overrides::default()).map_err(|error| error.to_string())
}

fn error(text: &str) -> String {
    parse(text).expect_err("this is not allowed")
}

#[test]
fn the_file_is_the_defaults() {
    assert_eq!(parse(FILE).unwrap(), Config::default());
    assert_eq!(parse("").unwrap(), Config::default());
}

#[test]
fn the_file_mentions_every_key_with_a_reason() {
    let mut section = "";
    let mut previous = "";
    let mut mentioned = Vec::new();
    // The examples of rules and windows have a test of their own.
    for line in FILE.lines().take_while(|line| !line.starts_with("# [[")) {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
        } else if let Some((key, _)) = line.trim_start_matches("# ").split_once(" = ") {
            assert!(previous.starts_with("# "), "{section}.{key} has no reason above it");
            mentioned.push(format!("{section}.{key}"));
        }
        previous = line;
    }
    assert_eq!(mentioned, Config::keys());
}

#[test]
fn every_key_is_read() {
    let config = parse(
        r#"
        [proxy]
        mode = "guard"
        listen = ["[::1]:7000", "unix:/tmp:7001"]
        backend = "unix:/run/postgresql"
        workers = 3
        keepalive = "0"
        [ddl]
        inspect_limit = "64kB"
        notices = false
        [locks]
        poll = "1.5s"
        poll_jitter = 0
        autovacuum = "outwait"
        [operator]
        user = "op"
        password = "hunter2"
        [log]
        format = "json"
        "#,
    )
    .unwrap();
    assert_eq!(config.proxy.mode, Mode::Guard);
    assert_eq!(config.proxy.listen[0], Address::tcp("::1", 7000));
    assert_eq!(config.proxy.listen[1], Address::Unix { dir: "/tmp".into(), port: 7001 });
    assert_eq!(config.proxy.backend.port(), 5432);
    assert_eq!(config.proxy.workers, 3);
    assert_eq!(config.proxy.keepalive, Duration::ZERO);
    assert_eq!(config.ddl.inspect_limit, 65_536);
    assert!(!config.ddl.notices);
    assert_eq!(config.locks.poll, Duration::from_millis(1500));
    assert_eq!(config.locks.poll_jitter, 0.0);
    assert_eq!(config.locks.autovacuum, Autovacuum::Outwait);
    assert_eq!(config.log.format, LogFormat::Json);
}

#[test]
fn flags_win() {
    let overrides = Overrides {
        listen: vec![Address::tcp("127.0.0.1", 1)],
        backend: Some(Address::tcp("127.0.0.1", 2)),
        mode: Some(Mode::Relay),
    };
    let config = Config::parse("[proxy]\nmode = \"guard\"", overrides).unwrap();
    assert_eq!(config.proxy.listen, [Address::tcp("127.0.0.1", 1)]);
    assert_eq!(config.proxy.backend, Address::tcp("127.0.0.1", 2));
    assert_eq!(config.proxy.mode, Mode::Relay);
}

#[test]
fn errors_name_key_line_value_and_what_is_allowed() {
    assert_eq!(
        error("[proxy]\nmode = \"plam\""),
        "line 2: proxy.mode: \"plam\" is not allowed; expected one of \"relay\", \"observe\", \"guard\", \"plan\""
    );
    assert_eq!(
        error("[locks]\n\npoll = 50"),
        "line 3: locks.poll: 50 is not allowed; expected a time from 1ms to 1min, such as \"200ms\" (units: us ms s min h d)"
    );
    assert_eq!(
        error("[ddl]\ninspect_limit = \"1kB\""),
        "line 2: ddl.inspect_limit: \"1kB\" is not allowed; expected a size from 8kB to 1GB, such as \"64kB\" (units: B kB MB GB TB)"
    );
    assert_eq!(
        error("[proxy]\nbackend = \"localhost\""),
        "line 2: proxy.backend: \"localhost\" is not allowed; expected \"HOST:PORT\" or \"unix:DIR\" or \"unix:DIR:PORT\""
    );
    assert!(error("[proxy]\nlisten = []").contains("a list of one or more"));
    assert!(error("[proxy]\nmax_clients = -1").contains("a whole number from 1 to 1000000"));
    assert!(error("[ddl]\nnotices = \"yes\"").contains("expected true or false"));
}

#[test]
fn unknown_names_are_errors_with_near_matches() {
    assert_eq!(error("[locks]\npol = \"1s\""), "line 2: locks.pol: unknown key. Did you mean poll?");
    assert_eq!(error("[proxy]\npoll = \"1s\""), "line 2: proxy.poll: unknown key. Did you mean poll in [locks]?");
    assert_eq!(error("poll = \"1s\""), "line 1: poll: unknown key. Did you mean poll in [locks]?");
    assert_eq!(
        error("[lock]"),
        "line 1: lock: unknown section; expected one of [proxy], [listen.tls], [backend.tls], [ddl], [locks], [backfill], [operator], [console], [metrics], [webhook], [log], [[rule]], [[window]]. Did you mean [locks]?"
    );
    assert!(error("[log]\ncolour = true").ends_with("unknown key. The keys of [log] are level, format."));
}

#[test]
fn every_error_is_told_at_once_in_the_order_of_the_file() {
    let error = error("[proxy]\nworkers = \"many\"\n[locks]\npol = 1\npoll = 2");
    let lines: Vec<&str> = error.lines().map(|line| line.split(':').next().unwrap()).collect();
    assert_eq!(lines, ["line 2", "line 4", "line 5"]);
}

#[test]
fn settings_that_contradict_each_other_are_errors() {
    assert_eq!(
        error("[locks]\nstall_budget = \"10ms\"\nladder_start = \"20ms\"\nfallback_timeout = \"5ms\""),
        "line 3: locks.ladder_start: \"20ms\" is not allowed; expected at most locks.stall_budget (10ms)"
    );
    assert!(error("[proxy]\nbackend = \"127.0.0.1:6432\"").contains("an address that is not in proxy.listen"));
    assert!(error("[operator]\nport = 5432").contains("operator.user"));
}

#[test]
fn bad_toml_names_its_line() {
    assert!(error("[proxy]\nmode = plan").starts_with("line 2: "));
    assert!(error("[proxy]\nworkers = 1\nworkers = 2").starts_with("line 3: "));
}

#[test]
fn a_password_is_never_shown() {
    let config = parse("[operator]\nuser = \"op\"\npassword = \"hunter2\"").unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
    assert!(!error("[operator]\nuser = \"op\"\npassword = [\"hunter2\"]").contains("hunter2"));
    assert!(!error("[operator]\nuser = \"op\"\npassword = \"hunter2\"\npassword_file = \"f\"").contains("hunter2"));
}

#[test]
fn errors_name_the_file() {
    let missing = Config::load(Some(Path::new("no/such.toml")), Overrides::default()).unwrap_err().to_string();
    assert!(missing.starts_with("no/such.toml: could not read the file: "), "{missing}");
}

#[test]
fn a_password_file_counts_from_the_folder_of_the_file() {
    let folder = std::path::PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("password_file");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("secret"), "hunter2\n").unwrap();
    std::fs::write(folder.join("proxy.toml"), "[operator]\nuser = \"op\"\npassword_file = \"secret\"").unwrap();
    let config = Config::load(Some(&folder.join("proxy.toml")), Overrides::default()).unwrap();
    assert_eq!(config.operator.password.unwrap().reveal(), "hunter2");
}

/// Users of the console: an error names the line, and never shows a verifier.
#[test]
fn users_of_the_console() {
    const GOOD: &str = "SCRAM-SHA-256$4096:cGdzbHVpY2VzYWx0$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let user = |name: &str, role: &str, verifier: &str| {
        format!("[[console.users]]\nname = \"{name}\"\nrole = \"{role}\"\nverifier = \"{verifier}\"\n")
    };
    let config = parse(&(user("ann", "admin", GOOD) + &user("vic", "viewer", GOOD))).unwrap();
    let users: Vec<(&str, &str)> =
        config.console.users.iter().map(|user| (user.name.as_str(), user.role.as_str())).collect();
    assert_eq!(users, [("ann", "admin"), ("vic", "viewer")]);
    assert!(!format!("{config:?}").contains("cGdz"));
    let inline = format!("[console]\nusers = [{{ name = \"ann\", role = \"admin\", verifier = \"{GOOD}\" }}]\n");
    assert_eq!(parse(&inline).unwrap().console.users.len(), 1);
    for (text, expected) in [
        (
            user("ann", "admin", "hunter2"),
            "line 4: console.users: verifier: (not shown) is not allowed; expected a SCRAM",
        ),
        (
            user("ann", "root", GOOD),
            "line 3: console.users: role: \"root\" is not allowed; expected one of \"admin\", \"viewer\"",
        ),
        (user("", "admin", GOOD), "line 2: console.users: name is not a string, or is empty"),
        (user("ann", "admin", GOOD).repeat(2), "line 5: console.users: the name \"ann\" is there twice"),
        ("[[console.users]]\nname = \"ann\"\n".to_owned(), "line 1: console.users: a user has no role"),
        ("[console]\nusers = [7]\n".to_owned(), "line 2: console.users: expected a table"),
        ("[console]\nusers = \"ann\"\n".to_owned(), "line 2: console.users: expected [[console.users]]"),
        (user("ann", "admin", GOOD) + "password = \"hunter2\"\n", "line 5: console.users: password: unknown key"),
        ("[console]\ndatabase = \"\"\n".to_owned(), "line 2: console.database"),
    ] {
        let error = error(&text);
        assert!(error.starts_with(expected), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[test]
fn monitoring_and_the_webhook_are_checked() {
    let config =
        parse("[metrics]\nlisten = \"[::1]:9187\"\n[webhook]\nurl = \"http://h/x\"\nevents = \"failed\"").unwrap();
    assert_eq!(config.metrics.listen, Some(Address::tcp("::1", 9187)));
    assert_eq!(config.webhook.events, [WebhookEvent::Failed]);
    assert_eq!(config.webhook.url.unwrap().to_string(), "http://h");
    assert!(error("[metrics]\nlisten = \"unix:/tmp\"").contains("\"HOST:PORT\", or \"\" for none"));
    assert!(error("[metrics]\nlisten = \"127.0.0.1:6432\"").contains("an address that is not in proxy.listen"));
    let url = error("[webhook]\nurl = \"ftp://hunter2@h/hunter2\"");
    assert!(url.contains("webhook.url: (not shown) is not allowed") && !url.contains("hunter2"), "{url}");
    assert!(error("[webhook]\nsecret = \"x\"").contains("webhook.url: (not set)"));
    assert!(error("[webhook]\nurl = \"http://h\"\nsecret = \"x\"\nsecret_file = \"y\"").contains("only one of"));
    assert!(error("[webhook]\nurl = \"http://h\"\nevents = [\"fail\"]").contains("one or more of \"held\""));
    assert!(error("[webhook]\nurl = \"http://h\"\nevents = []").contains("one or more of"));
}
