//! Circles between files: which file uses which, and which files use each other in a circle.
//!
//! A file uses another file if its code names something that the other declares: in a `use`, or by a path in an expression
//! or a type. The file that declares an item counts, and not the module that re-exports it. A `mod` line and a `pub use` of
//! a file's own children are no use of them, so a `mod.rs` that only lists its children is in no circle. A `mod.rs` that
//! calls its children may do so as long as no child names anything that the `mod.rs` declares.

use super::source::{Source, closing, root};
use std::collections::{BTreeMap, BTreeSet};

/// What each file takes from which other file: (user, used) → names.
pub(super) type Uses = BTreeMap<(String, String), BTreeSet<String>>;

/// The modules of a crate, each with its file's code.
pub(super) struct Crate {
    modules: BTreeMap<Vec<String>, Module>,
}

struct Module {
    /// The path of the file below `src`.
    file: String,
    code: String,
    /// The names that the module brings into its scope, and the paths behind them. `*` is a name of its own.
    imports: Vec<Import>,
    /// The names of the items that the file declares.
    declared: BTreeSet<String>,
}

#[derive(Clone)]
struct Import {
    name: String,
    path: Vec<String>,
    public: bool,
}

impl Crate {
    /// The crate of these sources. `main.rs` is a crate of its own and is left out.
    pub(super) fn of(sources: &[Source]) -> Self {
        let file = |source: &Source| {
            source.path.strip_prefix(root().join("src")).unwrap().to_str().unwrap().replace('\\', "/")
        };
        Self::new(sources.iter().map(|source| (file(source), source.code.clone())))
    }

    /// `files`: paths below `src`, each with its code.
    pub(super) fn new(files: impl IntoIterator<Item = (String, String)>) -> Self {
        let files = files.into_iter().filter(|(file, _)| file != "main.rs");
        let modules = files.map(|(file, code)| {
            let (imports, declared) = (imports(&code), declarations(&code));
            (module_path(&file), Module { file, code, imports, declared })
        });
        Self { modules: modules.collect() }
    }

    pub(super) fn uses(&self) -> Uses {
        let mut uses = Uses::new();
        for (at, module) in &self.modules {
            for path in self.paths(at, module) {
                let Some((used, name)) = self.resolve(at, &path, 0) else { continue };
                let used = &self.modules[&used].file;
                if *used != module.file {
                    uses.entry((module.file.clone(), used.clone())).or_default().insert(name);
                }
            }
        }
        uses
    }

    /// The paths that a file names, apart from re-exports of its own children.
    fn paths(&self, at: &[String], module: &Module) -> Vec<Vec<String>> {
        let is_child = |name: &str| self.modules.contains_key(&[at, &[name.to_owned()]].concat());
        let reexports_child = |import: &Import| {
            let first = import.path.iter().find(|segment| *segment != "self");
            import.public && first.is_some_and(|first| is_child(first))
        };
        let imported = module.imports.iter().filter(|import| !reexports_child(import));
        // A module that is imported as such is used where a path begins with its name.
        let names_module = |import: &&Import| self.module_of(at, &import.path).is_none();
        let mut paths: Vec<Vec<String>> = imported.filter(names_module).map(|import| import.path.clone()).collect();
        paths.extend(inline_paths(&module.code));
        paths
    }

    /// The module that a path names, if it names one.
    fn module_of(&self, at: &[String], path: &[String]) -> Option<Vec<String>> {
        let (module, rest) = self.walk(at, path)?;
        rest.is_empty().then_some(module)
    }

    /// Follows a path through modules as far as it goes; the rest begins with an item. `None`: the path does not begin in this crate.
    fn walk<'p>(&self, at: &[String], path: &'p [String]) -> Option<(Vec<String>, &'p [String])> {
        let mut rest = path;
        let mut module = at.to_vec();
        match rest.first()?.as_str() {
            "crate" => {
                module = Vec::new();
                rest = &rest[1..];
            }
            "self" => rest = &rest[1..],
            "super" => {
                while rest.first().is_some_and(|first| first == "super") {
                    module.pop()?;
                    rest = &rest[1..];
                }
            }
            first => {
                if !self.modules.contains_key(&[at, &[first.to_owned()]].concat()) {
                    return None;
                }
            }
        }
        while let Some(next) = rest.first() {
            let child = [module.as_slice(), std::slice::from_ref(next)].concat();
            if !self.modules.contains_key(&child) {
                break;
            }
            module = child;
            rest = &rest[1..];
        }
        Some((module, rest))
    }

    /// The module whose file declares what a path names, and the name.
    fn resolve(&self, at: &[String], path: &[String], depth: usize) -> Option<(Vec<String>, String)> {
        const MOST_REEXPORTS: usize = 8;
        if depth > MOST_REEXPORTS {
            return None;
        }
        let Some((module, rest)) = self.walk(at, path) else {
            // The path may begin with a name that the file imports.
            let first = path.first()?;
            let import = self.modules.get(at)?.imports.iter().find(|import| import.name == *first)?;
            let whole: Vec<String> = import.path.iter().chain(&path[1..]).cloned().collect();
            return (whole != path).then(|| self.resolve(at, &whole, depth + 1)).flatten();
        };
        let Some(item) = rest.first() else {
            return Some((module, path.last()?.clone()));
        };
        let here = &self.modules[&module];
        if item == "*" || here.declared.contains(item) {
            return Some((module, item.clone()));
        }
        let named = here.imports.iter().find(|import| import.name == *item);
        if let Some(import) = named {
            let whole: Vec<String> = import.path.iter().chain(&rest[1..]).cloned().collect();
            return self.resolve(&module, &whole, depth + 1);
        }
        for glob in here.imports.iter().filter(|import| import.name == "*") {
            let whole: Vec<String> = glob.path[..glob.path.len() - 1].iter().chain(rest).cloned().collect();
            let found = self.resolve(&module, &whole, depth + 1);
            if let Some((at, _)) = &found
                && self.modules[at].declared.contains(item)
            {
                return found;
            }
        }
        Some((module, item.clone()))
    }
}

/// `plan/mod.rs` and `plan.rs` are `[plan]`, `lib.rs` is the root.
fn module_path(file: &str) -> Vec<String> {
    let stem = file.trim_end_matches(".rs");
    let mut path: Vec<String> = stem.split('/').map(str::to_owned).collect();
    if path.last().is_some_and(|last| last == "mod") || stem == "lib" {
        path.pop();
    }
    path
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The places where a keyword stands as a word of its own.
fn keyword_places<'c>(code: &'c str, keyword: &'c str) -> impl Iterator<Item = usize> + 'c {
    code.match_indices(keyword).map(|(at, _)| at).filter(move |at| {
        !code[..*at].ends_with(is_word) && code[at + keyword.len()..].starts_with(char::is_whitespace)
    })
}

/// Every `use` of a file.
fn imports(code: &str) -> Vec<Import> {
    let mut found = Vec::new();
    for at in keyword_places(code, "use") {
        let before = code[..at].trim_end();
        let public = before.rsplit([';', '}', '{']).next().is_some_and(|words| words.trim().starts_with("pub"));
        let tree = code[at + "use".len()..].split(';').next().unwrap_or_default();
        for (path, alias) in leaves(tree) {
            let last = path.last().cloned().unwrap_or_default();
            found.push(Import { name: alias.unwrap_or(last), path, public });
        }
    }
    found
}

/// The paths of a `use` tree, each with its alias. `a::{self, b}` has the paths `a` and `a::b`.
fn leaves(tree: &str) -> Vec<(Vec<String>, Option<String>)> {
    let tree = tree.trim();
    let Some(open) = tree.find('{') else {
        let (path, alias) = match tree.split_once(" as ") {
            Some((path, alias)) => (path, Some(alias.trim().to_owned())),
            None => (tree, None),
        };
        let path: Vec<String> = path.split("::").map(|segment| segment.trim().to_owned()).collect();
        return vec![(path, alias)];
    };
    let prefix: Vec<String> =
        tree[..open].split("::").map(|segment| segment.trim().to_owned()).filter(|s| !s.is_empty()).collect();
    let group = &tree[open + 1..open + closing(&tree[open..]) - 1];
    let mut found = Vec::new();
    for part in split_group(group).into_iter().filter(|part| !part.trim().is_empty()) {
        for (path, alias) in leaves(part) {
            let path = if path == ["self"] { Vec::new() } else { path };
            found.push((prefix.iter().cloned().chain(path).collect(), alias));
        }
    }
    found
}

/// Splits at the commas outside inner braces.
pub(super) fn split_group(group: &str) -> Vec<&str> {
    let mut depth = 0;
    group
        .split(|c| {
            depth += i32::from(c == '{') - i32::from(c == '}');
            c == ',' && depth == 0
        })
        .collect()
}

/// Every path of two segments or more outside `use`.
fn inline_paths(code: &str) -> Vec<Vec<String>> {
    let mut code = code.to_owned();
    let uses: Vec<usize> = keyword_places(&code, "use").collect();
    for at in uses {
        let end = code[at..].find(';').map_or(code.len(), |end| at + end);
        let blank: String = code[at..end].chars().map(|c| if c == '\n' { c } else { ' ' }).collect();
        // A `use` is ASCII, so blanks keep the length of the code.
        code.replace_range(at..end, &blank);
    }
    let code = without_visibilities(&code);
    let mut found = Vec::new();
    let mut path: Vec<String> = Vec::new();
    let mut rest = code.as_str();
    while let Some(start) = rest.find(is_word) {
        if !path.is_empty() && &rest[..start] != "::" {
            found.push(std::mem::take(&mut path));
        }
        let end = rest[start..].find(|c| !is_word(c)).map_or(rest.len(), |end| start + end);
        path.push(rest[start..end].to_owned());
        rest = &rest[end..];
    }
    found.push(path);
    found.retain(|path| path.len() > 1);
    found
}

/// `pub(in crate::a)` says who sees an item, and uses nothing.
fn without_visibilities(code: &str) -> String {
    let mut out = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(at) = rest.find("pub(in ") {
        let end = rest[at..].find(')').map_or(rest.len(), |end| at + end);
        out.push_str(&rest[..at]);
        rest = &rest[end..];
    }
    out + rest
}

/// The names that a file declares, at any depth.
fn declarations(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for keyword in ["fn", "struct", "enum", "trait", "type", "const", "static", "union", "macro_rules!"] {
        for at in keyword_places(code, keyword) {
            let name: String = code[at + keyword.len()..].trim_start().chars().take_while(|c| is_word(*c)).collect();
            found.insert(name);
        }
    }
    found
}

/// The circles: each a list of files in alphabetical order, of which every one reaches every other.
pub(super) fn circles(uses: &Uses) -> Vec<Vec<String>> {
    let mut next: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (user, used) in uses.keys() {
        next.entry(user).or_default().insert(used);
    }
    let reached = |from: &str| {
        let mut seen: BTreeSet<String> = BTreeSet::new();
        let mut open = vec![from.to_owned()];
        while let Some(file) = open.pop() {
            for used in next.get(file.as_str()).into_iter().flatten() {
                if seen.insert((*used).to_owned()) {
                    open.push((*used).to_owned());
                }
            }
        }
        seen
    };
    let all: BTreeMap<String, BTreeSet<String>> = next.keys().map(|file| ((*file).to_owned(), reached(file))).collect();
    let mut found: BTreeSet<Vec<String>> = BTreeSet::new();
    for (file, reaches) in &all {
        let back = |other: &&String| all.get(*other).is_some_and(|others| others.contains(file));
        let circle: Vec<String> = reaches.iter().filter(back).cloned().collect();
        if circle.len() > 1 {
            found.insert(circle);
        }
    }
    found.into_iter().collect()
}

/// What ties a circle, one line for each pair of its files.
pub(super) fn ties(circle: &[String], uses: &Uses) -> Vec<String> {
    let inside = uses.iter().filter(|((user, used), _)| circle.contains(user) && circle.contains(used));
    inside
        .map(|((user, used), names)| {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            format!("{user} uses {} of {used}", names.join(", "))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uses_of(files: &[(&str, &str)]) -> Uses {
        Crate::new(files.iter().map(|(file, code)| ((*file).to_owned(), (*code).to_owned()))).uses()
    }

    fn circles_of(files: &[(&str, &str)]) -> Vec<Vec<String>> {
        circles(&uses_of(files))
    }

    #[test]
    fn a_parent_that_lists_its_children_is_in_no_circle() {
        let tree = [
            ("lib.rs", "pub mod a;"),
            ("a/mod.rs", "mod b; mod c; pub use b::*; pub use c::{self, C};"),
            ("a/b.rs", "use super::C; use super::c; pub struct B; fn f() { c::g(); }"),
            ("a/c.rs", "pub struct C; pub fn g() {}"),
        ];
        let expected: Uses =
            [(("a/b.rs".to_owned(), "a/c.rs".to_owned()), ["C".to_owned(), "g".to_owned()].into())].into();
        assert_eq!(uses_of(&tree), expected);
        assert!(circles(&expected).is_empty());
    }

    #[test]
    fn a_parent_may_call_its_children() {
        let mut tree = vec![
            ("lib.rs", "pub mod a;"),
            ("a.rs", "mod b; use b::B; pub struct A; fn f(b: B) { b::f() }"),
            ("a/b.rs", "pub struct B; pub fn f() {}"),
        ];
        assert!(circles_of(&tree).is_empty());
        tree[2].1 = "use super::A; pub struct B; pub fn f() {}";
        assert_eq!(circles_of(&tree), [["a.rs", "a/b.rs"]]);
    }

    #[test]
    fn siblings_in_a_circle_are_found_through_whatever_names_them() {
        let mut tree = vec![
            ("lib.rs", "pub mod x; pub mod y; pub mod z;"),
            ("x.rs", "use crate::y; pub fn x() { y::y() }"),
            ("y/mod.rs", "mod deep; pub use deep::*;"),
            ("y/deep.rs", "pub fn y() { crate::z::Z::new() }"),
            ("z.rs", "pub struct Z; impl Z { fn new() {} }"),
        ];
        assert!(circles_of(&tree).is_empty());
        tree[4].1 = "pub struct Z; impl Z { fn new() { crate::x::x() } }";
        let circle = ["x.rs", "y/deep.rs", "z.rs"];
        assert_eq!(circles_of(&tree), [circle]);
        let lines = ties(&circle.map(str::to_owned), &uses_of(&tree));
        assert_eq!(lines, ["x.rs uses y of y/deep.rs", "y/deep.rs uses Z of z.rs", "z.rs uses x of x.rs"]);
    }
}
