//! The question whether the session's role may use all catalogue objects that the proxy's own questions use, and which backend
//! answers.
//!
//! A hardened server may have revoked privileges that PUBLIC usually has. The proxy asks this question once in a session, before
//! the first plan, so that no plan stops half-way because of a missing privilege.

/// The relations of `pg_catalog` that the proxy reads for facts, waits and undo, where the server's version has them.
const RELATIONS: &str = "{pg_aggregate,pg_am,pg_amop,pg_amproc,pg_attrdef,pg_attribute,pg_cast,pg_class,pg_constraint,pg_database,pg_default_acl,pg_depend,pg_description,\
     pg_event_trigger,pg_index,pg_inherits,pg_locks,pg_namespace,pg_opclass,pg_operator,pg_partitioned_table,pg_prepared_statements,pg_prepared_xacts,pg_proc,\
     pg_publication,pg_publication_rel,pg_publication_tables,pg_rewrite,pg_roles,pg_stat_activity,pg_stat_database,pg_statistic_ext,\
     pg_stat_progress_create_index,pg_stat_progress_vacuum,pg_stat_replication,pg_trigger,pg_type}";

/// The functions of `pg_catalog` that the proxy calls.
const FUNCTIONS: &str = "{array_agg,array_to_string,bool_and,ceil,clock_timestamp,concat,concat_ws,convert_to,count,current_database,current_schema,current_schemas,\
     current_setting,date_part,encode,format,format_type,has_database_privilege,has_parameter_privilege,has_schema_privilege,\
     has_table_privilege,getdatabaseencoding,json_agg,json_build_array,json_build_object,jsonb_agg,jsonb_build_object,jsonb_typeof,left,max,md5,min,\
     pg_advisory_unlock,pg_advisory_unlock_shared,pg_backend_pid,pg_blocking_pids,pg_get_constraintdef,pg_get_expr,pg_get_indexdef,\
     pg_get_partition_constraintdef,pg_get_partkeydef,pg_get_serial_sequence,pg_get_userbyid,pg_has_role,pg_my_temp_schema,pg_relation_filenode,\
     pg_relation_size,pg_sleep,pg_stat_clear_snapshot,pg_stat_get_activity,pg_stat_get_tuples_inserted,pg_stat_get_xact_numscans,pg_table_size,pg_try_advisory_lock,\
     pg_try_advisory_lock_shared,pg_try_advisory_xact_lock,quote_ident,round,row_security_active,row_to_json,set_config,strpos,sum,to_char,to_jsonb,to_regclass,\
     to_regnamespace,to_regtype,txid_current,txid_current_if_assigned,txid_current_snapshot,txid_snapshot_xmax,txid_status,unnest}";

/// The question. The answer is one row: the backend's pid, and the names of the objects that the role may not use, or NULL. If the
/// role may not use an object that the question itself needs, the question fails.
pub fn question() -> String {
    format!(
        "/* pgsluice: may it ask */ SELECT pg_catalog.pg_backend_pid(), (SELECT pg_catalog.string_agg(r.name, ', ') FROM ( \
           SELECT c.relname::pg_catalog.text FROM pg_catalog.pg_class c \
            WHERE c.relnamespace OPERATOR(pg_catalog.=) 'pg_catalog'::pg_catalog.regnamespace \
              AND c.relname OPERATOR(pg_catalog.=) ANY ('{RELATIONS}'::pg_catalog.name[]) \
              AND NOT pg_catalog.has_table_privilege(c.oid, 'SELECT') \
           UNION SELECT p.proname::pg_catalog.text FROM pg_catalog.pg_proc p \
            WHERE p.pronamespace OPERATOR(pg_catalog.=) 'pg_catalog'::pg_catalog.regnamespace \
              AND p.proname OPERATOR(pg_catalog.=) ANY ('{FUNCTIONS}'::pg_catalog.name[]) \
              AND NOT pg_catalog.has_function_privilege(p.oid, 'EXECUTE') ORDER BY 1) AS r(name))"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::path::Path;

    /// Names in the proxy's SQL that the question leaves out: types and casts, names that only tests and `pgsluice dev` use, names
    /// that have a way of their own where they are refused, and names that need no privilege.
    const ELSEWHERE: &[&str] = &[
        // A rule may have sessions ended. Without the right, they are not.
        "pg_terminate_backend",
        // The ledger is asked by the operator's connection.
        "btrim",
        "cardinality",
        "make_interval",
        "upper",
        "PG_ADVISORY_XACT_LOCK_SHARED",
        "regprocedure",
        "bool",
        "float8",
        "int2",
        "int4",
        "int8",
        "int4div",
        "interval",
        "json",
        "name",
        "oid",
        "point",
        "regclass",
        "regnamespace",
        "regtype",
        "text",
        "tid",
        "timestamptz",
        "timetz",
        "timezone",
        "age",
        "generate_series",
        "nextval",
        "setval",
        "now",
        "pg_cursors",
        "pg_cancel_backend",
        "pg_advisory_lock",
        "pg_advisory_lock_shared",
        "pg_advisory_xact_lock",
        "pg_advisory_xact_lock_shared",
        "has_function_privilege",
        "string_agg",
        "pg_authid",
        "regexp_matches",
    ];

    fn texts(folder: &Path, into: &mut String) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                texts(&path, into);
            } else if path.extension().is_some_and(|extension| extension == "rs" || extension == "sql") {
                into.push_str(&std::fs::read_to_string(path).unwrap());
            }
        }
    }

    #[test]
    fn whatever_is_named_is_asked_about() {
        let mut all = String::new();
        texts(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")), &mut all);
        let word =
            |text: &str| text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap().to_lowercase();
        let named: BTreeSet<String> =
            all.split("pg_catalog.").skip(1).map(word).filter(|name| !name.is_empty()).collect();
        let asked: BTreeSet<String> = [RELATIONS, FUNCTIONS]
            .iter()
            .flat_map(|list| list.trim_matches(['{', '}']).split(','))
            .map(str::to_owned)
            .collect();
        let unknown: Vec<&String> =
            named.iter().filter(|name| !asked.contains(*name) && !ELSEWHERE.contains(&name.as_str())).collect();
        assert_eq!(unknown, Vec::<&String>::new());
    }
}
