//! Tests of monitoring: what is exported, what it says, who may ask, and that nobody who asks harms anybody.

mod common;

use common::program::Program;
use common::tls::FILES;
use common::{Client, new_database, no_table_is_small, port, postgres, proxy, wait_until};
use pgsluice::config::{Address, Config, Overrides};
use pgsluice::dev::Postgres;
use pgsluice::metrics::{Exporter, Metrics};
use pgsluice::server::Running;
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

/// One server for most; it ends with this process.
static SERVER: LazyLock<Postgres> = LazyLock::new(postgres);

const DASHBOARD: &str = include_str!("../docs/grafana.json");
const DESCRIPTION: &str = include_str!("../docs/metrics.md");

fn monitored(server: &Postgres, tweak: impl FnOnce(&mut Config)) -> Running {
    proxy(server, |config| {
        config.metrics.listen = Some(Address::tcp("127.0.0.1", 0));
        tweak(config);
    })
}

fn connect(running: &Running) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", running.monitored_at().unwrap().port())).unwrap();
    stream.set_read_timeout(Some(common::PATIENCE)).unwrap();
    stream
}

/// All that comes for these bytes, until the proxy closes the connection.
fn exchange(running: &Running, bytes: &[u8]) -> String {
    let mut stream = connect(running);
    // The proxy may have closed the connection while more of the bytes come.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// The status and the body of an answer.
fn get(running: &Running, path: &str) -> (u16, String) {
    let answer = exchange(running, format!("GET {path} HTTP/1.1\r\nHost: proxy\r\n\r\n").as_bytes());
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    (head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default(), body.to_owned())
}

/// The value of a series, which is written with its labels; 0 if it is not there.
fn value(running: &Running, series: &str) -> f64 {
    let (status, text) = get(running, "/metrics");
    assert_eq!(status, 200);
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ').map(str::to_owned));
    line.map_or(0.0, |value| value.parse().unwrap())
}

/// Everything that a proxy can export: each family has a series.
fn everything() -> String {
    let metrics = Arc::<Metrics>::default();
    metrics.measures.ddl("ADD COLUMN", "allow");
    Exporter::new(&metrics, "plan").text().unwrap()
}

/// The words of a text that begin with `pgsluice_`.
fn names(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("pgsluice_")).collect()
}

#[test]
fn the_dashboard_shows_what_is_exported_and_the_page_describes_it() {
    let text = everything();
    let series: BTreeSet<&str> =
        text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split(['{', ' ']).next()).collect();
    let unknown: Vec<_> = names(DASHBOARD).difference(&series).copied().collect();
    assert_eq!(unknown, [""; 0], "names in docs/grafana.json that are not exported");
    serde_json::from_str::<serde_json::Value>(DASHBOARD).unwrap();
    let of_histogram = |name: &str| {
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        family.filter(|family| text.contains(&format!("# TYPE {family} histogram"))).map(str::to_owned)
    };
    let family = |name: &str| of_histogram(name).unwrap_or_else(|| name.to_owned());
    let exported: BTreeSet<String> = series.iter().copied().map(family).collect();
    let described: BTreeSet<String> = names(DESCRIPTION).into_iter().map(family).collect();
    let missing: Vec<_> = exported.difference(&described).collect();
    assert_eq!(missing, [""; 0], "metrics that docs/metrics.md does not describe");
    let gone: Vec<_> = described.difference(&exported).collect();
    assert_eq!(gone, [""; 0], "metrics that docs/metrics.md describes and nobody exports");
    assert!(exported.len() > 40, "{exported:?}");
}

#[test]
fn the_text_is_prometheus_text() {
    let text = everything();
    for line in text.lines() {
        match line.strip_prefix("# ") {
            Some(comment) => {
                assert!(comment.starts_with("HELP pgsluice_") || comment.starts_with("TYPE pgsluice_"), "{line}");
            }
            None => assert!(line.rsplit_once(' ').is_some_and(|(_, value)| value.parse::<f64>().is_ok()), "{line}"),
        }
    }
    assert!(text.contains("pgsluice_build_info{version=\"") && text.contains("mode=\"plan\"} 1"), "{text}");
}

#[test]
fn what_happens_is_counted() {
    let running = monitored(&SERVER, no_table_is_small);
    let database = new_database(&SERVER, "counted");
    assert_eq!(value(&running, "pgsluice_sessions_open"), 0.0);
    let mut client = Client::connect(port(&running), &SERVER.user, &database);
    wait_until("the session is counted", || value(&running, "pgsluice_sessions_open") == 1.0);
    client.ok("CREATE TABLE secret_table (id int)");
    client.ok("INSERT INTO secret_table SELECT generate_series(1, 1000)");
    client.ok("ALTER TABLE secret_table ADD COLUMN a int, ADD COLUMN b int");
    client.ok("ALTER TABLE secret_table ADD COLUMN c uuid DEFAULT gen_random_uuid()");
    assert!(client.query("ALTER TABLE secret_table ADD COLUMN a int").error.is_some());
    let value = |series: &str| value(&running, series);
    assert_eq!(value("pgsluice_ddl_total{form=\"ADD COLUMN with a default\",verdict=\"allow\"}"), 1.0);
    assert_eq!(value("pgsluice_ddl_total{form=\"ADD COLUMN\",verdict=\"allow\"}"), 2.0);
    assert_eq!(value("pgsluice_change_seconds_count{outcome=\"completed\"}"), 2.0);
    assert_eq!(value("pgsluice_change_seconds_count{outcome=\"failed\"}"), 1.0);
    assert_eq!(value("pgsluice_ddl_seen_total"), 3.0);
    assert_eq!(value("pgsluice_backfill_rows_total"), 1000.0);
    assert!(value("pgsluice_lock_held_seconds_count{outcome=\"done\"}") >= 2.0);
    assert!(value("pgsluice_client_bytes_total") > 200.0);
    assert!(value("pgsluice_server_bytes_total") > 200.0);
    let before = value("pgsluice_client_bytes_total");
    client.ok(&format!("SELECT '{}'", "x".repeat(10_000)));
    assert!(value("pgsluice_client_bytes_total") >= before + 10_000.0);
    let (_, text) = get(&running, "/metrics");
    assert!(!text.contains("secret_table") && !text.contains(&database) && !text.contains("gen_random"), "{text}");
    drop(client);
    wait_until("the session is over", || value("pgsluice_sessions_open") == 0.0);
    running.stop();
}

/// A session of the console has no backend, and is no client of the application's.
#[test]
fn the_console_is_no_session_of_a_client() {
    let folder = std::env::temp_dir().join(format!("pgsluice-metrics-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let running = monitored(&SERVER, |config| {
        config.proxy.listen.push(Address::Unix { dir: folder.clone(), port: 6432 });
    });
    let database = new_database(&SERVER, "console");
    let client = Client::connect(port(&running), &SERVER.user, &database);
    wait_until("the session is counted", || value(&running, "pgsluice_sessions_open") == 1.0);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let shown = runtime.block_on(async {
        let mut config = tokio_postgres::Config::new();
        config.host_path(&folder).port(6432).user("ann").dbname("pgsluice");
        let (console, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        let rows = console.simple_query("SHOW SESSIONS").await.unwrap();
        let rows = rows.iter().filter(|row| matches!(row, tokio_postgres::SimpleQueryMessage::Row(_))).count();
        (rows, value(&running, "pgsluice_sessions_open"))
    });
    assert_eq!(shown, (2, 1.0), "the rows of SHOW SESSIONS, and the gauge");
    drop((client, runtime));
    wait_until("both are over", || running.shared().registry.session_count() == 0);
    assert_eq!(value(&running, "pgsluice_sessions_open"), 0.0);
    running.stop();
    let _ = std::fs::remove_dir_all(&folder);
}

#[test]
fn a_wait_and_a_verdict_are_measured() {
    let rules = "[[rule]]\nname = \"no drops\"\nmatch = { destructive = true }\nverdict = \"refuse\"\n";
    let rules = Config::parse(rules, Overrides::default()).unwrap().gate;
    let running = monitored(&SERVER, |config| config.gate = rules);
    let database = new_database(&SERVER, "measured");
    let mut client = Client::connect(port(&running), &SERVER.user, &database);
    client.ok("CREATE TABLE t (id int)");
    assert!(client.query("DROP TABLE t").error.is_some());
    assert_eq!(value(&running, "pgsluice_ddl_total{form=\"DROP TABLE\",verdict=\"refuse\"}"), 1.0);
    let mut reader = Client::connect(SERVER.port, &SERVER.user, &database);
    reader.ok("BEGIN; SELECT FROM t");
    client.send_query("ALTER TABLE t ADD COLUMN a int");
    wait_until("an attempt has failed", || value(&running, "pgsluice_lock_attempts_failed_total") >= 1.0);
    assert_eq!(value(&running, "pgsluice_changes_running"), 1.0);
    assert_eq!(
        value(&running, "pgsluice_lock_wait_seconds_bucket{le=\"0.02\"}"),
        value(&running, "pgsluice_lock_wait_seconds_count")
    );
    std::thread::sleep(Duration::from_millis(100));
    reader.ok("COMMIT");
    assert_eq!(client.outcome().error, None);
    assert!(value(&running, "pgsluice_lock_wait_seconds_sum") >= 0.1);
    assert!(value(&running, "pgsluice_lock_held_seconds_count{outcome=\"locked\"}") >= 1.0);
    assert_eq!(value(&running, "pgsluice_changes_running"), 0.0);
    running.stop();
}

#[test]
fn readiness_follows_the_server_and_the_drain() {
    let server = postgres();
    let running = monitored(&server, |_| {});
    assert_eq!(get(&running, "/livez").0, 200);
    assert_eq!(get(&running, "/readyz").0, 200);
    let database = new_database(&server, "ready");
    let mut client = Client::connect(port(&running), &server.user, &database);
    client.ok("BEGIN");
    let at = running.monitored_at().unwrap().port();
    let own = port(&running);
    let draining = std::thread::spawn(move || running.stop());
    let status = |path: &str| {
        let mut stream = TcpStream::connect(("127.0.0.1", at)).unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: proxy\r\n\r\n").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.split(' ').nth(1).unwrap_or_default().to_owned()
    };
    wait_until("the drain is seen", || status("/readyz") == "503");
    assert_eq!(status("/livez"), "200");
    wait_until("nobody listens for clients", || TcpStream::connect(("127.0.0.1", own)).is_err());
    assert_eq!(status("/livez"), "200");
    client.ok("COMMIT");
    draining.join().unwrap();
    assert!(TcpStream::connect(("127.0.0.1", at)).is_err(), "monitoring ends with the proxy");
    let running = monitored(&server, |_| {});
    assert_eq!(get(&running, "/readyz").0, 200);
    drop(server);
    wait_until("the lost server is seen", || get(&running, "/readyz").0 == 503);
    let (_, why) = get(&running, "/readyz");
    assert!(why.contains("does not accept connections"), "{why}");
    assert_eq!(get(&running, "/livez").0, 200);
    running.stop();
}

#[test]
fn without_an_address_nobody_listens() {
    let running = proxy(&SERVER, |_| {});
    assert_eq!(running.monitored_at(), None);
    running.stop();
}

#[test]
fn odd_requests_get_an_answer_or_an_end() {
    let running = monitored(&SERVER, |_| {});
    let status = |bytes: &[u8]| exchange(&running, bytes).split(' ').nth(1).unwrap_or_default().to_owned();
    assert_eq!(status(b"POST /metrics HTTP/1.1\r\nHost: p\r\nContent-Length: 3\r\n\r\nabc"), "405");
    assert_eq!(status(b"DELETE /livez HTTP/1.1\r\nHost: p\r\n\r\n"), "405");
    assert_eq!(status(b"GET /other HTTP/1.1\r\nHost: p\r\n\r\n"), "404");
    assert_eq!(status(b"GET / HTTP/1.0\r\n\r\n"), "404");
    assert_eq!(get(&running, "/metrics?name[]=x").0, 200);
    let head = exchange(&running, b"HEAD /metrics HTTP/1.1\r\nHost: p\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200") && head.ends_with("\r\n\r\n") && !head.contains("pgsluice_"), "{head}");
    let two = exchange(&running, b"GET /livez HTTP/1.1\r\nHost: p\r\n\r\nGET /livez HTTP/1.1\r\nHost: p\r\n\r\n");
    assert_eq!(two.matches("HTTP/1.1 200").count(), 1, "{two}");
    let long = format!("GET /livez HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
    assert!(!exchange(&running, long.as_bytes()).contains(" 200 "));
    let many = format!("GET /livez HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(3000));
    assert!(!exchange(&running, many.as_bytes()).contains(" 200 "));
    for junk in [&b"\0\0\0\x08\x04\xd2\x16\x2f"[..], b"\x16\x03\x01\x02\x00", b"\r\n\r\n\r\n\r\n", b"GET\r\n\r\n"] {
        let mut stream = connect(&running);
        stream.write_all(junk).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    }
    assert_eq!(get(&running, "/livez").0, 200);
    running.stop();
}

#[test]
fn who_says_nothing_keeps_nobody_from_anything() {
    let running = monitored(&SERVER, |_| {});
    let database = new_database(&SERVER, "slow");
    let begun = Instant::now();
    let silent: Vec<TcpStream> = (0..100).map(|_| connect(&running)).collect();
    let mut half = connect(&running);
    half.write_all(b"GET /metrics HTTP/1.1\r\nX: ").unwrap();
    // The relay has threads of its own.
    let mut client = Client::connect(port(&running), &SERVER.user, &database);
    assert_eq!(client.value("SELECT 1"), "1");
    assert!(begun.elapsed() < Duration::from_secs(4), "the silent are still there");
    assert_eq!(get(&running, "/livez").0, 200);
    let mut rest = Vec::new();
    let _ = half.read_to_end(&mut rest);
    assert!(begun.elapsed() < Duration::from_secs(25), "{:?}", begun.elapsed());
    drop(silent);
    running.stop();
}

/// The numbers tell which lines belong together.
#[test]
fn lines_of_the_log_have_the_numbers_of_session_and_change() {
    let program = Program::with(&SERVER, "[log]\nformat = \"json\"\n");
    let database = new_database(&SERVER, "numbers");
    let mut sessions = [(); 2].map(|()| program.client(&SERVER.user, &database));
    sessions[0].ok("CREATE TABLE t (id int)");
    sessions[0].ok("ALTER TABLE t ADD COLUMN a int");
    sessions[1].ok("ALTER TABLE t ADD COLUMN b int");
    assert!(sessions[1].query("ALTER TABLE t ADD COLUMN b int").error.is_some());
    let lines = || {
        let log = program.log();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let spans =
            lines.filter_map(|line| Some((line["span"]["session"].as_u64()?, line["span"]["change"].as_u64()?)));
        spans.collect::<Vec<_>>()
    };
    // The last one has two lines: its plan, and how it failed.
    wait_until("all is logged", || lines().len() >= 4);
    let lines = lines();
    assert_eq!(lines.iter().map(|line| line.1).collect::<BTreeSet<_>>(), BTreeSet::from([1, 2, 3]), "{lines:?}");
    assert_eq!(lines[1].0, lines[2].0, "{lines:?}");
    assert_ne!(lines[0].0, lines[1].0, "{lines:?}");
}

/// A statement that is suspended and goes on ahead of its transaction is one statement.
#[test]
fn a_change_ahead_of_its_transaction_counts_once() {
    let running = monitored(&SERVER, no_table_is_small);
    let database = new_database(&SERVER, "ahead");
    let mut client = Client::connect(port(&running), &SERVER.user, &database);
    client.ok("CREATE TABLE t (id int)");
    client.ok("CREATE TABLE other (id int)");
    client.ok("BEGIN");
    client.ok("INSERT INTO other SELECT 1");
    client.ok("CREATE INDEX ON t (id)");
    client.ok("COMMIT");
    let value = |series: &str| value(&running, series);
    assert_eq!(value("pgsluice_ddl_ahead_total"), 1.0);
    assert_eq!(value("pgsluice_blocks_replayed_total"), 1.0);
    assert_eq!(value("pgsluice_ddl_total{form=\"CREATE INDEX\",verdict=\"allow\"}"), 1.0);
    assert_eq!(value("pgsluice_change_seconds_count{outcome=\"completed\"}"), 1.0);
    assert_eq!(value("pgsluice_changes_running"), 0.0);
    running.stop();
}

#[test]
fn a_pause_of_a_backfill_is_counted_with_its_reason() {
    let running = monitored(&SERVER, |config| {
        no_table_is_small(config);
        config.backfill.condition = Some("false".to_owned());
    });
    let database = new_database(&SERVER, "paused");
    let mut client = Client::connect(port(&running), &SERVER.user, &database);
    client.ok("CREATE TABLE t (id int)");
    client.ok("INSERT INTO t SELECT generate_series(1, 1000)");
    client.send_query("ALTER TABLE t ADD COLUMN c uuid DEFAULT gen_random_uuid()");
    let pauses = || value(&running, "pgsluice_backfill_pauses_total{reason=\"condition\"}");
    wait_until("the backfill pauses", || pauses() > 0.0);
    client.cancel(port(&running));
    assert_eq!(client.outcome().error.as_deref(), Some("57014"));
    assert_eq!(pauses(), 1.0);
    assert_eq!(value(&running, "pgsluice_backfill_pauses_total{reason=\"lag\"}"), 0.0);
    running.stop();
}

#[test]
fn reloads_are_counted_as_they_end() {
    let folder = std::env::temp_dir().join(format!("pgsluice-reload-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let [certificate, key] = ["crt", "key"].map(|end| folder.join(format!("server.{end}")));
    std::fs::copy(FILES.crt("server"), &certificate).unwrap();
    std::fs::copy(FILES.key("server"), &key).unwrap();
    let at = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let settings = format!(
        "[metrics]\nlisten = \"{at}\"\n[listen.tls]\nmode = \"allow\"\ncertificate = \"{}\"\nkey = \"{}\"\n",
        certificate.display(),
        key.display()
    );
    let program = Program::with(&SERVER, &settings);
    let counted = |name: &str| {
        let mut stream = TcpStream::connect(at).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: p\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned)).unwrap()
    };
    program.signal("HUP");
    wait_until("the reload is counted", || counted("pgsluice_reloads_total") == "1");
    std::fs::write(&certificate, "no certificate").unwrap();
    program.signal("HUP");
    wait_until("the failed reload is counted", || counted("pgsluice_reloads_failed_total") == "1");
    assert_eq!(counted("pgsluice_reloads_total"), "1");
    drop(program);
    std::fs::remove_dir_all(folder).unwrap();
}
