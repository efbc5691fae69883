//! Tests of the command line: its output, and its messages when something is wrong.

mod common;

use common::Client;
use pgsluice::dev::{Options, Postgres};
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Output, Stdio};

fn pgsluice(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgsluice"));
    command.args(arguments).env_remove("PGPASSWORD").env_remove("PGUSER").env_remove("PGDATABASE");
    command
}

fn output_of(mut command: Command, input: &str) -> Output {
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// Standard output of a plan that must succeed.
fn plan(arguments: &[&str], input: &str) -> String {
    let output = output_of(pgsluice(&[&["plan"], arguments].concat()), input);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Standard error of what must fail.
fn failure(arguments: &[&str], input: &str) -> String {
    let output = output_of(pgsluice(arguments), input);
    assert!(!output.status.success());
    assert!(output.stdout.is_empty());
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn errors_name_the_value_and_what_is_allowed() {
    let error = failure(&["run", "--listen", "nowhere"], "");
    assert!(error.contains("'nowhere'") && error.contains("HOST:PORT or unix:DIR"), "{error}");
    let error = failure(&["run", "--ddl", "yes"], "");
    assert!(error.contains("relay, observe, guard, plan"), "{error}");
    let error = failure(&["run", "--config", "no/such.toml"], "");
    assert!(error.starts_with("no/such.toml: could not read the file"), "{error}");
    let error = failure(&["plan", "-"], "selec 1");
    assert!(error.contains("syntax error at or near \"selec\""), "{error}");
}

/// 2: the arguments are wrong. 1: what they ask for cannot be done.
#[test]
fn exit_codes() {
    for (arguments, code) in [
        (&[][..], 2),
        (&["run", "--ddl", "yes"], 2),
        (&["plan", "--format", "yaml", "-"], 2),
        (&["run", "--config", "no/such.toml"], 1),
        (&["run", "--listen", "127.0.0.1:6999", "--backend", "127.0.0.1:6999"], 1),
        (&["plan", "no/such.sql"], 1),
        (&["plan", "--backend", "127.0.0.1:1", "--user", "nobody", "-"], 1),
        (&["plan", "-"], 0),
        (&["--version"], 0),
    ] {
        assert_eq!(output_of(pgsluice(arguments), "").status.code(), Some(code), "{arguments:?}");
    }
}

#[test]
fn every_fault_of_a_file_is_told_at_once() {
    let path = std::env::temp_dir().join(format!("pgsluice-cli-{}.toml", std::process::id()));
    std::fs::write(&path, "[proxy]\nspeed = 1\nmode = \"fast\"\n[locks]\npoll = \"5 parsecs\"\n").unwrap();
    let error = failure(&["run", "--config", path.to_str().unwrap()], "");
    std::fs::remove_file(&path).unwrap();
    for told in [
        ":2: proxy.speed: unknown key",
        ":3: proxy.mode: \"fast\" is not allowed; expected one of \"relay\"",
        ":5: locks.poll: \"5 parsecs\" is not allowed; expected a time from 1ms",
    ] {
        assert!(error.contains(told), "{told} in {error}");
    }
}

/// As in `pgsluice plan … | head`: not a reason to fail.
#[test]
fn a_reader_may_stop_early() {
    let mut command = pgsluice(&["plan", "-"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    child.stdin.take().unwrap().write_all("ALTER TABLE t ADD COLUMN c int;".repeat(500).as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// No new clients; idle sessions end at once, the others after their transaction.
#[test]
fn sigterm_drains() {
    let postgres = Postgres::start(Options::default()).unwrap();
    let backend = format!("{}:{}", postgres.host, postgres.port);
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut command = pgsluice(&["run", "--listen", &format!("127.0.0.1:{port}"), "--backend", &backend]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let listening = log.find(|line| line.contains("listening")).unwrap();
    assert!(!listening.contains('\u{1b}'), "colours are not for pipes: {listening}");
    let connect = || Client::connect(port, &postgres.user, "postgres");
    let (mut idle, mut busy) = (connect(), connect());
    busy.ok("BEGIN; CREATE TABLE kept (id int)");
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    let farewell = |client: &mut Client| {
        let last = client.try_read().unwrap();
        assert_eq!((last.tag, last.field(b'C').as_deref()), (b'E', Some("57P01")));
        assert_eq!(client.try_read(), None);
    };
    farewell(&mut idle);
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
    busy.ok("ALTER TABLE kept ADD COLUMN v int");
    busy.ok("COMMIT");
    farewell(&mut busy);
    assert!(child.wait().unwrap().success());
    assert!(log.any(|line| line.contains("stopped")));
    assert_eq!(Client::connect(postgres.port, &postgres.user, "postgres").value("SELECT count(v) FROM kept"), "0");
}

#[test]
fn without_a_backend_every_table_is_supposed_to_be_large() {
    let text = plan(&["-"], "CREATE INDEX ON orders (id);\nDROP INDEX IF EXISTS i;\nREINDEX INDEX i;");
    assert!(text.starts_with("-- The facts are unknown"), "{text}");
    for sql in [
        "CREATE INDEX CONCURRENTLY ON orders (id)",
        "DROP INDEX CONCURRENTLY IF EXISTS i",
        "REINDEX INDEX CONCURRENTLY i",
    ] {
        assert!(text.contains(&format!("run    {sql}\n")), "{sql} in {text}");
    }
    assert!(text.contains("-- line 3: REINDEX INDEX i"), "{text}");
}

/// What the README shows is what a reader gets.
#[test]
fn the_plan_of_the_readme_is_what_is_printed() {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let (_, shown) = readme.split_once("$ pgsluice plan migration.sql\n").unwrap();
    let shown = shown.lines().take_while(|line| line.is_empty() || line.starts_with("    "));
    let shown: Vec<&str> = shown.map(|line| line.strip_prefix("    ").unwrap_or_default()).collect();
    let migration = "ALTER TABLE orders ADD COLUMN note text;\n\nALTER TABLE orders ALTER note SET NOT NULL;\n";
    assert_eq!(plan(&["-"], migration).trim_end(), shown.join("\n").trim_end());
}

#[test]
fn a_table_of_the_same_text_is_empty() {
    let text = plan(&["-"], "CREATE TABLE t (id int); CREATE INDEX ON t (id)");
    assert!(text.contains("run    CREATE INDEX ON t (id)\n"), "{text}");
}

#[test]
fn json_is_one_list() {
    let json = plan(&["--format", "json", "-"], "ALTER TABLE t ADD COLUMN c int; SELECT 1");
    let list: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(list.as_array().unwrap().len(), 2);
    assert_eq!(list[0]["plan"]["phases"][0]["locks"][0]["mode"], "ACCESS EXCLUSIVE");
}

#[test]
fn with_a_backend_its_facts_decide() {
    let server = Postgres::start(Options::default()).unwrap();
    let sql = "CREATE TABLE small (id int, name varchar(10));
        CREATE TABLE large (id int, name varchar(10)); INSERT INTO large SELECT n, n FROM generate_series(1, 50000) n";
    assert!(server.command("psql").args(["-XAtqc", sql]).status().unwrap().success());
    let address = format!("127.0.0.1:{}", server.port);
    let ask = |sql: &str| plan(&["--backend", &address, "--user", &server.user, "-"], sql);

    let text = ask("CREATE INDEX ON small (id); CREATE INDEX ON large (id)");
    assert!(text.contains("run    CREATE INDEX ON small (id)\n"), "{text}");
    assert!(text.contains("run    CREATE INDEX CONCURRENTLY ON large (id)\n"), "{text}");

    // Only the server knows that the first writes nothing, and that the second writes the table anew.
    let text = ask("ALTER TABLE large ALTER COLUMN name TYPE varchar(20)");
    assert!(text.contains("phase 1  brief") && !text.contains("WARNING"), "{text}");
    let text = ask("ALTER TABLE large ALTER COLUMN id TYPE bigint");
    assert!(text.contains("WARNING"), "{text}");

    let text = ask("ALTER TABLE large ADD COLUMN IF NOT EXISTS id int");
    assert!(text.contains("nothing is to be done"), "{text}");

    let mut leftovers = server.command("psql");
    leftovers.args(["-XAtqc", "SELECT count(*) FROM pg_class WHERE relname ~ 'pgsluice'"]);
    assert_eq!(String::from_utf8(leftovers.output().unwrap().stdout).unwrap().trim(), "0");
}

/// A file of settings with these rules.
fn rules_file(name: &str, text: &str) -> String {
    let path = std::env::temp_dir().join(format!("pgsluice-cli-{name}-{}.toml", std::process::id()));
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

const RULES: &str = r#"[[window]]
name = "night"
hours = "22:00-06:00"
zone = "Europe/Berlin"

[[rule]]
name = "no drops"
match = { destructive = true }
verdict = "refuse"
hint = "Ask #dba."

[[rule]]
name = "robots"
match = { role = "ci" }
verdict = "guard"

[[rule]]
name = "builds"
match = { cost = "build", size_over = "1GB" }
verdict = "hold"
deadline = "2h"
approvers = 2
"#;

#[test]
fn check_config_shows_rules_and_windows() {
    let path = rules_file("check", RULES);
    let output = output_of(pgsluice(&["check-config", "--config", &path]), "");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let shown = String::from_utf8(output.stdout).unwrap();
    let expected = r#": no errors
rule 1   refuse "no drops"
         matches by destructive
rule 2   guard "robots"
         matches by role
rule 3   hold "builds"
         matches by cost, size_over
         with deadline = 2h
         with approvers = 2
         what no rule matches is allowed
         texts that cannot be parsed pass unasked, because unparsable is "relay"
         texts that are too large to be inspected pass unasked, because oversize is "relay"
window   "night": 22:00-06:00, every day, Europe/Berlin
"#;
    assert_eq!(shown, format!("{path}{expected}"));
    std::fs::write(&path, RULES.replace("hours", "hour")).unwrap();
    let error = failure(&["check-config", "--config", &path], "");
    assert!(error.contains(":3: window.hour: unknown key. Did you mean hours?"), "{error}");
    // The same error comes from `run`.
    std::fs::write(&path, RULES.replace("\"build\"", "\"built\"")).unwrap();
    for command in ["check-config", "run"] {
        let error = failure(&[command, "--config", &path], "");
        assert!(error.contains(":19: rule.match.cost: \"built\" is not a cost. Did you mean \"build\"?"), "{error}");
    }
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn plan_asks_the_rules_of_a_file() {
    let path = rules_file("plan", RULES);
    let text = "DROP TABLE t;\nCREATE INDEX ON t (a);\nSELECT 1;";
    let shown = plan(&["--config", &path, "-"], text);
    let refused =
        "-- line 1: DROP TABLE t\ngate     refuse, by rule \"no drops\"\n         it destroys data\ndirect   ";
    assert!(shown.contains(refused), "{shown}");
    // Who sends the text is not known, so the rule that lets it run does not count.
    assert!(shown.contains("gate     hold, by rule \"builds\"") && shown.contains("CONCURRENTLY"), "{shown}");
    assert!(shown.ends_with("-- line 3: SELECT 1\nrelayed as it is written\n\n"), "{shown}");
    let shown = plan(&["--config", &path, "--role", "ci", "-"], text);
    assert!(shown.contains("gate     guard, by rule \"robots\""), "{shown}");
    assert!(shown.contains("  run    CREATE INDEX ON t (a)\n\n-- line 3: SELECT 1\nrelayed"), "{shown}");
    let json = plan(&["--config", &path, "--format", "json", "-"], text);
    let all: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(all[0]["gate"]["verdict"], "refuse");
    assert_eq!((&all[1]["gate"]["rule"], &all[2]["gate"]), (&"builds".into(), &serde_json::Value::Null));
    std::fs::remove_file(&path).unwrap();
}
