//! What the gate knows of the session that sends a statement, and of the time.
//!
//! It is plain data. `None`: it is not known, as for `pgsluice plan`.

use super::condition::SeenCondition;
use crate::config::ClientAddress;

/// A session, as rules see it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Session<'a> {
    /// The role that the client has logged in as (`session_user`). SET ROLE does not change it.
    pub role: Option<&'a str>,
    pub database: Option<&'a str>,
    /// The `application_name` of the login.
    pub application_name: Option<&'a str>,
    pub client: Option<ClientAddress>,
    /// The statement stands in a transaction, or in a string of several statements.
    pub in_transaction: Option<bool>,
    /// Seconds since 1970.
    pub now: Option<i64>,
    /// What the server has said to the conditions of windows.
    pub conditions: &'a [SeenCondition],
}
