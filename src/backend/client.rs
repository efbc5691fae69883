//! The client's end of the session, for code that answers the client in place of the server.
//!
//! It owns nothing: each function is a narrow access to the [`crate::relay::Link`] of the channel. It keeps true: no code outside `relay` and
//! `backend` uses the link itself.

use super::channel::ServerChannel;
use crate::relay::{AnswerLog, Event, Inspect, Login};
use crate::wire::frame::Header;
use crate::wire::speech::Speech;
use bytes::Bytes;
use std::io;

impl ServerChannel {
    /// Relays in both directions until something needs the session. The future can be dropped, and the function called again.
    #[inline]
    pub fn pump<I: Inspect>(&mut self, inspect: &mut I) -> impl Future<Output = Event> {
        self.link.pump(inspect)
    }

    /// Relays until something needs the session, or until the backend has given all answers that it owed.
    #[inline]
    pub fn pump_settling<I: Inspect>(&mut self, inspect: &mut I) -> impl Future<Output = Event> {
        self.link.pump_settling(inspect)
    }

    /// Relays until the backend owes no answer. The client's further messages wait ([`crate::relay::Link::settle`]).
    pub fn settle(&mut self, keep_ready: bool) -> impl Future<Output = Event> {
        self.link.settle(keep_ready)
    }

    /// The status of the last ReadyForQuery: `I`, `T` or `E`; 0 before the first.
    pub fn status(&self) -> u8 {
        self.link.status()
    }

    /// The encodings of the server and the session, as the server has reported them.
    pub fn speech(&self) -> Speech {
        self.link.speech()
    }

    /// The server's major version, as the server has reported it; 0 before that.
    pub fn server_major(&self) -> u16 {
        self.link.server_major()
    }

    /// Takes the server's version, if the server has reported it since the last call.
    pub fn take_server_version(&mut self) -> Option<String> {
        self.link.take_server_version()
    }

    /// BackendKeyData's body as it came: pid and key.
    pub fn backend_key(&self) -> &Bytes {
        self.link.backend_key()
    }

    /// Sets the effect of the two ends' encryption on the login.
    pub fn set_login(&mut self, login: Login) {
        self.link.set_login(login);
    }

    /// How many answers the backend owes.
    pub fn owes(&self) -> u32 {
        self.link.owed().owed()
    }

    /// Whether the number of answers that the backend owes is certain.
    pub fn owed_is_certain(&self) -> bool {
        self.link.owed().certain()
    }

    /// Whether the client has sent messages of the extended protocol, and no Sync behind them.
    pub fn is_unsynced(&self) -> bool {
        self.link.owed().unsynced()
    }

    /// Whether the server skips all messages up to the next Sync, after an error.
    pub fn is_skipping(&self) -> bool {
        self.link.owed().skipping()
    }

    /// Whether nothing is owed to the client, and it is outside a transaction block.
    pub fn is_idle(&self) -> bool {
        self.status() == b'I' && self.owes() == 0 && !self.is_unsynced()
    }

    /// Accounts for an answer of this tag, which was read in place of the relay.
    pub fn received(&mut self, tag: u8) {
        self.link.received(tag);
    }

    /// Accounts for the answers to a message that the proxy sends in the client's name.
    pub fn account(&mut self, tag: u8) {
        self.link.account(tag);
    }

    /// Execute messages since the last Sync or Query.
    pub fn executes(&self) -> u32 {
        self.link.executes()
    }

    pub fn set_executes(&mut self, executes: u32) {
        self.link.set_executes(executes);
    }

    /// ErrorResponse messages that were passed to the client so far.
    pub fn errors_passed(&self) -> u32 {
        self.link.errors_passed()
    }

    /// Adds so many characters to the positions of errors that are passed.
    pub fn shift_errors(&mut self, characters: u32) {
        self.link.shift_errors(characters);
    }

    /// Whether the client has got whole messages only, so that one of the proxy's can follow.
    pub fn between_messages(&self) -> bool {
        self.link.between_messages()
    }

    /// Whether the client's connection has ended without a Terminate ([`crate::relay::Link::front_gone`]), so that its statement is to end. A
    /// statement that goes on without its client does not end.
    pub fn client_gone(&self) -> bool {
        self.link.front_gone() && !self.continues
    }

    /// Waits for the client to leave, so that its statement is to end.
    pub async fn client_leaves(&mut self) {
        if self.continues {
            std::future::pending::<()>().await;
        }
        self.link.front_leaves().await;
    }

    /// Sends the bytes that wait for the client, and ends the proxy's direction of the connection.
    ///
    /// # Errors
    /// The client's connection does not take the bytes.
    pub fn finish_client(&mut self) -> impl Future<Output = io::Result<()>> {
        self.link.finish_front()
    }

    /// The client's frame that needs attention, if it is here as a whole.
    pub fn peek_frame(&self) -> Option<(Header, &[u8])> {
        self.link.peek_frame()
    }

    pub fn peek_header(&self) -> Option<Header> {
        self.link.peek_header()
    }

    /// Takes the frame: the proxy answers it.
    pub fn take_frame(&mut self) -> Option<Bytes> {
        self.link.take_frame()
    }

    /// Lets the frame go to the server as it came.
    pub fn pass_frame(&mut self) {
        self.link.pass_frame();
    }

    /// Waits for the client's message behind the frame, and gives its tag.
    pub fn tag_after_next(&mut self) -> impl Future<Output = Option<u8>> {
        self.link.tag_after_next()
    }

    /// Puts bytes on the way to the client, behind all that was put there before.
    pub fn send_to_client(&mut self, bytes: &[u8]) {
        self.link.send_to_client(bytes);
    }

    /// Passes on a message of the server's that answers the client's, and logs it.
    pub fn pass_answer(&mut self, frame: &[u8]) {
        self.link.pass_answer(frame);
    }

    /// The log of the answers that the client has got in its transaction block, if there is one.
    pub fn answers(&self) -> Option<&AnswerLog> {
        self.link.answers()
    }

    /// Begins or ends that log, before the next frame goes to the server ([`crate::relay::Link::log_answers`]).
    pub fn log_answers(&mut self, limit: u32) {
        self.link.log_answers(limit);
    }

    /// Puts bytes on the way to the backend. The caller accounts for the answers.
    pub fn send_to_server(&mut self, bytes: &[u8]) {
        self.link.send_to_server(bytes);
    }
}
