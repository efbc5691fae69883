//! The client's transaction as it is known when a statement would make the application wait in it.
//!
//! It owns nothing: a [`Case`] is what the client has sent, and which of it goes ahead with the last statement. It keeps true: if anything of this is not certain, there is no case, and the statement runs
//! in the transaction as it is written.

use super::AheadRun;
use crate::catalog::reach;
use crate::catalog::reading::Question;
use crate::execute::RunError;
use crate::pg::RelationName;
use crate::plan::ahead::{Chosen, Earlier, NotAhead, choose, run_again};
use crate::plan::hoist::{may_be_hoisted, undoable};
use crate::report::in_words;
use crate::session::journal::Message;
use crate::session::sent::{Case, How, Sent, note_taken_back};
use crate::session::text::parse_options;
use crate::sql::{Class, Effect, Statement, effects};
use std::collections::BTreeSet;

/// Chooses what goes ahead with a statement, of those before it and the relations that it touches.
pub(super) type Choice = fn(&[Earlier<'_>], &Statement, &BTreeSet<u32>) -> Result<Chosen, NotAhead>;

impl AheadRun<'_> {
    /// The case of a statement in the client's transaction. `Err(NotAhead)`: why it cannot be done ahead.
    pub(super) async fn case(&mut self, statement: &Statement) -> Result<Result<Case, NotAhead>, RunError> {
        let cannot = match &statement.class {
            Class::Ddl(ddl) => may_be_hoisted(ddl).err(),
            _ => Some("a statement of this kind"),
        };
        if let Some(what) = cannot {
            // The first reason is one that concerns the whole transaction.
            return Ok(self.sent().await?.and_then(|_| Err(NotAhead::cannot_be_undone(what))));
        }
        self.case_by(statement, choose).await
    }

    /// The case of a statement that keeps its place. `Err(NotAhead)`: why the transaction before it cannot be run again.
    pub(super) async fn case_in_place(&mut self, statement: &Statement) -> Result<Result<Case, NotAhead>, RunError> {
        self.case_by(statement, run_again).await
    }

    /// As [`Self::case_in_place`], however long the transaction has taken.
    pub(super) async fn case_at_any_time(&mut self, statement: &Statement) -> Result<Result<Case, NotAhead>, RunError> {
        match self.sent_at_any_time().await? {
            Ok(sent) => self.case_of(sent, statement, run_again).await,
            Err(why) => Ok(Err(why)),
        }
    }

    pub(super) async fn case_by(
        &mut self,
        statement: &Statement,
        choose: Choice,
    ) -> Result<Result<Case, NotAhead>, RunError> {
        match self.sent().await? {
            Ok(sent) => self.case_of(sent, statement, choose).await,
            Err(why) => Ok(Err(why)),
        }
    }

    async fn case_of(
        &mut self,
        sent: Vec<Sent>,
        statement: &Statement,
        choose: Choice,
    ) -> Result<Result<Case, NotAhead>, RunError> {
        let Some((touched, volatile)) = self.reach(&sent, statement).await? else {
            return Ok(Err(not_ahead(
                "It is not known which relations the transaction has used.".to_owned(),
                "Send the statement outside a transaction.",
            )));
        };
        let (of_last, of_earlier) = touched.split_last().unwrap_or((const { &BTreeSet::new() }, &[]));
        let ahead = self.block.ahead();
        let mut places = Vec::new();
        let mut earlier = Vec::new();
        for (place, ((sent, touches), volatile)) in sent.iter().zip(of_earlier).zip(volatile).enumerate() {
            if sent.taken_back {
                continue;
            }
            places.push(place);
            earlier.push(Earlier {
                statement: &sent.statement,
                effect: &sent.effect,
                touches: touches.clone(),
                hoisted: ahead.is_some_and(|ahead| ahead.is_done(place)),
                undoable: undoable(&sent.statement),
                volatile,
            });
        }
        let chosen = choose(&earlier, statement, of_last);
        Ok(chosen.map(|chosen| {
            let places = |of: Vec<usize>| of.into_iter().filter_map(|at| places.get(at).copied()).collect();
            Case { sent, ahead: places(chosen.ahead), compared: places(chosen.compared) }
        }))
    }

    /// What the client has sent in the transaction, one statement after the other. The transaction has not taken too long.
    pub(super) async fn sent(&mut self) -> Result<Result<Vec<Sent>, NotAhead>, RunError> {
        let limit = self.shared.config.ddl.replay_limit;
        if self.block.journal().is_some_and(|journal| journal.took() > limit) {
            return Ok(Err(not_ahead(
                format!("The transaction has taken longer than replay_limit, which is {}.", in_words(limit)),
                "Send the statement in a transaction of its own, or raise replay_limit in [ddl] of proxy.toml.",
            )));
        }
        self.sent_at_any_time().await
    }

    async fn sent_at_any_time(&mut self) -> Result<Result<Vec<Sent>, NotAhead>, RunError> {
        let Some((journal, answers)) = self.block.journal().zip(self.channel.answers()) else {
            return Ok(Err(not_ahead(
                "The proxy has not seen how the transaction began.".to_owned(),
                "Begin the transaction by BEGIN as a statement of its own.",
            )));
        };
        let messages = match journal.messages(answers) {
            Ok(messages) => messages,
            Err(why) => {
                return Ok(Err(not_ahead(
                    format!("The transaction cannot be run again, because {why}."),
                    "Send the statement outside a transaction.",
                )));
            }
        };
        let mut sent = Vec::with_capacity(messages.len());
        for message in messages {
            match self.statements_of(message).await? {
                Some(statements) => sent.extend(statements),
                None => {
                    return Ok(Err(not_ahead(
                        "A statement of the transaction could not be read.".to_owned(),
                        "Send the statement outside a transaction.",
                    )));
                }
            }
        }
        note_taken_back(&mut sent);
        Ok(Ok(sent))
    }

    /// The statements of a message. `None`: they cannot be read, or the answers are not theirs.
    async fn statements_of(&mut self, message: Message) -> Result<Option<Vec<Sent>>, RunError> {
        let (text, how, tags) = match message {
            Message::Acted { statement, tag, .. } => {
                let options = parse_options(self.channel, self.shared);
                let effect = effects(&statement.text, options).ok().and_then(|mut all| Some(all.pop()?.1));
                return Ok(
                    effect.map(|effect| vec![Sent { statement, effect, tag, how: How::Text, taken_back: false }])
                );
            }
            Message::Query { text, tags, .. } => (self.readable(&text), How::Text, tags),
            Message::Execute { text: Some(text), types, parameters, tag, .. } => {
                (self.readable(&text), How::Bound { types, parameters }, vec![tag])
            }
            Message::Execute { statement: name, text: None, parameters, tag, .. } => {
                let asked = String::from_utf8_lossy(&name).into_owned();
                let answer = self.channel.question(PREPARED_SQL, &[&asked]).await?;
                let found = answer.value().map(|value| self.channel.text(value));
                let found = found.as_deref().and_then(|found| found.split_once(':'));
                let types = found.map(|(types, _)| types_as_in_parse(types)).unwrap_or_default();
                (found.map(|(_, text)| text.to_owned()), How::Prepared { name, types, parameters }, vec![tag])
            }
        };
        let Some(text) = text else { return Ok(None) };
        let Ok(statements) = effects(&text, parse_options(self.channel, self.shared)) else { return Ok(None) };
        if statements.len() != tags.len() {
            return Ok(None);
        }
        let mut how = Some(how);
        Ok(Some(
            statements
                .into_iter()
                .zip(tags)
                .map(|((statement, effect), tag)| Sent {
                    statement,
                    effect,
                    tag,
                    how: how.take().unwrap_or(How::Text),
                    taken_back: false,
                })
                .collect(),
        ))
    }

    fn readable(&self, text: &[u8]) -> Option<String> {
        String::from_utf8(self.channel.speech().readable(text).into_owned()).ok()
    }

    /// The relations that each statement touches, the last one included, and whether each but the last calls a function that may do anything.
    async fn reach(
        &mut self,
        sent: &[Sent],
        last: &Statement,
    ) -> Result<Option<(Vec<BTreeSet<u32>>, Vec<bool>)>, RunError> {
        let Some(of_last) =
            effects(&last.text, parse_options(self.channel, self.shared)).ok().and_then(|mut all| all.pop())
        else {
            return Ok(None);
        };
        let all: Vec<&Effect> = sent.iter().map(|sent| &sent.effect).chain([&of_last.1]).collect();
        let relations: Vec<_> = all.iter().flat_map(|effect| &effect.relations).cloned().collect();
        let functions: Vec<_> = all.iter().flat_map(|effect| &effect.functions).cloned().collect();
        let Some(found) = self.ask_relations(&relations).await? else { return Ok(None) };
        let Some(volatile) = self.ask_functions(&functions).await? else { return Ok(None) };
        let (mut found, mut volatile) = (found.into_iter(), volatile.into_iter());
        let touched =
            all.iter().map(|effect| found.by_ref().take(effect.relations.len()).flatten().collect::<BTreeSet<u32>>());
        let touched = touched.collect();
        let any = sent.iter().map(|sent| {
            // Every answer is taken, so that the next statement gets its own.
            volatile.by_ref().take(sent.effect.functions.len()).fold(false, |any, one| any | one)
        });
        let any = any.collect();
        Ok(Some((touched, any)))
    }

    pub(super) async fn ask_relations(
        &mut self,
        names: &[RelationName],
    ) -> Result<Option<Vec<BTreeSet<u32>>>, RunError> {
        if names.is_empty() {
            return Ok(Some(Vec::new()));
        }
        let answer = self.answer_to(&reach::question(names)).await?;
        let touched = answer.and_then(|text| reach::touched(&text).ok());
        Ok(touched.filter(|touched| touched.len() == names.len()))
    }

    async fn ask_functions(&mut self, names: &[RelationName]) -> Result<Option<Vec<bool>>, RunError> {
        if names.is_empty() {
            return Ok(Some(Vec::new()));
        }
        let answer = self.answer_to(&reach::volatile_question(names)).await?;
        let volatile = answer.and_then(|text| reach::volatile(&text).ok());
        Ok(volatile.filter(|volatile| volatile.len() == names.len()))
    }

    async fn answer_to(&mut self, question: &Question) -> Result<Option<String>, RunError> {
        let (sql, parameters) = question.as_asked();
        let answer = self.channel.question(sql, &parameters).await?.ok().map_err(RunError::Server)?;
        Ok(answer.value().map(|value| self.channel.text(value)))
    }
}

/// The oids of the parameters' types, and the text of a prepared statement.
const PREPARED_SQL: &str = "SELECT pg_catalog.array_to_string(p.parameter_types::pg_catalog.oid[], ',') \
     OPERATOR(pg_catalog.||) ':' OPERATOR(pg_catalog.||) p.statement FROM pg_catalog.pg_prepared_statements p \
     WHERE p.name OPERATOR(pg_catalog.=) $1::pg_catalog.text";

/// The types of the parameters as they stand in Parse behind the text.
fn types_as_in_parse(oids: &str) -> Vec<u8> {
    let oids: Vec<u32> = oids.split(',').filter_map(|oid| oid.parse().ok()).collect();
    let count = u16::try_from(oids.len()).unwrap_or(u16::MAX).to_be_bytes();
    count.into_iter().chain(oids.into_iter().flat_map(u32::to_be_bytes)).collect()
}

pub(super) fn not_ahead(detail: String, hint: &str) -> NotAhead {
    NotAhead { detail, hint: hint.to_owned() }
}
