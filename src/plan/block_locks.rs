//! The tables that the client's transaction block has in hand: tables that it has created, which nobody else can see,
//! tables that a first try has locked and found to be ordinary or partitioned, and relations that a LOCK TABLE has locked.
//!
//! A change of those tables alone makes nobody wait for longer than the block does already. So the change needs no guard,
//! and it is relayed as it is written.
//!
//! Invariant: all tables are forgotten as soon as a statement could give a name another meaning, or end a part of the
//! transaction. Any statement that the proxy does not understand could do so. `docs/decisions/0035-what-a-block-holds.md`
//! has the limits.

use super::elide::adds_column;
use super::model::Limits;
use super::optimistic::{self, OptimisticPlan};
use crate::catalog::query::relations_of;
use crate::pg::{LockMode, RelationName};
use crate::sql::form::{Cost, Form};
use crate::sql::{Class, Ddl, LockedName, Statement, TransactionControl, first_word, has_word};
use std::collections::HashSet;

/// The most tables that are kept. It is more than a migration has. A table beyond that is guarded as usual.
const MOST: usize = 256;

/// The tables of one transaction block.
#[derive(Debug, Clone, Default)]
pub struct BlockLocks {
    relations: Vec<(RelationName, HeldRelation)>,
    /// What the block's LOCK TABLE statements have locked. Nothing else is known of these relations, so that only another LOCK TABLE
    /// may rely on it.
    locked: Vec<(LockedName, LockMode)>,
    /// The block has written rows since. So a new table may not be empty, and a small table may no longer be small.
    filled: bool,
}

#[derive(Debug, Clone, Copy)]
enum HeldRelation {
    /// The block has created the relation.
    New,
    Locked {
        mode: LockMode,
        /// The table was found to be no larger than `small_table`.
        small: bool,
        /// The table was found not to be partitioned.
        ordinary: bool,
    },
}

impl BlockLocks {
    /// Whether the block holds every lock that the statement would wait for.
    pub fn suffices(&self, statement: &Statement, limits: &Limits) -> bool {
        if let Class::Lock(lock) = &statement.class {
            return lock.relations.iter().all(|locked| self.has(locked, lock.mode));
        }
        let Some(ddl) = statement.ddl() else { return false };
        if self.relations.is_empty()
            || ddl.cascade
            || ddl.names_too_much()
            || !ddl.parts.iter().all(|part| locks_what_it_names(part.form))
        {
            return false;
        }
        let mut named = relations_of(statement);
        if makes_relations(ddl) {
            named.retain(|name| !ddl.targets.contains(name));
        }
        let is_new = |name| matches!(self.hold(name), Some(HeldRelation::New));
        !named.is_empty() && (named.iter().all(is_new) || self.suffices_by_locks(statement, limits))
    }

    /// Whether the block holds all that this LOCK TABLE locks. Of a table that a first try has locked, partitions and children may not be
    /// locked.
    fn has(&self, locked: &LockedName, mode: LockMode) -> bool {
        let by_try = match self.hold(&locked.name) {
            Some(HeldRelation::New) => true,
            Some(HeldRelation::Locked { mode: held, ordinary, .. }) => (ordinary || locked.only) && held.covers(mode),
            None => false,
        };
        let same = |held: &LockedName| held.name == locked.name && (locked.only || !held.only);
        by_try || self.locked.iter().any(|(held, held_mode)| same(held) && held_mode.covers(mode))
    }

    /// Whether the block holds the locks of a first try of the statement, and is known to satisfy the condition of that try.
    fn suffices_by_locks(&self, statement: &Statement, limits: &Limits) -> bool {
        let Some(OptimisticPlan { plan, condition }) = optimistic::optimistic(statement, true, limits) else {
            return false;
        };
        let is_so = |name| match self.hold(name) {
            Some(HeldRelation::New) => true,
            Some(HeldRelation::Locked { small, ordinary, .. }) => {
                (small || condition.small.is_none()) && (ordinary || condition.or_partitioned)
            }
            None => false,
        };
        let mut locks = plan.phases.iter().flat_map(|phase| &phase.locks);
        condition.unreferenced.is_empty()
            && condition.relations.iter().all(is_so)
            && locks.all(|lock| match self.hold(&lock.relation) {
                Some(HeldRelation::New) => true,
                Some(HeldRelation::Locked { mode, .. }) => mode.covers(lock.mode),
                None => false,
            })
    }

    /// Takes note of a statement that is relayed, in the order of the client's messages. If the statement fails, the block has
    /// failed. `false`: all tables are forgotten, and the block may have ended.
    #[must_use]
    pub fn passes(&mut self, statement: &Statement) -> bool {
        let understood = match &statement.class {
            Class::Ddl(ddl) => self.passes_ddl(ddl, &relations_of(statement)),
            Class::Lock(_) => true,
            Class::Transaction(TransactionControl::Savepoint) | Class::AdvisoryLock(_) | Class::Other => {
                return self.passes_text(statement.text.as_bytes());
            }
            Class::Transaction(_) | Class::MayHideDdl { .. } | Class::Newer | Class::ExplainDdl(_) => false,
        };
        if !understood {
            self.forget();
        }
        understood
    }

    fn forget(&mut self) {
        self.relations.clear();
        self.locked.clear();
    }

    /// Takes note of a text without DDL, as [`BlockLocks::passes`] does.
    #[must_use]
    pub fn passes_text(&mut self, text: &[u8]) -> bool {
        let understood = leaves_all_as_it_was(text);
        if !understood {
            self.forget();
        }
        let writes = [&b"insert"[..], b"update", b"merge", b"copy"];
        self.filled |= !understood || writes.iter().any(|word| first_word(text).eq_ignore_ascii_case(word));
        understood
    }

    /// Whether a statement for which [`BlockLocks::suffices`] is over soon.
    pub fn is_brief(&self, statement: &Statement) -> bool {
        let Some(ddl) = statement.ddl() else { return false };
        !self.filled || ddl.parts.iter().all(|part| part.form.row().cost == Cost::Brief)
    }

    fn passes_ddl(&mut self, ddl: &Ddl, named: &[RelationName]) -> bool {
        let targets: HashSet<&RelationName> = ddl.targets.iter().collect();
        let is_new = |name: &RelationName| targets.contains(name) || matches!(self.hold(name), Some(HeldRelation::New));
        let of_new_alone = ddl.parts.iter().all(|part| locks_what_it_names(part.form)) && named.iter().all(is_new);
        if !of_new_alone && !ddl.parts.iter().all(|part| leaves_names(part.form)) {
            return false;
        }
        if makes_relations(ddl) && !ddl.if_not_exists {
            ddl.targets.iter().for_each(|name| self.put(name, HeldRelation::New));
        }
        true
    }

    /// Takes note of a statement that the proxy has run. `first`: the first try, if that ran it. `false`: as in [`BlockLocks::passes`].
    #[must_use]
    pub fn done(&mut self, statement: &Statement, first: Option<&OptimisticPlan>) -> bool {
        let understood = self.passes(statement);
        if let Class::Lock(lock) = &statement.class {
            let room = MOST.saturating_sub(self.locked.len());
            let whole = lock.relations.iter().filter(|locked| is_whole(&locked.name)).take(room);
            self.locked.extend(whole.map(|locked| (locked.clone(), lock.mode)));
        }
        if let Some(first) = first.filter(|first| understood && !first.condition.indexes) {
            self.lock_all(first);
        }
        understood
    }

    fn lock_all(&mut self, OptimisticPlan { plan, condition }: &OptimisticPlan) {
        for name in &condition.relations {
            let locks = plan.phases.iter().flat_map(|phase| &phase.locks);
            if let Some(mode) = locks.filter(|lock| lock.relation == *name).map(|lock| lock.mode).max() {
                self.lock(name, mode, condition.small.is_some(), !condition.or_partitioned);
            }
        }
    }

    fn lock(&mut self, name: &RelationName, mode: LockMode, small: bool, ordinary: bool) {
        let locked = match self.hold(name) {
            Some(HeldRelation::New) => return,
            // If neither mode covers the other, one of the two is kept.
            Some(HeldRelation::Locked { mode: held, small: known_small, ordinary: known_ordinary }) => {
                HeldRelation::Locked {
                    mode: if held.covers(mode) { held } else { mode },
                    small: known_small || small,
                    ordinary: known_ordinary || ordinary,
                }
            }
            None => HeldRelation::Locked { mode, small, ordinary },
        };
        self.put(name, locked);
    }

    fn hold(&self, name: &RelationName) -> Option<HeldRelation> {
        self.relations.iter().find(|(held, _)| held == name).map(|(_, hold)| *hold)
    }

    fn put(&mut self, name: &RelationName, hold: HeldRelation) {
        if let Some((_, held)) = self.relations.iter_mut().find(|(held, _)| held == name) {
            *held = hold;
        } else if self.relations.len() < MOST && is_whole(name) {
            self.relations.push((name.clone(), hold));
        }
    }
}

/// Whether the server takes the name whole. It cuts longer names, so that two names may mean one relation; such names are not kept.
fn is_whole(name: &RelationName) -> bool {
    const NAMEDATALEN: usize = 64;
    name.name.len() < NAMEDATALEN && name.schema.as_ref().is_none_or(|schema| schema.len() < NAMEDATALEN)
}

/// Whether the statement's targets are new tables, or a new sequence.
pub fn makes_relations(ddl: &Ddl) -> bool {
    ddl.tag == "CREATE SEQUENCE" || ddl.parts.iter().all(|part| makes_a_table(part.form))
}

fn makes_a_table(form: Form) -> bool {
    matches!(
        form,
        Form::CreateTable | Form::CreateTableReferences | Form::CreateTablePartitionOf | Form::CreateTableInherits
    )
}

/// Forms that lock the relations they name, the objects that belong to those, and nothing else that others would notice. OWNED BY
/// of a sequence belongs here, since it locks the table as a SELECT does. DROP COLUMN does not, since it may lock the table that a
/// foreign key points to.
fn locks_what_it_names(form: Form) -> bool {
    let other = matches!(
        form,
        Form::SetDefault
            | Form::DropDefault
            | Form::SetNotNull
            | Form::DropNotNull
            | Form::SetColumnStatistics
            | Form::SetStorage
            | Form::AlterIdentity
            | Form::RenameColumn
            | Form::AddCheck
            | Form::AddCheckNotValid
            | Form::AddNotNullConstraint
            | Form::AddNotNullNotValid
            | Form::AddForeignKey
            | Form::AddForeignKeyNotValid
            | Form::AddUnique
            | Form::AddPrimaryKey
            | Form::AddConstraintUsingIndex
            | Form::RenameConstraint
            | Form::CreateIndex
            | Form::CreateStatistics
            | Form::OwnerTo
            | Form::ReplicaIdentity
            | Form::RowSecurity
            | Form::SetTableOptions
            | Form::SetTriggers
            | Form::AttachPartition
            | Form::CreateTrigger
            | Form::CreatePolicy
            | Form::Comment
            | Form::AlterSequence
    );
    other || adds_column(form) || makes_a_table(form)
}

/// Forms after which every table is still found under its name, and a new table has no older table as its partition or child.
fn leaves_names(form: Form) -> bool {
    let other = matches!(
        form,
        Form::DropColumn
            | Form::DropExpression
            | Form::SetExpression
            | Form::AlterColumnType
            | Form::AddExclude
            | Form::ValidateConstraint
            | Form::AlterConstraint
            | Form::DropConstraint
            | Form::DropIndex
            | Form::AlterIndexSet
            | Form::CreateView
            | Form::ReplaceView
            | Form::AlterTrigger
            | Form::DropTrigger
            | Form::AlterPolicy
            | Form::DropPolicy
            | Form::SecurityLabel
            | Form::Grant
            | Form::AlterEnum
            | Form::CreateObject
    );
    other || (form != Form::AttachPartition && locks_what_it_names(form))
}

/// Whether a text without DDL is one statement that surely does not end the transaction or a part of it, and does not give a name
/// another meaning. Any other statement may do so: a SELECT may call a function that does.
fn leaves_all_as_it_was(text: &[u8]) -> bool {
    let one = text.trim_ascii_end();
    let one = one.strip_suffix(b";").unwrap_or(one);
    if one.contains(&b';') || has_word(one, &["set_config"]) {
        return false;
    }
    let word = first_word(one).to_ascii_lowercase();
    match word.as_slice() {
        b"insert" | b"update" | b"delete" | b"merge" | b"copy" | b"lock" | b"show" | b"savepoint" | b"release" => true,
        b"set" => !has_word(one, &["search_path", "schema", "role", "session", "authorization"]),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::parse;

    #[test]
    fn what_leaves_all_as_it_was() {
        for sql in [
            "INSERT INTO t VALUES (1, 'a')",
            " update t set a = 1 ;",
            "SET LOCAL lock_timeout = '1s'",
            "SET CONSTRAINTS ALL IMMEDIATE",
            "SAVEPOINT x",
            "RELEASE SAVEPOINT x",
        ] {
            assert!(leaves_all_as_it_was(sql.as_bytes()), "{sql}");
        }
        for sql in [
            "",
            "INSERT INTO t VALUES (1); COMMIT",
            "INSERT INTO t SELECT Set_Config('a', 'b', true)",
            "insert into t select pg_catalog.\"set_config\"('a', 'b', true)",
            "set Search_Path = x",
            "SET SESSION AUTHORIZATION x",
            "/* x */ INSERT INTO t VALUES (1)",
            "SELECT 1",
            "ROLLBACK TO SAVEPOINT x",
            "END",
            "DISCARD ALL",
        ] {
            assert!(!leaves_all_as_it_was(sql.as_bytes()), "{sql}");
        }
    }

    fn behind(sql: &str) -> BlockLocks {
        let mut held = BlockLocks::default();
        for statement in parse(sql).unwrap() {
            let _ = held.passes(&statement);
        }
        held
    }

    fn suffices(held: &BlockLocks, sql: &str) -> bool {
        let limits = Limits { small_table: 0, rewrite: true, refuse_unsafe: true, refuse_exclude: true };
        held.suffices(&parse(sql).unwrap()[0], &limits)
    }

    /// A table that a first try has locked may be partitioned, unless the condition of the try has excluded that.
    #[test]
    fn what_may_be_partitioned_is_not_ordinary() {
        let limits = Limits { small_table: 0, rewrite: true, refuse_unsafe: true, refuse_exclude: true };
        let mut held = BlockLocks::default();
        let (add, drop) = ("ALTER TABLE t ADD COLUMN a int", "ALTER TABLE t SET (fillfactor = 70)");
        for (sql, expected) in [(add, [true, false]), (drop, [true, true])] {
            let statement = &parse(sql).unwrap()[0];
            let first = optimistic::optimistic(statement, true, &limits);
            assert!(held.done(statement, first.as_ref()), "{sql}");
            assert_eq!([add, drop].map(|sql| suffices(&held, sql)), expected, "{sql}");
        }
    }

    /// A new table is known by the name in the CREATE TABLE, and only as long as no other relation can have that name.
    #[test]
    fn names_are_taken_as_written() {
        let held = behind("CREATE TABLE s.n (); CREATE TABLE \"N\" (); CREATE TABLE IF NOT EXISTS m ()");
        for (sql, expected) in [
            ("CREATE INDEX ON s.n (a)", true),
            ("CREATE INDEX ON n (a)", false),
            ("CREATE INDEX ON \"N\" (a)", true),
            ("CREATE INDEX ON m (a)", false),
            ("CREATE INDEX CONCURRENTLY ON s.n (a)", false),
            ("ALTER TABLE s.n ADD EXCLUDE (a WITH =)", false),
            ("ALTER TABLE s.n ADD FOREIGN KEY (a) REFERENCES \"N\", ALTER b SET NOT NULL", true),
            ("ALTER TABLE s.n ADD FOREIGN KEY (a) REFERENCES o", false),
            ("ALTER TABLE s.n DROP COLUMN a", false),
            ("ALTER TABLE s.n ATTACH PARTITION \"N\" DEFAULT", true),
            ("ALTER TABLE s.n ATTACH PARTITION o DEFAULT", false),
            ("COMMENT ON DATABASE d IS 'x'", false),
        ] {
            assert_eq!(suffices(&held, sql), expected, "{sql}");
        }
        for forgets in ["ALTER TABLE n ATTACH PARTITION o DEFAULT", "ALTER TABLE o RENAME TO n", "CREATE EXTENSION e"] {
            let held = behind(&format!("CREATE TABLE n (); {forgets}"));
            assert!(!suffices(&held, "CREATE INDEX ON n (a)"), "{forgets}");
        }
    }
}
