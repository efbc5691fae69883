//! Fuzzes the reading of SQL: the prefilter, and the split of a string into its statements.

use pgsluice::sql::{Class, ParseOptions, Statement, exactly_transaction, may_carry_ddl, parse_with};

/// A statement that the proxy acts on, or whose bodies it looks into. A plain ANALYZE is relayed whatever is known of it.
fn matters(class: &Class) -> bool {
    match class {
        Class::Ddl(ddl) => ddl.tag != "ANALYZE",
        Class::ExplainDdl(inner) => matters(&inner.class),
        Class::MayHideDdl { .. } | Class::Newer | Class::Lock(_) => true,
        Class::AdvisoryLock(_) | Class::Transaction(_) | Class::Other => false,
    }
}

const BOTH: [ParseOptions; 2] = [
    ParseOptions { standard_conforming_strings: true, newer: false },
    ParseOptions { standard_conforming_strings: false, newer: true },
];

/// The prefilter never misses what the parser finds; and a text that is taken for COMMIT and its like is just that.
pub fn prefilter(data: &[u8]) {
    let hit = may_carry_ddl(data);
    let control = exactly_transaction(data);
    let Ok(text) = std::str::from_utf8(data) else { return };
    for options in BOTH {
        let parsed = parse_with(text, options);
        let found = parsed.iter().flatten().any(|statement| matters(&statement.class));
        assert!(hit || !found, "missed: {text:?}");
        if let (Some(control), Ok(statements)) = (control, parsed) {
            let classes: Vec<&Class> = statements.iter().map(|statement| &statement.class).collect();
            assert_eq!(classes, [&Class::Transaction(control)], "{text:?}");
        }
    }
}

/// The pieces of a string are where they say, in order, and each alone is what it was among the others.
pub fn pieces(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for options in BOTH {
        let Ok(statements) = parse_with(text, options) else { continue };
        let mut end = 0;
        for statement in &statements {
            assert!(end <= statement.range.start && statement.range.start <= statement.range.end, "{text:?}");
            end = statement.range.end;
            assert_eq!(text.get(statement.range.clone()), Some(statement.text.as_str()), "{text:?}");
            piece(statement, options);
        }
    }
}

fn piece(statement: &Statement, options: ParseOptions) {
    let text = &statement.text;
    let alone = parse_with(text, options).unwrap_or_else(|error| panic!("{text:?}: {error}"));
    assert_eq!(alone.len(), 1, "{text:?}");
    assert_eq!((alone[0].range.clone(), &alone[0].text), (0..text.len(), text));
    match (&alone[0].class, &statement.class) {
        // Its inner statement keeps its place in the whole string.
        (Class::ExplainDdl(alone), Class::ExplainDdl(inner)) => assert_eq!(alone.class, inner.class, "{text:?}"),
        (alone, among) => assert_eq!(alone, among, "{text:?}"),
    }
    assert_eq!(alone[0].logged, statement.logged, "{text:?}");
    assert!(!statement.logged.chars().any(char::is_control), "{text:?}");
    assert!(statement.logged.chars().count() <= 1004, "{text:?}");
    let Class::Ddl(ddl) = &statement.class else { return };
    assert!(!ddl.parts.is_empty(), "{text:?}");
    if let Some(at) = ddl.concurrently_at {
        let concurrently = format!("{} CONCURRENTLY{}", &text[..at], &text[at..]);
        let read = parse_with(&concurrently, options).unwrap_or_else(|error| panic!("{concurrently:?}: {error}"));
        assert!(matches!(&read[0].class, Class::Ddl(ddl) if ddl.concurrently), "{concurrently:?}");
    }
}
