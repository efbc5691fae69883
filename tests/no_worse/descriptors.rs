//! Tests at the limit of open files. No new client can be let in; a waiting client is let in when another leaves, and the
//! log is not filled.

use crate::common::program::Program;
use crate::common::{Client, postgres, wait_until};
use std::net::TcpStream;
use std::process::Command;

#[test]
fn who_waits_at_the_limit_comes_in_when_others_leave() {
    let postgres = postgres();
    let program = Program::prepared(&postgres, "workers = 1", "", |command| {
        let mut limited = Command::new("sh");
        limited.args(["-c", "ulimit -n 40; exec \"$0\" \"$@\""]).arg(command.get_program()).args(command.get_args());
        *command = limited;
    });
    let refused = || program.log().lines().filter(|line| line.contains("could not accept a client")).count();
    let mut sockets = Vec::new();
    wait_until("there are no descriptors left", || {
        sockets.push(TcpStream::connect(("127.0.0.1", program.port)).expect("the system takes it"));
        refused() > 0
    });
    // The kernel has taken it already; the program lets it in when it can.
    let waiting = std::thread::spawn({
        let (port, user) = (program.port, postgres.user.clone());
        move || Client::connect(port, &user, "postgres").value("SELECT 1")
    });
    drop(sockets);
    assert_eq!(waiting.join().expect("it is let in"), "1");
    assert_eq!(refused(), 1, "{}", program.log());
}
