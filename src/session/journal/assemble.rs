//! The messages of a block, put together from the journal's entries and the log of answers.
//!
//! The file owns [`Message`]. It keeps true: each message has the answers that the server gave to it, and no other. What is not certain is an
//! error: the transaction may have ended unseen, a portal's statement may be unknown, the numbers of messages and answers may differ.

use super::entry::EntryKind;
use super::incomplete::Incomplete;
use crate::relay::Answered;
use crate::sql::{Statement, TransactionControl, exactly_transaction};
use crate::wire::message;
use std::collections::HashMap;
use std::iter::Peekable;

/// One command of the block.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::session) enum Message {
    /// A Query that passed.
    Query {
        /// The bytes as the client has sent them.
        text: Vec<u8>,
        /// One for each statement.
        tags: Vec<Vec<u8>>,
    },
    /// An Execute that passed.
    Execute {
        /// The name of the statement. It is not empty if `text` is `None`.
        statement: Vec<u8>,
        /// The text of its Parse. `None`: the statement was prepared before the block.
        text: Option<Vec<u8>>,
        /// The types of the parameters, as they stand in the Parse behind the text.
        types: Vec<u8>,
        /// The formats and values of the parameters, as [`message::bind_parameters`] returns them.
        parameters: Vec<u8>,
        tag: Vec<u8>,
    },
    /// A statement that the proxy ran.
    Acted { statement: Statement, tag: Vec<u8> },
}

/// A statement that the block has parsed.
#[derive(Debug, Clone, Copy)]
struct Parsed<'a> {
    text: &'a [u8],
    types: &'a [u8],
}

#[derive(Debug, Clone, Copy)]
struct Portal<'a> {
    statement: &'a [u8],
    parsed: Option<Parsed<'a>>,
    parameters: &'a [u8],
}

/// Puts the messages of a block together. `acted`: the statements that the proxy ran, and their tags.
pub(super) fn assemble<'a>(
    entries: impl Iterator<Item = (EntryKind, &'a [u8])>,
    answers: impl Iterator<Item = Answered<'a>>,
    acted: &[(Statement, Vec<u8>)],
) -> Result<Vec<Message>, Incomplete> {
    let mut assembly = Assembly {
        answers: answers.peekable(),
        acted: acted.iter(),
        statements: HashMap::new(),
        portals: HashMap::new(),
        messages: Vec::new(),
    };
    for (kind, body) in entries {
        assembly.add(kind, body)?;
    }
    assembly.skip_ready();
    if assembly.answers.next().is_some() {
        return Err(Incomplete::Mismatch);
    }
    is_one_transaction(&assembly.messages)?;
    Ok(assembly.messages)
}

struct Assembly<'a, 'b, A: Iterator<Item = Answered<'a>>> {
    answers: Peekable<A>,
    acted: std::slice::Iter<'b, (Statement, Vec<u8>)>,
    statements: HashMap<&'a [u8], Parsed<'a>>,
    portals: HashMap<&'a [u8], Portal<'a>>,
    messages: Vec<Message>,
}

impl<'a, A: Iterator<Item = Answered<'a>>> Assembly<'a, '_, A> {
    fn add(&mut self, kind: EntryKind, body: &'a [u8]) -> Result<(), Incomplete> {
        match kind {
            EntryKind::Query => self.query(body)?,
            EntryKind::Parse => {
                let (name, text) = message::parse(body).ok_or(Incomplete::NotUnderstood)?;
                let types = message::parameter_types(body).ok_or(Incomplete::NotUnderstood)?;
                self.statements.insert(name, Parsed { text, types });
            }
            EntryKind::Bind => {
                let (portal, statement) = message::bind(body).ok_or(Incomplete::NotUnderstood)?;
                let parameters = message::bind_parameters(body).ok_or(Incomplete::NotUnderstood)?;
                let parsed = self.statements.get(statement).copied();
                self.portals.insert(portal, Portal { statement, parsed, parameters });
            }
            EntryKind::Execute => self.execute(body)?,
            EntryKind::Close => match message::close(body).ok_or(Incomplete::NotUnderstood)? {
                (b'S', name) => drop(self.statements.remove(name)),
                (_, name) => drop(self.portals.remove(name)),
            },
            EntryKind::Begin => {
                let end = body.iter().position(|byte| *byte == 0).ok_or(Incomplete::NotUnderstood)?;
                let parsed = Some(Parsed { text: &body[end + 1..], types: &[0, 0] });
                self.executed(Portal { statement: &body[..end], parsed, parameters: &[0; 4] })?;
            }
            EntryKind::Acted => {
                let (statement, tag) = self.acted.next().cloned().ok_or(Incomplete::NotUnderstood)?;
                self.messages.push(Message::Acted { statement, tag });
            }
        }
        Ok(())
    }

    /// A Query has the answers up to its ReadyForQuery. It ends the unnamed statement and portal.
    fn query(&mut self, text: &[u8]) -> Result<(), Incomplete> {
        self.statements.remove(&b""[..]);
        self.portals.remove(&b""[..]);
        self.skip_ready();
        let mut tags = Vec::new();
        while let Answered::Tag(tag) = self.answers.next().ok_or(Incomplete::Mismatch)? {
            tags.push(tag.to_vec());
        }
        self.messages.push(Message::Query { text: text.to_vec(), tags });
        Ok(())
    }

    /// A portal that has been executed is not executed again, since the second answer depends on the first.
    fn execute(&mut self, body: &[u8]) -> Result<(), Incomplete> {
        let name = message::execute(body).ok_or(Incomplete::NotUnderstood)?;
        let portal = self.portals.remove(name).ok_or(Incomplete::NotUnderstood)?;
        if portal.statement.is_empty() && portal.parsed.is_none() {
            return Err(Incomplete::NotUnderstood);
        }
        self.executed(portal)
    }

    fn executed(&mut self, portal: Portal<'_>) -> Result<(), Incomplete> {
        self.skip_ready();
        let Some(Answered::Tag(tag)) = self.answers.next() else { return Err(Incomplete::Mismatch) };
        self.messages.push(Message::Execute {
            statement: portal.statement.to_vec(),
            text: portal.parsed.map(|parsed| parsed.text.to_vec()),
            types: portal.parsed.map(|parsed| parsed.types.to_vec()).unwrap_or_default(),
            parameters: portal.parameters.to_vec(),
            tag: tag.to_vec(),
        });
        Ok(())
    }

    fn skip_ready(&mut self) {
        while self.answers.next_if_eq(&Answered::Ready).is_some() {}
    }
}

/// Checks by the tags that the messages are one transaction, from its BEGIN on. The tag of ROLLBACK TO SAVEPOINT is ROLLBACK, too.
fn is_one_transaction(messages: &[Message]) -> Result<(), Incomplete> {
    let begins = |tag: &[u8]| matches!(tag, b"BEGIN" | b"START TRANSACTION");
    let (first, rest) = messages.split_first().ok_or(Incomplete::NotUnderstood)?;
    match first {
        Message::Query { tags, .. } if matches!(tags.as_slice(), [tag] if begins(tag)) => {}
        Message::Execute { tag, .. } | Message::Acted { tag, .. } if begins(tag) => {}
        _ => return Err(Incomplete::NotUnderstood),
    }
    for message in rest {
        let (tags, text) = match message {
            Message::Query { text, tags, .. } => (tags.as_slice(), Some(text)),
            Message::Execute { text, tag, .. } => (std::slice::from_ref(tag), text.as_ref()),
            Message::Acted { tag, .. } => (std::slice::from_ref(tag), None),
        };
        let to_savepoint = || text.and_then(|text| exactly_transaction(text)) == Some(TransactionControl::Savepoint);
        for tag in tags {
            match tag.as_slice() {
                b"COMMIT" | b"PREPARE TRANSACTION" => return Err(Incomplete::Chained),
                b"ROLLBACK" if !to_savepoint() => return Err(Incomplete::Chained),
                tag if begins(tag) => return Err(Incomplete::Chained),
                _ => {}
            }
        }
    }
    Ok(())
}
