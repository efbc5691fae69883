//! UNIQUE and PRIMARY KEY, taken apart into an index to build and a constraint to add with it.
//!
//! Invariant: except for its name, the index is the one that the constraint itself would have made.

use super::names::string;
use crate::sql::NewKey;
use pg_query::protobuf::{ConstrType, Constraint, IndexElem, IndexStmt, Node, RangeVar, SortByDir, SortByNulls};
use pg_query::{DeparseOptions, NodeEnum};

/// `None`: the constraint is no such key, or its index cannot be built separately.
pub(super) fn new_key(constraint: &Constraint) -> Option<NewKey> {
    let primary = match constraint.contype() {
        ConstrType::ConstrPrimary => true,
        ConstrType::ConstrUnique => false,
        _ => return None,
    };
    if !constraint.indexname.is_empty() || constraint.without_overlaps || constraint.keys.is_empty() {
        return None;
    }
    let names = |nodes: &[Node]| nodes.iter().map(|node| string(node).map(str::to_owned)).collect::<Option<Vec<_>>>();
    // The deparser trusts its input, so it gets only values that it cannot mistake.
    let plain = |node: &Node| match &node.node {
        Some(NodeEnum::DefElem(option)) => match option.arg.as_ref().map(|arg| &arg.node) {
            None | Some(Some(NodeEnum::Integer(_) | NodeEnum::Float(_) | NodeEnum::String(_))) => true,
            Some(Some(NodeEnum::TypeName(word))) => word.typmods.is_empty() && word.names.len() == 1,
            Some(_) => false,
        },
        _ => false,
    };
    if !constraint.options.iter().all(plain) {
        return None;
    }
    let (columns, include) = (names(&constraint.keys)?, names(&constraint.including)?);
    let deferral = match (constraint.deferrable, constraint.initdeferred) {
        (_, true) => " DEFERRABLE INITIALLY DEFERRED",
        (true, false) => " DEFERRABLE",
        (false, false) => "",
    };
    let index = index(constraint, &columns, &include)?;
    Some(NewKey { primary, columns, include, index, deferral })
}

fn index(constraint: &Constraint, columns: &[String], include: &[String]) -> Option<String> {
    let elements = |names: &[String]| {
        let element = |name: &String| IndexElem {
            name: name.clone(),
            ordering: SortByDir::SortbyDefault as i32,
            nulls_ordering: SortByNulls::SortbyNullsDefault as i32,
            ..IndexElem::default()
        };
        names.iter().map(|name| Node { node: Some(NodeEnum::IndexElem(Box::new(element(name)))) }).collect()
    };
    let statement = IndexStmt {
        idxname: "i".to_owned(),
        relation: Some(RangeVar {
            relname: "t".to_owned(),
            inh: true,
            relpersistence: "p".to_owned(),
            ..RangeVar::default()
        }),
        access_method: "btree".to_owned(),
        table_space: constraint.indexspace.clone(),
        index_params: elements(columns),
        index_including_params: elements(include),
        options: constraint.options.clone(),
        unique: true,
        nulls_not_distinct: constraint.nulls_not_distinct,
        ..IndexStmt::default()
    };
    let text = NodeEnum::IndexStmt(Box::new(statement)).deparse(DeparseOptions::default()).ok()?;
    let rest = text.strip_prefix("CREATE UNIQUE INDEX i ON t")?;
    Some(rest.to_owned())
}

#[cfg(test)]
mod tests {
    use crate::sql::{Class, parse};

    #[test]
    fn keys_become_indexes() {
        for (sql, index, deferral) in [
            ("UNIQUE (a)", " (a)", ""),
            ("PRIMARY KEY (a, \"B c\")", " (a, \"B c\")", ""),
            ("UNIQUE (a) INCLUDE (b) DEFERRABLE", " (a) INCLUDE (b)", " DEFERRABLE"),
            (
                "UNIQUE NULLS NOT DISTINCT (a) INITIALLY DEFERRED",
                " (a) NULLS NOT DISTINCT",
                " DEFERRABLE INITIALLY DEFERRED",
            ),
            (
                "UNIQUE (a) WITH (fillfactor = 70) USING INDEX TABLESPACE s",
                " (a) WITH (fillfactor=70) TABLESPACE s",
                "",
            ),
        ] {
            let statements = parse(&format!("ALTER TABLE t ADD CONSTRAINT k {sql}")).unwrap();
            let Class::Ddl(ddl) = &statements[0].class else { panic!("{sql}") };
            let key = ddl.parts[0].key.as_ref().unwrap();
            assert_eq!((key.index.replace(" USING btree", "").as_str(), key.deferral), (index, deferral), "{sql}");
        }
    }
}
