//! The schema changes that a client has prepared, by the names of its statements and portals.
//!
//! Holds: what is kept is known in bytes, so that it can have a limit. The proxy is not told of every end: a portal ends
//! with its transaction, a statement with DISCARD ALL. What is kept longest is the likeliest to be gone.

use crate::sql::Statement;
use crate::wire::speech::Speech;
use std::collections::HashMap;
use std::sync::Arc;

/// A prepared statement, and how many characters of the client's text stand before it, for error positions.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) statement: Statement,
    pub(super) offset: usize,
    /// How its text was read.
    pub(super) speech: Speech,
}

#[derive(Debug, Default)]
pub(super) struct Prepared {
    statements: Names,
    portals: Names,
    /// Counts what was added.
    clock: u64,
    /// Counts the client's pipelines.
    pipeline: u64,
}

#[derive(Debug, Default)]
struct Names {
    entries: HashMap<Vec<u8>, Entry>,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    bound: Arc<Bound>,
    since: u64,
    /// In which pipeline it was parsed; of a portal: parsed and bound, if in one.
    pipeline: Option<u64>,
}

/// As much of a name as the server keeps (its `NAMEDATALEN`, less the end): names that differ behind that are one to it.
pub(super) fn as_kept(name: &[u8]) -> &[u8] {
    &name[..name.len().min(63)]
}

/// What an entry takes besides its name and its text: the statement as it was read, and its place in the map.
const ENTRY: usize = 1024;

impl Names {
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
        if let Some((name, entry)) = self.entries.remove_entry(as_kept(name)) {
            self.bytes -= Self::weight(&name, &entry);
        }
    }

    /// A portal's text counts too: its statement may go before it.
    fn weight(name: &[u8], entry: &Entry) -> usize {
        ENTRY + name.len() + entry.bound.statement.bytes()
    }

    fn oldest(&self) -> Option<(u64, &Vec<u8>)> {
        self.entries.iter().map(|(name, entry)| (entry.since, name)).min()
    }
}

impl Prepared {
    pub(super) fn prepare(&mut self, name: &[u8], bound: Bound) {
        self.clock += 1;
        self.statements.put(name, Entry { bound: Arc::new(bound), since: self.clock, pipeline: Some(self.pipeline) });
    }

    /// The portal is of that statement, whatever it was before.
    pub(super) fn bind(&mut self, portal: &[u8], statement: &[u8]) {
        match self.statements.get(statement) {
            Some(entry) => {
                self.clock += 1;
                let pipeline = entry.pipeline.filter(|pipeline| *pipeline == self.pipeline);
                self.portals.put(portal, Entry { bound: Arc::clone(&entry.bound), since: self.clock, pipeline });
            }
            None => self.portals.remove(portal),
        }
    }

    /// Whether this is a statement that the proxy stops at.
    pub(super) fn has(&self, statement: &[u8]) -> bool {
        self.statements.get(statement).is_some()
    }

    /// The statement that a portal was bound to.
    pub(super) fn portal(&self, name: &[u8]) -> Option<Arc<Bound>> {
        self.portals.get(name).map(|entry| Arc::clone(&entry.bound))
    }

    /// The portal was parsed and bound in this pipeline: if nothing of that has failed, it is what it seems to be.
    pub(super) fn is_fresh(&self, portal: &[u8]) -> bool {
        self.portals.get(portal).is_some_and(|entry| entry.pipeline == Some(self.pipeline))
    }

    /// A Sync, or a Query.
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

    fn bound(sql: &str) -> Bound {
        Bound { statement: parse(sql).unwrap().pop().unwrap(), offset: 0, speech: Speech::default() }
    }

    #[test]
    fn the_oldest_goes_first_and_nothing_is_left_of_it() {
        let mut prepared = Prepared::default();
        prepared.prepare(b"a", bound("DROP TABLE a"));
        prepared.bind(b"p", b"a");
        prepared.prepare(b"b", bound("DROP TABLE b"));
        let two = prepared.bytes();
        prepared.bind(b"q", b"b");
        assert_eq!(prepared.bytes(), two + ENTRY + "q".len() + bound("DROP TABLE b").statement.bytes());
        // Again under the same name: as young as anything, and counted once.
        let all = prepared.bytes();
        prepared.prepare(b"a", bound("DROP TABLE c"));
        assert_eq!((prepared.bytes(), prepared.len()), (all, 4));
        prepared.forget_oldest();
        assert!(prepared.portal(b"p").is_none() && prepared.portal(b"q").is_some());
        prepared.forget_oldest();
        prepared.bind(b"q", b"b");
        assert!(prepared.portal(b"q").is_none(), "the statement b was the oldest, so this portal is another's");
        prepared.bind(b"r", b"a");
        prepared.forget_statement(b"a");
        assert!(prepared.portal(b"r").is_some_and(|bound| bound.statement.text == "DROP TABLE c"));
        prepared.forget_portal(b"r");
        assert_eq!((prepared.bytes(), prepared.len()), (0, 0));
        prepared.forget_oldest();
    }

    #[test]
    fn fresh_is_what_was_parsed_and_bound_in_this_pipeline() {
        let mut prepared = Prepared::default();
        prepared.prepare(b"", bound("DROP TABLE a"));
        assert!(!prepared.is_fresh(b""));
        prepared.bind(b"", b"");
        assert!(prepared.is_fresh(b""));
        prepared.next_pipeline();
        assert!(!prepared.is_fresh(b""));
        prepared.bind(b"", b"");
        assert!(!prepared.is_fresh(b""), "its statement is of the pipeline before");
    }

    #[test]
    fn long_names_are_one_behind_what_the_server_keeps() {
        let [long, longer] = [70, 80].map(|length| "n".repeat(length).into_bytes());
        let mut prepared = Prepared::default();
        prepared.prepare(&long, bound("DROP TABLE a"));
        prepared.bind(&long, &longer);
        assert!(prepared.portal(&longer).is_some() && prepared.portal(as_kept(&long)).is_some());
        assert!(prepared.portal(&long[..62]).is_none());
        prepared.forget_statement(&longer);
        prepared.forget_portal(&longer);
        assert_eq!((prepared.bytes(), prepared.len()), (0, 0));
    }
}
