//! The identity of a schema change: what an approval is of.
//!
//! [`Digest`] is a SHA-256. It is pure. It keeps true: two changes have the same digest exactly if they have the same words, roles, database,
//! relations, settings and plan. Comments and blanks of the text do not count, and neither do sizes and rows: they change from minute to
//! minute. Names of forms would not do, and neither would `pg_query`'s fingerprint: `RENAME a TO b` and `RENAME a TO c` have the same one.

use crate::plan::{Phase, Plan, Undo};
use crate::sql::{ParseOptions, words_of};
use sha2::{Digest as _, Sha256};
use std::fmt;

/// The digest of a schema change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest([u8; 32]);

/// All that the identity of a change consists of.
#[derive(Debug, Clone)]
pub struct Identity<'a> {
    /// The client's text, and how the server reads it.
    pub text: &'a str,
    pub options: ParseOptions,
    pub session_user: &'a str,
    pub current_user: &'a str,
    pub database: &'a str,
    /// The oids of the relations that the statement names, in its order.
    pub relations: &'a [u32],
    /// The settings that change the meaning of the text ([`SETTINGS`]), with their values, in that order.
    pub settings: &'a [(&'a str, &'a str)],
    /// `None`: it is not known, since the session may not ask for facts.
    pub plan: Option<&'a Plan>,
    /// The statement stands in a transaction, where it may have another plan.
    pub in_transaction: bool,
}

/// The settings that change the meaning of a text.
pub const SETTINGS: [&str; 5] =
    ["search_path", "role", "TimeZone", "default_tablespace", "default_table_access_method"];

/// The digest begins with this text. It changes whenever something else is digested.
const VERSION: &str = "pgsluice change 1";
const TEXT_VERSION: &str = "pgsluice request 1";

impl Digest {
    pub fn of(identity: &Identity<'_>) -> Self {
        let mut hash = Fields::of(VERSION, identity);
        hash.texts(&identity.plan.map(|plan| effects(plan, identity.options)).unwrap_or_default());
        Self(hash.0.finalize().into())
    }

    /// The digest of a change without its plan. The same request has the same one, whatever is to be done for it.
    pub fn of_text(identity: &Identity<'_>) -> Self {
        let mut hash = Fields::of(TEXT_VERSION, identity);
        hash.texts(&[if identity.in_transaction { "in a transaction" } else { "alone" }]);
        Self(hash.0.finalize().into())
    }
}

impl Digest {
    /// A digest from its hexadecimal digits. `None`: this is none.
    pub fn from_text(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        if text.len() != 2 * bytes.len() || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        for (byte, at) in bytes.iter_mut().zip((0..).step_by(2)) {
            *byte = u8::from_str_radix(text.get(at..at + 2)?, 16).ok()?;
        }
        Some(Self(bytes))
    }
}

impl Fields {
    /// What a change consists of, but for its plan.
    fn of(version: &str, identity: &Identity<'_>) -> Self {
        let mut hash = Self(Sha256::new());
        hash.text(version);
        hash.texts(&words_of(identity.text, identity.options));
        hash.texts(&[identity.session_user, identity.current_user, identity.database]);
        let relations: Vec<String> = identity.relations.iter().map(u32::to_string).collect();
        hash.texts(&relations);
        let settings: Vec<&str> = identity.settings.iter().flat_map(|(name, value)| [*name, *value]).collect();
        hash.texts(&settings);
        hash
    }
}

/// What a plan does: its SQL, which has the client's words, and its locks. Comments and blanks do not count here either.
fn effects(plan: &Plan, options: ParseOptions) -> Vec<String> {
    let mut texts = vec![plan.tag.clone(), format!("answer {}", plan.answer.is_some())];
    plan.phases.iter().for_each(|one| phase(one, options, &mut texts));
    texts
}

fn phase(phase: &Phase, options: ParseOptions, texts: &mut Vec<String>) {
    texts.push(format!("phase {:?} {}", phase.kind, phase.in_transaction));
    for lock in &phase.locks {
        texts.push(format!("lock {} {} {} {}", lock.relation.quoted(), lock.oid, lock.mode, lock.only));
    }
    for step in &phase.steps {
        let words = words_of(&step.sql, options).join(" ");
        texts.push(format!("step {} {:?} {words}", step.visible, step.learns));
    }
    if let Some(backfill) = &phase.backfill {
        let what = (backfill.oid, backfill.quiet, backfill.watched);
        texts.push(format!("backfill {what:?} {} WHERE {}", backfill.set(), backfill.wanting()));
    }
    if let Some(detach) = &phase.detach {
        self::phase(&detach.finish, options, texts);
    }
    match &phase.undo {
        Some(Undo::Run(undo)) => {
            texts.push("undo".to_owned());
            self::phase(undo, options, texts);
        }
        // The others depend on what is in the catalogue at the time.
        Some(_) => texts.push("undo of what was built or dropped".to_owned()),
        None => {}
    }
}

/// Texts, each behind its length, so that no two lists of texts give the same bytes.
struct Fields(Sha256);

impl Fields {
    fn text(&mut self, text: &str) {
        self.0.update((text.len() as u64).to_le_bytes());
        self.0.update(text);
    }

    fn texts<T: AsRef<str>>(&mut self, texts: &[T]) {
        self.0.update((texts.len() as u64).to_le_bytes());
        texts.iter().for_each(|text| self.text(text.as_ref()));
    }
}

/// The digest in hexadecimal digits.
impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::supposed::{self, SupposedSize};
    use crate::plan::{Limits, plan};
    use crate::sql::parse;

    fn plan_of(text: &str, size: SupposedSize) -> Plan {
        let statement = &parse(text).unwrap()[0];
        let limits = Limits { small_table: 1 << 20, rewrite: true, refuse_unsafe: false, refuse_exclude: false };
        plan(statement, &supposed::facts(statement, size), &limits).unwrap()
    }

    fn identity<'a>(text: &'a str, plan: &'a Plan) -> Identity<'a> {
        Identity {
            text,
            options: ParseOptions::default(),
            session_user: "ann",
            current_user: "app",
            database: "shop",
            relations: &[16_384],
            settings: &[("search_path", "public"), ("role", "app")],
            plan: Some(plan),
            in_transaction: false,
        }
    }

    fn digest(text: &str) -> String {
        Digest::of(&identity(text, &plan_of(text, SupposedSize::Large))).to_string()
    }

    #[test]
    fn comments_and_blanks_do_not_count() {
        let plan = plan_of("ALTER TABLE t RENAME a TO b", SupposedSize::Large);
        let of = |text| Digest::of(&identity(text, &plan));
        let one = of("ALTER TABLE t RENAME a TO b");
        assert_eq!(one, of("  ALTER  TABLE\n t -- a comment\n RENAME a /* b */ TO b"));
        // The plan has the client's text in it.
        let again = plan_of("ALTER TABLE t RENAME /* x */ a  TO b", SupposedSize::Large);
        assert_eq!(one, Digest::of(&identity("ALTER TABLE t RENAME a TO b", &again)));
        assert_ne!(one, of("ALTER TABLE t RENAME a TO c"));
        assert_ne!(one, of("ALTER TABLE t RENAME \"a\" TO b"));
        assert_ne!(one, of("ALTER TABLE tRENAME a TO b"));
    }

    #[test]
    fn literals_count() {
        let texts = [
            "ALTER TABLE t ADD a int DEFAULT 1",
            "ALTER TABLE t ADD a int DEFAULT 2",
            "ALTER TABLE t ADD a text DEFAULT '1'",
            "ALTER TABLE t ADD a text DEFAULT '1 '",
            "ALTER TABLE t ADD a varchar(1)",
            "ALTER TABLE t ADD a varchar(2)",
            "ALTER TABLE t RENAME a TO b",
            "ALTER TABLE t RENAME a TO c",
            "GRANT SELECT ON t TO a",
            "GRANT SELECT ON t TO b",
        ];
        let digests: std::collections::HashSet<String> = texts.iter().map(|text| digest(text)).collect();
        assert_eq!(digests.len(), texts.len());
        assert_eq!(digest(texts[0]), digest(texts[0]));
        assert_eq!(digest(texts[0]).len(), 64);
    }

    #[test]
    fn every_part_counts() {
        let text = "CREATE INDEX ON t (a)";
        let (large, small) = (plan_of(text, SupposedSize::Large), plan_of(text, SupposedSize::Small));
        let one = identity(text, &large);
        let others = [
            Identity { session_user: "bob", ..one.clone() },
            Identity { current_user: "ann", ..one.clone() },
            Identity { database: "shop2", ..one.clone() },
            Identity { relations: &[16_385], ..one.clone() },
            Identity { relations: &[16_384, 1], ..one.clone() },
            Identity { settings: &[("search_path", "public"), ("role", "none")], ..one.clone() },
            Identity { settings: &[], ..one.clone() },
            // One brief step, and a concurrent build.
            Identity { plan: Some(&small), ..one.clone() },
            // What moves from one field to the next.
            Identity { session_user: "annapp", current_user: "", ..one.clone() },
        ];
        let digests: std::collections::HashSet<Digest> = others.iter().chain([&one]).map(Digest::of).collect();
        assert_eq!(digests.len(), 10);
    }

    #[test]
    fn sizes_and_notes_do_not_count() {
        let text = "CREATE INDEX ON t (a)";
        let plan = plan_of(text, SupposedSize::Large);
        let mut told = plan.clone();
        told.notes.push(crate::report::Report::notice("00000", "31 GB"));
        told.phases[0].purpose = "something else".to_owned();
        assert_eq!(Digest::of(&identity(text, &plan)), Digest::of(&identity(text, &told)));
        let mut locked = plan.clone();
        locked.phases[0].locks.clear();
        assert_ne!(Digest::of(&identity(text, &plan)), Digest::of(&identity(text, &locked)));
    }
}
