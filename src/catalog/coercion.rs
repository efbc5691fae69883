//! Whether a column can change its type without a read of its rows, as far as the catalogue alone tells.
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

/// The question about a part, with its parameters. `None`: the answer would not help.
pub fn question(part: &Part, table: &RelationFacts, version: i32) -> Option<(&'static str, [String; 4])> {
    let wanted = part.new_type.as_deref()?;
    let column = match part.form {
        // A child may inherit the column from another parent, too.
        Form::AlterColumnType if !table.has_children => part.column.clone()?,
        Form::AddColumnUserType => String::new(),
        Form::AddColumnDefault if version >= 110_000 => String::new(),
        _ => return None,
    };
    let schema = wanted.schema.clone().unwrap_or_default();
    Some((QUESTION, [table.id.oid.to_string(), column, schema, wanted.name.clone()]))
}

/// Reads the answer. The result is the answer of the rewrite probe, where that is certain.
pub fn answer(part: &Part, json: &str) -> Option<ProbeAnswer> {
    let found: Found = serde_json::from_str(json).ok()?;
    let wanted = part.new_type.as_deref()?;
    let kept = match part.form {
        Form::AlterColumnType => {
            found.kind == 'b' && found.from.is_some_and(|from| from.keeps_rows(wanted, found.built_in))
        }
        // The server reads a default that is a string only once. The value is then a constant, whatever the type is.
        Form::AddColumnDefault => "berm".contains(found.kind),
        // A domain may have a default, or a constraint that must hold for each row.
        _ => "berm".contains(found.kind) || (found.kind == 'd' && !found.constrained),
    };
    kept.then(ProbeAnswer::default)
}

#[derive(Debug, Deserialize)]
struct Found {
    /// `pg_type.typtype`
    kind: char,
    built_in: bool,
    /// For a domain: it may have more than its base type, such as a default or a constraint.
    constrained: bool,
    from: Option<Source>,
}

/// The present type of the column. If that is a domain, the type that the domain is over.
#[derive(Debug, Deserialize)]
struct Source {
    /// The name, if the type is PostgreSQL's own; otherwise empty.
    name: String,
    modifier: i64,
    same: bool,
    /// The cast to the new type does nothing (`castmethod` b).
    coerced: bool,
    collation_stays: bool,
    indexed: bool,
    /// The column is in the expression or in the predicate of an index.
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
        // Both types use the operator classes of text.
        let same_indexes =
            built_in && matches!((self.name.as_str(), wanted.name.as_str()), ("varchar", "text") | ("text", "varchar"));
        self.coerced && wanted.modifiers.is_empty() && (!self.indexed || same_indexes)
    }

    /// Whether every value of the present type fits these modifiers of the same type.
    fn fits(&self, modifiers: &[i64]) -> bool {
        /// `VARHDRSZ`, which the modifiers of varchar and bpchar include.
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
