//! PostgreSQL's own functions whose effect is known by their name.
//!
//! Invariant: a function of `pg_catalog` that is volatile and is not listed here is [`Known::Ask`]. The catalogue then says that it is
//! volatile, and the statement is not run again.

/// What a call of a function does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// The function changes nothing. Its answer was true when it was given.
    Reads,
    /// As `Reads`. The answer tells which value the server chose for a row that the block may have written.
    TellsChosen,
    /// `nextval`: the sequence keeps its position after ROLLBACK.
    Sequence,
    /// The effect survives ROLLBACK: a lock of the session, a signal to another backend, the position of a sequence.
    Survives,
    /// The effect is rolled back, and the answer is void.
    Again,
    /// The function takes an advisory lock for the transaction.
    AdvisoryXact,
    SetConfig,
    /// The effect cannot be had again. The fragment says why.
    Never(&'static str),
    /// Only the catalogue can tell.
    Ask,
}

/// Functions that change nothing, although the server calls them volatile. (`timezone` is volatile in 10 alone.)
#[rustfmt::skip] // as a table
const READS: [&str; 63] = [
    "array_sample", "array_shuffle", "clock_timestamp", "current_query", "gen_random_uuid", "pg_blocking_pids",
    "pg_collation_actual_version", "pg_control_checkpoint", "pg_control_init", "pg_control_recovery", "pg_control_system",
    "pg_current_logfile", "pg_current_wal_flush_lsn", "pg_current_wal_insert_lsn", "pg_current_wal_lsn", "pg_current_xact_id",
    "pg_current_xact_id_if_assigned", "pg_database_collation_actual_version", "pg_database_size", "pg_get_multixact_members",
    "pg_hba_file_rules", "pg_indexes_size", "pg_is_in_backup", "pg_is_in_recovery", "pg_is_wal_replay_paused",
    "pg_isolation_test_session_is_blocked", "pg_jit_available", "pg_last_committed_xact", "pg_last_wal_receive_lsn",
    "pg_last_wal_replay_lsn", "pg_last_xact_replay_timestamp", "pg_lock_status", "pg_ls_dir", "pg_ls_logdir", "pg_ls_tmpdir",
    "pg_ls_waldir", "pg_notification_queue_usage", "pg_partition_ancestors", "pg_partition_tree", "pg_prepared_xact",
    "pg_read_binary_file", "pg_read_file", "pg_relation_size", "pg_safe_snapshot_blocking_pids", "pg_sequence_last_value",
    "pg_show_all_file_settings", "pg_sleep", "pg_sleep_for", "pg_sleep_until", "pg_stat_file", "pg_table_size",
    "pg_tablespace_size", "pg_total_relation_size", "pg_xact_commit_timestamp", "pg_xact_status", "random", "random_normal",
    "timeofday", "timezone", "txid_current", "txid_status", "uuidv4", "uuidv7",
];

/// Functions of PostgreSQL's extensions that change nothing. An extension may be in any schema.
const READS_OF_EXTENSIONS: [&str; 5] =
    ["gen_random_bytes", "gen_salt", "uuid_generate_v1", "uuid_generate_v1mc", "uuid_generate_v4"];

/// Functions whose effect survives ROLLBACK.
#[rustfmt::skip] // as a table
const SURVIVES: [&str; 21] = [
    "pg_advisory_unlock", "pg_advisory_unlock_all", "pg_advisory_unlock_shared", "pg_cancel_backend", "pg_create_restore_point",
    "pg_log_backend_memory_contexts", "pg_reload_conf", "pg_rotate_logfile", "pg_stat_clear_snapshot",
    "pg_stat_force_next_flush", "pg_stat_reset", "pg_stat_reset_shared", "pg_stat_reset_single_function_counters",
    "pg_stat_reset_single_table_counters", "pg_stat_reset_slru", "pg_switch_wal", "pg_terminate_backend",
    "pg_try_advisory_lock", "pg_try_advisory_lock_shared", "setseed", "setval",
];

/// Functions that give the time or the transaction, which are others when the block is run again. Not all of them are volatile.
const TIMES: [&str; 7] = [
    "now",
    "transaction_timestamp",
    "statement_timestamp",
    "txid_current_if_assigned",
    "txid_current_snapshot",
    "pg_current_snapshot",
    "pg_export_snapshot",
];

/// What a call of the function does, if the name has no schema or `pg_catalog`.
pub fn known(name: &str) -> Known {
    let of = |prefix: &str| name.starts_with(prefix);
    match name {
        "nextval" => Known::Sequence,
        "currval" | "lastval" => Known::TellsChosen,
        "set_config" => Known::SetConfig,
        "pg_notify" => Known::Again,
        "pg_advisory_xact_lock"
        | "pg_advisory_xact_lock_shared"
        | "pg_try_advisory_xact_lock"
        | "pg_try_advisory_xact_lock_shared" => Known::AdvisoryXact,
        "pg_advisory_lock" | "pg_advisory_lock_shared" => {
            Known::Never("it takes an advisory lock that outlives the transaction")
        }
        "pg_export_snapshot" => Known::Never("it exports a snapshot"),
        "loread" | "lowrite" => Known::Never("it works on large objects"),
        "pg_logical_emit_message" => Known::Never("it writes into the WAL"),
        "cursor_to_xml" | "cursor_to_xmlschema" => Known::Never("it works on a cursor"),
        _ if of("lo_") => Known::Never("it works on large objects"),
        _ if of("dblink") => Known::Never("it works on another connection"),
        _ if of("pg_logical_slot_") || of("pg_replication_") || name.ends_with("_replication_slot") => {
            Known::Never("it works on replication")
        }
        _ if SURVIVES.contains(&name) => Known::Survives,
        _ if READS.contains(&name) || READS_OF_EXTENSIONS.contains(&name) => Known::Reads,
        _ => Known::Ask,
    }
}

/// What a call of the function does, if its name has another schema.
pub fn known_of_extension(name: &str) -> Known {
    if name.starts_with("dblink") || READS_OF_EXTENSIONS.contains(&name) { known(name) } else { Known::Ask }
}

/// Whether the answer of the function is another one when the block is run again.
pub fn changes_with_time(name: &str) -> bool {
    TIMES.contains(&name) || matches!(known(name), Known::Reads | Known::TellsChosen | Known::Sequence)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known() {
        for (name, wanted) in [
            ("random", Known::Reads),
            ("setval", Known::Survives),
            ("pg_notify", Known::Again),
            ("pg_try_advisory_xact_lock", Known::AdvisoryXact),
            ("pg_try_advisory_lock", Known::Survives),
            ("lower", Known::Ask),
            ("query_to_xml", Known::Ask),
            ("lo_create", Known::Never("it works on large objects")),
            ("dblink_exec", Known::Never("it works on another connection")),
        ] {
            assert_eq!(known(name), wanted, "{name}");
        }
        assert!(changes_with_time("now") && !changes_with_time("lower"));
    }
}
