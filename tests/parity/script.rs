//! A script: parts, each a series of chunks that belong together.
//!
//! A line `-- part` begins a part. Chunks that are sent as a whole (one string, one pipeline, one transaction) form a part.
//! A chunk ends at a line that ends with `;`, outside `$$`; it may hold several statements. `-- only: way way` after `--
//! part` names the ways of sending that suit the part. `--< text` is one line of data for the next COPY FROM STDIN.
//!
//! `-- since: 12` before a chunk says that older servers do not know its grammar. On them the chunk is sent only where it
//! stands alone, since a server refuses a whole string for one word and runs nothing of it. A chunk with `-- before: 12`
//! takes its place on older servers. `-- needs: 12` says that the chunk is never sent to older servers; the reason stands
//! below.

use std::collections::VecDeque;
use std::path::Path;

pub(crate) struct Script {
    pub(crate) name: String,
    pub(crate) parts: Vec<Part>,
}

#[derive(Default)]
pub(crate) struct Part {
    pub(crate) chunks: Vec<Chunk>,
    pub(crate) copy_data: VecDeque<String>,
    only: Vec<String>,
}

#[derive(Default)]
pub(crate) struct Chunk {
    pub(crate) text: String,
    /// Major versions; `None`: all.
    since: Option<u32>,
    before: Option<u32>,
    needs: Option<u32>,
}

/// What of a part is sent to one server.
pub(crate) struct Sent<'a> {
    pub(crate) chunks: Vec<&'a str>,
    pub(crate) copy_data: VecDeque<String>,
}

impl Part {
    pub(crate) fn runs(&self, way: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == way)
    }

    /// `alone`: each chunk is a message of its own, outside a transaction block.
    pub(crate) fn sent(&self, version: u32, alone: bool) -> Sent<'_> {
        let known = |chunk: &&Chunk| {
            let new = chunk.since.is_none_or(|since| since <= version);
            let taken = chunk.needs.is_none_or(|needs| needs <= version);
            taken && chunk.before.is_none_or(|before| version < before) && (new || alone)
        };
        let chunks = self.chunks.iter().filter(known).map(|chunk| chunk.text.as_str()).collect();
        Sent { chunks, copy_data: self.copy_data.clone() }
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
    let mut chunk = Chunk::default();
    let version = |text: &str| Some(text.parse().expect("a version"));
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
        } else if let Some(since) = line.strip_prefix("-- since: ") {
            chunk.since = version(since);
        } else if let Some(before) = line.strip_prefix("-- before: ") {
            chunk.before = version(before);
        } else if let Some(needs) = line.strip_prefix("-- needs: ") {
            chunk.needs = version(needs);
        } else {
            chunk.text.push_str(line);
            chunk.text.push('\n');
            if line.ends_with(';') && chunk.text.matches("$$").count().is_multiple_of(2) {
                part.chunks.push(std::mem::take(&mut chunk));
            }
        }
    }
    assert!(chunk.text.trim().is_empty(), "a chunk does not end: {}", chunk.text);
    parts.retain(|part| !part.chunks.is_empty());
    parts
}
