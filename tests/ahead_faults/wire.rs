//! A wire between a proxy and its server that stops at a chosen statement.
//!
//! [`Wire`] counts the statements that the proxy sends from a moment on (each Query and each Execute), and stops before one of them or behind it,
//! where the server has run it and the proxy does not know. The test then ends whom it likes, and lets the wire go on or cuts it. It keeps true:
//! while it stops, the server has run all statements before, and none behind.

use crate::common::wait_until;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

/// Where the wire stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// The server does not get the statement.
    Before,
    /// The server has run the statement, and the proxy does not get the answer.
    Behind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Course {
    Flows,
    Stops,
    /// Both ends find the wire closed. What was sent before arrives.
    Cut,
}

#[derive(Debug)]
struct State {
    /// The statements since the moment, or `None` if none are counted.
    seen: Option<Vec<String>>,
    stop: Option<(usize, Side)>,
    /// What the server sends, and what the proxy sends.
    down: Course,
    up: Course,
    /// The wire's own port on the server's side.
    far: u16,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) port: u16,
    shared: Arc<Shared>,
}

impl Wire {
    /// A wire to the server on this port of 127.0.0.1.
    pub(crate) fn to(server: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let port = listener.local_addr().expect("its port").port();
        let state = State { seen: None, stop: None, down: Course::Flows, up: Course::Flows, far: 0 };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let of_all = Arc::clone(&shared);
        std::thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&of_all);
                std::thread::spawn(move || {
                    let far = TcpStream::connect(("127.0.0.1", server));
                    // Whoever breaks off has ended, or the server has.
                    let _ = far.and_then(|far| carry(&shared, near, far));
                });
            }
        });
        Self { port, shared }
    }

    /// From now on the statements are counted, and the wire stops at this one, the first of which is 1.
    pub(crate) fn count(&self, stop: Option<(usize, Side)>) {
        let mut state = self.shared.lock();
        (state.seen, state.stop) = (Some(Vec::new()), stop);
    }

    /// The statements so far. No more are counted.
    pub(crate) fn counted(&self) -> Vec<String> {
        self.shared.lock().seen.take().unwrap_or_default()
    }

    /// Whether the wire has stopped, and the server has run all that it got. `pid`: the backend; `ask`: asks the server a value.
    pub(crate) fn has_stopped(&self, pid: i32, mut ask: impl FnMut(&str) -> String) -> bool {
        let (stopped, far) = {
            let state = self.shared.lock();
            (state.up == Course::Stops, state.far)
        };
        if stopped {
            wait_until("the server has read what it got", || unread(far) == 0);
            let waits =
                format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid} AND wait_event = 'ClientRead'");
            wait_until("the server has run what it got", || ask(&waits) == "1");
        }
        stopped
    }

    /// The wire goes on.
    pub(crate) fn go_on(&self) {
        self.shared.set(Course::Flows);
    }

    /// The wire is cut. The next connection is a new one.
    pub(crate) fn cut(&self) {
        self.shared.set(Course::Cut);
    }

    /// The wire is whole again.
    pub(crate) fn mend(&self) {
        let mut state = self.shared.lock();
        (state.seen, state.stop) = (None, None);
        (state.up, state.down) = (Course::Flows, Course::Flows);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic holds it")
    }

    fn set(&self, course: Course) {
        let mut state = self.lock();
        (state.up, state.down) = (course, course);
        // Nothing else is to stop it.
        state.stop = None;
        self.changed.notify_all();
    }

    /// Waits while this direction stops. `false`: it is cut.
    fn flows(&self, direction: impl Fn(&State) -> Course) -> bool {
        let mut state = self.lock();
        while direction(&state) == Course::Stops {
            state = self.changed.wait(state).expect("no panic holds it");
        }
        direction(&state) == Course::Flows
    }

    /// Counts a statement. Gives where to stop, if it is here.
    fn counts(&self, text: &str) -> Option<Side> {
        let mut state = self.lock();
        let seen = state.seen.as_mut()?;
        seen.push(text.to_owned());
        let (at, side) = state.stop?;
        let here = state.seen.as_ref().is_some_and(|seen| seen.len() == at);
        if !here {
            return None;
        }
        if side == Side::Behind {
            state.down = Course::Stops;
        } else {
            state.up = Course::Stops;
        }
        Some(side)
    }
}

/// The bytes that the peer of this port of ours has not read.
fn unread(port: u16) -> u64 {
    let text = std::fs::read_to_string("/proc/net/tcp").expect("the sockets");
    let peer = format!(":{port:04X}");
    let of_peer =
        text.lines().filter(|line| line.split_whitespace().nth(2).is_some_and(|remote| remote.ends_with(&peer)));
    let queues = of_peer.filter_map(|line| line.split_whitespace().nth(4)?.split_once(':'));
    queues.filter_map(|(_, unread)| u64::from_str_radix(unread, 16).ok()).sum()
}

/// Carries one connection, from its first packet on.
fn carry(shared: &Arc<Shared>, mut near: TcpStream, mut far: TcpStream) -> std::io::Result<()> {
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let mut head = [0; 8];
    near.read_exact(&mut head)?;
    let code = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
    let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
    let mut body = vec![0; length - 8];
    near.read_exact(&mut body)?;
    far.write_all(&[&head[..], &body].concat())?;
    let is_session = code == 196_608;
    if is_session {
        shared.lock().far = far.local_addr()?.port();
    }
    let (down_from, down_to, of_down) = (far.try_clone()?, near.try_clone()?, Arc::clone(shared));
    let down = std::thread::spawn(move || carry_down(&of_down, down_from, down_to, is_session));
    let _ = carry_up(shared, &mut near, &mut far, is_session);
    // The server reads what it got before it finds the end.
    let _ = far.shutdown(Shutdown::Write);
    let _ = down.join();
    Ok(())
}

fn carry_down(shared: &Shared, mut far: TcpStream, mut near: TcpStream, is_session: bool) {
    let mut part = [0; 65536];
    while let Ok(read @ 1..) = far.read(&mut part) {
        if is_session && !shared.flows(|state| state.down) {
            break;
        }
        if near.write_all(&part[..read]).is_err() {
            break;
        }
    }
    // What has not come yet is not waited for if the other end has gone.
    if is_session {
        shared.flows(|state| state.down);
    }
    let _ = near.shutdown(Shutdown::Both);
}

fn carry_up(shared: &Shared, near: &mut TcpStream, far: &mut TcpStream, is_session: bool) -> std::io::Result<()> {
    let mut text = String::new();
    loop {
        let frame = read_frame(near)?;
        match frame[0] {
            b'P' => text = words(frame[5..].split(|byte| *byte == 0).nth(1).unwrap_or_default()),
            b'Q' => text = words(frame[5..].split(|byte| *byte == 0).next().unwrap_or_default()),
            _ => {}
        }
        let stop = if is_session && matches!(frame[0], b'Q' | b'E') { shared.counts(&text) } else { None };
        if stop == Some(Side::Before) && !shared.flows(|state| state.up) {
            return Ok(());
        }
        far.write_all(&frame)?;
        if stop == Some(Side::Behind) {
            // Outside a transaction an Execute is final with its Sync. The rest of a batch stays here.
            let mut next = if frame[0] == b'E' { read_frame(near)? } else { Vec::new() };
            if next.first() == Some(&b'S') {
                far.write_all(&std::mem::take(&mut next))?;
            }
            shared.lock().up = Course::Stops;
            if !shared.flows(|state| state.up) {
                return Ok(());
            }
            far.write_all(&next)?;
        }
    }
}

fn read_frame(from: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut frame = vec![0; 5];
    from.read_exact(&mut frame)?;
    let length = u32::from_be_bytes([frame[1], frame[2], frame[3], frame[4]]) as usize;
    frame.resize(1 + length, 0);
    from.read_exact(&mut frame[5..])?;
    Ok(frame)
}

fn words(text: &[u8]) -> String {
    String::from_utf8_lossy(text).into_owned()
}
