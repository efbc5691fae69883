//! psql: its own commands, which ask the catalogs, and the forms of output.

use crate::{Proxy, succeeded};

#[test]
fn backslash_commands_are_answered() {
    let proxy = Proxy::alone();
    for command in
        [r"\d", r"\dt", r"\l", r"\du", r"\dn", r"\df", r"\dv", r"\di", r"\dx", r"\dp", r"\dT", r"\db", r"\des"]
    {
        let output = proxy.psql(&["-c", command]);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        // \d says itself that there is nothing.
        assert!(output.status.success() && !error.contains("ERROR"), "{command}: {error}");
    }
    let output = proxy.psql(&["-c", r"\conninfo"]);
    assert!(succeeded(&output).contains("database \"pgsluice\" as user \"ann\""));
    let output = proxy.psql(&["-c", r"\d orders"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("Did not find any relation named \"orders\""));
    assert!(succeeded(&proxy.psql(&["-c", r"\l"])).contains("(0 rows)"));
}

#[test]
fn tables_for_people() {
    let proxy = Proxy::alone();
    let shown = succeeded(&proxy.psql(&["-c", "SHOW STATS LIKE 'sessions%'"]));
    assert_eq!(
        shown,
        "       name       | value \n------------------+-------\n sessions         |     0\n sessions_refused |     0\n(2 rows)\n\n"
    );
    let several = succeeded(&proxy.psql(&["-Atc", "SELECT 1; BEGIN; SHOW search_path; COMMIT;;"]));
    assert_eq!(several, "1\nBEGIN\n\"$user\", public\nCOMMIT\n");
    let help = succeeded(&proxy.psql(&["-Atc", "show help"]));
    for command in ["SHOW SESSIONS", "KILL number", "SHUTDOWN", "SET section.key"] {
        assert!(help.contains(command), "{command} in\n{help}");
    }
}

#[test]
fn errors_say_what_to_do() {
    let proxy = Proxy::alone();
    for (command, expected) in [
        ("DROP TABLE orders", "ERROR:  the console does not run DROP"),
        ("SELECT * FROM orders", "ERROR:  relation \"orders\" does not exist"),
        ("SHOW nonsense", "ERROR:  unrecognized configuration parameter \"nonsense\""),
        ("SHOW NONSENSE LIKE 'x'", "ERROR:  the console has no view \"nonsense\""),
        ("KILL 123456", "ERROR:  session 123456 does not exist"),
    ] {
        let output = proxy.psql(&["-c", command]);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && error.contains(expected) && error.contains("HINT:"), "{command}: {error}");
    }
}

#[test]
fn ctl_says_the_same_from_a_shell() {
    let proxy = Proxy::alone();
    let ctl = |user: &str, password: &str, words: &[&str]| {
        let mut command = proxy.command(env!("CARGO_BIN_EXE_pgsluice"), user, password);
        command.args(["ctl", "--proxy", &format!("127.0.0.1:{}", proxy.port)]).args(words).output().expect("pgsluice")
    };
    let shown = succeeded(&ctl("vic", "viewer secret", &["show", "config", "like", "locks.poll"]));
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines.len(), 3, "{shown}");
    let cells = |line: &str| line.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    assert_eq!(cells(lines[0]), ["key", "value", "default", "source", "live"]);
    assert_eq!(cells(lines[2]), ["locks.poll", "50ms", "50ms", "default", "t"]);
    assert_eq!(succeeded(&ctl("ann", "admin secret", &["set", "locks.poll", "60ms", "reason", "it's a try"])), "");
    assert_eq!(proxy.admin().value("SHOW locks.poll"), "60ms");
    let output = ctl("vic", "viewer secret", &["drain"]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && error.contains("ERROR:  permission denied for DRAIN\nDETAIL:"), "{error}");
    let output = ctl("vic", "wrong", &["show", "state"]);
    assert!(!output.status.success());
    // Over the Unix socket no password is needed.
    let mut command = proxy.command(env!("CARGO_BIN_EXE_pgsluice"), "me", "");
    command.env_remove("PGPASSWORD");
    command.args(["ctl", "--proxy", &format!("unix:{}:6432", proxy.folder.display()), "show", "version"]);
    assert!(succeeded(&command.output().expect("pgsluice")).contains("pgsluice"));
    // The password file of libpq.
    let file = proxy.folder.join("pgpass");
    std::fs::write(&file, format!("127.0.0.1:{}:pgsluice:vic:viewer secret\n", proxy.port)).unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let mut command = proxy.command(env!("CARGO_BIN_EXE_pgsluice"), "vic", "");
    command.env_remove("PGPASSWORD").env("PGPASSFILE", &file);
    command.args(["ctl", "--proxy", &format!("127.0.0.1:{}", proxy.port), "show", "help"]);
    succeeded(&command.output().expect("pgsluice"));
}
