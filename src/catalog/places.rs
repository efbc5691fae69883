//! An index of the facts: where a relation is among them, by its name and by its oid. A statement may name a thousand relations.
//!
//! Invariant: all relations are in the facts before the index is first used, and none moves afterwards. The index is not built for
//! a few relations.

use super::NamedFacts;
use crate::pg::RelationName;
use std::collections::HashMap;
use std::sync::OnceLock;

/// For at most this many relations, a linear search takes no more time.
const FEW: usize = 16;

#[derive(Debug, Default)]
pub struct Places {
    by_name: OnceLock<HashMap<RelationName, usize>>,
    by_oid: OnceLock<HashMap<u32, usize>>,
}

/// A clone belongs to other facts, which may soon differ, so it starts empty.
impl Clone for Places {
    fn clone(&self) -> Self {
        Self::default()
    }
}

/// The index says nothing that the facts do not say, so two indexes never differ.
impl PartialEq for Places {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Places {
    pub(super) fn named<'f>(&self, all: &'f [NamedFacts], name: &RelationName) -> Option<&'f NamedFacts> {
        let is_it = |asked: &&NamedFacts| asked.name == *name;
        if all.len() <= FEW {
            return all.iter().find(is_it);
        }
        // The first relation of that name, as a linear search would find it.
        let index = || all.iter().enumerate().rev().map(|(at, asked)| (asked.name.clone(), at)).collect();
        self.by_name.get_or_init(index).get(name).and_then(|at| all.get(*at)).filter(is_it)
    }

    /// The relation with this oid, among the relations that were found.
    pub(super) fn of_oid<'f>(&self, all: &'f [NamedFacts], oid: u32) -> Option<&'f NamedFacts> {
        let of = |asked: &NamedFacts| asked.found.as_ref().map(|found| found.id.oid);
        let is_it = |asked: &&NamedFacts| of(asked) == Some(oid);
        if all.len() <= FEW {
            return all.iter().find(is_it);
        }
        let index = || all.iter().enumerate().rev().filter_map(|(at, asked)| Some((of(asked)?, at))).collect();
        self.by_oid.get_or_init(index).get(&oid).and_then(|at| all.get(*at)).filter(is_it)
    }
}
