//! The second gate: `gate = "cut-over"` and `"both"` of a rule.

use crate::stage::{Operator, SERVER, Stage, error, number, rules};
use crate::{assert_nothing_left, state, until_runs};

const SQL: &str = "ALTER TABLE plain ALTER a SET NOT NULL";

/// A stage whose rule holds all changes of a table at this gate.
fn gated(name: &str, gate: &str, wait_for: &str) -> Stage {
    let rule = format!(
        "[[rule]]\nname = \"swap\"\nmatch = {{ relation = \"plain\" }}\nverdict = \"hold\"\ngate = \"{gate}\"\nwait_for = \"{wait_for}\""
    );
    let mut stage = Stage::on(&SERVER, name, |config| config.gate = rules(&rule));
    stage.direct.ok("INSERT INTO plain VALUES (1, 1); ANALYZE plain");
    stage
}

fn constraints(stage: &mut Stage) -> String {
    stage.direct.value("SELECT count(*) FROM pg_constraint WHERE conrelid = 'plain'::regclass AND contype = 'c'")
}

fn is_not_null(stage: &mut Stage) -> bool {
    let sql = "SELECT attnotnull FROM pg_attribute WHERE attrelid = 'plain'::regclass AND attname = 'a'";
    stage.direct.value(sql) == "t"
}

fn events(ann: &Operator, number: u64) -> [String; 3] {
    ["gate", "state", "approvals"].map(|name| ann.of(number, name))
}

#[test]
fn the_last_strong_lock_waits_for_an_approval() {
    let mut stage = gated("cut_over", "cut-over", "0");
    stage.client.send_query(SQL);
    let number = stage.ann.held();
    until_runs(&mut stage.direct, &stage.client, &format!("change {number} is held by rule \"swap\" before phase %"));
    // The safe steps are done, without an approval.
    assert_eq!(constraints(&mut stage), "1");
    assert!(!is_not_null(&mut stage));
    assert_eq!(events(&stage.ann, number), ["cut-over", "held", "0 of 1"]);
    // It has no lock and no lane.
    stage.direct.ok("BEGIN; LOCK TABLE plain; COMMIT");
    assert!(stage.ann.rows("SHOW LANES").is_empty());
    stage.ann.ok(&format!("APPROVE {number}"));
    let outcome = stage.client.outcome();
    assert_eq!(outcome.error, None, "{outcome:?}");
    let told = format!("ALTER TABLE is held before phase 3 of 3: change {number}");
    assert!(outcome.notices.iter().any(|notice| notice.ends_with(&told)), "{outcome:?}");
    assert!(is_not_null(&mut stage));
    assert_eq!(constraints(&mut stage), "0");
    assert_eq!(stage.ann.of(number, "state"), "done");
    assert_nothing_left(&mut stage, "id,a");
}

#[test]
fn a_rejection_undoes_what_was_done() {
    let mut stage = gated("cut_reject", "cut-over", "0");
    stage.client.send_query(SQL);
    let number = stage.ann.held();
    stage.ann.ok(&format!("REJECT {number} REASON 'not today'"));
    let rejected = error(&mut stage.client);
    assert_eq!(rejected.field(b'M').as_deref(), Some("ALTER TABLE was rejected by ann: not today"));
    assert_eq!(constraints(&mut stage), "0");
    assert_nothing_left(&mut stage, "id,a");
    // Sent again, it fails before it has done anything: nobody could add the constraint meanwhile.
    stage.direct.ok("BEGIN; LOCK TABLE plain");
    assert_eq!(stage.error(SQL).field(b'M'), rejected.field(b'M'));
    stage.direct.ok("COMMIT");
    stage.ann.ok(&format!("RETRY {number}; APPROVE {number}"));
    stage.client.ok(SQL);
    assert!(is_not_null(&mut stage));
    assert_eq!(stage.ann.of(number, "state"), "done");
}

#[test]
fn both_gates_ask() {
    let mut stage = gated("cut_both", "both", "0");
    stage.client.send_query(SQL);
    let number = stage.ann.held();
    assert_eq!(events(&stage.ann, number), ["launch", "held", "0 of 1"]);
    assert_eq!(constraints(&mut stage), "0");
    stage.ann.ok(&format!("APPROVE {number}"));
    crate::common::wait_until("it is held once more", || stage.ann.of(number, "gate") == "cut-over");
    assert_eq!(events(&stage.ann, number), ["cut-over", "held", "0 of 1"]);
    assert_eq!(constraints(&mut stage), "1");
    // Its author does not count here either.
    let author = stage.operator(&stage.user);
    assert_eq!(author.error(&format!("APPROVE {number}")), "42501");
    stage.ann.ok(&format!("APPROVE {number}"));
    assert_eq!(stage.client.outcome().error, None);
    assert!(is_not_null(&mut stage));
    assert_eq!(stage.ann.of(number, "state"), "done");
    // Sent again, both ask again; somebody who forces it has forced all of it.
    stage.direct.ok("ALTER TABLE plain ALTER a DROP NOT NULL");
    stage.client.send_query(SQL);
    assert_eq!(stage.ann.held(), number);
    assert_eq!(events(&stage.ann, number), ["launch", "held", "0 of 1"]);
    stage.ann.ok(&format!("FORCE {number}"));
    assert_eq!(stage.client.outcome().error, None);
    assert!(is_not_null(&mut stage));
}

/// After the ticket the work stays, and the same statement continues it under the approval for the last lock.
#[test]
fn a_ticket_leaves_the_work_on_record() {
    for gate in ["cut-over", "both"] {
        let mut stage = gated("cut_ticket", gate, "50ms");
        let mut change = 0;
        if gate == "both" {
            change = number(&stage.error(SQL));
            assert_eq!(constraints(&mut stage), "0");
            stage.ann.ok(&format!("APPROVE {change}"));
        }
        let ticket = stage.error(SQL);
        assert_eq!(ticket.field(b'C').as_deref(), Some("55000"), "{ticket:?}");
        assert!(ticket.field(b'D').unwrap().contains("the same statement continues it"), "{ticket:?}");
        assert!(change == 0 || change == number(&ticket));
        change = number(&ticket);
        assert_eq!(constraints(&mut stage), "1");
        assert_nothing_left(&mut stage, "id,a");
        // Before somebody approves it, it gets its ticket again, and nothing is undone.
        assert_eq!(number(&stage.error(SQL)), change);
        assert_eq!(constraints(&mut stage), "1");
        stage.ann.ok(&format!("APPROVE {change}"));
        let outcome = stage.client.query(SQL);
        assert_eq!(outcome.error, None, "{outcome:?}");
        assert!(outcome.notices.iter().any(|notice| notice.contains("continuing this ALTER TABLE")), "{outcome:?}");
        assert!(is_not_null(&mut stage));
        assert_eq!(constraints(&mut stage), "0");
        assert_eq!(stage.ann.of(change, "state"), "done");
        assert_nothing_left(&mut stage, "id,a");
    }
}

#[test]
fn a_cancel_at_the_second_gate_undoes_all() {
    let mut stage = gated("cut_cancel", "cut-over", "0");
    let pid = stage.client.pid;
    stage.client.send_query(SQL);
    let number = stage.ann.held();
    until_runs(&mut stage.direct, &stage.client, &format!("change {number} is held by rule%"));
    // A nap may just be over.
    crate::common::wait_until("it is cancelled", || {
        stage.direct.ok(&format!("SELECT pg_cancel_backend({pid})"));
        state(&stage, number) == "cancelled"
    });
    assert_eq!(error(&mut stage.client).field(b'C').as_deref(), Some("57014"));
    assert_eq!(constraints(&mut stage), "0");
    assert_nothing_left(&mut stage, "id,a");
}

#[test]
fn a_plan_of_one_strong_phase_is_asked_about_before_it() {
    let mut stage = gated("cut_single", "cut-over", "0");
    stage.client.send_query("ALTER TABLE plain ADD COLUMN b int");
    let number = stage.ann.held();
    assert_eq!(stage.ann.of(number, "gate"), "launch");
    assert_eq!(stage.columns("plain"), "id,a");
    stage.ann.ok(&format!("APPROVE {number}"));
    assert_eq!(stage.client.outcome().error, None);
    assert_eq!(stage.columns("plain"), "id,a,b");
}
