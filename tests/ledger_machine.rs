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
        all.extend([Step::Withdraw(proxy), Step::Crash(proxy)]);
    }
    // These are the same in both. Each is tried in one, so that this ends in time.
    all.extend([Step::Leave(1), Step::Suspend(1), Step::Finish(1, true), Step::Finish(2, false)]);
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

/// A path through the ledger, with what it has led to.
struct Path {
    /// The calls that lead here.
    calls: String,
    told: Told,
    rows: Vec<Row>,
}

impl Path {
    fn runs_in(&self, proxy: i64) -> Option<u64> {
        self.rows.iter().find(|row| row.state == "running" && row.proxy == proxy).map(|row| row.id)
    }

    /// The call of a step. `None`: it cannot be done.
    fn call(&self, step: Step) -> Option<String> {
        let event = |proxy: i64, event: &str, done: bool| {
            let id = self.runs_in(proxy)?;
            Some(format!("SELECT pgsluice.step({id}, '{event}', NULL, {done}, NULL, NULL, NULL, NULL, {proxy})"))
        };
        Some(match step {
            Step::Join(proxy, plan) => {
                if self.runs_in(proxy).is_some() || self.told.waits.contains_key(&proxy) {
                    return None;
                }
                let number = self.rows.len() + 1;
                format!(
                    "SELECT concat_ws(' ', outcome, id) FROM pgsluice.join_change({proxy}, {number}, NULL, 'd{plan}', 't', '{AUTHOR}', 'd', '', '', \
                     1, '', 's', '{plan}', 'r', '', 1, false, 1000000)"
                )
            }
            Step::Leave(proxy) => {
                format!("SELECT pgsluice.leave_change({proxy}, {}, false)", self.told.waits.get(&proxy)?)
            }
            Step::Withdraw(proxy) => {
                format!("SELECT pgsluice.leave_change({proxy}, {}, true)", self.told.waits.get(&proxy)?)
            }
            Step::Finish(proxy, done) => event(proxy, "finish", done)?,
            Step::Suspend(proxy) => event(proxy, "suspend", false)?,
            Step::Decide(verb, by) => {
                let id = self.rows.last()?.id;
                format!("SELECT pgsluice.decide({id}, '{verb}', '{by}', 'here', '', NULL)")
            }
            Step::Expire => "UPDATE pgsluice.change SET changed = '2000-01-01'; SELECT pgsluice.sweep(NULL)".to_owned(),
            Step::Crash(proxy) => {
                format!("SELECT pgsluice.bury({proxy}); SELECT pgsluice.beat({proxy}, 'again', 0)")
            }
        })
    }

    /// What is told after a step. `said`: the answer of its call.
    fn told_after(&self, step: Step, said: &str) -> Told {
        let mut after = self.told.clone();
        let row_of = |id: u64| self.rows.iter().find(|row| row.id == id);
        match step {
            Step::Join(proxy, plan) => self.joined(proxy, plan, said, &mut after),
            Step::Leave(proxy) => drop(after.waits.remove(&proxy)),
            Step::Withdraw(proxy) => {
                let id = after.waits.remove(&proxy).unwrap();
                let others = after.waits.values().any(|other| *other == id);
                if !others && row_of(id).is_some_and(|row| matches!(row.state.as_str(), "held" | "approved")) {
                    after.void(id);
                }
            }
            Step::Finish(..) => {}
            Step::Suspend(proxy) => drop(after.begun.remove(&self.runs_in(proxy).unwrap())),
            Step::Decide(verb, by) => {
                let row = self.rows.last().unwrap();
                assert_ne!((verb, by), ("approve", AUTHOR), "the author counts: {:?}", self.told);
                match verb {
                    "approve" => drop(after.approved.entry(row.id).or_default().insert(by)),
                    "cancel" if row.state == "running" => {}
                    _ => after.void(row.id),
                }
                if verb == "force" {
                    after.forced.insert(row.id);
                }
            }
            Step::Expire => {
                let old = self.rows.iter().filter(|row| matches!(row.state.as_str(), "held" | "approved" | "rejected"));
                old.for_each(|row| after.void(row.id));
            }
            Step::Crash(proxy) => drop(after.waits.remove(&proxy)),
        }
        after
    }

    fn joined(&self, proxy: i64, plan: &str, said: &str, after: &mut Told) {
        let (outcome, id) = said.split_once(' ').unwrap();
        let id: u64 = id.parse().unwrap();
        let row = self.rows.iter().find(|row| row.id == id);
        let is_over = |row: &Row| matches!(row.state.as_str(), "done" | "failed" | "cancelled" | "expired");
        if row.is_none_or(|row| row.digest != format!("d{plan}") || is_over(row)) {
            after.void(id);
        }
        match outcome {
            "go" => {
                assert!(after.lets_run(id), "it runs unapproved, or twice: {:?} {plan} {:?}", self.told, self.rows);
                after.begun.insert(id);
            }
            "wait" | "held" => drop(after.waits.insert(proxy, id)),
            _ => assert_eq!(row.map(|row| row.state.as_str()), Some("rejected")),
        }
    }
}

struct Ledger(Client);

impl Ledger {
    /// The changes, and how many clients wait.
    fn rows(&mut self) -> (Vec<Row>, u64) {
        let sql = "SELECT (SELECT coalesce(sum(clients), 0) FROM pgsluice.waiter) || ';' || \
             (SELECT coalesce(string_agg(concat_ws(' ', id, digest, state, proxy), ';' ORDER BY id), '') FROM pgsluice.change)";
        let text = self.0.value(sql);
        let (waits, rows) = text.split_once(';').unwrap();
        let rows = rows.split(';').filter(|row| !row.is_empty()).map(|row| {
            let fields: Vec<&str> = row.split(' ').collect();
            let (id, proxy) = (fields[0].parse().unwrap(), fields[3].parse().unwrap());
            Row { id, digest: fields[1].to_owned(), state: fields[2].to_owned(), proxy }
        });
        (rows.collect(), waits.parse().unwrap())
    }

    /// Goes on from a path by a step. `None`: it cannot be done.
    fn step(&mut self, path: &Path, step: Step) -> Option<Path> {
        let call = path.call(step)?;
        let outcome = self.0.query(&call);
        if outcome.error.is_some() {
            assert!(matches!(step, Step::Decide(..)), "{call}: {outcome:?}");
            return None;
        }
        let said = outcome.rows.first().and_then(|row| row[0].clone()).unwrap_or_default();
        let mut told = path.told_after(step, &said);
        let (rows, waits) = self.rows();
        for row in &rows {
            if path.rows.iter().any(|old| old.id == row.id && old.digest != row.digest) {
                // Another plan has taken its place.
                told.void(row.id);
            }
            let wrong = (row.state == "approved" && !told.lets_run(row.id))
                || (row.state == "running" && !told.begun.contains(&row.id));
            assert!(!wrong, "{:?} {step:?} {rows:?}", path.told);
        }
        assert_eq!(waits, told.waits.len() as u64, "{:?} {step:?}", path.told);
        Some(Path { calls: format!("{}{call};", path.calls), told, rows })
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
    let mut layer = vec![Path { calls: String::new(), told: Told::default(), rows: Vec::new() }];
    let mut depth = 0;
    while depth < DEPTH && !layer.is_empty() {
        depth += 1;
        let mut next = Vec::new();
        for path in layer.drain(..) {
            ledger.0.ok(&format!("BEGIN; {} SAVEPOINT here", path.calls));
            for step in steps() {
                let Some(after) = ledger.step(&path, step) else {
                    ledger.0.ok("ROLLBACK TO here");
                    continue;
                };
                tried += 1;
                starts += usize::from(after.told.begun.len() > path.told.begun.len());
                states.extend(after.rows.iter().map(|row| row.state.clone()));
                // A third change brings nothing new.
                if after.rows.len() <= 2 && seen.insert((after.rows.clone(), after.told.clone())) {
                    next.push(after);
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
