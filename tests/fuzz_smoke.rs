//! Runs the fuzz targets without a fuzzer: every file of their corpus, and some mutations of each, which are the same each
//! time.
//!
//! Bytes that a fuzzer found become a file of the corpus. `make fuzz` looks for more.

#[path = "../fuzz/targets/mod.rs"]
mod targets;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// A small generator (xorshift64*): what it gives depends on its seed alone.
struct Dice(u64);

impl Dice {
    fn throw(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(number).unwrap() % sides.max(1)
    }
}

/// Bytes that stand where readers look twice.
const ODD: [&[u8]; 16] = [
    b"\0",
    b"\xff",
    b"'",
    b"\"",
    b";",
    b"/*",
    b"*/",
    b"--",
    b"\n",
    b"$$",
    b"\\",
    b"(",
    b"\0\0\0\x04",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b" ",
];

/// A few changes to `bytes`: flips, cuts, repeats, pieces of `other`.
fn mutate(bytes: &[u8], other: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut mutated = bytes.to_vec();
    for _ in 0..=dice.throw(4) {
        let at = dice.throw(mutated.len() + 1);
        let end = (at + dice.throw(9)).min(mutated.len());
        match dice.throw(7) {
            0 if at < mutated.len() => mutated[at] ^= 1 << dice.throw(8),
            1 if at < mutated.len() => mutated[at] = u8::try_from(dice.throw(256)).unwrap(),
            2 => drop(mutated.drain(at..end)),
            3 => drop(mutated.splice(at..at, ODD[dice.throw(ODD.len())].iter().copied())),
            4 => {
                let again = mutated[at..end].to_vec();
                drop(mutated.splice(at..at, again));
            }
            5 => {
                let from = dice.throw(other.len() + 1);
                let to = (from + dice.throw(30)).min(other.len());
                drop(mutated.splice(at..end, other[from..to].iter().copied()));
            }
            _ => mutated.truncate(at),
        }
    }
    mutated
}

fn corpus(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 10, "{} has {} files", folder.display(), paths.len());
    paths.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

fn play(name: &str) {
    let (_, target, mutations) = targets::TARGETS.into_iter().find(|(other, ..)| *other == name).expect("a target");
    let corpus = corpus(name);
    let mut dice = Dice(0x5eed_5eed);
    for (path, bytes) in &corpus {
        for n in 0..=mutations {
            let other = &corpus[dice.throw(corpus.len())].1;
            let data = if n == 0 { bytes.clone() } else { mutate(bytes, other, &mut dice) };
            if catch_unwind(AssertUnwindSafe(|| target(&data))).is_err() {
                panic!("{name}, from {}: \"{}\"", path.display(), data.escape_ascii());
            }
        }
    }
}

#[test]
fn every_target_is_played() {
    let mut names: Vec<&str> = targets::TARGETS.iter().map(|(name, ..)| *name).collect();
    names.sort_unstable();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/fuzz_targets");
    let mut files: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    files.sort_unstable();
    assert_eq!(files, names);
}

#[test]
fn startup() {
    play("startup");
}

#[test]
fn frames() {
    play("frames");
}

#[test]
fn messages() {
    play("messages");
}

#[test]
fn relay() {
    play("relay");
}

#[test]
fn owed() {
    play("owed");
}

#[test]
fn prefilter() {
    play("prefilter");
}

#[test]
fn pieces() {
    play("pieces");
}

#[test]
fn config() {
    play("config");
}

#[test]
fn console() {
    play("console");
}
