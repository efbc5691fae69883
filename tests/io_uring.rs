//! Tests on a system that forbids io_uring, as many containers do: the relay uses epoll, or the proxy says why it does not
//! start.
#![cfg(target_os = "linux")]
#![allow(unsafe_code, reason = "a process is forbidden a system call between fork and exec")]

mod common;

use common::postgres;
use common::program::Program;
use pgsluice::dev::Postgres;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::LazyLock;

static SERVER: LazyLock<Postgres> = LazyLock::new(postgres);

/// Answers `io_uring_setup` with EPERM, as container runtimes do.
fn forbid(command: &mut Command) {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const IS: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let line = |code, jt, k| libc::sock_filter { code, jt, jf: u8::from(jt == 0 && code == IS), k };
    let refused = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    let mut filter = [
        // The call's number stands at the start of what a filter sees.
        line(LOAD, 0, 0),
        line(IS, 0, libc::SYS_io_uring_setup as u32),
        line(RETURN, 0, refused),
        line(RETURN, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let install = move || {
        let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
        // SAFETY: `program` and what it points to live until the calls have returned.
        let done = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
                && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
        };
        if done { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    // SAFETY: it makes two system calls, and allocates nothing.
    unsafe { command.pre_exec(install) };
}

#[test]
fn the_relay_is_on_epoll_where_io_uring_is_forbidden() {
    let mut program = Program::prepared(&SERVER, "io = \"auto\"", "", forbid);
    let mut client = program.client(&SERVER.user, "postgres");
    assert_eq!(client.value("SELECT 1"), "1");
    client.ok("CREATE TABLE kept (id int)");
    client.goodbye();
    program.signal("TERM");
    assert!(program.wait().success());
    let log = program.log();
    let said = log.lines().filter(|line| line.contains("io_uring cannot be used, so the relay uses epoll")).count();
    assert_eq!(said, 1, "{log}");
}

#[test]
fn who_asks_for_io_uring_is_told_that_it_is_forbidden() {
    let folder = std::env::temp_dir().join(format!("pgsluice-forbidden-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("proxy.toml");
    let settings = format!("[proxy]\nlisten = [\"unix:{}\"]\nio = \"io_uring\"\n", folder.display());
    std::fs::write(&file, settings).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgsluice"));
    command.arg("run").arg("--config").arg(&file);
    forbid(&mut command);
    let output = command.output().unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("io_uring cannot be used: Operation not permitted"), "{said}");
    assert!(said.contains("io = \"auto\""), "{said}");
}
