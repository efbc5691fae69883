//! The login: SCRAM-SHA-256 for the users of `[console]`, and peers of the proxy's own user over a Unix socket.
//!
//! [`ConsoleLogin`] owns the login of one client. It keeps true: a client that names a user who does not exist has the same exchange as one with a wrong password,
//! and a protocol option that is not known is reported and not ignored.

use super::host::{Caller, FIRST_PID, Host, Identity};
use super::noise;
use super::run::Conversation;
use crate::config::{Role, Verifier};
use crate::logging::AUDIT;
use crate::pg::sqlstate;
use crate::report::Report;
use async_trait::async_trait;
use futures_util::{Sink, SinkExt};
use pgwire::api::auth::sasl::scram::{ScramSecret, ScramServerAuth, ScramServerAuthWaitingForClientFinal};
use pgwire::api::auth::{ServerParameterProvider, StartupHandler, finish_authentication};
use pgwire::api::{ClientInfo, PgWireConnectionState};
use pgwire::error::{ErrorInfo, PgWireError, PgWireResult};
use pgwire::messages::startup::{Authentication, NegotiateProtocolVersion, PasswordMessageFamily, SecretKey, Startup};
use pgwire::messages::{PgWireBackendMessage, PgWireFrontendMessage, ProtocolVersion};
use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

const MECHANISM: &str = "SCRAM-SHA-256";

/// The iterations that a user who does not exist seems to have, if there is no other user. PostgreSQL's default.
const ITERATIONS: u32 = 4096;

/// The newest version of the protocol that the console speaks, as one number.
const NEWEST: (u16, i32) = (2, 3 << 16 | 2);

/// What makes the salt of a user who does not exist the same at each try, and unknown outside.
static MOCK: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// Where the conversation of a client is put when its login is over.
pub(super) type ConversationCell = Arc<tokio::sync::Mutex<Option<Conversation>>>;

/// The login of one client.
#[derive(Debug)]
pub(super) struct ConsoleLogin {
    host: Arc<dyn Host>,
    caller: Caller,
    conversation: ConversationCell,
    /// The exchange that waits for the client's proof.
    exchange: Mutex<Option<Exchange>>,
}

/// How far a SCRAM exchange is.
#[derive(Debug)]
enum Exchange {
    Offered,
    /// The role is `None` for a user who does not exist.
    Challenged(Box<ScramServerAuthWaitingForClientFinal>, Option<Role>),
}

impl ConsoleLogin {
    pub(super) fn new(host: Arc<dyn Host>, caller: Caller, conversation: ConversationCell) -> Self {
        Self { host, caller, conversation, exchange: Mutex::default() }
    }

    /// The next message of an exchange, or the role of the user whose proof was right, with the last message.
    fn next(&self, user: &str, message: PasswordMessageFamily) -> Result<(Authentication, Option<Role>), Report> {
        let exchange = self.exchange.lock().unwrap_or_else(PoisonError::into_inner).take();
        let failed = || wrong_password(user);
        match exchange {
            Some(Exchange::Offered) => {
                let first = message.into_sasl_initial_response().map_err(|error| broken(&error))?;
                if first.auth_method != MECHANISM {
                    return Err(Report::fatal(
                        sqlstate::PROTOCOL_VIOLATION,
                        "client selected an invalid SASL authentication mechanism",
                    ));
                }
                let (secret, role) = self.secret(user);
                let data = first.data.unwrap_or_default();
                let (challenge, waiting) = ScramServerAuth::new()
                    .on_client_first_message_with_secret(&data, secret)
                    .map_err(|error| broken(&error))?;
                *self.exchange.lock().unwrap_or_else(PoisonError::into_inner) =
                    Some(Exchange::Challenged(Box::new(waiting), role));
                Ok((Authentication::SASLContinue(challenge.into()), None))
            }
            Some(Exchange::Challenged(waiting, role)) => {
                let proof = message.into_sasl_response().map_err(|error| broken(&error))?;
                let last = waiting.on_client_final_message(&proof.data).map_err(|_| failed())?;
                let role = role.ok_or_else(failed)?;
                Ok((Authentication::SASLFinal(last.into()), Some(role)))
            }
            None => Err(Report::fatal(sqlstate::PROTOCOL_VIOLATION, "unexpected password message")),
        }
    }

    fn secret(&self, user: &str) -> (ScramSecret, Option<Role>) {
        let users = &self.host.config().console.users;
        match users.iter().find(|known| known.name == user) {
            Some(known) => {
                let Verifier { iterations, salt, stored_key, server_key } = known.verifier.clone();
                (verifier(iterations, salt, stored_key.to_vec(), server_key.to_vec()), Some(known.role))
            }
            None => {
                let salt: Vec<u8> =
                    [0_u8, 1].into_iter().flat_map(|n| MOCK.hash_one((n, user)).to_be_bytes()).collect();
                let iterations = users.first().map_or(ITERATIONS, |user| user.verifier.iterations);
                (verifier(iterations, salt, vec![0; 32], vec![0; 32]), None)
            }
        }
    }

    /// Ends the login: the client is `who`.
    async fn welcome<C>(&self, client: &mut C, role: Role) -> PgWireResult<()>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let metadata = client.metadata().clone();
        let text = |name: &str| metadata.get(name).cloned().unwrap_or_default();
        let who = Identity { user: text("user"), role, address: self.caller.address };
        let parameters = noise::reported(&*self.host, &who, &text("application_name"));
        let (pid, key) = new_key(client.protocol_version());
        client.set_pid_and_secret_key(pid, key);
        let mut conversation = Conversation::new(Arc::clone(&self.host), who, pid);
        for (name, value) in &metadata {
            if !matches!(name.as_str(), "user" | "database" | "options" | "client_encoding") {
                conversation.begin_with(name, value);
            }
        }
        *self.conversation.lock().await = Some(conversation);
        finish_authentication(client, &Reported(parameters)).await
    }

    /// Answers the startup packet.
    async fn start<C>(&self, client: &mut C, startup: &Startup) -> PgWireResult<Result<(), Report>>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        if startup.protocol_number_major != 3 {
            let (major, minor) = (startup.protocol_number_major, startup.protocol_number_minor);
            let text = format!("unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.2");
            return Ok(Err(Report::fatal(sqlstate::FEATURE_NOT_SUPPORTED, text)));
        }
        let minor = startup.protocol_number_minor;
        let newer = minor > NEWEST.0;
        let version = if minor >= NEWEST.0 { ProtocolVersion::PROTOCOL3_2 } else { ProtocolVersion::PROTOCOL3_0 };
        client.set_protocol_version(version);
        let unknown: Vec<String> =
            startup.parameters.keys().filter(|name| name.starts_with("_pq_.")).cloned().collect();
        if newer || !unknown.is_empty() {
            let agreed = if newer { NEWEST.1 } else { 3 << 16 | i32::from(minor) };
            let answer = NegotiateProtocolVersion::new(agreed, unknown);
            client.send(PgWireBackendMessage::NegotiateProtocolVersion(answer)).await?;
        }
        let known = startup.parameters.iter().filter(|(name, _)| !name.starts_with("_pq_."));
        client.metadata_mut().extend(known.map(|(name, value)| (name.clone(), value.clone())));
        let user = startup.parameters.get("user").filter(|user| !user.is_empty());
        let Some(user) = user else {
            let text = "no PostgreSQL user name specified in startup packet";
            return Ok(Err(Report::fatal(sqlstate::INVALID_AUTHORIZATION, text)));
        };
        if self.caller.trusted {
            return self.welcome(client, Role::Admin).await.map(Ok);
        }
        if self.host.config().console.users.is_empty() {
            let text = format!("the console has no user \"{user}\"");
            return Ok(Err(Report::fatal(sqlstate::INVALID_AUTHORIZATION, text).hint(
                "Add [[console.users]] to proxy.toml, or connect over the proxy's Unix socket as the user that it runs as.",
            )));
        }
        *self.exchange.lock().unwrap_or_else(PoisonError::into_inner) = Some(Exchange::Offered);
        client.set_state(PgWireConnectionState::AuthenticationInProgress);
        let offer = Authentication::SASL(vec![MECHANISM.to_owned()]);
        client.send(PgWireBackendMessage::Authentication(offer)).await?;
        Ok(Ok(()))
    }

    async fn prove<C>(&self, client: &mut C, message: PasswordMessageFamily) -> PgWireResult<Result<(), Report>>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let user = client.metadata().get("user").cloned().unwrap_or_default();
        match self.next(&user, message) {
            Ok((answer, role)) => {
                client.send(PgWireBackendMessage::Authentication(answer)).await?;
                match role {
                    Some(role) => self.welcome(client, role).await.map(Ok),
                    None => Ok(Ok(())),
                }
            }
            Err(report) => Ok(Err(report)),
        }
    }

    fn log_refusal(&self, report: &Report) {
        let from = self.caller.address.map_or_else(|| "a Unix socket".to_owned(), |address| address.to_string());
        tracing::warn!(target: AUDIT, from, error = report.message, "a login to the console was refused");
    }
}

#[async_trait]
impl StartupHandler for ConsoleLogin {
    async fn on_startup<C>(&self, client: &mut C, message: PgWireFrontendMessage) -> PgWireResult<()>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let result = match message {
            PgWireFrontendMessage::Startup(startup) => self.start(client, &startup).await?,
            PgWireFrontendMessage::PasswordMessageFamily(message) => self.prove(client, message).await?,
            _ => Err(Report::fatal(sqlstate::PROTOCOL_VIOLATION, "expected a password response")),
        };
        if let Err(report) = result {
            self.log_refusal(&report);
            client.send(PgWireBackendMessage::ErrorResponse(error_info(&report).into())).await?;
            // An error would be followed by ReadyForQuery, as in a session. The client reads the end instead.
            client.close().await?;
        }
        Ok(())
    }
}

fn verifier(iterations: u32, salt: Vec<u8>, stored_key: Vec<u8>, server_key: Vec<u8>) -> ScramSecret {
    ScramSecret::Verifier { salt, iterations: usize::try_from(iterations).unwrap_or(0), stored_key, server_key }
}

/// A new process id, which no backend has, and a new key. The console cancels nothing, so that the key opens nothing.
fn new_key(version: ProtocolVersion) -> (i32, SecretKey) {
    static NEXT: AtomicI32 = AtomicI32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let key = RandomState::new().hash_one(number).to_be_bytes();
    let key = match version {
        ProtocolVersion::PROTOCOL3_0 => SecretKey::I32(i32::from_be_bytes([key[0], key[1], key[2], key[3]])),
        _ => SecretKey::Bytes(key.to_vec().into()),
    };
    (FIRST_PID | number & (FIRST_PID - 1), key)
}

/// PostgreSQL's error for a wrong password, and for a user who does not exist.
fn wrong_password(user: &str) -> Report {
    Report::fatal(sqlstate::INVALID_PASSWORD, format!("password authentication failed for user \"{user}\""))
}

fn broken(error: &PgWireError) -> Report {
    Report::fatal(sqlstate::PROTOCOL_VIOLATION, "malformed SCRAM message").detail(error.to_string())
}

/// The parameters that the login reports.
struct Reported(Vec<(&'static str, String)>);

impl ServerParameterProvider for Reported {
    fn server_parameters<C: ClientInfo>(&self, _: &C) -> Option<HashMap<String, String>> {
        Some(self.0.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect())
    }
}

/// A report as pgwire sends it.
pub(super) fn error_info(report: &Report) -> ErrorInfo {
    let severity = report.severity.as_str().to_owned();
    let mut info = ErrorInfo::new(severity.clone(), report.sqlstate.to_owned(), report.message.clone());
    info.severity_nonlocalized = Some(severity);
    info.detail.clone_from(&report.detail);
    info.hint.clone_from(&report.hint);
    info
}
