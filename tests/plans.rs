//! Goldens of plans: SQL and facts go in, the printed plan comes out. No server is needed.
//!
//! A file of `tests/plans` is read from top to bottom. Lines of facts describe the relations and the session; they apply
//! until changed:
//!
//! ```text
//! # a comment
//! session version=150000 in_transaction strongest="ACCESS EXCLUSIVE" frozen schema=public
//! limits  small=1MB guard
//! relation public.orders kind=r bytes=31GB column=id:bigint,notnull,default index=orders_pkey,unique,constraint
//! probe   none rewrite rebuild value type fails unknown
//! refreshable
//! domain  orders items
//! wanted  INDEX USING btree (a)
//! tree    columns=a keys=a unique taken
//! member  public.p_20#210 of=200 kind=r key=a index=p_20_a_idx equal=x,invalid nullable=b inherits_not_null busy foreign
//! attach  {"bounds": "a > 0", …}
//! leaves  {"name": "t_a_fkey", …}
//! detachable {"bound": "FOR VALUES IN (1)", …}
//! ```
//!
//! `plan <sql>` (more lines may follow, up to `---`) asks for a plan. The printed plan stands below it, up to the next empty
//! line. `ahead <sql>` asks for the plan that is run ahead of the client's block, with an undo for all that it makes. `UPDATE_GOLDENS=1` writes the printed plans into the files. Every plan is checked too.

#[path = "plans/scene.rs"]
mod scene;

use scene::Scene;
use std::fmt::Write;
use std::path::Path;

#[test]
fn plans_are_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plans");
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "plan"));
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
            differing.push(difference(&path, &golden, &printed));
        }
    }
    assert!(differing.is_empty(), "{}\nUPDATE_GOLDENS=1 writes them anew.", differing.join("\n"));
}

/// The first line that is not as written.
fn difference(path: &Path, golden: &str, printed: &str) -> String {
    let lines = golden.lines().zip(printed.lines()).enumerate().find(|(_, (one, other))| one != other);
    match lines {
        Some((i, (one, other))) => format!("{}:{}\n  written: {one}\n  printed: {other}", path.display(), i + 1),
        None => format!("{}: another number of lines", path.display()),
    }
}

/// The file with every plan printed anew.
fn run(golden: &str, file: &str) -> String {
    let mut scene = Scene::default();
    let mut out = String::new();
    let mut lines = golden.lines().peekable();
    while let Some(line) = lines.next() {
        let _ = writeln!(out, "{line}");
        let (first, ahead) = match (line.strip_prefix("plan "), line.strip_prefix("ahead ")) {
            (Some(first), _) => (first, false),
            (None, Some(first)) => (first, true),
            (None, None) => {
                scene.set(line, file);
                continue;
            }
        };
        let mut sql = first.to_owned();
        for line in lines.by_ref().take_while(|line| *line != "---") {
            let _ = writeln!(out, "{line}");
            sql = format!("{sql}\n{line}");
        }
        // What was printed before is left out, up to the empty line.
        while lines.next_if(|line| !line.is_empty()).is_some() {}
        let printed = if ahead { scene.plan_ahead(&sql) } else { scene.plan(&sql) };
        let _ = write!(out, "---\n{printed}");
    }
    out
}
