//! Goldens of verdicts: rules, facts and SQL go in, and the gate's decision comes out. No server is needed.
//!
//! A file of `tests/gate` is read from top to bottom. `rules` begins the rules, as in `proxy.toml`, up to `---`. `client` says who sends the
//! statements, and when; what it does not say is not known. Lines of facts are those of `tests/plans`. They apply until changed:
//!
//! ```text
//! client  role=app database=shop application="my app" address=10.0.0.7 in_transaction=false now=2026-12-01T12:00:00Z
//! client  condition="w: true" condition="v: false" condition="u: relation x does not exist"
//! ```
//!
//! `condition` is what the server has said to the condition of a window. One that was not asked is not known.
//!
//! `verdict <sql>` asks for the decision on each statement. It stands below, up to the next empty line: whether the statement may be tried before
//! any fact is known, the decision as EXPLAIN prints it, and the error that the client gets. `UPDATE_GOLDENS=1` writes the decisions into the
//! files.
//!
//! For every statement it is checked that what is not known opens nothing: a statement that may be tried is allowed once its facts are known, and
//! a statement that is stopped once they are known is not let run without them.

#[path = "plans/scene.rs"]
#[allow(dead_code, reason = "the test of plans prints more of a scene")]
mod scene;

use pgsluice::catalog::supposed::{self, SupposedSize};
use pgsluice::config::{Config, Mode, Overrides};
use pgsluice::gate::{
    ClientAddress, ConditionAnswer, Decision, Rules, SeenCondition, Session, Subject, Verdict, answer, print,
};
use pgsluice::plan::{Limits, plan};
use pgsluice::sql::{Statement, parse};
use scene::Scene;
use std::fmt::Write;
use std::path::Path;

#[test]
fn verdicts_are_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gate");
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "gate"));
    files.sort();
    assert!(!files.is_empty());
    let mut differing = Vec::new();
    for path in files {
        let golden = std::fs::read_to_string(&path).unwrap();
        let printed = run(&golden, &path.display().to_string());
        if printed == golden {
            continue;
        }
        if std::env::var_os("UPDATE_GOLDENS").is_some() {
            std::fs::write(&path, printed).unwrap();
        } else {
            let lines = golden.lines().zip(printed.lines()).enumerate();
            let first = lines.into_iter().find(|(_, (one, other))| one != other);
            differing.push(format!("{}: {first:?}", path.display()));
        }
    }
    assert!(differing.is_empty(), "{}\nUPDATE_GOLDENS=1 writes them anew.", differing.join("\n"));
}

/// Who sends the statements, and when.
#[derive(Default)]
struct Client {
    role: Option<String>,
    database: Option<String>,
    application: Option<String>,
    address: Option<ClientAddress>,
    in_transaction: Option<bool>,
    now: Option<i64>,
    conditions: Vec<SeenCondition>,
}

impl Client {
    fn set(&mut self, line: &str) {
        let mut words = Vec::new();
        let mut quoted = false;
        for piece in line.split_inclusive([' ', '"']) {
            if words.is_empty() || (!quoted && piece.starts_with(char::is_alphabetic) && piece.contains('=')) {
                words.push(String::new());
            }
            quoted ^= piece.ends_with('"');
            *words.last_mut().unwrap() += piece;
        }
        for word in words {
            let (key, value) = word.trim().split_once('=').unwrap();
            let value = value.trim_matches('"').to_owned();
            match key {
                "role" => self.role = Some(value),
                "database" => self.database = Some(value),
                "application" => self.application = Some(value),
                "address" if value == "local" => self.address = Some(ClientAddress::Local),
                "address" => self.address = Some(ClientAddress::Ip(value.parse().unwrap())),
                "in_transaction" => self.in_transaction = Some(value.parse().unwrap()),
                "now" => self.now = Some(value.parse::<jiff::Timestamp>().unwrap().as_second()),
                "condition" => self.conditions.push(seen(&value)),
                other => panic!("{other}"),
            }
        }
    }

    fn session(&self) -> Session<'_> {
        Session {
            role: self.role.as_deref(),
            database: self.database.as_deref(),
            application_name: self.application.as_deref(),
            client: self.address,
            in_transaction: self.in_transaction,
            now: self.now,
            conditions: &self.conditions,
        }
    }
}

/// What the server has said to a condition: `window: true`, `window: false`, or `window: ` and the message of an error.
fn seen(text: &str) -> SeenCondition {
    let (window, said) = text.split_once(": ").unwrap();
    let answer = match said {
        "true" => ConditionAnswer::True,
        "false" => ConditionAnswer::NotTrue,
        error => ConditionAnswer::Failed(error.to_owned()),
    };
    SeenCondition { window: window.to_owned(), answer }
}

/// The file with every decision printed anew.
fn run(golden: &str, file: &str) -> String {
    let (mut scene, mut client, mut rules) = (Scene::default(), Client::default(), Rules::default());
    let mut out = String::new();
    let mut lines = golden.lines().peekable();
    while let Some(line) = lines.next() {
        let _ = writeln!(out, "{line}");
        if line == "rules" {
            let mut text = String::new();
            for line in lines.by_ref().take_while(|line| *line != "---") {
                let _ = writeln!(out, "{line}");
                let _ = writeln!(text, "{line}");
            }
            out.push_str("---\n");
            let config = Config::parse(&text, Overrides::default()).unwrap_or_else(|error| panic!("{file}: {error}"));
            rules = Rules::new(&config).unwrap_or_else(|error| panic!("{file}: {error}"));
            client = Client::default();
            scene = Scene::default();
        } else if let Some(words) = line.strip_prefix("client ") {
            client = Client::default();
            client.set(words.trim());
        } else if let Some(sql) = line.strip_prefix("verdict ") {
            // What was printed before is left out, up to the empty line.
            while lines.next_if(|line| !line.is_empty()).is_some() {}
            for statement in parse(sql).unwrap() {
                out += &verdict(&rules, &scene, &client.session(), &statement);
            }
        } else {
            scene.set(line, file);
        }
    }
    out
}

fn verdict(rules: &Rules, scene: &Scene, session: &Session<'_>, statement: &Statement) -> String {
    let facts = scene.facts(statement);
    let plan = plan(statement, &facts, &scene.limits).unwrap();
    let decision = rules.decide(&Subject::planned(statement, &facts, &plan), session);
    let blind = rules.decide(&Subject::of_text(statement), session);
    let tries = rules.lets_try(statement, session, Mode::Plan);
    assert!(!tries || runs(&decision), "{} may be tried, and is then {decision:?}", statement.text);
    assert!(!runs(&blind) || runs(&decision), "{}: {blind:?} without facts, {decision:?} with them", statement.text);
    assert!(tries || rules.may_concern(statement), "{}", statement.text);
    let mut out = format!("try      {}\n", if tries { "at once" } else { "not before the facts are known" });
    out += &print::decision(&decision);
    let report = match decision.verdict {
        Verdict::Refuse => Some(answer::refused(&decision, &plan.tag)),
        Verdict::Closed { .. } => Some(answer::closed(&decision, &plan.tag, session.conditions, None)),
        Verdict::Hold => Some(answer::held(&decision, &plan.tag)),
        Verdict::Allow | Verdict::Plan | Verdict::Guard => None,
    };
    report.iter().for_each(|report| {
        let _ = writeln!(out, "{report}");
    });
    out
}

fn runs(decision: &Decision) -> bool {
    matches!(decision.verdict, Verdict::Allow | Verdict::Plan | Verdict::Guard)
}

/// Rules of each condition. `VERDICT` stands for the verdict.
const CONDITIONS: [&str; 16] = [
    "form = [\"DROP*\", \"ADD COLUMN*\"]",
    "family = [\"column\", \"index\", \"object\"]",
    "cost = \"brief\"",
    "cost = [\"rewrite\", \"build\", \"scan\"]",
    "cost = \"unknown\"",
    "lock = \"ACCESS EXCLUSIVE\"",
    "lock = [\"SHARE UPDATE EXCLUSIVE\", \"SHARE\"]",
    "destructive = true",
    "destructive = false",
    "relation = \"t\"",
    "relation = \"public.t\"",
    "relation = \"other.*\"",
    "schema = \"public\"",
    "size_over = \"1GB\"",
    "rows_over = 1000",
    "in_transaction = true",
];

/// Every statement that the parser is tested with, under facts of small and of large tables: what is not known opens nothing.
#[test]
fn what_is_not_known_opens_nothing() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/sql/parse/cases");
    let texts = std::fs::read_dir(folder).unwrap().map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap());
    let lines: Vec<String> = texts.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect();
    let statements: Vec<Statement> = lines.iter().filter_map(|line| parse(line).ok()).flatten().collect();
    assert!(statements.len() > 300, "{}", statements.len());
    let session = Session { in_transaction: Some(false), ..Session::default() };
    for condition in CONDITIONS {
        for verdicts in [&["refuse"][..], &["allow", "refuse"], &["guard", "refuse"], &["hold"]] {
            let mut text = String::new();
            for (at, verdict) in verdicts.iter().enumerate() {
                let condition = if at == 0 { condition } else { "" };
                let _ = writeln!(text, "[[rule]]\nname = \"{at}\"\nmatch = {{ {condition} }}\nverdict = \"{verdict}\"");
            }
            let rules = Rules::new(&Config::parse(&text, Overrides::default()).unwrap()).unwrap();
            statements.iter().for_each(|statement| opens_nothing(&rules, &session, statement, condition));
        }
    }
}

fn opens_nothing(rules: &Rules, session: &Session<'_>, statement: &Statement, condition: &str) {
    let limits = Limits { small_table: 1 << 20, rewrite: true, refuse_unsafe: false, refuse_exclude: false };
    let tries = rules.lets_try(statement, session, Mode::Plan);
    let blind = rules.decide(&Subject::of_text(statement), session);
    for size in [SupposedSize::Small, SupposedSize::Large] {
        let facts = supposed::facts(statement, size);
        let Ok(plan) = plan(statement, &facts, &limits) else { continue };
        let decision = rules.decide(&Subject::planned(statement, &facts, &plan), session);
        let what = format!("{} ({condition}, {size:?}): {decision:?}", statement.text);
        assert!(!tries || decision.verdict == Verdict::Allow, "may be tried: {what}");
        assert!(!runs(&blind) || runs(&decision), "runs without facts: {what}");
    }
}
