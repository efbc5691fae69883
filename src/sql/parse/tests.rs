//! Tests of the parser: the golden files of every family (`cases/*.txt`), and the invariants of all of them.

use super::{ParseOptions, Unparsable, parse, parse_with};
use crate::sql::form::{FORMS, Form};

use crate::sql::{Class, Ddl, Part, Statement};

fn print(statement: &Statement) -> String {
    match &statement.class {
        Class::Ddl(ddl) => print_ddl(ddl),
        Class::ExplainDdl(inner) => format!("EXPLAIN <{}> {}", inner.text, print(inner)),
        other => format!("{other:?}"),
    }
}

fn print_ddl(ddl: &Ddl) -> String {
    let mut words = vec![ddl.tag.clone()];
    words.extend(ddl.targets.iter().map(ToString::to_string));
    let flags = [
        (ddl.only, "only"),
        (ddl.if_exists, "if-exists"),
        (ddl.if_not_exists, "if-not-exists"),
        (ddl.cascade, "cascade"),
        (ddl.concurrently, "concurrently"),
    ];
    words.extend(flags.iter().filter(|(set, _)| *set).map(|(_, name)| format!("+{name}")));
    words.extend(ddl.index_name.iter().map(|name| format!("index={name}")));
    words.extend(ddl.concurrently_at.iter().map(|at| format!("concurrently@{at}")));
    words.extend(ddl.parts.iter().map(|part| format!("| {}", print_part(part))));
    words.join(" ")
}

fn print_part(part: &Part) -> String {
    let mut words = vec![format!("{:?}", part.form)];
    words.extend(part.column.iter().map(|column| format!("column={column}")));
    words.extend(part.constraint.iter().map(|constraint| format!("constraint={constraint}")));
    words.extend(part.missing_ok.then(|| "+missing-ok".to_owned()));
    words.extend(part.cascade.then(|| "+cascade".to_owned()));
    words.extend(part.others.iter().map(|other| format!("& {other}")));
    words.extend(part.probe.iter().map(|probe| {
        assert!(probe.contains(" pg_temp.pgsluice_probe "), "the copy is its target: {probe}");
        format!("? {}", probe.strip_prefix("ALTER TABLE pg_temp.pgsluice_probe ").unwrap_or(probe))
    }));
    words.join(" ").replace('\n', "\\n")
}

fn print_all(sql: &str) -> String {
    match parse(sql) {
        Ok(statements) => statements.iter().map(print).collect::<Vec<_>>().join(" ;; "),
        Err(Unparsable { message }) => message,
    }
}

/// A case: a line of SQL, and below it, indented, the print of what was read. `UPDATE_GOLDENS=1` writes
/// them anew.
fn check(family: &str) {
    let path = format!("{}/src/sql/parse/cases/{family}.txt", env!("CARGO_MANIFEST_DIR"));
    let golden = std::fs::read_to_string(&path).expect("a file of cases");
    let sql = golden.lines().filter(|line| !line.is_empty() && !line.starts_with(' '));
    let actual: Vec<String> = sql.map(|sql| format!("{sql}\n    {}\n", print_all(sql))).collect();
    let actual = actual.join("\n");
    if std::env::var_os("UPDATE_GOLDENS").is_some() {
        std::fs::write(&path, actual).expect("a file of cases");
    } else {
        assert_eq!(actual, golden, "{family}: see CONTRIBUTING.md on golden files");
    }
}

const FAMILIES: [&str; 12] = [
    "alter_table",
    "classify",
    "column",
    "comment",
    "create",
    "drop",
    "index",
    "lock_table",
    "maintenance",
    "objects",
    "probe",
    "rename",
];

#[test]
fn every_family_reads_as_its_golden_file() {
    FAMILIES.iter().for_each(|family| check(family));
}

/// All SQL of the golden files.
pub(in crate::sql) fn corpus() -> Vec<String> {
    let read = |family: &&str| {
        let path = format!("{}/src/sql/parse/cases/{family}.txt", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(path).expect("a file of cases")
    };
    let text: String = FAMILIES.iter().map(read).collect::<Vec<_>>().join("\n");
    text.lines().filter(|line| !line.is_empty() && !line.starts_with(' ')).map(str::to_owned).collect()
}

fn ddls(sql: &str) -> Vec<(Statement, Ddl)> {
    let statements = parse(sql).unwrap_or_default();
    let ddl = |statement: Statement| match &statement.class {
        Class::Ddl(ddl) => Some((statement.clone(), ddl.as_ref().clone())),
        _ => None,
    };
    statements.into_iter().filter_map(ddl).collect()
}

#[test]
fn every_form_has_a_case() {
    let found: Vec<Form> = corpus()
        .iter()
        .flat_map(|sql| ddls(sql))
        .flat_map(|(_, ddl)| ddl.parts.into_iter().map(|part| part.form))
        .collect();
    for row in FORMS {
        assert!(found.contains(&row.form), "no case for {:?}", row.form);
    }
}

#[test]
fn every_tag_is_known() {
    for sql in corpus() {
        for (_, ddl) in ddls(&sql) {
            assert!(!ddl.tag.contains('?'), "{sql}");
        }
    }
}

#[test]
fn concurrently_fits_where_it_is_told() {
    let mut seen = 0;
    for sql in corpus() {
        // Comments and other white space must not move it.
        for sql in [sql.clone(), format!("/* a; */ {} -- end", sql.replace(' ', " /* INDEX */\n--x\n "))] {
            for (statement, ddl) in ddls(&sql) {
                let Some(at) = ddl.concurrently_at else { continue };
                let (before, after) = statement.text.split_at(at);
                let rewritten = format!("{before} CONCURRENTLY{after}");
                let again = ddls(&rewritten);
                assert_eq!(again.len(), 1, "{rewritten}");
                assert!(again[0].1.concurrently, "{rewritten}");
                seen += 1;
            }
        }
    }
    assert!(seen > 20, "{seen}");
}

#[test]
fn probes_are_there_and_read_as_they_should() {
    for sql in corpus() {
        for part in ddls(&sql).into_iter().flat_map(|(_, ddl)| ddl.parts) {
            // The expression of one case is not carried over.
            if part.form.needs_probe() && !sql.contains("json_object(") {
                assert!(part.probe.is_some(), "{sql}");
            }
            let Some(probe) = part.probe else { continue };
            let again = ddls(&probe);
            assert_eq!(again.len(), 1, "{probe}");
            let part_again = &again[0].1.parts[0];
            assert_eq!(part_again.column, part.column, "{probe}");
            assert_eq!(part_again.probe.as_deref(), Some(probe.as_str()), "{sql}");
        }
    }
}

#[test]
fn ranges_are_exact() {
    let sql = " /* é */ SELECT 'ü' -- x\n ; -- y\n\n ALTER TABLE \"ä\" ADD c int /* z */ ;; COMMIT -- end";
    let statements = parse(sql).expect("it is SQL");
    let texts: Vec<&str> = statements.iter().map(|statement| statement.text.as_str()).collect();
    assert_eq!(texts, ["SELECT 'ü'", "ALTER TABLE \"ä\" ADD c int", "COMMIT"]);
    for statement in statements {
        assert_eq!(sql.get(statement.range.clone()), Some(statement.text.as_str()));
    }
    let explain = "-- a\n EXPLAIN (COSTS off) /* b */ DROP TABLE t -- c";
    let statements = parse(explain).expect("we read it");
    let Class::ExplainDdl(inner) = &statements[0].class else { panic!("not EXPLAIN of DDL") };
    assert_eq!(&explain[statements[0].range.clone()], "EXPLAIN (COSTS off) /* b */ DROP TABLE t");
    assert_eq!(&explain[inner.range.clone()], "DROP TABLE t");
}

#[test]
fn old_strings_are_read_the_old_way() {
    let sql = r"SELECT 'it\'s; -- here' -- x
        ; CREATE INDEX ON t ((a || 'b\\')) -- '";
    let options = ParseOptions { standard_conforming_strings: false, ..ParseOptions::default() };
    let statements = parse_with(sql, options).expect("it is SQL of old");
    let texts: Vec<&str> = statements.iter().map(|statement| statement.text.as_str()).collect();
    assert_eq!(texts, [r"SELECT 'it\'s; -- here'", r"CREATE INDEX ON t ((a || 'b\\'))"]);
}

#[test]
fn nothing_makes_it_panic() {
    let deep = format!("ALTER TABLE t ALTER c TYPE int USING {}1{}", "(".repeat(20_000), ")".repeat(20_000));
    let sums = format!("ALTER TABLE t ADD c int DEFAULT {}1", "1+".repeat(20_000));
    let not = format!("CREATE TABLE t (a int CHECK ({} true))", "NOT ".repeat(20_000));
    for sql in
        ["", ";", " ; ; ", "\0", "ALTER TABLE t\0", "'", "/*", "$$", "EXPLAIN", "EXPLAIN (", "DO", &deep, &sums, &not]
    {
        let _ = parse(sql);
        let _ = parse_with(sql, ParseOptions { standard_conforming_strings: false, ..ParseOptions::default() });
    }
}

/// For these columns, libpg_query's deparser would end the process, or read what is not there.
#[test]
fn what_cannot_be_deparsed_safely_has_no_probe() {
    for column in [
        "varchar(1 + 1)",
        "varchar(DISTINCT)",
        "pg_catalog.timestamptz(a)",
        "pg_catalog.timetz('x')",
        "pg_catalog.interval(5)",
        "interval year to month",
        "int DEFAULT 1::pg_catalog.timestamptz(a)::int",
        "int DEFAULT count(*) OVER (PARTITION BY 1)",
        "int DEFAULT sum(1) FILTER (WHERE true)",
    ] {
        for text in
            [format!("ALTER TABLE t ADD COLUMN c {column}"), format!("ALTER TABLE t ALTER COLUMN c TYPE {column}")]
        {
            let Ok(statements) = parse(&text) else { continue };
            let Class::Ddl(ddl) = &statements[0].class else { panic!("{text}") };
            assert_eq!(ddl.parts[0].probe, None, "{text}");
        }
    }
    for text in ["CREATE INDEX ON t ((sum(a) OVER w))", "CREATE INDEX ON t ((a::pg_catalog.timestamptz(b)))"] {
        let Class::Ddl(ddl) = &parse(text).unwrap()[0].class else { panic!("{text}") };
        assert_eq!(ddl.parts[0].probe, None, "{text}");
    }
}
