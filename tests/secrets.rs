//! Tests that no secret is logged at any level: no password of any login, no message that carries one, no string of any
//! statement, no parameter, no data.

mod common;

use common::program::Program;
use common::raw::{
    bind, copy_data, copy_done, execute, frame, messages, parse, q, read_to_close, run, socket, startup, sync,
};
use common::{Client, new_database, wait_until};
use pgsluice::dev::{Options, Postgres};
use std::io::Write;

/// The start of every secret here; what follows tells where it was.
const SECRET: &str = "hunter2";

fn secret(place: &str) -> String {
    format!("{SECRET}_{place}")
}

const METHODS: [&str; 3] = ["password", "md5", "scram-sha-256"];

/// A server that asks a different thing of each role, each named for it.
fn strict() -> Postgres {
    let server = Postgres::start(Options::default()).expect("a throw-away server");
    let mut admin = Client::connect(server.port, &server.user, "postgres");
    let mut rules = String::new();
    for method in METHODS {
        let stored = if method == "md5" { "md5" } else { "scram-sha-256" };
        let role = method.replace('-', "_");
        admin.ok(&format!(
            "SET password_encryption = '{stored}'; CREATE ROLE {role} LOGIN PASSWORD '{}'",
            secret(&role)
        ));
        rules += &format!("host all {role} all {method}\n");
    }
    admin.ok(&format!("CREATE ROLE watcher SUPERUSER LOGIN PASSWORD '{}'", secret("operator")));
    rules += "host all watcher all scram-sha-256\n";
    let path = server.data_dir.join("pg_hba.conf");
    let old = std::fs::read_to_string(&path).expect("pg_hba.conf");
    std::fs::write(&path, rules + &old).expect("pg_hba.conf");
    admin.ok("SELECT pg_reload_conf()");
    server
}

/// A login with a password, right or wrong.
fn login(port: u16, role: &str, password: &str) -> Result<String, tokio_postgres::Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(port).user(role).password(password).dbname("postgres");
        let (client, connection) = config.connect(tokio_postgres::NoTls).await?;
        tokio::spawn(connection);
        let value = secret("parameter");
        let row = client.query_one("SELECT $1::text || current_user", &[&value]).await?;
        Ok(row.get(0))
    })
}

/// Statements with something in them that nobody should read in a log, each alone.
fn statements() -> Vec<String> {
    [
        "CREATE ROLE joe PASSWORD '@'",
        "ALTER ROLE joe PASSWORD '@'",
        "ALTER USER joe WITH ENCRYPTED PASSWORD E'@' VALID UNTIL 'infinity'",
        "ALTER ROLE joe SET search_path = '@'",
        "CREATE FOREIGN DATA WRAPPER w OPTIONS (token '@')",
        "CREATE SERVER s FOREIGN DATA WRAPPER w OPTIONS (key '@')",
        "ALTER SERVER s OPTIONS (SET key $$@$$)",
        "CREATE USER MAPPING FOR joe SERVER s OPTIONS (user 'joe', password '@')",
        "ALTER USER MAPPING FOR joe SERVER s OPTIONS (SET password U&'@')",
        "CREATE FOREIGN TABLE f (id int OPTIONS (secret '@')) SERVER s OPTIONS (password '@')",
        "ALTER FOREIGN TABLE f OPTIONS (SET password '@')",
        "DROP FOREIGN TABLE IF EXISTS f",
        "DROP USER MAPPING IF EXISTS FOR joe SERVER s",
        "CREATE SUBSCRIPTION sub CONNECTION 'host=nowhere password=@' PUBLICATION p WITH (connect = false)",
        "ALTER SUBSCRIPTION sub CONNECTION 'host=nowhere password=@'",
        "ALTER SUBSCRIPTION sub SET (slot_name = NONE)",
        "DROP SUBSCRIPTION IF EXISTS sub",
        "EXPLAIN ALTER ROLE joe PASSWORD '@'",
        "CREATE TABLE t (id int PRIMARY KEY, v text DEFAULT '@', CHECK (v <> '@'))",
        "INSERT INTO t VALUES (1, '@')",
        "ALTER TABLE t ADD COLUMN c text DEFAULT '@' /* @ */",
        "ALTER TABLE t ALTER COLUMN v TYPE text USING v || '@' -- @",
        "COMMENT ON TABLE t IS '@'",
        "CREATE INDEX ON t (v) WHERE v <> '@'",
        "CREATE TABLE copy AS SELECT '@' AS v",
        "CREATE VIEW view AS SELECT '@' AS v",
        "CREATE FUNCTION fun() RETURNS text LANGUAGE sql AS $body$ SELECT '@' $body$",
        "DO $$ BEGIN CREATE TABLE hidden AS SELECT '@'; END $$",
        "DO $$ BEGIN RAISE EXCEPTION 'alter @'; END $$",
        // The server's own words hold a row's value.
        "ALTER TABLE t ALTER COLUMN v DROP DEFAULT, ALTER COLUMN v TYPE int USING v::int",
        "ALTER TABLE t ADD COLUMN d int DEFAULT '@'",
        "CREATE TABLE no_grammar (id int DEFAULT '@') OF '@'",
        "SELECT '@'::int /* alter */",
        "DROP TABLE IF EXISTS t, copy CASCADE",
        "DROP ROLE joe",
    ]
    .iter()
    .enumerate()
    .map(|(n, text)| text.replace('@', &secret(&n.to_string())))
    .collect()
}

#[test]
fn nothing_secret_is_logged() {
    let server = strict();
    std::thread::scope(|scope| {
        for mode in ["observe", "plan"] {
            for format in ["text", "json"] {
                let server = &server;
                scope.spawn(move || whole_life(server, mode, format));
            }
        }
    });
}

fn whole_life(server: &Postgres, mode: &str, format: &str) {
    let operator = secret("operator");
    let settings = format!(
        "[log]\nlevel = \"trace\"\nformat = \"{format}\"\n[ddl]\nsmall_table = \"0B\"\n\
         [operator]\nuser = \"watcher\"\npassword = \"{operator}\"\ndbname = \"postgres\"\n"
    );
    let mut program = Program::with_proxy(server, &format!("mode = \"{mode}\""), &settings);
    for role in METHODS.map(|method| method.replace('-', "_")) {
        let greeting = login(program.port, &role, &secret(&role)).expect("a login");
        assert_eq!(greeting, secret("parameter") + &role);
        assert!(login(program.port, &role, &secret("wrong")).is_err());
    }
    odd_logins(&program);
    // One at a time: roles belong to the whole server.
    static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let turn = TURN.lock().unwrap();
    let mut failed = 0;
    for extended in [false, true] {
        let database = new_database(server, "secrets");
        let mut client = program.client(&server.user, &database);
        for text in statements() {
            let outcome = if extended { client.execute(&text) } else { client.query(&text) };
            failed += usize::from(outcome.error.is_some());
        }
    }
    assert!((6..=20).contains(&failed), "{failed} failed: some must, but most must not");
    drop(turn);
    data(&program, server);
    program.signal("USR1");
    program.signal("TERM");
    program.wait();
    let log = program.log();
    for wanted in ["ALTER FOREIGN TABLE", "CREATE INDEX", "'***'", "listening"] {
        assert!(log.contains(wanted), "{mode}, {format}: no {wanted} in:\n{log}");
    }
    assert!(mode == "observe" || log.contains("did not come to its end"), "{log}");
    // Passwords and data; and what SCRAM and md5 send in their place.
    for unwanted in [SECRET, "n,,n=", "c=biws", "SCRAM-SHA-256$", ",p="] {
        let line = log.lines().find(|line| line.contains(unwanted));
        assert_eq!(line, None, "{mode}, {format}: {unwanted} is in the log");
    }
}

/// Passwords where none belongs, and in what is no message.
fn odd_logins(program: &Program) {
    let hello = startup("scram_sha_256", "postgres");
    let late = [q("SELECT 1"), frame(b'p', format!("{}\0", secret("late")).as_bytes())].concat();
    for bytes in [
        [hello.clone(), frame(b'p', format!("{}\0", secret("no_sasl")).as_bytes())].concat(),
        [hello, vec![b'p', 0, 0, 0, 1], secret("no_frame").into_bytes()].concat(),
        [startup("postgres", "postgres"), late].concat(),
        // No startup packet at all.
        format!("postgresql://joe:{}@host/", secret("uri")).into_bytes(),
    ] {
        let mut stream = socket(program.port);
        stream.write_all(&bytes).expect("send");
        let words = messages(&read_to_close(&mut stream));
        assert!(words.iter().any(|word| word.tag == b'E'), "{words:?}");
    }
}

/// Rows, parameters, and frames whose length lies.
fn data(program: &Program, server: &Postgres) {
    let database = new_database(server, "data");
    let mut client = program.client(&server.user, &database);
    client.ok("CREATE TABLE t (v text, w text)");
    client.send(&[q("COPY t FROM STDIN"), copy_data(&format!("{0}\t{0}\n", secret("copy"))), copy_done()].concat());
    assert_eq!(client.outcome().tags, ["COPY 1"]);
    let value = secret("bound");
    let bound = [parse("", "INSERT INTO t VALUES ($1, $2)"), bind("", "", &[&value, &value]), execute("", 0), sync()];
    client.send(&bound.concat());
    assert_eq!(client.outcome().error, None);
    // Parameters amid DDL, and data that fail it.
    client.send(&[bound[..3].concat(), run("ALTER TABLE t ALTER COLUMN v TYPE int USING v::int"), sync()].concat());
    assert_eq!(client.outcome().error.as_deref(), Some("22P02"));
    assert_eq!(client.query("CREATE UNIQUE INDEX ON t ((1))").error.as_deref(), Some("23505"));
    client.ok("LISTEN here; SELECT * FROM t");
    client.ok(&format!("NOTIFY here, '{}'", secret("notified")));
    client.ok(&format!("SET application_name = '{}'", "harmless"));
    // A blocker whose query holds one, while somebody waits for it and is told.
    let mut blocker = Client::connect(server.port, &server.user, &database);
    blocker.ok(&format!("BEGIN; SELECT * FROM t WHERE v = '{}'", secret("blocker")));
    client.send_query("ALTER TABLE t ADD COLUMN x int");
    let mut watcher = Client::connect(server.port, &server.user, "postgres");
    let blocked =
        format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {} AND query LIKE '%waiting for%'", client.pid);
    if program.log().contains("would act on") {
        let queued =
            format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {} AND wait_event_type = 'Lock'", client.pid);
        wait_until("it waits in the server", || watcher.value(&queued) == "1");
    } else {
        wait_until("it waits in the proxy", || watcher.value(&blocked) == "1");
    }
    blocker.ok("COMMIT");
    assert_eq!(client.outcome().error, None);
    client.send(&[vec![b'B', 0, 0, 0, 2], secret("behind_a_bad_length").into_bytes()].concat());
    client.last_words();
}
