//! Tests that the throw-away PostgreSQL starts, answers, and leaves nothing behind.

use pgsluice::dev::{Options, Postgres};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

#[test]
fn it_answers_and_leaves_nothing_behind() {
    let server = Postgres::start(Options::default().setting("work_mem", "7MB")).unwrap();
    let query = "select current_setting('server_version_num')::int / 10000, current_setting('work_mem')";
    let output = server.command("psql").args(["-XAtc", query]).output().unwrap();
    let answer = String::from_utf8(output.stdout).unwrap();
    assert_eq!(answer.trim(), format!("{}|7MB", server.version));
    let (pid, folder) = (server.pid, server.socket_dir.clone());
    drop(server);
    assert!(!folder.exists());
    assert!(!alive(pid));
}

/// Runs itself as a child that leaks a server, as a killed process does: the watchdog must clean up.
#[test]
fn it_ends_with_its_owner() {
    const VARIABLE: &str = "PGSLUICE_TEST_LEAK";
    if std::env::var_os(VARIABLE).is_some() {
        let server = Postgres::start(Options::default()).unwrap();
        println!("leaked: {} {}", server.pid, server.socket_dir.display());
        std::mem::forget(server);
        std::process::abort();
    }
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "it_ends_with_its_owner", "--nocapture"])
        .env(VARIABLE, "1")
        .output()
        .unwrap();
    let said = String::from_utf8(child.stdout).unwrap();
    let leaked = said.lines().find_map(|line| line.split_once("leaked: ")).unwrap().1;
    let (pid, folder) = leaked.split_once(' ').unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while alive(pid.parse().unwrap()) || Path::new(folder).exists() {
        assert!(Instant::now() < deadline, "the server outlives its owner");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn alive(pid: u32) -> bool {
    Command::new("kill").args(["-0", &pid.to_string()]).output().unwrap().status.success()
}
