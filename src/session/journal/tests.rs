//! Conversations as drivers have them, and the messages that the journal tells of them.
//!
//! A [`Session`] here is an interceptor and a log of answers, which see what the relay would show them.

use super::*;
use crate::config::Config;
use crate::relay::{FrameAction, Inspect};
use crate::session::interceptor::Interceptor;
use crate::session::shared::Shared;
use crate::wire::owed::Owed;
use std::sync::Arc;

struct Session {
    interceptor: Interceptor,
    owed: Owed,
    log: Option<AnswerLog>,
    status: u8,
    executes: u32,
}

impl Session {
    fn with_limit(limit: usize) -> Self {
        let mut config = Config::default();
        config.ddl.journal_limit = limit;
        let shared = Arc::new(Shared::new(config).unwrap());
        let interceptor = Interceptor::new(&shared, false);
        Self { interceptor, owed: Owed::default(), log: None, status: b'I', executes: 0 }
    }

    fn new() -> Self {
        Self::with_limit(1 << 20)
    }

    /// The client sends a frame, which passes.
    fn sends(&mut self, tag: u8, body: &[u8]) -> &mut Self {
        match self.interceptor.action_for(tag) {
            FrameAction::Pass => {}
            FrameAction::Stop => panic!("stopped"),
            FrameAction::Open if body.len() > self.interceptor.limit(tag) as usize => {
                assert!(!self.interceptor.oversize(tag, body.len() as u32));
            }
            FrameAction::Open => {
                if self.log.as_ref().is_some_and(log_is_over) && self.owed.owed() == 0 && !self.owed.unsynced() {
                    self.interceptor.block_has_ended();
                    self.log = None;
                }
                if self.interceptor.stops_at(tag, body) {
                    self.interceptor.passes(tag, Some(body));
                }
                let limit = self.interceptor.answers_limit();
                if (limit > 0) != self.log.is_some() {
                    let certain = self.executes == 0 && (self.owed.owed() > 0 || self.status == b'I');
                    self.log = (limit > 0).then(|| AnswerLog::new(limit, self.owed.owed(), certain));
                }
            }
        }
        self.owed.sent(tag);
        self.executes = if matches!(tag, b'Q' | b'S') { 0 } else { self.executes + u32::from(tag == b'E') };
        self
    }

    fn query(&mut self, sql: &str) -> &mut Self {
        self.sends(b'Q', &[sql.as_bytes(), b"\0"].concat())
    }

    fn parse(&mut self, name: &str, sql: &str) -> &mut Self {
        self.sends(b'P', &[name.as_bytes(), b"\0", sql.as_bytes(), b"\0\0\0"].concat())
    }

    fn bind(&mut self, statement: &str) -> &mut Self {
        self.sends(b'B', &[b"\0", statement.as_bytes(), b"\0\0\0\0\0\0\0"].concat())
    }

    fn execute(&mut self) -> &mut Self {
        self.sends(b'E', &[0; 5])
    }

    fn sync(&mut self) -> &mut Self {
        self.sends(b'S', b"")
    }

    /// Parse, Bind, Describe and Execute of the unnamed statement.
    fn unnamed(&mut self, sql: &str) -> &mut Self {
        self.parse("", sql).bind("").sends(b'D', b"P\0").execute()
    }

    /// The server sends messages: `Z` and a status, a tag of a command, or the type of another message.
    fn gets(&mut self, answers: &[&str]) -> &mut Self {
        for answer in answers {
            let (tag, body) = match *answer {
                "ZI" | "ZT" | "ZE" => (b'Z', answer.as_bytes()[1..].to_vec()),
                "E" | "s" | "G" | "V" | "1" | "2" | "n" | "t" | "T" | "D" => (answer.as_bytes()[0], Vec::new()),
                command => (b'C', [command.as_bytes(), b"\0"].concat()),
            };
            if tag == b'Z' {
                self.status = body[0];
            }
            self.log.iter_mut().for_each(|log| log.observe(tag, &body));
            self.owed.received(tag);
        }
        self
    }

    fn keeper(&mut self) -> &mut JournalKeeper {
        self.interceptor.block_mut().keeper_mut()
    }

    fn told(&self) -> Result<Vec<Message>, Incomplete> {
        self.interceptor.block().journal().unwrap().messages(self.log.as_ref().unwrap())
    }

    /// The messages in short.
    fn messages(&self) -> Result<Vec<String>, Incomplete> {
        let words = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let short = |message: Message| match message {
            Message::Query { text, tags, .. } => {
                format!("{} -> {}", words(&text), tags.iter().map(|tag| words(tag)).collect::<Vec<_>>().join(", "))
            }
            Message::Execute { statement, text: Some(text), tag, .. } => {
                format!("{}: {} -> {}", words(&statement), words(&text), words(&tag))
            }
            Message::Execute { statement, text: None, tag, .. } => format!("{} -> {}", words(&statement), words(&tag)),
            Message::Acted { statement, tag, .. } => format!("acted {} -> {}", statement.text, words(&tag)),
        };
        Ok(self.told()?.into_iter().map(short).collect())
    }

    #[track_caller]
    fn tells(&self, expected: &[&str]) {
        assert_eq!(self.messages().unwrap(), expected);
    }
}

fn log_is_over(log: &AnswerLog) -> bool {
    matches!(log.answers().err(), Some(crate::relay::LogGap::BlockEnded))
}

fn begun() -> Session {
    let mut session = Session::new();
    session.query("BEGIN").gets(&["BEGIN", "ZT"]);
    session
}

#[test]
fn outside_a_block_nothing_is_kept() {
    let mut session = Session::new();
    session.query("SELECT 1").unnamed("SELECT 2").sync();
    assert!(session.interceptor.block().journal().is_none());
    assert!(!session.keeper().sees_extended());
    session.query("BEGIN").gets(&["SELECT 1", "ZI", "SELECT 1", "ZI", "BEGIN", "ZT"]);
    assert!(session.keeper().sees_extended());
    session.query("COMMIT").gets(&["COMMIT", "ZI"]);
    assert!(session.interceptor.block().journal().is_none() && session.log.is_none());
    assert_eq!(session.interceptor.action_for(b'B'), FrameAction::Pass);
}

#[test]
fn without_a_limit_there_is_no_journal() {
    let mut session = Session::with_limit(0);
    session.query("BEGIN").gets(&["BEGIN", "ZT"]).parse("s", "COMMIT").bind("s").execute().sync();
    assert!(session.interceptor.block().journal().is_none() && !session.keeper().sees_extended());
}

/// node-pg, Rails, psycopg2: Query for what has no parameters, and the extended protocol for what has.
#[test]
fn simple_and_extended_mixed() {
    let mut session = begun();
    session.query("INSERT INTO t VALUES (1); UPDATE t SET a = 2").gets(&["INSERT 0 1", "UPDATE 3", "ZT"]);
    session.unnamed("SELECT $1").sync().gets(&["1", "2", "T", "D", "SELECT 1", "ZT"]);
    session.query("").gets(&["", "ZT"]);
    session.tells(&[
        "BEGIN -> BEGIN",
        "INSERT INTO t VALUES (1); UPDATE t SET a = 2 -> INSERT 0 1, UPDATE 3",
        ": SELECT $1 -> SELECT 1",
        " -> ",
    ]);
}

/// asyncpg and sqlx: BEGIN by Query; statements are prepared under a name under one Sync (or Flush), and run under another.
#[test]
fn named_statements() {
    let mut session = Session::new();
    session.parse("old", "INSERT INTO t VALUES ($1)").sync().gets(&["1", "ZI"]);
    session.query("BEGIN ISOLATION LEVEL READ COMMITTED;").gets(&["BEGIN", "ZT"]);
    session.parse("s1", "UPDATE t SET a = $1").sends(b'D', b"Ss1\0").sync().gets(&["1", "t", "n", "ZT"]);
    session.sends(b'B', b"\0s1\0\0\x01\0\x01\0\x01\0\0\0\x01x\0\0").execute().sync().gets(&["2", "UPDATE 1", "ZT"]);
    session.bind("old").execute().sync().gets(&["2", "INSERT 0 1", "ZT"]);
    session.tells(&[
        "BEGIN ISOLATION LEVEL READ COMMITTED; -> BEGIN",
        "s1: UPDATE t SET a = $1 -> UPDATE 1",
        "old -> INSERT 0 1",
    ]);
    let Message::Execute { parameters, types, .. } = &session.told().unwrap()[1] else { panic!() };
    assert_eq!((&types[..], &parameters[..]), (&b"\0\0"[..], &b"\0\x01\0\x01\0\x01\0\0\0\x01x"[..]));
}

/// pgjdbc: BEGIN by Parse, Bind and Execute in one pipeline with the statement behind it; later from a prepared statement.
#[test]
fn a_begin_of_the_extended_protocol() {
    let mut session = Session::new();
    session.parse("", "BEGIN READ WRITE").bind("").execute().unnamed("INSERT INTO t VALUES (1)").sync();
    session.gets(&["1", "2", "BEGIN", "1", "2", "n", "INSERT 0 1", "ZT"]);
    session.tells(&[": BEGIN READ WRITE -> BEGIN", ": INSERT INTO t VALUES (1) -> INSERT 0 1"]);
    session.unnamed("COMMIT").sync().gets(&["1", "2", "n", "COMMIT", "ZI"]);
    assert!(session.interceptor.block().journal().is_none());

    session.parse("S_1", "BEGIN").bind("S_1").execute().parse("S_2", "UPDATE t SET a = 1").bind("S_2").execute().sync();
    session.gets(&["1", "2", "BEGIN", "1", "2", "UPDATE 1", "ZT"]).parse("S_3", "COMMIT").bind("S_3").execute().sync();
    session.gets(&["1", "2", "COMMIT", "ZI"]);
    assert!(session.interceptor.block().journal().is_none());
    for _ in 0..2 {
        session.bind("S_1").execute().bind("S_2").execute().sync().gets(&["2", "BEGIN", "2", "UPDATE 1", "ZT"]);
        session.tells(&["S_1: BEGIN -> BEGIN", "S_2 -> UPDATE 1"]);
        session.bind("S_3").execute().sync().gets(&["2", "COMMIT", "ZI"]);
        assert!(session.interceptor.block().journal().is_none());
    }
    // What shows a BEGIN is freed with the last such statement.
    let mut plain = Session::new();
    plain.unnamed("BEGIN").unnamed("SELECT 1").sync().gets(&["BEGIN", "SELECT 1", "ZT"]).query("ROLLBACK");
    assert!(!plain.keeper().sees_extended());
    // The name means another statement now.
    session.sends(b'C', b"SS_1\0").parse("S_1", "SELECT 1").bind("S_1").execute().sync();
    assert!(session.interceptor.block().journal().is_none());
}

/// psycopg 3 and libpq in pipeline mode, and Npgsql, which sends BEGIN right before the first statement.
#[test]
fn pipelines() {
    let mut session = Session::new();
    session.unnamed("BEGIN").unnamed("INSERT INTO t VALUES (1)").unnamed("INSERT INTO t VALUES (2)").sync();
    session.gets(&["BEGIN", "INSERT 0 1"]);
    assert_eq!(session.messages(), Err(Incomplete::Mismatch), "an answer is still to come");
    session.gets(&["INSERT 0 1", "ZT"]);
    session.tells(&[
        ": BEGIN -> BEGIN",
        ": INSERT INTO t VALUES (1) -> INSERT 0 1",
        ": INSERT INTO t VALUES (2) -> INSERT 0 1",
    ]);

    let mut session = Session::new();
    session.query("SELECT 1").query("BEGIN").unnamed("UPDATE t SET a = 1").sync();
    session.gets(&["SELECT 1", "ZI", "BEGIN", "ZT", "1", "2", "n", "UPDATE 1", "ZT"]);
    session.tells(&["BEGIN -> BEGIN", ": UPDATE t SET a = 1 -> UPDATE 1"]);
    // The end of one block and the beginning of the next are sent together.
    session.query("COMMIT").query("BEGIN").query("SELECT 2").gets(&["COMMIT", "ZI", "BEGIN", "ZT", "SELECT 1", "ZT"]);
    session.tells(&["BEGIN -> BEGIN", "SELECT 2 -> SELECT 1"]);
}

#[test]
fn savepoints_are_messages() {
    let mut session = begun();
    session.query("SAVEPOINT a").gets(&["SAVEPOINT", "ZT"]).query("ROLLBACK TO a").gets(&["ROLLBACK", "ZT"]);
    session.unnamed("ROLLBACK TO SAVEPOINT a").sync().gets(&["ROLLBACK", "ZT"]);
    session.query("RELEASE a").gets(&["RELEASE", "ZT"]);
    session.tells(&[
        "BEGIN -> BEGIN",
        "SAVEPOINT a -> SAVEPOINT",
        "ROLLBACK TO a -> ROLLBACK",
        ": ROLLBACK TO SAVEPOINT a -> ROLLBACK",
        "RELEASE a -> RELEASE",
    ]);
}

#[test]
fn what_the_proxy_ran() {
    let mut session = begun();
    let statement = crate::sql::parse("CREATE TABLE t ()").unwrap().remove(0);
    session.keeper().journal_mut().unwrap().acted(&statement, b"CREATE TABLE");
    session.keeper().passes_query(b"INSERT INTO t DEFAULT VALUES");
    session.gets(&["INSERT 0 1", "ZT"]);
    session.tells(&[
        "BEGIN -> BEGIN",
        "acted CREATE TABLE t () -> CREATE TABLE",
        "INSERT INTO t DEFAULT VALUES -> INSERT 0 1",
    ]);
}

#[test]
fn what_was_answered_and_not_noted_makes_it_incomplete() {
    let mut session = begun();
    let before = session.keeper().length();
    let statement = crate::sql::parse("CREATE TABLE t ()").unwrap().remove(0);
    session.keeper().journal_mut().unwrap().acted(&statement, b"CREATE TABLE");
    session.keeper().handled(b'Q', before, false);
    assert!(session.messages().is_ok());
    let before = session.keeper().length();
    session.keeper().handled(b'Q', before, false);
    assert_eq!(session.messages(), Err(Incomplete::NotUnderstood));
    let mut session = begun();
    session.keeper().handled(b'Q', 0, true);
    assert_eq!(session.messages(), Err(Incomplete::Failed));
}

#[test]
fn reasons_of_an_incomplete_journal() {
    type Part = fn(&mut Session) -> &mut Session;
    let cases: [(Part, Incomplete); 13] = [
        (|s| s.query("SELECT 1/0").gets(&["E", "ZE"]), Incomplete::Failed),
        (|s| s.unnamed("SELECT 1").sync().gets(&["s", "ZT"]), Incomplete::Suspended),
        (|s| s.query("COPY t FROM STDIN").gets(&["G", "COPY 0", "ZT"]), Incomplete::Copy),
        (|s| s.sends(b'F', b"").gets(&["V", "ZT"]), Incomplete::FunctionCall),
        (|s| s.query("COMMIT AND CHAIN").gets(&["COMMIT", "ZT"]), Incomplete::Chained),
        (|s| s.query("SELECT 1; COMMIT; BEGIN").gets(&["SELECT 1", "COMMIT", "BEGIN", "ZT"]), Incomplete::Chained),
        (|s| s.query("ROLLBACK; BEGIN").gets(&["ROLLBACK", "BEGIN", "ZT"]), Incomplete::Chained),
        (|s| s.query("BEGIN").gets(&["BEGIN", "ZT"]), Incomplete::Chained),
        (|s| s.query("SELECT 1; COMMIT").query("BEGIN").gets(&["COMMIT", "ZI", "BEGIN", "ZT"]), Incomplete::Chained),
        (|s| s.bind("").execute().sync().gets(&["2", "UPDATE 1", "ZT"]), Incomplete::NotUnderstood),
        (
            |s| s.parse("", "SELECT 1").bind("").execute().execute().gets(&["SELECT 1", "SELECT 0"]),
            Incomplete::NotUnderstood,
        ),
        (|s| s.sends(b'Q', b"SELECT 1").gets(&["ZT"]), Incomplete::NotUnderstood),
        (|s| s.gets(&["SELECT 1"]), Incomplete::Mismatch),
    ];
    for (at, (part, expected)) in cases.into_iter().enumerate() {
        let mut session = begun();
        part(&mut session);
        assert_eq!(session.messages(), Err(expected), "case {at}");
        // An incomplete journal keeps nothing, and it ends with the block.
        session.query("ROLLBACK");
        assert!(session.interceptor.block().journal().is_none(), "case {at}");
    }
}

#[test]
fn a_begin_in_an_unknown_state_is_uncertain() {
    let mut session = Session::new();
    session.status = b'T';
    session.query("BEGIN").gets(&["BEGIN", "ZT"]);
    assert_eq!(session.messages(), Err(Incomplete::BeginUncertain));
    let mut session = Session::new();
    session.query("SELECT 1; BEGIN").query("BEGIN").gets(&["SELECT 1", "BEGIN", "ZT", "BEGIN", "ZT"]);
    assert_eq!(session.messages(), Err(Incomplete::BeginUncertain));
    // An earlier statement of the pipeline is in the same transaction.
    let mut session = Session::new();
    session.unnamed("INSERT INTO t VALUES (1)").unnamed("BEGIN").sync().gets(&["INSERT 0 1", "BEGIN", "ZT"]);
    assert_eq!(session.messages(), Err(Incomplete::BeginUncertain));
}

#[test]
fn a_block_that_ended_unseen_is_dropped() {
    let mut session = begun();
    session.query("UPDATE t SET a = 1; COMMIT").gets(&["UPDATE 1", "COMMIT", "ZI"]);
    session.query("SELECT 1").gets(&["SELECT 1", "ZI"]);
    assert!(session.interceptor.block().journal().is_none() && session.log.is_none());
    session.query("BEGIN").gets(&["BEGIN", "ZT"]);
    session.tells(&["BEGIN -> BEGIN"]);
}

#[test]
fn the_journal_has_a_limit() {
    let mut session = Session::with_limit(100);
    session.query("BEGIN").gets(&["BEGIN", "ZT"]).query("SELECT 1").gets(&["SELECT 1", "ZT"]);
    assert!(session.messages().is_ok());
    session.query(&format!("SELECT '{}'", "x".repeat(100)));
    assert_eq!(session.messages(), Err(Incomplete::TooLarge));
    assert_eq!(session.keeper().length(), 0);
    // A Bind that has no room is not collected.
    let mut session = Session::with_limit(100);
    session.query("BEGIN").gets(&["BEGIN", "ZT"]).parse("", "SELECT $1");
    assert!(session.interceptor.limit(b'B') < 100);
    session.sends(b'B', &[0; 100]);
    assert_eq!(session.messages(), Err(Incomplete::TooLarge));
    let mut session = Session::with_limit(100);
    session.query("BEGIN").gets(&["BEGIN", "ZT"]);
    let statement = crate::sql::parse(&format!("CREATE TABLE t{} ()", "x".repeat(60))).unwrap().remove(0);
    session.keeper().journal_mut().unwrap().acted(&statement, b"CREATE TABLE");
    assert_eq!(session.messages(), Err(Incomplete::TooLarge));
}

#[test]
fn the_proxys_own_time_does_not_count() {
    let mut session = begun();
    let journal = session.keeper().journal_mut().unwrap();
    assert!(journal.took() <= journal.begun.elapsed());
    journal.own_time(Duration::from_secs(100));
    assert_eq!(journal.took(), Duration::ZERO);
}

/// A buffer of an ordinary block is used again.
#[test]
fn buffers_go_back_to_the_pool() {
    let mut session = begun();
    session.query("COMMIT").gets(&["COMMIT", "ZI"]);
    let buffers = [take_buffer(), take_buffer()];
    let pointers = buffers.each_ref().map(|buffer| buffer.as_ptr());
    buffers.into_iter().for_each(give_back);
    session.query("BEGIN").gets(&["BEGIN", "ZT"]);
    assert!(pointers.contains(&session.interceptor.block().journal().unwrap().buffer.as_ptr()));
}
