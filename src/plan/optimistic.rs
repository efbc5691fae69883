//! The optimistic first try: most schema changes run in one round trip, before any fact is asked for.
//!
//! On an ordinary table most forms are one brief step, whatever else is true of the table. Some forms are one brief step
//! only if the table is small, and some also on a partitioned table. Such a statement is tried at once, behind a condition
//! that checks exactly this ([`Condition`]). If the try fails (a lock, a lane, a large or partitioned table, any error),
//! nothing has changed and the statement gets a full plan.
//!
//! The planner itself decides from supposed facts which statements are tried. If its plan is one brief step for a large
//! table of which nothing else is known, the statement needs no facts. If its plan is one brief step for a small table, the
//! statement needs the table's size only. A form whose plan depends on more is not tried.

use super::elide::adds_column;
use super::model::{Limits, LockNeed, Phase, PhaseKind, Plan};
use crate::catalog::query::{LANE_CLASS, array, relations_of};
use crate::catalog::supposed::{self, SupposedSize};
use crate::pg::RelationName;
use crate::sql::form::Form;
use crate::sql::{Ddl, Statement};

/// A statement that is tried at once.
#[derive(Debug)]
pub struct OptimisticPlan {
    pub plan: Plan,
    pub condition: Condition,
}

/// The condition of a first try: what must be true of the relations that the statement names.
#[derive(Debug, PartialEq, Eq)]
pub struct Condition {
    /// Each relation must be an ordinary table without partitions and children (or an index of one), and its lane must be free.
    pub(super) relations: Vec<RelationName>,
    /// The relation may also be a partitioned table. Its partitions are then locked with it, as the statement locks them.
    pub(super) or_partitioned: bool,
    pub(super) indexes: bool,
    /// The condition says nothing about a relation that does not exist.
    if_exists: bool,
    /// The relations must not be larger than this (bytes).
    pub(super) small: Option<u64>,
    /// No foreign key may point to these columns, since its rows would be read.
    pub(super) unreferenced: Vec<String>,
    /// No unfinished plan may be on record, since the statement might take its work for done.
    unrecorded: bool,
    /// The lane is kept until the statement's own transaction ends. So the next session that takes the lane sees the change.
    keeps_lane: bool,
}

/// A relation of which a condition did not hold.
#[derive(Debug, PartialEq, Eq)]
pub struct FirstTryMiss {
    relation: RelationName,
    scope: ConditionScope,
}

/// How much a condition asks for. If a condition did not hold, a condition that asks for as much does not hold either.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum ConditionScope {
    /// An ordinary or a partitioned table.
    Table,
    Ordinary,
    /// An ordinary table of some size, or with some foreign keys.
    More,
}

impl Condition {
    /// The relation of which the condition did not hold; `None`: it may be any of several.
    pub fn miss(&self) -> Option<FirstTryMiss> {
        let [relation] = self.relations.as_slice() else { return None };
        Some(FirstTryMiss { relation: relation.clone(), scope: self.scope() })
    }

    /// Whether earlier misses show that the condition most likely does not hold.
    pub fn missed_before(&self, misses: &[FirstTryMiss]) -> bool {
        misses.iter().any(|miss| self.relations.contains(&miss.relation) && self.scope() >= miss.scope)
    }

    fn scope(&self) -> ConditionScope {
        match self.small.is_some() || !self.unreferenced.is_empty() {
            true => ConditionScope::More,
            false if self.or_partitioned => ConditionScope::Table,
            false => ConditionScope::Ordinary,
        }
    }

    /// The questions with their parameters. There is one question for each relation, and it fails unless the condition holds of that
    /// relation. The first question also has `settings` (a target list, or nothing).
    pub fn questions(&self, settings: &str) -> Vec<(String, Vec<String>)> {
        // The question has only the tests that are needed, since the server plans every test, whether it runs it or not.
        let mut holds = if self.or_partitioned { OR_PARTITIONED } else { ORDINARY }.to_owned();
        if let Some(bytes) = self.small {
            let size = "pg_catalog.pg_table_size(c.oid::pg_catalog.regclass) OPERATOR(pg_catalog.<=)";
            holds.push_str(&format!(" AND {size} {bytes}"));
        }
        if self.unrecorded {
            holds.push_str(UNRECORDED);
        } else {
            holds.push_str(CONFIRMED);
        }
        let mut columns = Vec::new();
        if !self.unreferenced.is_empty() {
            holds.push_str(UNREFERENCED);
            columns.push(array(self.unreferenced.iter().map(|column| Some(column.as_str()))));
        }
        const MAYBE: &str = "pg_catalog.to_regclass($1::pg_catalog.text)";
        const NAME: &str = "$1::pg_catalog.regclass";
        let (from, name, absent) = match (self.indexes, self.if_exists) {
            (false, false) => (TABLE.to_owned(), NAME, ""),
            (true, false) => (table_of_index(NAME), NAME, ""),
            (false, true) => (table_if_any(MAYBE), "$1::pg_catalog.text", "n.oid IS NULL OR "),
            (true, true) => (table_of_index(MAYBE), "$1::pg_catalog.text", "n.oid IS NULL OR "),
        };
        let lane = format!("({LANE_CLASS}, {SIGNED_OID})");
        let lane_is_free = match self.keeps_lane {
            true => format!("pg_catalog.pg_try_advisory_xact_lock{lane}"),
            // The lane is released at once, so that a transaction block does not hold one more lock for each of its tables.
            false => format!(
                "CASE WHEN pg_catalog.pg_try_advisory_lock{lane} THEN pg_catalog.pg_advisory_unlock{lane} ELSE false END"
            ),
        };
        let condition = format!(
            "CASE WHEN {absent}{holds} AND {lane_is_free} THEN 1 ELSE \
             pg_catalog.concat('pgsluice asks about ', {name}, ' before it goes on')::pg_catalog.int4 END FROM {from}"
        );
        // The comment explains the statement in the server's log.
        const SELECT: &str = "/* pgsluice: first try */ SELECT";
        if self.relations.is_empty() && !settings.is_empty() {
            return vec![(format!("{SELECT} {settings}"), Vec::new())];
        }
        let question = |(at, name): (usize, &RelationName)| {
            let settings = if at == 0 && !settings.is_empty() { format!("{settings}, ") } else { String::new() };
            (format!("{SELECT} {settings}{condition}"), [vec![name.quoted()], columns.clone()].concat())
        };
        self.relations.iter().enumerate().map(question).collect()
    }
}

const TABLE: &str = "pg_catalog.pg_class c WHERE c.oid OPERATOR(pg_catalog.=) $1::pg_catalog.regclass";

/// A FROM clause that gives one row even if the table does not exist.
fn table_if_any(table: &str) -> String {
    format!(
        "(SELECT {table}::pg_catalog.oid) AS n(oid) \
         LEFT JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) n.oid"
    )
}

/// A FROM clause that gives one row even if the index does not exist. A relation that is no index has no table here, so the
/// condition does not hold.
fn table_of_index(index: &str) -> String {
    format!(
        "(SELECT {index}::pg_catalog.oid) AS n(oid) \
         LEFT JOIN (pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) i.indrelid) \
         ON i.indexrelid OPERATOR(pg_catalog.=) n.oid"
    )
}

const ORDINARY: &str = "c.relkind OPERATOR(pg_catalog.=) 'r' AND NOT c.relhassubclass AND NOT c.relispartition";

const OR_PARTITIONED: &str = "(c.relkind OPERATOR(pg_catalog.=) 'p' OR c.relkind OPERATOR(pg_catalog.=) 'r' AND NOT c.relhassubclass) \
     AND NOT c.relispartition";

/// The test of `facts/named.sql` that a table has no record.
const UNRECORDED: &str = " AND NOT EXISTS (SELECT FROM pg_catalog.pg_description d \
     WHERE d.objoid OPERATOR(pg_catalog.=) c.reltype AND d.objsubid OPERATOR(pg_catalog.=) 0 \
       AND d.classoid OPERATOR(pg_catalog.=) 'pg_catalog.pg_type'::pg_catalog.regclass \
       AND pg_catalog.left(d.description, 9) OPERATOR(pg_catalog.=) 'pgsluice ')";

/// The test that a table has no record of a plan that was run ahead of a block. If its session is gone, it must be undone first. In a record, no other text has these unescaped quotes.
const CONFIRMED: &str = " AND NOT EXISTS (SELECT FROM pg_catalog.pg_description d \
     WHERE d.objoid OPERATOR(pg_catalog.=) c.reltype AND d.objsubid OPERATOR(pg_catalog.=) 0 \
       AND d.classoid OPERATOR(pg_catalog.=) 'pg_catalog.pg_type'::pg_catalog.regclass \
       AND d.description OPERATOR(pg_catalog.~~) 'pgsluice %\"ahead\":true%')";

const UNREFERENCED: &str = " AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint k \
     JOIN pg_catalog.pg_attribute a ON a.attrelid OPERATOR(pg_catalog.=) k.confrelid AND a.attnum OPERATOR(pg_catalog.=) ANY (k.confkey) \
     WHERE k.confrelid OPERATOR(pg_catalog.=) c.oid \
       AND a.attname::pg_catalog.text OPERATOR(pg_catalog.=) ANY ($2::pg_catalog.text[]))";

/// The second key of the lane, as in `lanes::try_lane_sql`: the 32 bits of the oid as a signed number. The server computes it, since
/// only the server knows the oid.
const SIGNED_OID: &str =
    "(c.oid::pg_catalog.int8 OPERATOR(pg_catalog.<<) 32 OPERATOR(pg_catalog.>>) 32)::pg_catalog.int4";

/// The first try of a statement; `None`: the statement needs facts.
pub fn optimistic(statement: &Statement, in_transaction: bool, limits: &Limits) -> Option<OptimisticPlan> {
    let ddl = statement.ddl()?;
    if !is_simple(ddl) || ddl.names_too_much() {
        return None;
    }
    // The cost of a default depends on the server's version, which is not known yet.
    let depends = ddl.parts.iter().any(|part| part.form == Form::AddColumnDefault);
    let of_any_size =
        if depends { None } else { one_brief_step(statement, ddl, SupposedSize::Large, in_transaction, limits) };
    let small = of_any_size.is_none().then_some(limits.small_table);
    let plan = of_any_size.or_else(|| one_brief_step(statement, ddl, SupposedSize::Small, in_transaction, limits))?;
    let retyped = ddl.parts.iter().filter(|part| part.form == Form::AlterColumnType);
    let condition = Condition {
        relations: relations_of(statement).into_iter().filter(|name| !is_new(ddl, name) && !is_of_views(ddl)).collect(),
        or_partitioned: small.is_none() && ddl.parts.iter().all(|part| is_alike_when_partitioned(part.form)),
        indexes: is_of_indexes(ddl),
        if_exists: needs_no_target(ddl),
        small,
        unreferenced: retyped.filter_map(|part| part.column.clone()).collect(),
        unrecorded: ddl.if_not_exists || ddl.parts.iter().any(|part| part.missing_ok),
        keeps_lane: !in_transaction,
    };
    Some(OptimisticPlan { plan, condition })
}

/// Whether the statement is about views, materialized views or sequences alone. It is brief in any case. LOCK TABLE of a view would
/// also lock its tables, and LOCK TABLE refuses the others.
fn is_of_views(ddl: &Ddl) -> bool {
    let of_views =
        |form| matches!(form, Form::DropView | Form::ReplaceView | Form::DropMaterializedView | Form::DropSequence);
    ddl.parts.iter().all(|part| of_views(part.form))
}

/// Forms that lock a partitioned table with all its partitions, as LOCK TABLE does, and do no other work there than on an ordinary table.
fn is_alike_when_partitioned(form: Form) -> bool {
    matches!(
        form,
        Form::AddColumn | Form::SetDefault | Form::RenameColumn | Form::AddCheckNotValid | Form::CreateTrigger
    )
}

/// Whether the statement drops an object that may not exist. ALTER TABLE IF EXISTS is not among these: its table is first locked by
/// name, which fails if the table does not exist.
fn needs_no_target(ddl: &Ddl) -> bool {
    ddl.if_exists && ddl.parts.iter().all(|part| matches!(part.form, Form::DropIndex | Form::DropTable))
}

/// Whether the statement names indexes. LOCK TABLE refuses them.
fn is_of_indexes(ddl: &Ddl) -> bool {
    let of_index = |form| matches!(form, Form::DropIndex | Form::AlterIndexRename | Form::AlterIndexSet);
    ddl.parts.iter().all(|part| of_index(part.form))
}

fn is_new(ddl: &Ddl, name: &RelationName) -> bool {
    supposed::creates(ddl) && ddl.targets.contains(name)
}

/// The plan, if it is the statement as written in one brief step, under locks on the relations that it names. The statement does not
/// name the table of an index, and a relation that may not exist cannot be locked by name. The statement itself locks these.
fn one_brief_step(
    statement: &Statement,
    ddl: &Ddl,
    size: SupposedSize,
    in_transaction: bool,
    limits: &Limits,
) -> Option<Plan> {
    let mut facts = supposed::facts(statement, size);
    facts.session.in_transaction = in_transaction;
    let mut plan = super::plan(statement, &facts, limits).ok()?;
    let silent = plan.notes.is_empty() && plan.answer.is_none();
    let [phase] = plan.phases.as_mut_slice() else { return None };
    if !(silent && is_statement_itself(phase, statement)) {
        return None;
    }
    if is_of_indexes(ddl) || needs_no_target(ddl) || is_of_views(ddl) {
        phase.locks.clear();
        return Some(plan);
    }
    let by_name = |lock: &mut LockNeed| {
        let known = facts.asked_of(lock.oid).filter(|_| lock.lockable);
        known.map(|known| lock.relation = known.name.clone()).is_some()
    };
    if names_no_relation(ddl) {
        return phase.locks.is_empty().then_some(plan);
    }
    (phase.kind == PhaseKind::Brief && !phase.locks.is_empty() && phase.locks.iter_mut().all(by_name)).then_some(plan)
}

fn is_statement_itself(phase: &Phase, statement: &Statement) -> bool {
    let [step] = phase.steps.as_slice() else { return false };
    let in_one_try = matches!(phase.kind, PhaseKind::Brief | PhaseKind::Guarded) && phase.in_transaction;
    in_one_try && phase.undo.is_none() && step.sql == statement.text
}

fn is_simple(ddl: &Ddl) -> bool {
    let simple = |form| super::is_plain(form) || is_simple_by_size(form) || is_of_views(ddl);
    let simple = ddl.parts.iter().all(|part| simple(part.form) && (!part.cascade || may_cascade(part.form)));
    let cascades = ddl.cascade && !ddl.parts.iter().all(|part| may_cascade(part.form));
    !cascades && (simple && !ddl.targets.is_empty() || names_no_relation(ddl))
}

/// Whether the form is brief with CASCADE, too.
fn may_cascade(form: Form) -> bool {
    matches!(form, Form::DropTable | Form::DropColumn | Form::DropConstraint)
}

/// Whether the statement names no relation but a function, a type, an extension or the like. The condition is then empty.
fn names_no_relation(ddl: &Ddl) -> bool {
    let of_none = |form| matches!(form, Form::DropObject | Form::AlterObject | Form::Extension);
    ddl.targets.is_empty() && ddl.parts.iter().all(|part| part.others.is_empty() && of_none(part.form))
}

/// Whether the plan of another form may depend on the table's size alone, or on nothing.
fn is_simple_by_size(form: Form) -> bool {
    let other = matches!(
        form,
        Form::DropColumn
            | Form::DropDefault
            | Form::SetNotNull
            | Form::DropNotNull
            | Form::AddCheck
            | Form::AddForeignKey
            | Form::AddUnique
            | Form::AddPrimaryKey
            | Form::DropConstraint
            | Form::AlterColumnType
            | Form::CreateIndex
            | Form::DropIndex
            | Form::AlterIndexRename
            | Form::AlterIndexSet
            | Form::DropTable
            | Form::Truncate
    );
    adds_column(form) || other
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::parse;

    const SMALL: u64 = 1 << 20;

    fn limits(small_table: u64) -> Limits {
        Limits { small_table, rewrite: true, refuse_unsafe: false, refuse_exclude: true }
    }

    fn condition(sql: &str, in_transaction: bool, small_table: u64) -> Option<Condition> {
        let statements = parse(sql).unwrap();
        optimistic(&statements[0], in_transaction, &limits(small_table)).map(|first| first.condition)
    }

    #[test]
    fn tables_of_any_size() {
        for sql in [
            "ALTER TABLE t ADD COLUMN a int",
            "ALTER TABLE t ADD COLUMN a int REFERENCES o, DROP COLUMN b",
            "ALTER TABLE t RENAME COLUMN a TO b",
            "ALTER TABLE t DROP CONSTRAINT c",
            "COMMENT ON COLUMN t.a IS 'x'",
            "CREATE TABLE n (o int REFERENCES o)",
            "CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()",
            "TRUNCATE t",
            "ALTER INDEX i RENAME TO j",
            "DROP TABLE IF EXISTS t, o",
            "DROP TABLE t CASCADE",
            "ALTER TABLE t DROP COLUMN a CASCADE, DROP CONSTRAINT c CASCADE",
            "CREATE EXTENSION IF NOT EXISTS pgcrypto SCHEMA public",
            "DROP FUNCTION f(int)",
            "CREATE OR REPLACE VIEW v AS SELECT 1",
            "DROP VIEW IF EXISTS v",
            "DROP MATERIALIZED VIEW m",
            "DROP SEQUENCE s",
        ] {
            for in_transaction in [false, true] {
                let condition = condition(sql, in_transaction, SMALL).unwrap_or_else(|| panic!("{sql}"));
                assert_eq!((condition.small, condition.unreferenced), (None, Vec::new()), "{sql}");
            }
        }
    }

    #[test]
    fn small_tables_alone() {
        for sql in [
            "ALTER TABLE t ADD COLUMN a float DEFAULT random()",
            "ALTER TABLE t ALTER a SET NOT NULL, ADD CHECK (a > 0)",
            "ALTER TABLE t ADD FOREIGN KEY (a) REFERENCES o",
            "ALTER TABLE t ADD UNIQUE (a)",
            "ALTER TABLE t ALTER a TYPE text",
            "CREATE INDEX ON t (a)",
            "DROP INDEX i",
        ] {
            let found = condition(sql, false, SMALL).unwrap_or_else(|| panic!("{sql}"));
            assert_eq!(found.small, Some(SMALL), "{sql}");
            assert_eq!(found.unreferenced.contains(&"a".to_owned()), sql.contains("TYPE"), "{sql}");
            assert_eq!(found.indexes, sql.starts_with("DROP INDEX"), "{sql}");
            // 0: no table is small.
            assert_eq!(condition(sql, false, 0), None, "{sql}");
        }
    }

    #[test]
    fn what_needs_facts() {
        for sql in [
            "CREATE INDEX CONCURRENTLY i ON t (a)",
            "ALTER TABLE t ATTACH PARTITION p FOR VALUES IN (1)",
            "ALTER TABLE t ADD EXCLUDE (a WITH =)",
            "ALTER TABLE t SET TABLESPACE x",
            "ALTER INDEX i SET TABLESPACE x",
            "ALTER TABLE t VALIDATE CONSTRAINT c",
            "TRUNCATE t CASCADE",
            "REINDEX TABLE t",
            "REFRESH MATERIALIZED VIEW m",
            "DROP VIEW v CASCADE",
            "DROP FUNCTION f CASCADE",
            "ALTER DOMAIN d ADD CHECK (VALUE > 0)",
        ] {
            for in_transaction in [false, true] {
                assert_eq!(condition(sql, in_transaction, SMALL), None, "{sql}");
            }
        }
    }

    #[test]
    fn what_did_not_hold_is_not_tried_again() {
        let of = |sql| condition(sql, false, SMALL).unwrap();
        let (brief, sized) = (of("ALTER TABLE t ADD COLUMN a int"), of("CREATE INDEX ON t (a)"));
        let large = [sized.miss().unwrap()];
        assert_eq!((brief.missed_before(&large), sized.missed_before(&large)), (false, true));
        let ordinary = of("ALTER TABLE t DROP CONSTRAINT c");
        let partitioned = [ordinary.miss().unwrap()];
        let missed = |known| [&brief, &ordinary, &sized].map(|condition| condition.missed_before(known));
        assert_eq!(missed(&partitioned), [false, true, true]);
        let partition = [brief.miss().unwrap()];
        assert_eq!(missed(&partition), [true, true, true]);
        assert!(!of("ALTER TABLE s.t DROP CONSTRAINT c").missed_before(&partitioned));
        assert_eq!(of("TRUNCATE t, o").miss(), None);
        assert!(of("TRUNCATE t, o").missed_before(&partitioned));
    }

    #[test]
    fn a_new_table_is_not_asked_for() {
        let new = condition("CREATE TABLE n (o int REFERENCES \"O\", self int REFERENCES n)", false, SMALL).unwrap();
        assert_eq!(new.relations, [RelationName::new(None, "O")]);
        let questions = new.questions("1");
        assert_eq!(questions.iter().map(|(_, parameters)| parameters[0].as_str()).collect::<Vec<_>>(), [r#""O""#]);
    }
}
