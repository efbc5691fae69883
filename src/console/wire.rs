//! The console's two protocols, by the crate pgwire.
//!
//! [`Handlers`] owns the handlers of one client. It keeps true: whatever a client sends ends at most its own session, and is checked here where pgwire would
//! take it at its word (the number of rows, the formats of columns, the number of parameters, the size of what is prepared).

use super::command::{Command, commands};
use super::host::{Caller, Host};
use super::login::{ConsoleLogin, ConversationCell, error_info};
use super::run::{Answer, columns, parameters};
use super::table::{Heading, Kind, Table};
use crate::pg::sqlstate;
use crate::report::Report;
use async_trait::async_trait;
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{Sink, SinkExt, stream};
use pgwire::api::auth::StartupHandler;
use pgwire::api::portal::{Format, Portal};
use pgwire::api::query::{ExtendedQueryHandler, SimpleQueryHandler};
use pgwire::api::results::{FieldFormat, FieldInfo, QueryResponse, Response, Tag};
use pgwire::api::stmt::QueryParser;
use pgwire::api::store::{Entry, PortalStore};
use pgwire::api::{ClientInfo, ClientPortalStore, DEFAULT_NAME, PgWireServerHandlers, Type};
use pgwire::error::{PgWireError, PgWireResult};
use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::data::DataRow;
use pgwire::messages::extendedquery::{Bind, BindComplete, Close, CloseComplete, Execute, Parse, ParseComplete};
use pgwire::messages::response::TransactionStatus;
use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};

/// The most rows that one Execute is answered with in a piece. Beyond it all rows come at once: they are in memory anyway, and pgwire makes room
/// for as many as are asked for.
const MOST_ROWS: i32 = 100_000;

/// The most statements and portals that one session may have prepared.
const MOST_PREPARED: usize = 1000;

/// The most bytes of statements that one session may have prepared.
const MOST_PREPARED_BYTES: usize = 4 << 20;

/// The handlers of one client.
pub(super) struct Handlers {
    login: Arc<ConsoleLogin>,
    queries: Arc<Queries>,
}

impl Handlers {
    pub(super) fn new(host: Arc<dyn Host>, caller: Caller) -> Self {
        let conversation = ConversationCell::default();
        let login = ConsoleLogin::new(host, caller, Arc::clone(&conversation));
        let queries = Queries { conversation, reader: Arc::new(Reader), prepared: Mutex::default() };
        Self { login: Arc::new(login), queries: Arc::new(queries) }
    }
}

impl PgWireServerHandlers for Handlers {
    fn startup_handler(&self) -> Arc<impl StartupHandler> {
        Arc::clone(&self.login)
    }

    fn simple_query_handler(&self) -> Arc<impl SimpleQueryHandler> {
        Arc::clone(&self.queries)
    }

    fn extended_query_handler(&self) -> Arc<impl ExtendedQueryHandler> {
        Arc::clone(&self.queries)
    }
}

struct Queries {
    conversation: ConversationCell,
    reader: Arc<Reader>,
    /// The names of the statements and portals that are kept, with their bytes.
    prepared: Mutex<HashMap<(u8, String), usize>>,
}

impl Queries {
    /// Answers a command. `failed`: the client's transaction has failed.
    async fn answer(&self, command: &Command, values: &[Option<String>], failed: bool) -> Result<Answer, Report> {
        if failed && !matches!(command, Command::End(_)) {
            let text = "current transaction is aborted, commands ignored until end of transaction block";
            return Err(Report::error(sqlstate::IN_FAILED_SQL_TRANSACTION, text));
        }
        let mut conversation = self.conversation.lock().await;
        let gone = || Report::fatal(sqlstate::PROTOCOL_VIOLATION, "the login is not over");
        conversation.as_mut().ok_or_else(gone)?.answer(command, values).await
    }

    /// Counts what a session keeps prepared.
    fn keep(&self, kind: u8, name: &str, bytes: usize) -> Result<(), Report> {
        let mut prepared = self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        prepared.insert((kind, name.to_owned()), bytes);
        if prepared.len() <= MOST_PREPARED && prepared.values().sum::<usize>() <= MOST_PREPARED_BYTES {
            return Ok(());
        }
        prepared.remove(&(kind, name.to_owned()));
        Err(Report::error(sqlstate::CONFIGURATION_LIMIT_EXCEEDED, "this session of the console has prepared too much")
            .hint("Close statements and portals that are not used."))
    }

    fn forget(&self, kind: u8, name: &str) {
        self.prepared.lock().unwrap_or_else(PoisonError::into_inner).remove(&(kind, name.to_owned()));
    }
}

/// Sends the NOTICE of an answer, and gives the rest of it. `formats`: of the columns.
async fn response<C>(client: &mut C, answer: Answer, formats: &Format) -> PgWireResult<Response>
where
    C: Sink<PgWireBackendMessage> + Unpin + Send,
    C::Error: Debug,
    PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
{
    Ok(match answer {
        Answer::Rows(tag, table) => Response::Query(rows(tag, &table, formats)),
        Answer::Done(tag, notice) => {
            if let Some(notice) = notice {
                client.feed(PgWireBackendMessage::NoticeResponse(error_info(&notice).into())).await?;
            }
            Response::Execution(Tag::new(tag))
        }
        Answer::Begin(tag) => Response::TransactionStart(Tag::new(tag)),
        Answer::End(tag) => Response::TransactionEnd(Tag::new(tag)),
    })
}

fn rows(tag: &str, table: &Table, formats: &Format) -> QueryResponse {
    let fields = Arc::new(fields(&table.columns, Some(formats)));
    let encoded: Vec<PgWireResult<DataRow>> = table
        .rows
        .iter()
        .map(|row| {
            let mut data = BytesMut::new();
            for (at, (value, column)) in row.iter().zip(&table.columns).enumerate() {
                match value.encoded(column.kind, format_of(formats, at) == FieldFormat::Binary) {
                    Some(bytes) => {
                        data.put_i32(i32::try_from(bytes.len()).unwrap_or(i32::MAX));
                        data.put_slice(&bytes);
                    }
                    None => data.put_i32(-1),
                }
            }
            Ok(DataRow::new(data, i16::try_from(row.len()).unwrap_or(i16::MAX)))
        })
        .collect();
    let mut response = QueryResponse::new(fields, stream::iter(encoded));
    response.set_command_tag(tag);
    response
}

/// The format of a column. pgwire's own function panics if there are fewer formats than columns.
fn format_of(formats: &Format, at: usize) -> FieldFormat {
    match formats {
        Format::UnifiedText => FieldFormat::Text,
        Format::UnifiedBinary => FieldFormat::Binary,
        Format::Individual(codes) => codes.get(at).map_or(FieldFormat::Text, |code| FieldFormat::from(*code)),
    }
}

fn fields(columns: &[Heading], formats: Option<&Format>) -> Vec<FieldInfo> {
    let field = |(at, column): (usize, &Heading)| {
        let (kind, width) = match column.kind {
            Kind::Text => (Type::TEXT, -1),
            Kind::Integer => (Type::INT4, 4),
            Kind::Bigint => (Type::INT8, 8),
            Kind::Boolean => (Type::BOOL, 1),
            Kind::Float => (Type::FLOAT8, 8),
            Kind::Time => (Type::TIMESTAMPTZ, 8),
            Kind::Oid => (Type::OID, 4),
        };
        let format = formats.map_or(FieldFormat::Text, |formats| format_of(formats, at));
        FieldInfo::new(column.name.clone(), None, None, kind, format).with_type_size(width)
    };
    columns.iter().enumerate().map(field).collect()
}

fn error(report: &Report) -> PgWireError {
    PgWireError::UserError(Box::new(error_info(report)))
}

#[async_trait]
impl SimpleQueryHandler for Queries {
    async fn do_query<C>(&self, client: &mut C, query: &str) -> PgWireResult<Vec<Response>>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let mut failed = matches!(client.transaction_status(), TransactionStatus::Error);
        let mut responses = Vec::new();
        for command in commands(query).map_err(|report| error(&report))? {
            match self.answer(&command, &[], failed).await {
                Ok(answer) => {
                    failed &= !matches!(answer, Answer::End(_));
                    responses.push(response(client, answer, &Format::UnifiedText).await?);
                }
                Err(report) => {
                    responses.push(Response::Error(Box::new(error_info(&report))));
                    return Ok(responses);
                }
            }
        }
        if responses.is_empty() {
            responses.push(Response::EmptyQuery);
        }
        Ok(responses)
    }
}

/// Reads the text of a Parse.
#[derive(Debug)]
struct Reader;

#[async_trait]
impl QueryParser for Reader {
    type Statement = Arc<Command>;

    async fn parse_sql<C>(&self, _: &C, sql: &str, _: &[Option<Type>]) -> PgWireResult<Option<Self::Statement>>
    where
        C: ClientInfo + Unpin + Send + Sync,
    {
        let mut all = commands(sql).map_err(|report| error(&report))?;
        match all.pop() {
            Some(command) if all.is_empty() => Ok(Some(Arc::new(command))),
            None => Ok(None),
            Some(_) => {
                let text = "cannot insert multiple commands into a prepared statement";
                Err(error(&Report::error(sqlstate::SYNTAX_ERROR, text)))
            }
        }
    }

    fn get_parameter_types(&self, command: &Self::Statement) -> PgWireResult<Vec<Type>> {
        Ok(vec![Type::TEXT; parameters(command)])
    }

    fn get_result_schema(&self, command: &Self::Statement, formats: Option<&Format>) -> PgWireResult<Vec<FieldInfo>> {
        Ok(fields(&columns(command), formats))
    }
}

#[async_trait]
impl ExtendedQueryHandler for Queries {
    type Statement = Arc<Command>;
    type QueryParser = Reader;

    fn query_parser(&self) -> Arc<Self::QueryParser> {
        Arc::clone(&self.reader)
    }

    async fn on_parse<C>(&self, client: &mut C, message: Parse) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Self::Statement>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let name = message.name.as_deref().unwrap_or(DEFAULT_NAME);
        self.keep(b'S', name, message.query.len()).map_err(|report| error(&report))?;
        let parsed = pgwire::api::stmt::StoredStatement::parse(client, &message, self.query_parser()).await?;
        match parsed {
            Some(statement) => client.portal_store().put_statement(Arc::new(statement)),
            None => client.portal_store().put_empty_statement(name),
        }
        client.feed(PgWireBackendMessage::ParseComplete(ParseComplete::new())).await?;
        Ok(())
    }

    async fn on_bind<C>(&self, client: &mut C, message: Bind) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Self::Statement>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let portal = message.portal_name.as_deref().unwrap_or(DEFAULT_NAME);
        let name = message.statement_name.as_deref().unwrap_or(DEFAULT_NAME);
        let statement = client.portal_store().get_statement(name);
        let statement = statement.ok_or_else(|| PgWireError::StatementNotFound(name.to_owned()))?;
        check_bind(&message, &statement).map_err(|report| error(&report))?;
        let bytes = message.parameters.iter().flatten().map(Bytes::len).sum();
        self.keep(b'P', portal, bytes).map_err(|report| error(&report))?;
        match statement {
            Entry::Value(statement) => {
                client.portal_store().put_portal(Arc::new(Portal::try_new(&message, statement)?));
            }
            Entry::Empty => client.portal_store().put_empty_portal(portal),
        }
        client.feed(PgWireBackendMessage::BindComplete(BindComplete::new())).await?;
        Ok(())
    }

    async fn on_execute<C>(&self, client: &mut C, mut message: Execute) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Self::Statement>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        if !(0..=MOST_ROWS).contains(&message.max_rows) {
            message.max_rows = 0;
        }
        self._on_execute(client, message).await
    }

    async fn on_close<C>(&self, client: &mut C, message: Close) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Self::Statement>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let name = message.name.as_deref().unwrap_or(DEFAULT_NAME);
        self.forget(message.target_type, name);
        match message.target_type {
            b'S' => client.portal_store().rm_statement(name),
            _ => client.portal_store().rm_portal(name),
        }
        client.feed(PgWireBackendMessage::CloseComplete(CloseComplete::new())).await?;
        Ok(())
    }

    async fn do_query<C>(&self, client: &mut C, portal: &Portal<Self::Statement>, _: usize) -> PgWireResult<Response>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Self::Statement>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let failed = matches!(client.transaction_status(), TransactionStatus::Error);
        let types = &portal.statement.parameter_types;
        let value = |(at, bytes): (usize, &Option<Bytes>)| {
            let binary = format_of(&portal.parameter_format, at) == FieldFormat::Binary;
            Some(parameter(bytes.as_ref()?, types.get(at).and_then(Option::as_ref), binary))
        };
        let values: Vec<Option<String>> = portal.parameters.iter().enumerate().map(value).collect();
        let answer =
            self.answer(&portal.statement.statement, &values, failed).await.map_err(|report| error(&report))?;
        response(client, answer, &portal.result_column_format).await
    }
}

/// The value of a parameter as text. A binary value of a type that is not known is read as text.
fn parameter(bytes: &Bytes, kind: Option<&Type>, binary: bool) -> String {
    let number = match (kind, bytes.len()) {
        (Some(kind), 2) if binary && *kind == Type::INT2 => {
            bytes.first_chunk().map(|b| i64::from(i16::from_be_bytes(*b)))
        }
        (Some(kind), 4) if binary && *kind == Type::INT4 => {
            bytes.first_chunk().map(|b| i64::from(i32::from_be_bytes(*b)))
        }
        (Some(kind), 4) if binary && *kind == Type::OID => {
            bytes.first_chunk().map(|b| i64::from(u32::from_be_bytes(*b)))
        }
        (Some(kind), 8) if binary && *kind == Type::INT8 => bytes.first_chunk().map(|b| i64::from_be_bytes(*b)),
        (Some(kind), 1) if binary && *kind == Type::BOOL => bytes.first().map(|b| i64::from(*b)),
        (Some(kind), 4) if binary && *kind == Type::FLOAT4 => {
            return bytes.first_chunk().map(|b| f32::from_be_bytes(*b)).unwrap_or_default().to_string();
        }
        (Some(kind), 8) if binary && *kind == Type::FLOAT8 => {
            return bytes.first_chunk().map(|b| f64::from_be_bytes(*b)).unwrap_or_default().to_string();
        }
        _ => None,
    };
    number.map_or_else(|| String::from_utf8_lossy(bytes).into_owned(), |number| number.to_string())
}

/// Checks the numbers of a Bind, as PostgreSQL does.
fn check_bind(
    message: &Bind,
    statement: &Entry<pgwire::api::stmt::StoredStatement<Arc<Command>>>,
) -> Result<(), Report> {
    let (wanted, width) = match statement.value() {
        Some(stored) => (parameters(&stored.statement), columns(&stored.statement).len()),
        None => (0, 0),
    };
    let (given, formats) = (message.parameters.len(), message.parameter_format_codes.len());
    let violation = |text: String| Err(Report::error(sqlstate::PROTOCOL_VIOLATION, text));
    if formats > 1 && formats != given {
        return violation(format!("bind message has {formats} parameter formats but {given} parameters"));
    }
    if given != wanted {
        let name = message.statement_name.as_deref().unwrap_or_default();
        return violation(format!(
            "bind message supplies {given} parameters, but prepared statement \"{name}\" requires {wanted}"
        ));
    }
    let results = message.result_column_format_codes.len();
    if results > 1 && results != width {
        return violation(format!("bind message has {results} result formats but query has {width} columns"));
    }
    Ok(())
}
