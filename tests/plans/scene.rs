//! The facts of a golden file of plans, line by line, and the plan that they give for a statement.

use pgsluice::catalog::attach::AttachFacts;
use pgsluice::catalog::detachable::Detachable;
use pgsluice::catalog::leaves::Leaves;
use pgsluice::catalog::reading::FactsNeeded;
use pgsluice::catalog::tree::{MatchingIndex, Member, Tree};
use pgsluice::catalog::{
    BackfillFacts, ColumnFacts, ConstraintFacts, Facts, IndexFacts, NamedFacts, ProbeAnswer, RelatedFacts,
    RelationFacts, RelationRef, SequenceCreation, SessionFacts, naming, query,
};
use pgsluice::pg::{LockMode, RelationKind, RelationName};
use pgsluice::plan::{Limits, check, hoist, plan, print, wants};
use pgsluice::sql::{Statement, parse};
use std::fmt::Write;

/// Facts as the lines have set them.
pub(super) struct Scene {
    session: SessionFacts,
    pub(super) limits: Limits,
    relations: Vec<RelationFacts>,
    unusable: Vec<String>,
    probe: Vec<Option<ProbeAnswer>>,
    wanted: Option<String>,
    tree: Option<Tree>,
    attach: Option<AttachFacts>,
    detachable: Option<Detachable>,
    domain: Option<Vec<String>>,
    leaves: Option<Leaves>,
    forgetful: bool,
    refreshable: bool,
}

impl Default for Scene {
    fn default() -> Self {
        let session = SessionFacts {
            server_version: 160_000,
            backend_pid: 4711,
            deadlock_timeout_ms: 1000,
            may_probe: true,
            current_schema: Some("public".to_owned()),
            ..SessionFacts::default()
        };
        Self {
            session,
            limits: Limits { small_table: 0, rewrite: true, refuse_unsafe: false, refuse_exclude: false },
            relations: Vec::new(),
            unusable: Vec::new(),
            probe: Vec::new(),
            wanted: None,
            tree: None,
            refreshable: false,
            attach: None,
            detachable: None,
            domain: None,
            leaves: None,
            forgetful: false,
        }
    }
}

/// As if nobody had asked for columns, constraints and foreign keys.
fn without_details(mut facts: Facts) -> Facts {
    for found in facts.relations.iter_mut().filter_map(|asked| asked.found.as_mut()) {
        found.columns.clear();
        found.constraints.clear();
        found.referenced_by.clear();
    }
    facts
}

/// As if nothing but each relation's own row had been asked for.
fn without_indexes(mut facts: Facts) -> Facts {
    facts.related.clear();
    for found in facts.relations.iter_mut().filter_map(|asked| asked.found.as_mut()) {
        found.indexes.clear();
        (found.index, found.parent, found.default_partition) = (None, None, None);
        found.detach_pending = false;
        if found.has_children {
            found.bytes = 0;
        }
    }
    facts
}

impl Scene {
    pub(super) fn set(&mut self, line: &str, file: &str) {
        if let Some(json) = line.strip_prefix("attach ") {
            self.attach = Some(serde_json::from_str(json).unwrap_or_else(|error| panic!("{file}: {error} in {json}")));
            return;
        }
        if let Some(json) = line.strip_prefix("leaves ") {
            self.leaves = Some(serde_json::from_str(json).unwrap_or_else(|error| panic!("{file}: {error} in {json}")));
            return;
        }
        if let Some(json) = line.strip_prefix("detachable ") {
            self.detachable =
                Some(serde_json::from_str(json).unwrap_or_else(|error| panic!("{file}: {error} in {json}")));
            return;
        }
        let words = words(line);
        let Some((first, rest)) = words.split_first() else { return };
        match first.as_str() {
            word if word.starts_with('#') => {}
            "session" => {
                self.session = Self::default().session;
                rest.iter().for_each(|word| session(&mut self.session, word));
            }
            "limits" => {
                self.limits = Self::default().limits;
                rest.iter().for_each(|word| limits(&mut self.limits, word));
            }
            "relation" => {
                let oid = 1000 + u32::try_from(self.relations.len()).unwrap() * 10;
                let (name, rest) = rest.split_first().unwrap();
                let id = reference(name, oid);
                self.relations.retain(|relation| (&relation.id.schema, &relation.id.name) != (&id.schema, &id.name));
                let mut facts = relation_facts(id);
                rest.iter().for_each(|word| relation(&mut facts, word));
                self.relations.push(facts);
            }
            "unusable" => self.unusable = rest.to_vec(),
            "probe" => self.probe = rest.iter().map(|word| probe(word)).collect(),
            "wanted" => self.wanted = (!rest.is_empty()).then(|| rest.join(" ")),
            "tree" => {
                self.tree = (!rest.is_empty()).then(Tree::default);
                let tree = self.tree.get_or_insert_default();
                rest.iter().for_each(|word| self::tree(tree, word));
                self.tree = self.tree.take().filter(|_| !rest.is_empty());
            }
            "member" => self.tree.as_mut().unwrap().members.push(member(rest)),
            "forgetful" => self.forgetful = true,
            "domain" => self.domain = Some(rest.to_vec()),
            "refreshable" => self.refreshable = true,
            word => panic!("{file}: what is {word:?}?"),
        }
    }

    /// The plans with an undo for all that they make, or why there is none.
    pub(super) fn plan_ahead(&self, sql: &str) -> String {
        let mut out = String::new();
        for statement in parse(sql).unwrap() {
            let facts = self.facts(&statement);
            let by_form = statement.ddl().map_or(Ok(()), hoist::may_be_hoisted);
            let planned = plan(&statement, &facts, &self.limits).unwrap();
            let full = hoist::with_full_undo(planned, &statement, &facts);
            if let Err(what) = by_form {
                assert_eq!(full.as_ref().err().map(String::as_str), Some(what), "{sql}");
            }
            match full {
                Ok(plan) => {
                    out.push_str(&print::to_text(&plan));
                    for broken in check::check(&plan) {
                        let _ = writeln!(out, "BROKEN   {broken}");
                    }
                }
                Err(what) => {
                    let _ = writeln!(out, "stays    in the block: {what} cannot be undone");
                }
            }
        }
        out
    }

    pub(super) fn plan(&self, sql: &str) -> String {
        let mut out = String::new();
        for statement in parse(sql).unwrap() {
            let facts = self.facts(&statement);
            let bare = match wants(&statement) {
                FactsNeeded::Itself => Some(without_indexes(without_details(facts.clone()))),
                FactsNeeded::Indexes => Some(without_details(facts.clone())),
                FactsNeeded::Details | FactsNeeded::Reach => None,
            };
            if let Some(bare) = bare {
                assert_eq!(plan(&statement, &bare, &self.limits), plan(&statement, &facts, &self.limits), "{sql}");
            }
            match plan(&statement, &facts, &self.limits) {
                Ok(plan) => {
                    out.push_str(&print::to_text(&plan));
                    for broken in check::check(&plan) {
                        let _ = writeln!(out, "BROKEN   {broken}");
                    }
                    // JSON has no form of its own to hold here, but must be there.
                    assert!(print::to_json(&plan).unwrap().contains("\"phases\""));
                }
                Err(refusal) => {
                    let report = &refusal.report;
                    let _ =
                        writeln!(out, "refused  {} {}: {}", report.severity.as_str(), report.sqlstate, report.message);
                }
            }
        }
        out
    }

    pub(super) fn facts(&self, statement: &Statement) -> Facts {
        let names = if self.forgetful { Vec::new() } else { query::relations_of(statement) };
        let relations: Vec<NamedFacts> = names.into_iter().map(|name| self.asked(name)).collect();
        let related = self.relations.iter().map(RelationFacts::lock_facts).collect::<Vec<RelatedFacts>>();
        let table = relations.first().and_then(|asked: &NamedFacts| asked.found.as_ref());
        // No other relation or constraint has the name.
        let wanted = table.map(|table| naming::wanted(statement, table)).unwrap_or_default();
        Facts {
            session: self.session.clone(),
            free_names: wanted.into_iter().filter_map(naming::NameNeeded::first).collect(),
            backfill: Some(BackfillFacts {
                obstacle: None,
                distrust: None,
                watched: false,
                quiet: false,
                role: "me".to_owned(),
                owner: "me".to_owned(),
                sequences: Some(SequenceCreation::Plain),
            }),
            relations,
            related,
            probe: self.probe.clone(),
            wanted_index: self.wanted.clone(),
            distrust: None,
            refreshable: self.refreshable,
            tree: self.tree.clone(),
            attach: self.attach.clone(),
            detachable: self.detachable.clone(),
            domain_tables: self.domain.as_ref().map(|names| {
                names.iter().filter_map(|name| self.relations.iter().find(|r| r.id.name == *name).cloned()).collect()
            }),
            leaves: self.leaves.clone(),
            ..Facts::default()
        }
    }

    fn asked(&self, name: RelationName) -> NamedFacts {
        let schema = name.schema.clone().unwrap_or_else(|| "public".to_owned());
        let found = self.relations.iter().find(|r| r.id.name == name.name && r.id.schema == schema).cloned();
        let usable = !self.unusable.contains(&schema);
        NamedFacts { schema_usable: usable, may_create: usable && schema != "pg_temp", name, found }
    }
}

/// Words of a line; blanks between double quotes are part of a word, and two double quotes there are one.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.next_if_eq(&'"').is_some() => words.last_mut().unwrap().push('"'),
            '"' => quoted = !quoted,
            c if c.is_whitespace() && !quoted => words.push(String::new()),
            c => words.last_mut().unwrap().push(c),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

fn session(session: &mut SessionFacts, word: &str) {
    match word.split_once('=').unwrap_or((word, "")) {
        ("version", version) => session.server_version = version.parse().unwrap(),
        ("in_transaction", "") => session.in_transaction = true,
        ("strongest", mode) => session.strongest_lock = Some(lock_mode(mode)),
        ("frozen", "") => session.frozen_snapshot = true,
        ("schema", schema) => session.current_schema = Some(schema.to_owned()),
        _ => panic!("session {word}?"),
    }
}

fn limits(limits: &mut Limits, word: &str) {
    match word.split_once('=').unwrap_or((word, "")) {
        ("small", size) => limits.small_table = bytes(size),
        ("guard", "") => limits.rewrite = false,
        ("refuse", "unsafe") => limits.refuse_unsafe = true,
        ("refuse", "exclude") => limits.refuse_exclude = true,
        _ => panic!("limits {word}?"),
    }
}

fn probe(word: &str) -> Option<ProbeAnswer> {
    let answer = ProbeAnswer::default();
    match word {
        "none" => Some(answer),
        "rewrite" => Some(ProbeAnswer { rewrites_table: true, rebuilds_indexes: true, ..answer }),
        "rebuild" => Some(ProbeAnswer { rebuilds_indexes: true, ..answer }),
        "value" => Some(ProbeAnswer { rewrites_table: true, rewrites_bare: Some(false), ..answer }),
        "type" => Some(ProbeAnswer { rewrites_table: true, rewrites_bare: Some(true), ..answer }),
        "fails" => Some(ProbeAnswer { fails: true, ..answer }),
        "unknown" => None,
        _ => panic!("probe {word}?"),
    }
}

fn relation_facts(id: RelationRef) -> RelationFacts {
    RelationFacts { rows: -1.0, owned: true, ..RelationFacts::new(id, RelationKind::Table) }
}

fn relation(facts: &mut RelationFacts, word: &str) {
    match word.split_once('=').unwrap_or((word, "")) {
        ("oid", oid) => facts.id.oid = oid.parse().unwrap(),
        ("kind", kind) => facts.kind = serde_json::from_value(kind.into()).unwrap(),
        ("bytes", size) => facts.bytes = bytes(size),
        ("table_bytes", size) => facts.table_bytes = bytes(size),
        ("temp", "") => facts.persistence = 't',
        ("children", "") => facts.has_children = true,
        ("child_column", name) => facts.child_columns.push(name.to_owned()),
        ("typed", "") => facts.typed = true,
        ("detach_pending", "") => facts.detach_pending = true,
        ("detaching", "") => facts.detaching = true,
        ("passes_storage", "") => facts.passes_storage = true,
        ("foreign", "") => facts.owned = false,
        ("unlockable", "") => facts.may_lock = false,
        ("created_here", "") => facts.created_here = true,
        ("system", "") => facts.is_system = true,
        ("own_lock", mode) => facts.own_lock = Some(lock_mode(mode)),
        ("parent", name) => {
            facts.parent = Some(numbered(name));
            facts.is_partition = true;
        }
        ("default", name) => facts.default_partition = Some(numbered(name)),
        ("table", name) => facts.table = Some(numbered(name)),
        ("referenced_by", name) => {
            facts.referenced_by.push(numbered(name));
            facts.reached_by.push(numbered(name));
        }
        ("reached_by", name) => facts.reached_by.push(numbered(name)),
        ("partitions_reference", name) => facts.partitions_reference.push(numbered(name)),
        ("column", column) => facts.columns.push(self::column(column)),
        ("constraint", constraint) => facts.constraints.push(self::constraint(constraint)),
        ("siblings", flags) => {
            facts.indexes.push(index(flags, &RelationRef { oid: facts.id.oid + 1, ..facts.id.clone() }));
        }
        ("index", flags) if facts.kind == RelationKind::Index => facts.index = Some(index(flags, &facts.id)),
        ("index", flags) => {
            let at = facts.id.oid + 1 + u32::try_from(facts.indexes.len()).unwrap();
            let table = RelationRef { oid: at, ..facts.id.clone() };
            facts.indexes.push(index(flags, &table));
        }
        _ => panic!("relation {word}?"),
    }
}

fn tree(tree: &mut Tree, word: &str) {
    match word.split_once('=').unwrap_or((word, "")) {
        ("columns", names) => tree.columns = names.split(',').map(str::to_owned).collect(),
        ("keys", names) => tree.keys = names.split(',').map(str::to_owned).collect(),
        ("unique", "") => tree.unique = true,
        ("taken", "") => tree.name_taken = true,
        _ => panic!("tree {word}?"),
    }
}

fn member(words: &[String]) -> Member {
    let mut member = Member {
        id: numbered(&words[0]),
        kind: RelationKind::Table,
        parent: None,
        key: None,
        owned: true,
        busy: false,
        invalid: Vec::new(),
        nullable: Vec::new(),
        inherits_not_null: false,
        equal: None,
        new_index: None,
    };
    for word in &words[1..] {
        match word.split_once('=').unwrap_or((word, "")) {
            ("of", oid) => member.parent = Some(oid.parse().unwrap()),
            ("kind", kind) => member.kind = serde_json::from_value(kind.into()).unwrap(),
            ("key", names) => member.key = Some(names.split(',').map(|name| Some(name.to_owned())).collect()),
            ("index", name) => member.new_index = Some(name.to_owned()),
            ("invalid", oid) => member.invalid.push(oid.parse().unwrap()),
            ("equal", flags) => {
                let (name, rest) = flags.split_once(',').unwrap_or((flags, ""));
                let id = RelationRef { oid: member.id.oid + 1, name: name.to_owned(), ..member.id.clone() };
                member.equal = Some(MatchingIndex { id, valid: rest != "invalid" });
            }
            ("nullable", names) => member.nullable = names.split(',').map(str::to_owned).collect(),
            ("inherits_not_null", "") => member.inherits_not_null = true,
            ("busy", "") => member.busy = true,
            ("foreign", "") => member.owned = false,
            _ => panic!("member {word}?"),
        }
    }
    member
}

/// `name:type[,notnull][,default][,identity][,generated][,virtual][,row]`
fn column(text: &str) -> ColumnFacts {
    let (name, rest) = text.split_once(':').unwrap();
    let mut flags = rest.split(',');
    let type_name = flags.next().unwrap().to_owned();
    let flags: Vec<&str> = flags.collect();
    ColumnFacts {
        name: name.to_owned(),
        type_name,
        not_null: flags.contains(&"notnull"),
        has_default: flags.contains(&"default"),
        identity: flags.contains(&"identity"),
        generated: flags.contains(&"generated") || flags.contains(&"virtual"),
        computed: flags.contains(&"virtual"),
        row_type: flags.contains(&"row"),
        custom_collation: false,
    }
}

/// `name,kind[,invalid][,inherited][,no_inherit][,of:column][,to:table][,is:definition]`
fn constraint(text: &str) -> ConstraintFacts {
    let mut words = text.split(',');
    let name = words.next().unwrap().to_owned();
    let kind = words.next().unwrap().chars().next().unwrap();
    let mut facts = ConstraintFacts {
        name,
        kind,
        validated: true,
        of_parent: false,
        local: true,
        no_inherit: false,
        columns: Vec::new(),
        references: None,
        commented: false,
        definition: String::new(),
    };
    for word in words {
        match word.split_once(':').unwrap_or((word, "")) {
            ("invalid", "") => facts.validated = false,
            ("commented", "") => facts.commented = true,
            ("inherited", "") => facts.local = false,
            ("no_inherit", "") => facts.no_inherit = true,
            ("of_parent", "") => facts.of_parent = true,
            ("of", column) => facts.columns.push(column.to_owned()),
            ("to", table) => facts.references = Some(numbered(table)),
            ("is", definition) => facts.definition = definition.to_owned(),
            _ => panic!("constraint {word}?"),
        }
    }
    facts
}

/// `name[,unique][,invalid][,busy][,constraint][,is:definition]`
fn index(text: &str, table: &RelationRef) -> IndexFacts {
    let mut words = text.split(',');
    let name = words.next().unwrap();
    let mut facts = IndexFacts {
        id: RelationRef { name: name.to_owned(), ..table.clone() },
        unique: false,
        valid: true,
        of_constraint: false,
        in_progress: false,
        definition: format!("CREATE INDEX {name} ON {}.{} USING btree (a)", table.schema, table.name),
    };
    for word in words {
        match word.split_once(':').unwrap_or((word, "")) {
            ("unique", "") => facts.unique = true,
            ("invalid", "") => facts.valid = false,
            ("busy", "") => facts.in_progress = true,
            ("constraint", "") => facts.of_constraint = true,
            ("is", definition) => facts.definition = definition.to_owned(),
            _ => panic!("index {word}?"),
        }
    }
    facts
}

/// `schema.name#oid`
fn numbered(text: &str) -> RelationRef {
    let (name, oid) = text.split_once('#').unwrap();
    reference(name, oid.parse().unwrap())
}

fn reference(name: &str, oid: u32) -> RelationRef {
    let (schema, name) = name.split_once('.').unwrap_or(("public", name));
    RelationRef { oid, schema: schema.to_owned(), name: name.to_owned() }
}

fn lock_mode(name: &str) -> LockMode {
    LockMode::ALL.into_iter().find(|mode| mode.sql() == name).unwrap()
}

fn bytes(text: &str) -> u64 {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match &text[digits.len()..] {
        "" => 1,
        "kB" => 1 << 10,
        "MB" => 1 << 20,
        "GB" => 1 << 30,
        unit => panic!("bytes in {unit}?"),
    };
    digits.parse::<u64>().unwrap() * unit
}
