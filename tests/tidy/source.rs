//! The source of the project as the checks of `tests/tidy.rs` read it.
//!
//! A [`Source`] is a file as text, and the same text with comments, strings and test modules blanked out. Blanking keeps every line
//! break, so that a place in the code has the line number that it has in the file.

use std::fs;
use std::path::{Path, PathBuf};

/// A source file.
pub(super) struct Source {
    pub(super) path: PathBuf,
    /// As it stands.
    pub(super) text: String,
    /// Without comments, strings and test modules; as many lines.
    pub(super) code: String,
}

impl Source {
    /// The module of `lib.rs` it belongs to; `lib` and `main` for themselves.
    pub(super) fn module(&self) -> String {
        let path = self.path.strip_prefix(root().join("src")).unwrap();
        let first = path.components().next().unwrap().as_os_str().to_str().unwrap();
        first.trim_end_matches(".rs").to_owned()
    }

    pub(super) fn name(&self) -> String {
        self.path.strip_prefix(root()).unwrap().display().to_string()
    }

    /// Every place where `needle` stands as a word of its own, as `file:line`.
    pub(super) fn places(&self, needle: &str) -> Vec<String> {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let stands = |line: &str| line.match_indices(needle).any(|(at, _)| !line[..at].ends_with(is_word));
        let lines = self.code.lines().enumerate().filter(|(_, line)| stands(line));
        lines.map(|(number, _)| format!("{}:{}", self.name(), number + 1)).collect()
    }
}

pub(super) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub(super) fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(folder) else { return found };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}

pub(super) fn read(path: PathBuf) -> Source {
    let text = fs::read_to_string(&path).unwrap();
    // A module of tests in a file of its own.
    let is_tests = path.file_stem().is_some_and(|stem| stem == "tests");
    let code = if is_tests { String::new() } else { without_tests(&blanked(&text)) };
    Source { path, text, code }
}

pub(super) fn sources() -> Vec<Source> {
    files(&root().join("src"), "rs").into_iter().map(read).collect()
}

/// Comments, strings and characters become blanks; lines stay.
pub(super) fn blanked(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut i = 0;
    while i < chars.len() {
        let end = skip(&chars, i);
        if end == i {
            out.push(chars[i]);
            i += 1;
        } else {
            out.extend(chars[i..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
            i = end;
        }
    }
    out
}

/// The end of the comment, string or character that starts at `i`; `i` if none does.
fn skip(chars: &[char], i: usize) -> usize {
    let at = |j: usize| chars.get(j).copied().unwrap_or('\0');
    let find = |from: usize, wanted: &[char]| {
        (from..chars.len()).find(|j| chars[*j..].starts_with(wanted)).map_or(chars.len(), |j| j + wanted.len())
    };
    let in_word = i > 0 && (at(i - 1).is_alphanumeric() || at(i - 1) == '_') && !matches!(at(i - 1), 'b' | 'c');
    match at(i) {
        '/' if at(i + 1) == '/' => find(i, &['\n']) - 1,
        '/' if at(i + 1) == '*' => find(i + 2, &['*', '/']),
        'r' if !in_word && matches!(at(i + 1), '"' | '#') => {
            let hashes = chars[i + 1..].iter().take_while(|c| **c == '#').count();
            if at(i + 1 + hashes) != '"' {
                return i;
            }
            let mut close = vec!['"'];
            close.extend(std::iter::repeat_n('#', hashes));
            find(i + 2 + hashes, &close)
        }
        '"' => {
            let mut j = i + 1;
            while j < chars.len() && at(j) != '"' {
                j += if at(j) == '\\' { 2 } else { 1 };
            }
            j + 1
        }
        '\'' if at(i + 1) == '\\' => find(i + 3, &['\'']),
        '\'' if at(i + 2) == '\'' => i + 3,
        _ => i,
    }
    .min(chars.len())
}

/// Blanks every item under `#[cfg(test)]`.
pub(super) fn without_tests(code: &str) -> String {
    let mut out = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(at) = rest.find("#[cfg(test)]") {
        let item = &rest[at..];
        let end = match (item.find(';'), item.find('{')) {
            (Some(semicolon), brace) if brace.is_none_or(|brace| semicolon < brace) => semicolon + 1,
            (_, Some(brace)) => brace + closing(&item[brace..]),
            _ => item.len(),
        };
        out.push_str(&rest[..at]);
        out.extend(item[..end].chars().filter(|c| *c == '\n'));
        rest = &item[end..];
    }
    out + rest
}

/// The length of a block that starts with its opening brace.
pub(super) fn closing(block: &str) -> usize {
    let mut depth = 0;
    for (at, c) in block.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    block.len()
}
