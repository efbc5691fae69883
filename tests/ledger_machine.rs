//! What becomes of a change: the function in SQL against the pure one of the proxy, and the whole of the ledger explored.
//!
//! The ledger is explored to a depth of twelve with two proxies that each have a client: every state is entered once, through the functions that
//! proxies and operators call, and every step from it is tried. A savepoint takes each back.

mod common;

use common::{Client, new_database, postgres};
use pgsluice::gate::change::{Change, Event, Impossible, State, transition};
use pgsluice::ledger::script;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::Write;

const AUTHOR: &str = "author";
const DEPTH: usize = 12;

fn events() -> Vec<Event> {
    let people = [AUTHOR, "ann", "bob"].map(|by| Event::Approve { by: by.to_owned() });
    let others = [
        Event::Sent,
        Event::Reject,
        Event::Cancel,
        Event::Retry,
        Event::Force,
        Event::Unforce,
        Event::Expire { waits: true },
        Event::Expire { waits: false },
        Event::Replace { needs: 1 },
        Event::Replace { needs: 2 },
        Event::Release,
        Event::Start,
        Event::Suspend,
        Event::Finish { done: true },
        Event::Finish { done: false },
    ];
    people.into_iter().chain(others).collect()
}

fn array(names: &BTreeSet<String>) -> String {
    format!("{{{}}}", names.iter().cloned().collect::<Vec<_>>().join(","))
}

fn literal(change: &Change) -> String {
    let (state, needs, approvals, forced) =
        (change.state(), change.needs(), array(change.approvals()), change.is_forced());
    format!("{state} {needs} {approvals} {forced}")
}

/// A call of the function in SQL, and what it is to give.
fn call(change: &Change, event: &Event) -> (String, String) {
    let (by, needs, flag) = match event {
        Event::Approve { by } => (by.as_str(), 0, false),
        Event::Replace { needs } => ("", *needs, false),
        Event::Expire { waits: flag } | Event::Finish { done: flag } => ("", 0, *flag),
        _ => ("", 0, false),
    };
    let sql = format!(
        "'{}', '{}', {}, '{}', {}, '{}', '{by}', {needs}, {flag}",
        change.state(),
        change.author(),
        change.needs(),
        array(change.approvals()),
        change.is_forced(),
        event.word()
    );
    let expected = match transition(change, event) {
        Ok(after) => literal(&after),
        Err(Impossible::OwnChange) => "own".to_owned(),
        Err(Impossible::ApprovedBefore) => "before".to_owned(),
        Err(Impossible::InState(_)) => "state".to_owned(),
    };
    (sql, expected)
}

fn ledger(name: &str) -> (pgsluice::dev::Postgres, Client) {
    let server = postgres();
    let database = new_database(&server, name);
    let mut client = Client::connect(server.port, &server.user, &database);
    client.ok(&script(None));
    (server, client)
}

#[test]
fn the_function_in_sql_is_the_proxys() {
    let (_server, mut client) = ledger("machine");
    let mut seen: HashSet<Change> = [1, 2].map(|needs| Change::held(AUTHOR, needs)).into();
    let mut left: Vec<Change> = seen.iter().cloned().collect();
    let mut calls = BTreeMap::new();
    while let Some(change) = left.pop() {
        for event in events() {
            let (sql, expected) = call(&change, &event);
            calls.insert(sql, expected);
            if let Ok(after) = transition(&change, &event)
                && seen.insert(after.clone())
            {
                left.push(after);
            }
        }
    }
    let states: HashSet<State> = seen.iter().map(Change::state).collect();
    assert_eq!((states.len(), calls.len()), (9, seen.len() * events().len()));
    let mut sql = String::new();
    for call in calls.keys() {
        let joint = if sql.is_empty() { "" } else { " UNION ALL " };
        let number = sql.len();
        write!(
            sql,
            "{joint}SELECT {number} AS place, coalesce(t.impossible, t.state || ' ' || t.needs || ' ' || t.approvals::text || ' ' || t.forced) AS said \
             FROM pgsluice.transition({call}) AS t"
        )
        .unwrap();
    }
    let said = client.value(&format!("SELECT string_agg(said, E'\\n' ORDER BY place) FROM ({sql}) AS all_of_them"));
    let said: Vec<&str> = said.lines().collect();
    assert_eq!(said.len(), calls.len());
    for ((call, expected), said) in calls.iter().zip(said) {
        assert_eq!(said, expected, "{call}");
    }
}

/// What happens in the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// A client of a proxy sends the statement; its plan is one of two.
    Join(i64, &'static str),
    /// A client of a proxy waits no longer.
    Leave(i64),
    Withdraw(i64),
    /// The statement that runs in a proxy ends.
    Finish(i64, bool),
    Suspend(i64),
    Decide(&'static str, &'static str),
    /// All that can expire has no time left.
    Expire,
    /// A proxy dies, and others find out.
    Crash(i64),
}

fn steps() -> Vec<Step> {
    let mut all = Vec::new();
    for proxy in [1, 2] {
        all.extend(["p", "q"].map(|plan| Step::Join(proxy, plan)));
        all.extend([Step::Leave(proxy), Step::Withdraw(proxy), Step::Finish(proxy, true), Step::Finish(proxy, false)]);
        all.extend([Step::Suspend(proxy), Step::Crash(proxy)]);
    }
    // How many have to approve is explored by the pure function alone.
    all.extend(["ann", AUTHOR].map(|by| Step::Decide("approve", by)));
    all.extend(["reject", "cancel", "retry", "force", "unforce"].map(|verb| Step::Decide(verb, "ann")));
    all.push(Step::Expire);
    all
}

/// A row of the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Row {
    id: u64,
    digest: String,
    state: String,
    proxy: i64,
}

/// What a path has led to, told by its steps alone: for each change, who has approved it since its last void, whether it was forced since, and
/// whether it was begun under that.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Told {
    approved: BTreeMap<u64, BTreeSet<&'static str>>,
    forced: BTreeSet<u64>,
    begun: BTreeSet<u64>,
    /// The change for which the client of each proxy waits.
    waits: BTreeMap<i64, u64>,
}

impl Told {
    fn void(&mut self, id: u64) {
        self.approved.remove(&id);
        self.forced.remove(&id);
        self.begun.remove(&id);
    }

    fn lets_run(&self, id: u64) -> bool {
        !self.begun.contains(&id)
            && (self.forced.contains(&id) || self.approved.get(&id).is_some_and(|by| !by.is_empty()))
    }
}

struct Ledger(Client);

/// Whether nothing comes behind this state.
fn is_over(row: &Row) -> bool {
    !matches!(row.state.as_str(), "held" | "approved" | "running")
}

impl Ledger {
    fn rows(&mut self) -> Vec<Row> {
        let sql = "SELECT coalesce(string_agg(concat_ws(' ', id, digest, state, proxy), ';' ORDER BY id), '') FROM pgsluice.change";
        let text = self.0.value(sql);
        let rows = text.split(';').filter(|row| !row.is_empty()).map(|row| {
            let fields: Vec<&str> = row.split(' ').collect();
            let (id, proxy) = (fields[0].parse().unwrap(), fields[3].parse().unwrap());
            Row { id, digest: fields[1].to_owned(), state: fields[2].to_owned(), proxy }
        });
        rows.collect()
    }

    /// A client sends its statement again, or for the first time. `None`: its proxy is busy.
    fn join(&mut self, (proxy, plan): (i64, &str), (told, before): (&Told, &[Row]), after: &mut Told) -> Option<()> {
        if before.iter().any(|row| row.state == "running" && row.proxy == proxy) || told.waits.contains_key(&proxy) {
            return None;
        }
        let said = self.0.value(&format!(
            "SELECT concat_ws(' ', outcome, id) FROM pgsluice.join_change({proxy}, NULL, NULL, 'd{plan}', 't', '{AUTHOR}', 'd', '', '', 1, '', \
             's', '{plan}', 'r', '', 1, false, 1000000)"
        ));
        let (outcome, id) = said.split_once(' ').unwrap();
        let id: u64 = id.parse().unwrap();
        let row = before.iter().find(|row| row.id == id);
        if row.is_none_or(|row| row.digest != format!("d{plan}") || (is_over(row) && row.state != "rejected")) {
            after.void(id);
        }
        match outcome {
            "go" => {
                assert!(after.lets_run(id), "it runs unapproved, or twice: {told:?} {proxy} {plan} {before:?}");
                after.begun.insert(id);
            }
            "wait" | "held" => drop(after.waits.insert(proxy, id)),
            _ => assert_eq!(row.map(|row| row.state.as_str()), Some("rejected")),
        }
        Some(())
    }

    /// Somebody decides on the last change. `None`: that is refused.
    fn decide(&mut self, (verb, by): (&'static str, &'static str), before: &[Row], after: &mut Told) -> Option<()> {
        let row = before.last()?;
        let id = row.id;
        let sql = format!("SELECT pgsluice.decide({id}, '{verb}', '{by}', 'here', '', NULL)");
        if self.0.query(&sql).error.is_some() {
            return None;
        }
        assert_ne!((verb, by), ("approve", AUTHOR), "the author counts: {after:?}");
        match verb {
            "approve" => drop(after.approved.entry(id).or_default().insert(by)),
            "cancel" if row.state == "running" => {}
            _ => after.void(id),
        }
        if verb == "force" {
            after.forced.insert(id);
        }
        Some(())
    }

    /// What is true behind every step.
    fn check(&mut self, step: Step, before: &[Row], after: &mut Told) {
        let now = self.rows();
        for row in &now {
            if before.iter().any(|old| old.id == row.id && old.digest != row.digest) {
                // Another plan has taken its place.
                after.void(row.id);
            }
            if row.state == "approved" {
                assert!(after.lets_run(row.id), "{after:?} {step:?} {now:?}");
            }
            assert!(row.state != "running" || after.begun.contains(&row.id), "{after:?} {step:?} {now:?}");
        }
        let waits = self.0.value("SELECT coalesce(sum(clients), 0) FROM pgsluice.waiter");
        assert_eq!(waits, after.waits.len().to_string(), "{after:?} {step:?}");
    }

    /// Does a step. `None`: it cannot be done.
    fn step(&mut self, step: Step, told: &Told) -> Option<Told> {
        let before = self.rows();
        let mut after = told.clone();
        let runs_in = |proxy: i64| before.iter().find(|row| row.state == "running" && row.proxy == proxy);
        match step {
            Step::Join(proxy, plan) => self.join((proxy, plan), (told, &before), &mut after)?,
            Step::Leave(proxy) | Step::Withdraw(proxy) => {
                let id = after.waits.remove(&proxy)?;
                let withdrawn = matches!(step, Step::Withdraw(_));
                self.0.ok(&format!("SELECT pgsluice.leave_change({proxy}, {id}, {withdrawn})"));
                let others = after.waits.values().any(|other| *other == id);
                let waits = before.iter().any(|row| row.id == id && matches!(row.state.as_str(), "held" | "approved"));
                if withdrawn && waits && !others {
                    after.void(id);
                }
            }
            Step::Finish(proxy, done) => {
                let id = runs_in(proxy)?.id;
                self.0.ok(&format!(
                    "SELECT pgsluice.step({id}, 'finish', NULL, {done}, NULL, NULL, NULL, NULL, {proxy})"
                ));
                after.begun.insert(id);
            }
            Step::Suspend(proxy) => {
                let id = runs_in(proxy)?.id;
                self.0
                    .ok(&format!("SELECT pgsluice.step({id}, 'suspend', NULL, NULL, NULL, NULL, NULL, NULL, {proxy})"));
                after.begun.remove(&id);
            }
            Step::Decide(verb, by) => self.decide((verb, by), &before, &mut after)?,
            Step::Expire => {
                self.0.ok("UPDATE pgsluice.change SET changed = '2000-01-01'; SELECT pgsluice.sweep(NULL)");
                let old = before.iter().filter(|row| matches!(row.state.as_str(), "held" | "approved" | "rejected"));
                old.for_each(|row| after.void(row.id));
            }
            Step::Crash(proxy) => {
                self.0.ok(&format!("SELECT pgsluice.bury({proxy}); SELECT pgsluice.beat({proxy}, 'again', 0)"));
                after.waits.remove(&proxy);
            }
        }
        self.check(step, &before, &mut after);
        Some(after)
    }

    /// Begins anew, and goes a path.
    fn replay(&mut self, path: &[Step]) -> Told {
        self.0.ok("BEGIN");
        path.iter().fold(Told::default(), |told, step| self.step(*step, &told).expect("the path can be gone again"))
    }
}

#[test]
fn two_proxies_explored_to_depth_twelve() {
    let (_server, mut client) = ledger("explored");
    // They are alive however long this takes.
    client.ok(
        "SELECT pgsluice.begin_proxy('one'), pgsluice.begin_proxy('two'); UPDATE pgsluice.proxy SET seen = 'infinity'",
    );
    let mut ledger = Ledger(client);
    let (mut seen, mut states) = (HashSet::new(), BTreeSet::new());
    let (mut starts, mut tried) = (0, 0);
    let mut layer: Vec<Vec<Step>> = vec![Vec::new()];
    let mut depth = 0;
    while depth < DEPTH && !layer.is_empty() {
        depth += 1;
        let mut next = Vec::new();
        for path in layer.drain(..) {
            let told = ledger.replay(&path);
            let count = ledger.rows().len();
            for step in steps() {
                ledger.0.ok("SAVEPOINT here");
                if let Some(after) = ledger.step(step, &told) {
                    tried += 1;
                    let rows = ledger.rows();
                    starts += usize::from(after.begun.len() > told.begun.len());
                    states.extend(rows.iter().map(|row| row.state.clone()));
                    // A third change brings nothing new.
                    if rows.len().max(count) <= 2 && seen.insert((canonical(&rows), canonical_told(&rows, &after))) {
                        next.push([path.as_slice(), &[step]].concat());
                    }
                }
                ledger.0.ok("ROLLBACK TO here");
            }
            ledger.0.ok("ROLLBACK");
        }
        layer = next;
    }
    println!("{} states, {tried} steps, {starts} starts, depth {depth}", seen.len());
    assert!(seen.len() > 100 && starts > 50, "{} states, {starts} starts", seen.len());
    assert_eq!(states.len(), 8, "a proxy alone knows that no rule holds a change any more: {states:?}");
}

/// Rows without their numbers, which come from a sequence that nothing takes back.
fn canonical(rows: &[Row]) -> Vec<(String, String, i64)> {
    rows.iter().map(|row| (row.digest.clone(), row.state.clone(), row.proxy)).collect()
}

fn canonical_told(rows: &[Row], told: &Told) -> String {
    let place = |id: u64| rows.iter().position(|row| row.id == id);
    let of_rows: Vec<_> = rows
        .iter()
        .map(|row| (told.approved.get(&row.id), told.forced.contains(&row.id), told.begun.contains(&row.id)))
        .collect();
    let waits: Vec<_> = told.waits.iter().map(|(proxy, id)| (proxy, place(*id))).collect();
    format!("{of_rows:?} {waits:?}")
}
