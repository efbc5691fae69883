//! The prepared statements that begin or end a transaction.
//!
//! Some drivers prepare BEGIN and COMMIT and then send Bind and Execute alone. [`ControlStatements`] owns the names of these statements and of
//! their portals. It keeps true: a name stands for the statement that was parsed last under it. It follows few names, and a driver has fewer.

use crate::sql::TransactionControl;
use crate::wire::message;
use std::sync::Arc;

/// Statements and portals that are followed. A driver prepares each form of BEGIN once.
const MOST: usize = 16;

/// A statement that begins or ends a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ControlStatement {
    pub(super) name: Vec<u8>,
    /// The text of a BEGIN. The texts of others do not matter.
    pub(super) begin: Option<Arc<[u8]>>,
    pub(super) control: TransactionControl,
}

/// The names of the statements that begin or end a transaction, and of their portals.
#[derive(Debug, Default)]
pub(super) struct ControlStatements {
    statements: Vec<ControlStatement>,
    /// A portal's name, and its statement as it was at Bind.
    portals: Vec<(Vec<u8>, ControlStatement)>,
}

impl ControlStatements {
    /// Whether there is nothing to follow.
    pub(super) fn is_empty(&self) -> bool {
        self.statements.is_empty() && self.portals.is_empty()
    }

    /// The client parses a statement that begins or ends a transaction.
    pub(super) fn parsed(&mut self, name: &[u8], text: &[u8], control: TransactionControl) {
        self.parsed_other(name);
        if self.statements.len() == MOST {
            self.statements.remove(0);
        }
        let begin = (control == TransactionControl::Begin).then(|| Arc::from(text));
        self.statements.push(ControlStatement { name: name.to_vec(), begin, control });
    }

    /// The client parses another statement, or closes the one of this name.
    pub(super) fn parsed_other(&mut self, name: &[u8]) {
        self.statements.retain(|statement| statement.name != name);
    }

    pub(super) fn bound(&mut self, body: &[u8]) {
        let Some((portal, name)) = message::bind(body) else { return };
        self.forget_portal(portal);
        if let Some(statement) = self.statements.iter().find(|statement| statement.name == name)
            && self.portals.len() < MOST
        {
            self.portals.push((portal.to_vec(), statement.clone()));
        }
    }

    /// The statement of the portal that an Execute runs. The portal has then been run.
    pub(super) fn executed(&mut self, body: &[u8]) -> Option<ControlStatement> {
        let name = message::execute(body)?;
        let at = self.portals.iter().position(|(portal, _)| portal == name)?;
        Some(self.portals.swap_remove(at).1)
    }

    pub(super) fn closed(&mut self, body: &[u8]) {
        match message::close(body) {
            Some((b'S', name)) => self.parsed_other(name),
            Some((_, name)) => self.forget_portal(name),
            None => {}
        }
    }

    fn forget_portal(&mut self, name: &[u8]) {
        self.portals.retain(|(portal, _)| portal != name);
    }

    /// The client binds a portal of a name that is not known.
    pub(super) fn bound_unread(&mut self) {
        self.portals.clear();
    }
}
