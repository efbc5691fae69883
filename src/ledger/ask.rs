//! [`Ledger`]: what sessions and the console ask and tell the ledger.
//!
//! It owns the link to the database, as long as there is one, and what is told meanwhile. It keeps true: a question that fails, or takes longer than
//! [`PATIENCE`], ends the link, and is answered by "the ledger cannot be asked".

use super::install::failed;
use super::rows::{self, HELD, scope_words, whole};
use crate::gate::digest::Digest;
use crate::holds::{Actor, Held, HoldRequest, HoldVerb, Keeper, KeptJoin, LedgerState, Scope, ScopeHold, Told};
use crate::pg::sqlstate::{self, SqlState};
use crate::registry::{Order, TEMPORARY};
use crate::report::Report;
use async_trait::async_trait;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{Notify, oneshot};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Row};

/// The longest that an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The ledger of one proxy.
#[derive(Debug)]
pub struct Ledger {
    link: RwLock<Result<LedgerLink, (SystemTime, String)>>,
    inbox: UnboundedSender<Inbox>,
    /// The link is of no use any more.
    broken: Notify,
}

/// A connection to the ledger.
#[derive(Debug, Clone)]
pub(super) struct LedgerLink {
    pub(super) client: Arc<Client>,
    /// The number of this proxy in the ledger.
    pub(super) proxy: i64,
}

/// What the thread of the ledger is to do.
#[derive(Debug)]
pub(super) enum Inbox {
    Told(Told),
    /// What is known here is to be read anew. The sender is dropped then.
    Refresh(oneshot::Sender<()>),
}

impl Ledger {
    pub(super) fn new(inbox: UnboundedSender<Inbox>) -> Self {
        let link = RwLock::new(Err((SystemTime::now(), "the first connection is not made yet".to_owned())));
        Self { link, inbox, broken: Notify::new() }
    }

    pub(super) fn link(&self) -> Option<LedgerLink> {
        self.link.read().unwrap_or_else(PoisonError::into_inner).as_ref().ok().cloned()
    }

    pub(super) fn is_up(&self, link: LedgerLink) {
        *self.link.write().unwrap_or_else(PoisonError::into_inner) = Ok(link);
    }

    /// The link is gone. This is logged, unless it was gone before for the same reason.
    pub(super) fn is_down(&self, why: &str) {
        let mut link = self.link.write().unwrap_or_else(PoisonError::into_inner);
        match &mut *link {
            Ok(_) => *link = Err((SystemTime::now(), why.to_owned())),
            Err((_, known)) if known == why => return,
            Err((_, known)) => why.clone_into(known),
        }
        tracing::error!(reason = why, "the ledger cannot be asked: nothing is allowed that a rule holds");
    }

    /// Why the link is gone.
    pub(super) fn why_down(&self) -> String {
        let link = self.link.read().unwrap_or_else(PoisonError::into_inner);
        link.as_ref().err().map(|(_, why)| why.clone()).unwrap_or_default()
    }

    /// Waits until somebody has found the link to be broken.
    pub(super) async fn breaks(&self) {
        self.broken.notified().await;
    }

    fn breaks_by(&self, why: &str) {
        self.is_down(why);
        self.broken.notify_one();
    }

    /// Asks one question. `None`: the ledger cannot be asked. The error is one that the ledger has raised.
    async fn ask(
        &self,
        link: &LedgerLink,
        sql: &str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Option<Result<Vec<Row>, Error>> {
        match tokio::time::timeout(PATIENCE, link.client.query(sql, values)).await {
            Ok(Ok(rows)) => Some(Ok(rows)),
            Ok(Err(error)) if error.as_db_error().is_some_and(|error| known(error.code().code()).is_some()) => {
                Some(Err(error))
            }
            Ok(Err(error)) => {
                self.breaks_by(&failed("ask the ledger", &error).message);
                None
            }
            Err(_) => {
                self.breaks_by("the ledger has not answered in time");
                None
            }
        }
    }

    /// Asks a question of one row. `None`: the ledger cannot be asked, or refuses.
    async fn ask_one(&self, link: &LedgerLink, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Option<Row> {
        match self.ask(link, sql, values).await? {
            Ok(rows) => rows.into_iter().next(),
            Err(error) => {
                self.breaks_by(&failed("ask the ledger", &error).message);
                None
            }
        }
    }

    /// A change as the ledger has it.
    async fn held(&self, link: &LedgerLink, number: i64) -> Option<Held> {
        let sql = format!("{HELD} c.id OPERATOR(pg_catalog.=) $1");
        rows::held(&self.ask_one(link, &sql, &[&number]).await?)
    }

    /// Calls a verb that gives one text.
    async fn verb(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<String, Report> {
        let link = self.link().ok_or_else(|| self.lost())?;
        match self.ask(&link, sql, values).await {
            Some(Ok(rows)) => Ok(rows.first().and_then(|row| row.try_get(0).ok()).unwrap_or_default()),
            Some(Err(error)) => Err(report(&error)),
            None => Err(self.lost()),
        }
    }

    fn lost(&self) -> Report {
        Report::error(sqlstate::CONNECTION_FAILURE, "the ledger cannot be asked")
            .detail(self.why_down())
            .hint("Nothing is decided without it. SHOW STATE says how it does.")
    }
}

#[async_trait]
impl Keeper for Ledger {
    async fn join(&self, request: &HoldRequest, own: Option<u64>) -> Option<KeptJoin> {
        let link = self.link()?;
        let (digest, text) = (request.digest.to_string(), request.text.to_string());
        let number = Some(request.number).filter(|number| *number < TEMPORARY).map(whole);
        let (own, session) = (own.map(whole), whole(request.session));
        let needs = i32::try_from(request.needs).unwrap_or(i32::MAX);
        let expires = i64::try_from(request.expires.as_millis()).unwrap_or(i64::MAX);
        let sql = "SELECT j.outcome, j.id FROM pgsluice.join_change($1::pg_catalog.int8, $2::pg_catalog.int8, $3::pg_catalog.int8, $4::pg_catalog.text, \
             $5::pg_catalog.text, $6::pg_catalog.text, $7::pg_catalog.text, $8::pg_catalog.text, $9::pg_catalog.text, $10::pg_catalog.int8, \
             $11::pg_catalog.text, $12::pg_catalog.text, $13::pg_catalog.text, $14::pg_catalog.text, $15::pg_catalog.text, $16::pg_catalog.int4, \
             $17::pg_catalog.bool, $18::pg_catalog.int8) AS j";
        let r = request;
        let values: [&(dyn ToSql + Sync); 18] = [
            &link.proxy,
            &number,
            &own,
            &digest,
            &text,
            &r.author,
            &r.database,
            &r.application,
            &r.client,
            &session,
            &r.tag,
            &r.statement,
            &r.plan,
            &r.rule,
            &r.because,
            &needs,
            &r.cut_over,
            &expires,
        ];
        let row = self.ask_one(&link, sql, &values).await?;
        let (outcome, id) = (row.try_get::<_, String>(0).ok()?, row.try_get::<_, i64>(1).ok()?);
        let held = Box::new(self.held(&link, id).await?);
        Some(match outcome.as_str() {
            "go" => KeptJoin::Go(held),
            "rejected" => KeptJoin::Rejected(held),
            word => KeptJoin::Wait(held, word == "held"),
        })
    }

    async fn resume(&self, text: &Digest) -> Option<u64> {
        let link = self.link()?;
        let sql = "SELECT pgsluice.resume_change($1, $2)";
        let row = self.ask_one(&link, sql, &[&link.proxy, &text.to_string()]).await?;
        row.try_get::<_, Option<i64>>(0).ok().flatten().map(rows::natural)
    }

    async fn ask_again(&self, number: u64) -> Option<Held> {
        let link = self.link()?;
        let row = self.ask_one(&link, "SELECT pgsluice.ask_again($1, $2)", &[&link.proxy, &whole(number)]).await?;
        if !row.try_get::<_, bool>(0).unwrap_or_default() {
            return None;
        }
        self.held(&link, whole(number)).await
    }

    async fn order(&self, number: u64, verb: &str, ratio: Option<String>, order: &Order) -> Result<String, Report> {
        let link = self.link().ok_or_else(|| self.lost())?;
        let sql = "SELECT pgsluice.order_change($1, $2, $3, $4, $5, $6, $7)";
        let Order { by, from, why, .. } = order;
        self.verb(sql, &[&whole(number), &verb, &ratio, by, from, why, &link.proxy]).await
    }

    async fn act(&self, number: u64, verb: HoldVerb, actor: &Actor<'_>) -> Result<String, Report> {
        let link = self.link().ok_or_else(|| self.lost())?;
        let (word, number, why) = (verb.word(), whole(number), actor.why.unwrap_or_default());
        let sql = "SELECT pgsluice.decide($1, $2, $3, $4, $5, $6)";
        let said = self.verb(sql, &[&number, &word, &actor.user, &actor.from, &why, &link.proxy]).await?;
        self.refresh().await;
        Ok(said)
    }

    async fn hold(&self, hold: &ScopeHold) -> Result<(), Report> {
        let link = self.link().ok_or_else(|| self.lost())?;
        let (kind, name) = scope_words(&hold.scope);
        let sql = "SELECT pgsluice.hold_scope($1, $2, $3, $4, $5, $6)";
        self.verb(sql, &[&kind, &name, &hold.by, &hold.from, &hold.why, &link.proxy]).await.map(|_| ())
    }

    async fn let_go(&self, scope: &Scope, actor: &Actor<'_>) -> Result<(), Report> {
        let link = self.link().ok_or_else(|| self.lost())?;
        let ((kind, name), why) = (scope_words(scope), actor.why.unwrap_or_default());
        let sql = "SELECT pgsluice.release_scope($1, $2, $3, $4, $5, $6)";
        self.verb(sql, &[&kind, &name, &actor.user, &actor.from, &why, &link.proxy]).await.map(|_| ())
    }

    async fn refresh(&self) {
        let (done, waits) = oneshot::channel();
        if self.link().is_some() && self.inbox.send(Inbox::Refresh(done)).is_ok() {
            let _ = tokio::time::timeout(PATIENCE, waits).await;
        }
    }

    fn tell(&self, told: Told) {
        // At the end of the process nobody listens any more. The next proxy ends what this one has left behind.
        let _ = self.inbox.send(Inbox::Told(told));
    }

    fn state(&self) -> LedgerState {
        match &*self.link.read().unwrap_or_else(PoisonError::into_inner) {
            Ok(_) => LedgerState::Kept,
            Err((since, why)) => LedgerState::Lost(*since, why.clone()),
        }
    }
}

/// The SQLSTATEs that the ledger's functions raise for whoever has called a verb.
fn known(code: &str) -> Option<SqlState> {
    let all = [
        sqlstate::UNDEFINED_OBJECT,
        sqlstate::INSUFFICIENT_PRIVILEGE,
        sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE,
        sqlstate::INVALID_PARAMETER_VALUE,
    ];
    all.into_iter().find(|known| *known == code)
}

/// An error of the ledger's, as the console says it.
fn report(error: &Error) -> Report {
    let Some(error) = error.as_db_error() else {
        return failed("ask the ledger", error);
    };
    let mut report = Report::error(known(error.code().code()).unwrap_or(sqlstate::INTERNAL_ERROR), error.message());
    report.detail = error.detail().map(str::to_owned);
    report.hint = error.hint().map(str::to_owned);
    report
}
