//! The schema changes that a client has prepared, by the names of its statements and portals.
//!
//! [`PreparedStatements`] owns these statements and portals, and the knowledge about each name. It keeps true: the bytes that it keeps are
//! counted, so that they can have a limit. The proxy does not learn of every end: a portal ends with its transaction, a statement with DISCARD
//! ALL. So the oldest entry is the one that has most likely ended on the server.

use crate::sql::{Class, Statement};
use crate::wire::speech::Speech;
use std::collections::HashMap;
use std::sync::Arc;

/// A prepared statement that the proxy stops at.
#[derive(Debug)]
pub(super) struct PreparedStatement {
    pub(super) statement: Statement,
    /// Characters of the client's text before it, for error positions.
    pub(super) offset: usize,
    /// The types of its parameters, as in Parse behind the text. They are kept only for a call that waits for an advisory lock.
    pub(super) types: Vec<u8>,
    /// How its text was read.
    pub(super) speech: Speech,
}

impl PreparedStatement {
    /// A statement at the start of its text, without parameters.
    pub(super) fn new(statement: Statement, speech: Speech) -> Self {
        Self { statement, offset: 0, types: Vec::new(), speech }
    }
}

#[derive(Debug, Default)]
pub(super) struct PreparedStatements {
    statements: NameTable,
    portals: NameTable,
    /// The number of entries added so far.
    clock: u64,
    /// Counts the client's pipelines.
    pipeline: u64,
}

#[derive(Debug, Default)]
struct NameTable {
    entries: HashMap<Vec<u8>, Entry>,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    bound: Arc<PreparedStatement>,
    since: u64,
    /// The pipeline in which the statement was parsed. For a portal: in which it was parsed and bound, if both were in one.
    pipeline: Option<u64>,
    /// The body of the portal's Bind, so that the portal can be bound again. It is kept only for a call that waits for an advisory lock.
    bind: Option<Arc<[u8]>>,
    /// No later message may have given the name another meaning. A server refuses a second Parse of a name, and a second
    /// Bind. But SQL may have deallocated the statement meanwhile, and the portal may have ended, which the proxy is not told.
    sure: bool,
}

/// As much of a name as the server keeps (its `NAMEDATALEN`, less the end). Names that differ only behind that are one name to the server.
pub(super) fn as_kept(name: &[u8]) -> &[u8] {
    &name[..name.len().min(63)]
}

/// Bytes of an entry besides its name and its text: the parsed statement, and its place in the map.
const ENTRY: usize = 1024;

impl NameTable {
    fn put(&mut self, name: &[u8], entry: Entry) {
        self.remove(name);
        let name = as_kept(name);
        self.bytes += Self::weight(name, &entry);
        self.entries.insert(name.to_vec(), entry);
    }

    fn get(&self, name: &[u8]) -> Option<&Entry> {
        self.entries.get(as_kept(name))
    }

    fn remove(&mut self, name: &[u8]) {
        self.take(name);
    }

    fn take(&mut self, name: &[u8]) -> Option<Entry> {
        let (name, entry) = self.entries.remove_entry(as_kept(name))?;
        self.bytes -= Self::weight(&name, &entry);
        Some(entry)
    }

    /// Makes the name uncertain. From now on the server must be asked for its meaning.
    fn doubt(&mut self, name: &[u8]) {
        if let Some(entry) = self.entries.get_mut(as_kept(name)) {
            entry.sure = false;
        }
    }

    /// The bytes of an entry. A portal's text counts too, since its statement may be removed before it.
    fn weight(name: &[u8], entry: &Entry) -> usize {
        ENTRY + name.len() + entry.bound.statement.bytes() + entry.bind.as_ref().map_or(0, |bind| bind.len())
    }

    fn oldest(&self) -> Option<(u64, &Vec<u8>)> {
        self.entries.iter().map(|(name, entry)| (entry.since, name)).min()
    }
}

impl PreparedStatements {
    pub(super) fn prepare(&mut self, name: &[u8], bound: PreparedStatement) {
        self.clock += 1;
        let sure = name.is_empty() || !self.has(name);
        let bound = Arc::new(bound);
        self.statements.put(name, Entry { bound, since: self.clock, pipeline: Some(self.pipeline), bind: None, sure });
    }

    /// The client has parsed a statement that the proxy does not act on. If the name is known, the server may refuse the Parse, and the name
    /// keeps its meaning.
    pub(super) fn parsed_other(&mut self, name: &[u8]) {
        match name {
            b"" => self.statements.remove(name),
            name => self.statements.doubt(name),
        }
    }

    /// The client has bound a portal to a statement. The server refuses the Bind if there is a portal of that name.
    pub(super) fn bind(&mut self, portal: &[u8], statement: &[u8], body: &[u8]) {
        let known = !portal.is_empty() && self.portals.get(portal).is_some();
        match self.statements.get(statement) {
            Some(entry) => {
                self.clock += 1;
                let pipeline = entry.pipeline.filter(|pipeline| *pipeline == self.pipeline);
                let (bound, sure) = (Arc::clone(&entry.bound), entry.sure && !known);
                let waits = matches!(bound.statement.class, Class::AdvisoryLock(_));
                let bind = waits.then(|| Arc::from(body));
                self.portals.put(portal, Entry { bound, since: self.clock, pipeline, bind, sure });
            }
            None if known => self.portals.doubt(portal),
            None => self.portals.remove(portal),
        }
    }

    /// Whether the portal's name has had one meaning only.
    pub(super) fn is_sure(&self, portal: &[u8]) -> bool {
        self.portals.get(portal).is_some_and(|entry| entry.sure)
    }

    /// The server has told the statement of a portal of `bound`: it is `found`. `None`: the proxy does not act on it.
    pub(super) fn correct(&mut self, bound: &Arc<PreparedStatement>, found: Option<&Arc<PreparedStatement>>) {
        for names in [&mut self.statements, &mut self.portals] {
            let of_it = names.entries.iter().filter(|(_, entry)| Arc::ptr_eq(&entry.bound, bound));
            for name in of_it.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
                let Some(entry) = names.take(&name) else { continue };
                if let Some(found) = found {
                    names.put(&name, Entry { bound: Arc::clone(found), sure: true, ..entry });
                }
            }
        }
    }

    /// Whether this is a statement that the proxy stops at.
    pub(super) fn has(&self, statement: &[u8]) -> bool {
        self.statements.get(statement).is_some()
    }

    /// The statement that a portal was bound to.
    pub(super) fn portal(&self, name: &[u8]) -> Option<Arc<PreparedStatement>> {
        self.portals.get(name).map(|entry| Arc::clone(&entry.bound))
    }

    /// The body of the portal's Bind, if it is kept.
    pub(super) fn bind_of(&self, portal: &[u8]) -> Option<Arc<[u8]>> {
        self.portals.get(portal)?.bind.clone()
    }

    /// Whether the portal was parsed and bound in this pipeline. If neither has failed, the portal is of the statement that was parsed.
    pub(super) fn is_fresh(&self, portal: &[u8]) -> bool {
        self.portals.get(portal).is_some_and(|entry| entry.pipeline == Some(self.pipeline))
    }

    /// A Sync or a Query ends the pipeline.
    pub(super) fn next_pipeline(&mut self) {
        self.pipeline += 1;
    }

    pub(super) fn forget_statement(&mut self, name: &[u8]) {
        self.statements.remove(name);
    }

    pub(super) fn forget_portal(&mut self, name: &[u8]) {
        self.portals.remove(name);
    }

    pub(super) fn forget_oldest(&mut self) {
        let (statement, portal) = (self.statements.oldest(), self.portals.oldest());
        let is_portal = portal.is_some_and(|portal| statement.is_none_or(|statement| portal < statement));
        let Some((_, name)) = (if is_portal { portal } else { statement }) else { return };
        let name = name.clone();
        if is_portal { self.portals.remove(&name) } else { self.statements.remove(&name) }
    }

    pub(super) fn len(&self) -> usize {
        self.statements.entries.len() + self.portals.entries.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.statements.bytes + self.portals.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::parse;

    fn bound(sql: &str) -> PreparedStatement {
        PreparedStatement {
            statement: parse(sql).unwrap().pop().unwrap(),
            offset: 0,
            types: Vec::new(),
            speech: Speech::default(),
        }
    }

    #[test]
    fn the_oldest_goes_first_and_nothing_is_left_of_it() {
        let mut prepared = PreparedStatements::default();
        prepared.prepare(b"a", bound("DROP TABLE a"));
        prepared.bind(b"p", b"a", b"");
        prepared.prepare(b"b", bound("DROP TABLE b"));
        let two = prepared.bytes();
        prepared.bind(b"q", b"b", b"");
        assert_eq!(prepared.bytes(), two + ENTRY + "q".len() + bound("DROP TABLE b").statement.bytes());
        // A statement that is prepared again under its name is the youngest, and is counted once.
        let all = prepared.bytes();
        prepared.prepare(b"a", bound("DROP TABLE c"));
        assert_eq!((prepared.bytes(), prepared.len()), (all, 4));
        prepared.forget_oldest();
        assert!(prepared.portal(b"p").is_none() && prepared.portal(b"q").is_some());
        prepared.forget_oldest();
        prepared.bind(b"q", b"b", b"");
        assert!(!prepared.is_sure(b"q"), "the statement b was the oldest, so this portal may be another's");
        prepared.forget_portal(b"q");
        prepared.bind(b"r", b"a", b"");
        prepared.forget_statement(b"a");
        assert!(prepared.portal(b"r").is_some_and(|bound| bound.statement.text == "DROP TABLE c"));
        prepared.forget_portal(b"r");
        assert_eq!((prepared.bytes(), prepared.len()), (0, 0));
        prepared.forget_oldest();
    }

    #[test]
    fn fresh_is_what_was_parsed_and_bound_in_this_pipeline() {
        let mut prepared = PreparedStatements::default();
        prepared.prepare(b"", bound("DROP TABLE a"));
        assert!(!prepared.is_fresh(b""));
        prepared.bind(b"", b"", b"");
        assert!(prepared.is_fresh(b""));
        prepared.next_pipeline();
        assert!(!prepared.is_fresh(b""));
        prepared.bind(b"", b"", b"");
        assert!(!prepared.is_fresh(b""), "its statement is of the pipeline before");
    }

    #[test]
    fn a_name_that_is_given_again_keeps_its_meaning_until_the_server_is_asked() {
        let mut prepared = PreparedStatements::default();
        let text = |prepared: &PreparedStatements| prepared.portal(b"p").map(|bound| bound.statement.text.clone());
        prepared.prepare(b"n", bound("DROP TABLE a"));
        prepared.bind(b"p", b"n", b"");
        assert!(prepared.is_sure(b"p"));
        prepared.forget_portal(b"p");
        prepared.parsed_other(b"n");
        prepared.bind(b"p", b"n", b"");
        assert!(!prepared.is_sure(b"p") && text(&prepared).as_deref() == Some("DROP TABLE a"));
        prepared.bind(b"p", b"of a SELECT", b"");
        assert!(text(&prepared).is_some(), "the server may refuse it, as there is a portal of that name");
        // The server says that the portal is of another statement. From now on the statement's name and its portals mean that one.
        let (old, new) = (prepared.portal(b"p").unwrap(), Arc::new(bound("DROP TABLE b")));
        prepared.correct(&old, Some(&new));
        assert!(prepared.is_sure(b"p") && text(&prepared).as_deref() == Some("DROP TABLE b"));
        prepared.correct(&new, None);
        assert_eq!((prepared.bytes(), prepared.len()), (0, 0));
        prepared.prepare(b"", bound("DROP TABLE a"));
        prepared.parsed_other(b"");
        assert!(!prepared.has(b""), "a Parse of the unnamed statement ends it, whatever becomes of it");
    }

    #[test]
    fn long_names_are_one_behind_what_the_server_keeps() {
        let [long, longer] = [70, 80].map(|length| "n".repeat(length).into_bytes());
        let mut prepared = PreparedStatements::default();
        prepared.prepare(&long, bound("DROP TABLE a"));
        prepared.bind(&long, &longer, b"");
        assert!(prepared.portal(&longer).is_some() && prepared.portal(as_kept(&long)).is_some());
        assert!(prepared.portal(&long[..62]).is_none());
        prepared.forget_statement(&longer);
        prepared.forget_portal(&longer);
        assert_eq!((prepared.bytes(), prepared.len()), (0, 0));
    }
}
