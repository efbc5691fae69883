//! Tests of the rules and windows of `proxy.toml`, without a server: they are read as they are written, and an error names its line.

use pgsluice::config::{Config, Overrides, VerdictWord};
use pgsluice::gate::Rules;
use std::time::Duration;

const FILE: &str = include_str!("../proxy.toml");

/// The rules of a text, or the errors in them.
fn rules(text: &str) -> Result<Rules, String> {
    let config = Config::parse(text, Overrides::default()).map_err(|error| error.to_string())?;
    Rules::new(&config).map_err(|error| error.to_string())
}

#[track_caller]
fn rule_error(text: &str) -> String {
    rules(text).expect_err("this is not allowed")
}

#[test]
fn the_examples_of_rules_are_rules() {
    let examples = FILE.lines().skip_while(|line| !line.starts_with("# [[")).filter_map(|line| line.strip_prefix("# "));
    let text: Vec<&str> = examples.collect();
    let rules = rules(&text.join("\n")).unwrap();
    assert!(rules.iter().count() >= 3);
}

#[test]
fn a_rule_is_read() {
    let text = r#"
        [[window]]
        name = "night"
        hours = ["22:00-06:00"]
        [[rule]]
        name = "all of it"
        verdict = "hold"
        message = "wait"
        hint = "Ask."
        stall_budget = "50ms"
        hold_budget = "1s"
        deadline = "1h"
        in_transaction = "guard"
        on_disconnect = "undo"
        approvers = 2
        expires = "2d"
        wait_for = "0"
        gate = "cut-over"
        blockers = "terminate"
        blockers_after = "5min"
        blockers_except = ["backup"]
        [rule.match]
        form = "create index*"
        family = ["index"]
        cost = ["build"]
        lock = ["share", "SHARE UPDATE EXCLUSIVE"]
        destructive = false
        relation = ["orders", "public.item?"]
        schema = "public"
        size_over = "10GB"
        rows_over = 1000
        role = "*"
        database = ["shop"]
        application_name = ["flyway*"]
        client = ["10.0.0.0/8"]
        in_transaction = false
        in_window = "night"
    "#;
    let rules = rules(text).unwrap();
    let rule = rules.iter().next().unwrap();
    assert_eq!((rule.name(), rule.verdict()), ("all of it", VerdictWord::Hold));
    assert_eq!(rule.settings().limits.deadline, Some(Duration::from_secs(3600)));
    assert_eq!(rule.settings().matches.size_over, Some(10 << 30));
    assert_eq!(rule.settings().hold.wait_for, Some(Duration::ZERO));
}

fn rule(rest: &str) -> String {
    format!("[[rule]]\nname = \"r\"\n{rest}")
}

#[track_caller]
fn each_tells(cases: &[(String, &str)]) {
    for (text, told) in cases {
        let error = rule_error(text);
        assert!(error.contains(told), "{text}\n{error}\nis to have\n{told}");
    }
}

#[test]
fn errors_in_conditions_name_their_lines() {
    each_tells(&[
        (
            rule("verdict = \"deny\""),
            "line 3: rule.verdict: \"deny\" is not allowed; expected one of \"allow\", \"plan\", \"guard\", \"hold\", \"refuse\", \"window\"",
        ),
        (rule("verdict = \"allow\"\nmatsch = 1"), "line 4: rule.matsch: unknown key. Did you mean match?"),
        (
            rule("verdict = \"allow\"\nsize_over = \"1GB\""),
            "line 4: rule.size_over: unknown key. Did you mean size_over in [rule.match]?",
        ),
        (
            rule("verdict = \"allow\"\nmatch = { sise_over = \"1GB\" }"),
            "line 4: rule.match.sise_over: unknown key. Did you mean size_over?",
        ),
        (rule("verdict = \"allow\"\nmatch = 1"), "line 4: rule.match: 1 is not allowed"),
        (
            rule("\nmatch = { form = \"CREATE\" }\nverdict = \"allow\""),
            "line 4: rule.match.form: \"CREATE\" is not a form of DDL, nor a pattern of forms. docs/forms.md",
        ),
        (
            rule("match = { form = \"DROP TABEL\" }\nverdict = \"allow\""),
            "line 3: rule.match.form: \"DROP TABEL\" is not a form of DDL, nor a pattern of forms. Did you mean \"DROP TABLE\"?",
        ),
        (
            rule("match = { family = \"indexes\" }\nverdict = \"allow\""),
            "line 3: rule.match.family: \"indexes\" is not a family of forms. Did you mean \"index\"?",
        ),
        (rule("match = { cost = [] }\nverdict = \"allow\""), "line 3: rule.match.cost: [] is not allowed"),
        (
            rule("match = { relation = \"a\\\\\" }\nverdict = \"allow\""),
            "line 3: rule.match.relation: \"a\\\\\" is not allowed; expected one or more patterns",
        ),
        (
            rule("match = { client = [\"10.0.0.0/33\"] }\nverdict = \"allow\""),
            "line 3: rule.match.client: [\"10.0.0.0/33\"] is not allowed; expected a list of networks",
        ),
        (rule("match = { lock = \"EXLUSIVE\" }\nverdict = \"allow\""), "line 3: rule.match.lock: "),
        (
            rule("match = { in_window = \"night\" }\nverdict = \"allow\""),
            "line 3: rule \"r\": there is no [[window]] \"night\"",
        ),
    ]);
}

#[test]
fn errors_in_rules_and_windows_name_their_lines() {
    each_tells(&[
        (rule("verdict = \"window\""), "line 3: rule \"r\": the verdict \"window\" needs the key window"),
        (rule(""), "line 1: rule \"r\" has no verdict"),
        (
            rule("verdict = \"allow\"\nhint = \"x\""),
            "line 4: rule \"r\": hint has no effect with the verdict \"allow\"",
        ),
        (
            rule("verdict = \"refuse\"\ndeadline = \"1h\""),
            "line 4: rule \"r\": deadline has no effect with the verdict \"refuse\"",
        ),
        (
            rule("verdict = \"guard\"\napprovers = 1"),
            "line 4: rule \"r\": approvers has no effect with the verdict \"guard\"",
        ),
        (
            rule("verdict = \"allow\"\ndeadline = \"1ms\""),
            "line 4: rule \"r\": the deadline (1ms) is shorter than the stall budget (200ms)",
        ),
        ("[[rule]]\nverdict = \"allow\"".to_owned(), "line 1: a [[rule]] has no name"),
        ("\n[rule]\nname = \"r\"".to_owned(), "line 2: rule is not a list of tables; write [[rule]]"),
        ("[[rules]]\nname = \"r\"".to_owned(), "line 1: rules: unknown section"),
        ("[[window]]\nname = \"w\"".to_owned(), "line 1: window \"w\" has no hours. Write hours"),
        ("[[window]]\nname = \"w\"\nhours = \"9-17\"".to_owned(), "line 3: window.hours: \"9-17\" is not allowed"),
        ("[[window]]\nname = \"w\"\nhours = \"09:00-17:00\"\ndays = \"workdays\"".to_owned(), "line 4: window.days: "),
        (
            "[[window]]\nname = \"w\"\nhours = \"09:00-17:00\"\nzone = \"Berlin\"".to_owned(),
            "line 4: window.zone: \"Berlin\" is not allowed; expected a time zone of the IANA database",
        ),
    ]);
}

#[test]
fn rules_that_never_match_are_errors() {
    let two = |first: &str, second: &str| format!("[[rule]]\nname = \"a\"\n{first}\n[[rule]]\nname = \"b\"\n{second}");
    for (first, second) in [
        ("verdict = \"allow\"", "verdict = \"refuse\""),
        (
            "verdict = \"refuse\"\nmatch = { form = \"DROP*\" }",
            "verdict = \"allow\"\nmatch = { form = \"DROP*\", role = \"ann\" }",
        ),
        (
            "verdict = \"hold\"\nmatch = { size_over = \"1GB\" }",
            "verdict = \"refuse\"\nmatch = { size_over = \"2GB\" }",
        ),
    ] {
        let error = rule_error(&two(first, second));
        assert!(error.contains("rule \"b\" can never match. Rule \"a\" before it matches"), "{error}");
        assert!(error.starts_with(&format!("line {}: ", 3 + first.lines().count())), "{error}");
    }
    for (first, second) in [
        // What only lets all parts of a statement run leaves others to the next rule.
        ("verdict = \"allow\"\nmatch = { form = \"DROP*\" }", "verdict = \"refuse\"\nmatch = { form = \"DROP*\" }"),
        (
            "verdict = \"hold\"\nmatch = { size_over = \"2GB\" }",
            "verdict = \"refuse\"\nmatch = { size_over = \"1GB\" }",
        ),
        (
            "verdict = \"refuse\"\nmatch = { destructive = true }",
            "verdict = \"hold\"\nmatch = { destructive = true, relation = \"schema_migrations\" }",
        ),
        ("verdict = \"refuse\"\nmatch = { role = \"ann\" }", "verdict = \"refuse\"\nmatch = { database = \"shop\" }"),
    ] {
        rules(&two(first, second)).unwrap_or_else(|error| panic!("{error}"));
    }
    for (condition, why) in [
        ("form = \"DROP TABLE\", cost = \"build\"", "no form of form fits cost"),
        ("form = \"CREATE INDEX\", family = \"column\"", "no form of form fits family"),
        ("form = \"DROP TABLE\", destructive = false", "no form of form fits destructive"),
        ("form = \"CREATE INDEX CONCURRENTLY\", in_transaction = true", "no form of form fits in_transaction"),
        ("family = \"column\", cost = \"build\", lock = \"SHARE\"", "no form fits all its conditions"),
    ] {
        let error = rule_error(&format!("[[rule]]\nname = \"r\"\nverdict = \"refuse\"\nmatch = {{ {condition} }}"));
        assert!(error.contains(why) && error.starts_with("line 4: rule \"r\" can never match"), "{condition}: {error}");
    }
}
