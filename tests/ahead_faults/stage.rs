//! A database, a wire to its server that stops at a chosen statement, and proxies on both ends of it.

use crate::common::program::Program;
use crate::common::{
    Client, drop_database, new_database, no_table_is_small, port, proxy, signal, startup_packet, wait_until,
};
use crate::shapes::{Heard, NO_SHOP, SHOP, Shape};
use crate::state;
use crate::wire::{Side, Wire};
use pgsluice::dev::Postgres;
use pgsluice::server::Running;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

/// Whom a case ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Victim {
    /// `kill -9` of the proxy.
    Proxy,
    /// The backend ends, by `pg_terminate_backend()`.
    Backend,
    /// The backend is killed, so that the server ends all sessions and recovers.
    Server,
    /// The client's process dies.
    Closed,
    /// The client's machine dies.
    Reset,
}

/// What comes behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    /// The same migration, unless its version is in the table.
    Again,
    /// The same migration, through another proxy.
    AgainElsewhere,
    /// Another statement.
    Other,
    OtherElsewhere,
    /// Another statement, in a transaction.
    OtherInBlock,
}

impl Then {
    /// It comes through another proxy.
    fn is_elsewhere(self) -> bool {
        matches!(self, Self::AgainElsewhere | Self::OtherElsewhere)
    }

    fn is_again(self) -> bool {
        matches!(self, Self::Again | Self::AgainElsewhere)
    }
}

/// How often a case is tried whose statement does not come.
const TRIES: usize = 3;

/// How much of the proxy's log is told of a case that has failed.
const LAST_LINES: usize = 12;

/// How a case has failed.
enum Wrong {
    NeverCame,
    Is(String),
}

/// One disturbance.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case {
    pub(crate) at: usize,
    pub(crate) side: Side,
    pub(crate) victim: Victim,
    pub(crate) then: Then,
}

/// How a database is before a migration, behind it, and if something else has come.
pub(crate) struct States {
    before: Vec<String>,
    migrated: Vec<String>,
    other: Vec<String>,
    migrated_and_other: Vec<String>,
}

impl States {
    /// As a server without a proxy makes them.
    pub(crate) fn of(postgres: &Postgres, shape: &Shape) -> Self {
        let database = new_database(postgres, "faults_direct");
        let made = |queries: &[&str], migrates: bool| {
            let mut client = Client::connect(postgres.port, &postgres.user, &database);
            client.ok(SHOP);
            if migrates {
                assert!(shape.play(&mut client).to_its_end, "{}", shape.name);
            }
            queries.iter().for_each(|sql| drop(client.ok(sql)));
            drop(client);
            let lines = state_of(postgres, &database);
            Client::connect(postgres.port, &postgres.user, &database).ok(NO_SHOP);
            lines
        };
        let states = Self {
            before: made(&[], false),
            migrated: made(&[], true),
            other: made(&[shape.other], false),
            migrated_and_other: made(&[shape.other], shape.commits()),
        };
        drop_database(postgres, &database);
        states
    }
}

/// Everything in a database, but the numbers of its columns: one that was added and dropped again leaves its number.
fn state_of(postgres: &Postgres, database: &str) -> Vec<String> {
    let numbers = ["attnum=", "conkey=", "confkey=", "indkey=", "refobjsubid=", "adnum="];
    let is_number = |word: &&str| numbers.iter().any(|number| word.starts_with(number));
    let lines = state::of_catalogue(postgres, database);
    lines.iter().map(|line| line.split(' ').filter(|word| !is_number(word)).collect::<Vec<_>>().join(" ")).collect()
}

pub(crate) struct Stage<'p> {
    postgres: &'p Postgres,
    database: String,
    wire: Wire,
    /// The proxy in a process of its own, on the wire.
    program: Option<Program>,
    /// Another one, which knows nothing of what the first one has to do.
    elsewhere: Running,
    watcher: Client,
}

impl<'p> Stage<'p> {
    pub(crate) fn new(postgres: &'p Postgres) -> Self {
        Self {
            postgres,
            database: new_database(postgres, "faults"),
            wire: Wire::to(postgres.port),
            program: None,
            elsewhere: proxy(postgres, no_table_is_small),
            watcher: Client::connect(postgres.port, &postgres.user, "postgres"),
        }
    }

    fn client(&mut self) -> Client {
        let (user, database, backend) = (&self.postgres.user, &self.database, self.wire.port);
        let program = self.program.get_or_insert_with(|| {
            let program = Program::before(backend, "[ddl]\nsmall_table = \"0\"\n");
            // What it asks once is no step of a case.
            program.client(user, database).ok("EXPLAIN CREATE INDEX ON pg_class (oid)");
            program
        });
        program.client(user, database)
    }

    fn direct(&self) -> Client {
        Client::connect(self.postgres.port, &self.postgres.user, &self.database)
    }

    fn until_gone(&mut self, pid: i32) {
        let gone = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}");
        wait_until("the backend is gone", || self.watcher.value(&gone) == "0");
    }

    /// Waits until the server has recovered.
    fn until_up(&mut self) {
        let packet = startup_packet(&self.postgres.user, "postgres");
        let port = self.postgres.port;
        let is_up = || -> std::io::Result<bool> {
            let mut stream = TcpStream::connect(("127.0.0.1", port))?;
            stream.write_all(&packet)?;
            let mut tag = [0];
            stream.read_exact(&mut tag)?;
            Ok(tag == *b"R")
        };
        wait_until("the server is up again", || is_up().unwrap_or(false));
        self.watcher = Client::connect(port, &self.postgres.user, "postgres");
    }

    /// The first words of the statements of an undisturbed run, from the client's first one on.
    pub(crate) fn steps(&mut self, shape: &Shape) -> Vec<String> {
        self.direct().ok(SHOP);
        let mut client = self.client();
        self.wire.count(None);
        let heard = shape.play(&mut client);
        assert!(heard.to_its_end, "{}: {heard:?}", shape.name);
        // Oids differ from run to run.
        let words = |sql: &String| sql.chars().filter(|c| !c.is_ascii_digit()).take(70).collect::<String>();
        let steps = self.wire.counted().iter().map(|sql| words(sql).replace('\n', " ")).collect();
        let pid = client.pid;
        client.goodbye();
        self.until_gone(pid);
        self.direct().ok(NO_SHOP);
        steps
    }

    /// Plays one case. Gives what is wrong, if anything is.
    pub(crate) fn play(&mut self, shape: &Shape, states: &States, case: Case) -> Result<(), String> {
        // On a loaded machine the proxy may look once more, or once less.
        for _ in 0..TRIES {
            match self.play_once(shape, states, case) {
                Err(Wrong::NeverCame) => {}
                Err(Wrong::Is(what)) => return Err(what),
                Ok(()) => return Ok(()),
            }
        }
        Err("the statement never came".to_owned())
    }

    fn play_once(&mut self, shape: &Shape, states: &States, case: Case) -> Result<(), Wrong> {
        self.direct().ok(SHOP);
        let client = self.client();
        let pid = client.pid;
        self.wire.count(Some((case.at, case.side)));
        let heard = self.disturb(shape, client, case);
        self.until_gone(pid);
        self.wire.mend();
        let Some(heard) = heard else {
            self.direct().ok(NO_SHOP);
            return Err(Wrong::NeverCame);
        };
        let committed = self.direct().value("SELECT count(*) FROM schema_migrations WHERE version = '2'") == "1";
        let result = self.look_behind(shape, states, case, &heard, committed);
        // The next case begins anew, whatever this one has left.
        self.direct().ok(NO_SHOP);
        result.map_err(|what| {
            let log = self.program.as_ref().map(Program::log).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(LAST_LINES)..];
            Wrong::Is(format!("{what}\nthe client was told {:?}\n{}", heard.words, last.join("\n")))
        })
    }

    /// Ends the victim where the wire has stopped. The wire then goes on. `None`: the statement never came.
    fn disturb(&mut self, shape: &Shape, client: Client, case: Case) -> Option<Heard> {
        let (shape, pid) = (*shape, client.pid);
        let ear = client.stream.try_clone().expect("a second handle");
        let playing = std::thread::spawn(move || {
            let mut client = client;
            (shape.play(&mut client), client)
        });
        let watcher = &mut self.watcher;
        let mut over = false;
        wait_until("the wire stops", || {
            over = playing.is_finished();
            over || self.wire.has_stopped(pid, |sql| watcher.value(sql))
        });
        if over {
            playing.join().expect("the client").1.goodbye();
            return None;
        }
        match case.victim {
            Victim::Proxy => {
                self.program.take().expect("a program").kill();
                self.wire.cut();
            }
            Victim::Backend => {
                let end = format!("SELECT pg_terminate_backend({pid})");
                self.watcher.ok(&end);
                self.until_gone(pid);
                if case.side == Side::Behind { self.wire.cut() } else { self.wire.go_on() }
            }
            Victim::Server => {
                signal(pid.unsigned_abs(), "KILL");
                // It ends all sessions before it recovers.
                while self.watcher.try_read().is_some() {}
                self.until_up();
                if case.side == Side::Behind { self.wire.cut() } else { self.wire.go_on() }
            }
            Victim::Closed | Victim::Reset => {
                ear.shutdown(Shutdown::Read).expect("an open socket");
                drop(ear);
                let (heard, client) = playing.join().expect("the client");
                if case.victim == Victim::Closed {
                    drop(client);
                } else {
                    client.reset();
                }
                self.wire.go_on();
                return Some(heard);
            }
        }
        drop(ear);
        Some(playing.join().expect("the client").0)
    }

    fn look_behind(
        &mut self,
        shape: &Shape,
        states: &States,
        case: Case,
        heard: &Heard,
        committed: bool,
    ) -> Result<(), String> {
        if heard.to_its_end && shape.commits() && !committed {
            return Err("the client was told of a COMMIT that is lost".to_owned());
        }
        if committed && !shape.commits() {
            return Err("what was rolled back is there".to_owned());
        }
        if matches!(case.victim, Victim::Closed | Victim::Reset) {
            // The proxy has seen to it at once.
            let expected = if committed { &states.migrated } else { &states.before };
            self.same(expected, "the client is gone")?;
        } else if committed {
            self.same(&states.migrated, "it is committed")?;
        }
        let mut client = if case.then.is_elsewhere() {
            Client::connect(port(&self.elsewhere), &self.postgres.user, &self.database)
        } else {
            self.client()
        };
        let pid = client.pid;
        let (expected, what) = if case.then.is_again() && !committed {
            let again = shape.play(&mut client);
            if !again.to_its_end {
                client.goodbye();
                self.until_gone(pid);
                return Err(format!("run again, it was told {:?}", again.words));
            }
            (if shape.commits() { &states.migrated } else { &states.before }, "run again")
        } else {
            let in_block = ["BEGIN", shape.other, "COMMIT"];
            let queries = if case.then == Then::OtherInBlock { &in_block[..] } else { &in_block[1..2] };
            let outcomes: Vec<_> = queries.iter().map(|sql| client.query(sql)).collect();
            if let Some(outcome) = outcomes.iter().find(|outcome| outcome.error.is_some()) {
                return Err(format!("another statement was told {outcome:?}"));
            }
            (if committed { &states.migrated_and_other } else { &states.other }, "another statement")
        };
        client.goodbye();
        self.until_gone(pid);
        self.same(expected, what)
    }

    /// Compares the database with what it should be, and looks for locks.
    fn same(&mut self, expected: &[String], what: &str) -> Result<(), String> {
        let now = state_of(self.postgres, &self.database);
        let only = |one: &[String], other: &[String], whose: &str| {
            let lines = one.iter().filter(|line| !other.contains(line));
            lines.map(|line| format!("  {whose}: {line}")).collect::<Vec<_>>()
        };
        let differs = [only(expected, &now, "missing"), only(&now, expected, "left over")].concat();
        if !differs.is_empty() {
            return Err(format!("{what}:\n{}", differs.join("\n")));
        }
        let held = "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database AND d.datname = ";
        let held = format!("{held}'{}' WHERE l.locktype = 'advisory'", self.database);
        wait_until("no advisory lock is held", || self.watcher.value(&held) == "0");
        Ok(())
    }

    pub(crate) fn end(self) {
        drop(self.program);
        self.elsewhere.stop_now();
        drop_database(self.postgres, &self.database);
    }
}
