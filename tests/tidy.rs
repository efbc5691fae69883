//! Tests of the architecture, without a server: import order, pure modules, homes of crates, lengths.
//!
//! They read the source as text. Comments, strings and test modules are blanked out. A count with "at most" is a ratchet: a
//! change that makes it better writes the better number here.

#[path = "tidy/circles.rs"]
mod circles;
#[path = "tidy/parts.rs"]
mod parts;
#[path = "tidy/source.rs"]
mod source;

use circles::{Crate, split_group};
use source::{Source, blanked, closing, files, read, root, sources, without_tests};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

/// No I/O, no clock.
const PURE: [&str; 7] = ["pg", "report", "wire", "sql", "catalog", "plan", "gate"];
const IMPURE: [&str; 9] = [
    "tokio::",
    "tokio_postgres",
    "std::net",
    "std::fs",
    "std::process",
    "std::thread",
    "SystemTime",
    "Instant",
    "println!",
];

/// One third-party crate, one home (or the few it has).
const HOMES: [(&str, &[&str]); 13] = [
    ("pg_query", &["sql"]),
    ("toml::", &["config"]),
    ("jiff::", &["config"]),
    ("sha2::", &["gate"]),
    ("tokio_postgres", &["operator", "ledger", "dev", "cli"]),
    ("clap::", &["cli"]),
    ("pgwire::", &["console"]),
    ("tracing_subscriber::", &["logging"]),
    ("hyper::", &["monitor", "webhook"]),
    ("prometheus_client", &["metrics"]),
    ("ring::hmac", &["webhook"]),
    ("io_uring::", &["net"]),
    ("libc::", &["net"]),
];

/// Where `unsafe` may stand.
const UNSAFE_HOME: &str = "src/net/ring/kernel.rs";

/// Files of `src` and `tests` have fewer lines.
const LINES: usize = 500;
/// At most a tenth of the files of `src` have more.
const FEW_LINES: usize = 400;
const MOST_FUNCTION_LINES: usize = 70;
/// At most: functions longer than that. Each is a flat table or match.
const LONG_FUNCTIONS: usize = 0;
/// At most: `unwrap()` and `expect(` outside tests, each with its invariant beside it.
const UNWRAPS: usize = 0;

/// The modules that `lib.rs` declares, in its order.
fn declared() -> Vec<String> {
    let lib = read(root().join("src/lib.rs"));
    let module =
        |line: &str| line.trim().trim_start_matches("pub ").strip_prefix("mod ")?.strip_suffix(';').map(str::to_owned);
    lib.code.lines().filter_map(module).collect()
}

/// The modules of this crate that a file names: `crate::x`, and `crate::{x, y::z}`.
fn imports(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let names = match rest.strip_prefix('{') {
            Some(_) => split_group(&rest[1..closing(rest).max(2) - 1]),
            None => vec![rest],
        };
        let first = |name: &str| name.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        found.extend(names.into_iter().map(first).filter(|name: &String| !name.is_empty()));
    }
    found
}

/// Fails with a list, one line each.
#[track_caller]
fn nothing_in(list: &[String], what: &str) {
    at_most(0, list, what);
}

#[track_caller]
fn at_most(limit: usize, list: &[String], what: &str) {
    assert!(list.len() <= limit, "{what} (at most {limit}):\n  {}", list.join("\n  "));
}

#[test]
fn every_file_says_what_it_is() {
    let silent = sources().into_iter().filter(|source| !source.text.starts_with("//! "));
    nothing_in(&silent.map(|source| source.name()).collect::<Vec<_>>(), "files that do not open with `//! `");
}

#[test]
fn modules_import_only_what_is_declared_above_them() {
    let order = declared();
    let rank: BTreeMap<&str, usize> = order.iter().enumerate().map(|(rank, name)| (name.as_str(), rank)).collect();
    let mut wrong = Vec::new();
    for source in sources() {
        let module = source.module();
        let Some(own) = rank.get(module.as_str()) else { continue };
        for import in imports(&source.code) {
            if rank.get(import.as_str()).is_some_and(|other| other > own) {
                wrong.push(format!("{} ({module}) imports {import}, which lib.rs declares below it", source.name()));
            }
        }
    }
    wrong.dedup();
    nothing_in(&wrong, "imports against the order (any circle is among them)");
}

#[test]
fn no_two_files_use_each_other() {
    let uses = Crate::of(&sources()).uses();
    let found = circles::circles(&uses);
    let found = found.iter().map(|circle| {
        format!("{}\n    {}", circle.join(", "), circles::ties(circle, &uses).join("\n    ")) //
    });
    nothing_in(&found.collect::<Vec<_>>(), "circles of files");
}

#[test]
fn every_folder_is_declared() {
    let mut known = declared();
    known.extend(["lib".to_owned(), "main".to_owned()]);
    let unknown = sources().into_iter().filter(|source| !known.contains(&source.module()));
    nothing_in(&unknown.map(|source| source.name()).collect::<Vec<_>>(), "files of no module that lib.rs declares");
}

#[test]
fn pure_modules_do_no_io_and_read_no_clock() {
    let pure = sources().into_iter().filter(|source| PURE.contains(&source.module().as_str()));
    let places = pure.flat_map(|source| IMPURE.map(|needle| (needle, source.places(needle))));
    let places = places.flat_map(|(needle, places)| places.into_iter().map(move |place| format!("{place}: {needle}")));
    nothing_in(&places.collect::<Vec<_>>(), "pure modules that are not");
}

#[test]
fn a_crate_has_one_home() {
    let mut wrong = Vec::new();
    for source in sources() {
        for (needle, homes) in HOMES {
            if !homes.contains(&source.module().as_str()) {
                wrong.extend(source.places(needle).into_iter().map(|place| format!("{place}: {needle}")));
            }
        }
    }
    nothing_in(&wrong, "crates that are named outside their home");
}

#[test]
fn files_are_short() {
    let tests = files(&root().join("tests"), "rs").into_iter().map(read);
    let is_long = |source: &Source| source.text.lines().count() >= LINES;
    let long: Vec<String> = sources().into_iter().chain(tests).filter(is_long).map(|source| source.name()).collect();
    nothing_in(&long, &format!("files of {LINES} lines or more"));
}

#[test]
fn most_files_are_shorter_still() {
    let sources = sources();
    let long: Vec<String> =
        sources.iter().filter(|source| source.text.lines().count() > FEW_LINES).map(Source::name).collect();
    assert!(long.len() * 10 <= sources.len(), "more than a tenth of the files are over {FEW_LINES} lines: {long:?}");
}

#[test]
fn parts_own_their_state() {
    let sources = sources();
    let faults: Vec<String> =
        parts::PARTS.iter().flat_map(|(part, home)| parts::faults(part, home, &sources)).collect();
    nothing_in(&faults, "parts whose fields are seen by others");
}

/// Soundness is argued in one place, block by block.
#[test]
fn unsafe_has_one_home_and_reasons() {
    let mut wrong = Vec::new();
    for source in sources() {
        let places = source.places("unsafe ");
        if source.name() != UNSAFE_HOME {
            wrong.extend(places);
            continue;
        }
        let lines: Vec<&str> = source.text.lines().collect();
        for place in places {
            let number: usize = place.rsplit(':').next().unwrap().parse().unwrap();
            let above = lines[..number - 1].iter().rev().take_while(|line| line.trim_start().starts_with("//"));
            if !above.collect::<Vec<_>>().iter().any(|line| line.contains("SAFETY:")) {
                wrong.push(format!("{place}: no SAFETY above it"));
            }
        }
    }
    nothing_in(&wrong, "unsafe outside its home, or without a reason");
}

#[test]
fn functions_are_short() {
    let mut long = Vec::new();
    for source in sources() {
        long.extend(
            functions(&source.code)
                .into_iter()
                .filter(|(_, lines)| *lines > MOST_FUNCTION_LINES)
                .map(|(line, lines)| format!("{}:{line}: {lines} lines", source.name())),
        );
    }

    at_most(LONG_FUNCTIONS, &long, &format!("functions over {MOST_FUNCTION_LINES} lines"));
}

/// The first line of each function with a body, and its number of lines.
fn functions(code: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut offset = 0;
    for (number, line) in code.lines().enumerate() {
        let start = line.find("fn ").filter(|at| line[..*at].trim_end().split(' ').all(is_modifier));
        if let Some(at) = start {
            let rest = &code[offset + at..];
            let body = rest.find('{').filter(|brace| rest.find(';').is_none_or(|semicolon| *brace < semicolon));
            if let Some(brace) = body {
                let end = brace + closing(&rest[brace..]);
                found.push((number + 1, rest[..end].lines().count()));
            }
        }
        offset += line.len() + 1;
    }
    found
}

fn is_modifier(word: &str) -> bool {
    matches!(word, "" | "pub" | "pub(super)" | "pub(crate)" | "async" | "const" | "extern")
}

#[test]
fn the_program_hardly_ever_unwraps() {
    let mut places = Vec::new();
    for source in sources() {
        let lines = source.code.lines().enumerate();
        let unwraps = lines.filter(|(_, line)| line.contains(".unwrap()") || line.contains(".expect("));
        places.extend(unwraps.map(|(number, _)| format!("{}:{}", source.name(), number + 1)));
    }
    at_most(UNWRAPS, &places, "unwraps outside tests");
}

/// What is written here must be true on every machine.
#[test]
fn no_path_of_a_machine() {
    let mut texts: Vec<PathBuf> = Vec::new();
    for (folder, extension) in [("src", "rs"), ("tests", "rs"), ("benches", "rs"), ("scripts", "sh"), ("docs", "md")] {
        texts.extend(files(&root().join(folder), extension));
    }
    texts.extend(
        ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "Cargo.toml", "proxy.toml"].map(|f| root().join(f)),
    );
    // Written apart, so that this file does not name them.
    let needles = [["/ho", "me/"].concat(), ["/Us", "ers/"].concat(), ["/ro", "ot/"].concat(), ["/wo", "rk/"].concat()];
    let mut wrong = Vec::new();
    for path in texts {
        let Ok(text) = fs::read_to_string(&path) else { continue };
        for (number, line) in text.lines().enumerate() {
            if needles.iter().any(|needle| line.contains(needle)) {
                wrong.push(format!("{}:{}", path.display(), number + 1));
            }
        }
    }
    nothing_in(&wrong, "paths of somebody's machine");
}

/// The checks above stand on these readers.
#[test]
fn the_readers_read() {
    let code = without_tests(&blanked(
        "use crate::{pg::X, report};\n// crate::cli\nfn a() { \"crate::dev {\"; '{'; r#\"x\"y\"#; }\n#[cfg(test)]\nmod tests {\n  crate::server }\nfn b<'a>() {\n}\n",
    ));
    assert_eq!(imports(&code), ["pg", "report"]);
    assert_eq!(functions(&code), [(3, 1), (7, 2)]);
    assert_eq!(code.lines().count(), 8);
}
