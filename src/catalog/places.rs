//! An index of the facts: where a relation stands among them, by its name and by its oid. A statement may name a thousand
//! relations.
//!
//! Invariant: all relations are in the facts before the index is asked for the first time, and none moves afterwards. Of
//! a few relations no index is made.

use super::NamedFacts;
use crate::pg::RelationName;
use std::collections::HashMap;
use std::sync::OnceLock;

/// So many are looked through one by one in no more time.
const FEW: usize = 16;

#[derive(Debug, Default)]
pub struct Places {
    by_name: OnceLock<HashMap<RelationName, usize>>,
    by_oid: OnceLock<HashMap<u32, usize>>,
}

/// Of other facts: they may differ soon.
impl Clone for Places {
    fn clone(&self) -> Self {
        Self::default()
    }
}

/// It says nothing that the facts do not.
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
        // The first of that name, as a search would find it.
        let index = || all.iter().enumerate().rev().map(|(at, asked)| (asked.name.clone(), at)).collect();
        self.by_name.get_or_init(index).get(name).and_then(|at| all.get(*at)).filter(is_it)
    }

    /// Of the relations that were found.
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
