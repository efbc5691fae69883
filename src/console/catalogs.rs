//! The columns of the server's catalogs, which tools read with `SELECT *`.
//!
//! It owns nothing: `catalogs.txt` has them as PostgreSQL 18 does, one relation in a line, and a test compares it with a server. It keeps true: what the
//! file does not have is not known, and never guessed.

use super::table::{Heading, Kind};

const CATALOGS: &str = include_str!("catalogs.txt");

/// The columns of a catalog: `pg_class`, or `information_schema.tables`. `None`: it is not known.
pub(super) fn columns(name: &str) -> Option<Vec<Heading>> {
    let line = CATALOGS.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    let column = |text: &str| {
        let (name, of) = text.split_once(':')?;
        Some(Heading { name: name.to_owned(), kind: kind_of_type(of) })
    };
    line.split(' ').map(column).collect()
}

/// The kind of a type of PostgreSQL's, by its name in `pg_type`.
pub(super) fn kind_of_type(name: &str) -> Kind {
    match name {
        "int2" | "int4" => Kind::Integer,
        "int8" => Kind::Bigint,
        "bool" => Kind::Boolean,
        "float4" | "float8" | "numeric" => Kind::Float,
        "oid" | "regclass" | "regtype" | "regproc" | "regnamespace" => Kind::Oid,
        "timestamptz" | "timestamp" => Kind::Time,
        _ => Kind::Text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn catalogs_have_columns_with_types() {
        let class = columns("pg_class").unwrap();
        assert_eq!((class[0].name.as_str(), class[0].kind), ("oid", Kind::Oid));
        assert!(class.iter().any(|column| column.name == "relhasindex" && column.kind == Kind::Boolean));
        let tables = columns("information_schema.tables").unwrap();
        assert!(tables.iter().any(|column| column.name == "table_name"));
        assert_eq!(columns("pg_clas"), None);
        assert_eq!(columns(""), None);
    }

    #[test]
    fn every_line_can_be_read() {
        for line in CATALOGS.lines() {
            let name = line.split(' ').next().unwrap();
            assert!(columns(name).is_some_and(|columns| !columns.is_empty()), "{line}");
        }
    }
}
