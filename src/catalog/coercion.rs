//! Whether a column can get another type without a look at its rows, as far as the catalogue alone tells.
//!
//! The rewrite probe ([`super::probe`]) knows more, but it cannot run in a transaction block.
//!
//! Invariant: if this file says that the rows are kept, the server keeps them. It follows
//! `ATColumnChangeRequiresRewrite`, `CheckIndexCompatible` and the functions that plan length coercions. About any other
//! change of type it says nothing.

use super::{ProbeAnswer, RelationFacts};
use crate::sql::form::Form;
use crate::sql::{NewType, Part};
use serde::Deserialize;

const QUESTION: &str = include_str!("coercion.sql");

/// What to ask of a part, and with which parameters; `None`: it is of no use.
pub fn question(part: &Part, table: &RelationFacts, version: i32) -> Option<(&'static str, [String; 4])> {
    let wanted = part.new_type.as_deref()?;
    let column = match part.form {
        // What a child has may be another's too.
        Form::AlterColumnType if !table.has_children => part.column.clone()?,
        Form::AddColumnUserType => String::new(),
        Form::AddColumnDefault if version >= 110_000 => String::new(),
        _ => return None,
    };
    let schema = wanted.schema.clone().unwrap_or_default();
    Some((QUESTION, [table.id.oid.to_string(), column, schema, wanted.name.clone()]))
}

/// Reads the answer: what the probe would have said, where that is sure.
pub fn answer(part: &Part, json: &str) -> Option<ProbeAnswer> {
    let found: Found = serde_json::from_str(json).ok()?;
    let wanted = part.new_type.as_deref()?;
    let kept = match part.form {
        Form::AlterColumnType => {
            found.kind == 'b' && found.from.is_some_and(|from| from.keeps_rows(wanted, found.built_in))
        }
        // A default that is a string is read once, and a constant of any type.
        Form::AddColumnDefault => "berm".contains(found.kind),
        // A domain may have a default, or what is to hold for each row.
        _ => "berm".contains(found.kind) || (found.kind == 'd' && !found.constrained),
    };
    kept.then(ProbeAnswer::default)
}

#[derive(Debug, Deserialize)]
struct Found {
    /// `pg_type.typtype`
    kind: char,
    built_in: bool,
    /// Of a domain: it may be more than its base type.
    constrained: bool,
    from: Option<Source>,
}

/// The type that the column has now: of a domain, the one that it is over.
#[derive(Debug, Deserialize)]
struct Source {
    /// Of PostgreSQL's own types; else empty.
    name: String,
    modifier: i64,
    same: bool,
    /// By a cast that does nothing.
    coerced: bool,
    collation_stays: bool,
    indexed: bool,
    /// An index is of an expression, or has a predicate, that the column is in.
    computed: bool,
}

impl Source {
    fn keeps_rows(&self, wanted: &NewType, built_in: bool) -> bool {
        if !self.collation_stays || self.computed {
            return false;
        }
        if self.same {
            return wanted.modifiers.is_empty() || (built_in && self.fits(&wanted.modifiers));
        }
        // Both have the operator classes of text.
        let same_indexes =
            built_in && matches!((self.name.as_str(), wanted.name.as_str()), ("varchar", "text") | ("text", "varchar"));
        self.coerced && wanted.modifiers.is_empty() && (!self.indexed || same_indexes)
    }

    /// Whether every value of the type as it is fits these modifiers of it.
    fn fits(&self, modifiers: &[i64]) -> bool {
        /// `VARHDRSZ`, which such modifiers count.
        const HEADER: i64 = 4;
        let (limited, now) = (self.modifier >= 0, self.modifier);
        match (self.name.as_str(), modifiers) {
            ("varchar", [length]) => limited && length + HEADER >= now,
            ("varbit", [length]) => limited && *length >= now,
            ("bpchar", [length]) => limited && length + HEADER == now,
            ("bit", [length]) => limited && *length == now,
            ("time" | "timetz" | "timestamp" | "timestamptz", [precision]) => {
                *precision >= 6 || (limited && *precision >= now)
            }
            ("numeric", [precision, scale @ ..]) => {
                let scale = scale.first().copied().unwrap_or(0);
                let (old_precision, old_scale) = ((now - HEADER) >> 16 & 0xffff, (now - HEADER) & 0x7ff);
                limited && (0..1000).contains(&scale) && scale == old_scale && *precision >= old_precision
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(name: &str, modifier: i64, modifiers: &[i64]) -> bool {
        let name = name.to_owned();
        let source = Source {
            name,
            modifier,
            same: true,
            coerced: false,
            collation_stays: true,
            indexed: true,
            computed: false,
        };
        source.fits(modifiers)
    }

    #[test]
    fn what_fits() {
        let numeric = |precision: i64, scale: i64| (precision << 16 | scale) + 4;
        for (name, modifier, wider, narrower) in [
            ("varchar", 34, &[30][..], &[29][..]),
            ("numeric", numeric(8, 2), &[9, 2], &[9, 3]),
            ("numeric", numeric(8, 0), &[8], &[7]),
            ("timestamptz", 3, &[4], &[2]),
            ("timestamptz", -1, &[6], &[5]),
            ("bpchar", 14, &[10], &[11]),
            ("varbit", 8, &[8], &[7]),
        ] {
            assert!(fits(name, modifier, wider) && !fits(name, modifier, narrower), "{name}");
        }
        assert!(
            !fits("varchar", -1, &[1000])
                && !fits("numeric", -1, &[1000, 2])
                && !fits("numeric", numeric(8, 2), &[9, -2])
        );
        assert!(!fits("interval", 3, &[3]) && !fits("", 3, &[3]) && !fits("varchar", 5, &[]));
    }
}
