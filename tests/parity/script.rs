//! A script: parts, each a run of chunks that belong together.
//!
//! A line `-- part` begins a part; what is sent as a whole (one string, one pipeline, one transaction) is a part. A
//! chunk ends at a line that ends with `;`, outside `$$`; it may hold several statements. `-- only: way way` after
//! `-- part` names the ways of sending that make sense of it. `--< text` is one line of data for the next COPY FROM STDIN.

use std::collections::VecDeque;
use std::path::Path;

pub(crate) struct Script {
    pub(crate) name: String,
    pub(crate) parts: Vec<Part>,
}

#[derive(Default)]
pub(crate) struct Part {
    pub(crate) text: String,
    pub(crate) chunks: Vec<String>,
    pub(crate) copy_data: VecDeque<String>,
    only: Vec<String>,
}

impl Part {
    pub(crate) fn runs(&self, way: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == way)
    }
}

/// Every script of `tests/parity`, by name.
pub(crate) fn all() -> Vec<Script> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parity");
    let entries = std::fs::read_dir(folder).expect("tests/parity");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "sql"));
    paths.sort();
    paths
        .iter()
        .map(|path| Script {
            name: path.file_stem().expect("a name").to_string_lossy().into_owned(),
            parts: read(&std::fs::read_to_string(path).expect("a script")),
        })
        .collect()
}

fn read(text: &str) -> Vec<Part> {
    let mut parts = vec![Part::default()];
    let mut chunk = String::new();
    for line in text.lines() {
        if line == "-- part" {
            parts.push(Part::default());
            continue;
        }
        let part = parts.last_mut().expect("one at least");
        if let Some(only) = line.strip_prefix("-- only: ") {
            part.only = only.split_whitespace().map(str::to_owned).collect();
        } else if let Some(data) = line.strip_prefix("--< ") {
            part.copy_data.push_back(data.replace("\\t", "\t"));
        } else {
            part.text.push_str(line);
            part.text.push('\n');
            chunk.push_str(line);
            chunk.push('\n');
            if line.ends_with(';') && chunk.matches("$$").count().is_multiple_of(2) {
                part.chunks.push(std::mem::take(&mut chunk));
            }
        }
    }
    assert!(chunk.trim().is_empty(), "a chunk does not end: {chunk}");
    parts.retain(|part| !part.chunks.is_empty());
    parts
}
