//! Tests of the table of held changes, without a server.

use super::*;
use crate::gate::digest::Identity;
use crate::sql::ParseOptions;
use std::time::{Duration, UNIX_EPOCH};

fn digest(text: &str, user: &str) -> (Digest, Digest) {
    let identity = Identity {
        text,
        options: ParseOptions::default(),
        session_user: user,
        current_user: user,
        database: "d",
        relations: &[],
        settings: &[],
        plan: None,
        in_transaction: false,
    };
    (Digest::of(&identity), Digest::of_text(&identity))
}

/// A request of the role `app`. `plan` stands for the plan.
fn request(number: u64, text: &str, plan: &str) -> HoldRequest {
    HoldRequest {
        number,
        digest: digest(&format!("{text} {plan}"), "app").0,
        text: digest(text, "app").1,
        author: "app".to_owned(),
        database: "d".to_owned(),
        application: "test".to_owned(),
        client: "127.0.0.1".to_owned(),
        session: 1,
        tag: "DROP TABLE".to_owned(),
        statement: text.to_owned(),
        plan: plan.to_owned(),
        rule: "r".to_owned(),
        because: String::new(),
        needs: 1,
        expires: Duration::from_secs(100),
    }
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

const ANN: Actor<'_> = Actor { user: "ann", from: "a Unix socket", why: Some("fine") };

fn state(holds: &Holds, number: u64) -> State {
    holds.get(number).unwrap().change.state()
}

fn waits(joined: Result<Joined, Report>) -> Waiting {
    match joined {
        Ok(Joined::Wait(waiting)) => waiting,
        other => panic!("{other:?}"),
    }
}

fn goes(joined: Result<Joined, Report>) -> Passage {
    match joined {
        Ok(Joined::Go(passage)) => passage,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_approval_is_used_once() {
    let holds = Arc::new(Holds::default());
    let waiting = waits(holds.join_here(request(1, "a", "p"), None, at(0)));
    // The same change is joined, whatever number its statement has.
    assert_eq!(waits(holds.join_here(request(2, "a", "p"), None, at(0))).number(), 1);
    assert_eq!(holds.get(1).unwrap().waiting, 1);
    drop(waiting);
    assert_eq!(holds.get(1).unwrap().waiting, 0);
    holds.act_here(1, HoldVerb::Approve, &ANN, at(1)).unwrap();
    let passage = goes(holds.join_here(request(3, "a", "p"), None, at(2)));
    assert_eq!(state(&holds, 1), State::Running);
    // Another client waits while it runs, and then needs an approval of its own.
    let second = waits(holds.join_here(request(4, "a", "p"), None, at(2)));
    // The statement is planned again under its approval.
    let passage = goes(holds.join_here(request(3, "a", "p"), Some(passage), at(2)));
    passage.finish(true);
    assert_eq!(state(&holds, 1), State::Done);
    drop(second);
    waits(holds.join_here(request(4, "a", "p"), None, at(3)));
    assert_eq!(state(&holds, 1), State::Held);
}

#[test]
fn a_session_that_ends_leaves_nothing_behind() {
    let holds = Arc::new(Holds::default());
    drop(holds.join_here(request(1, "a", "p"), None, at(0)));
    holds.act_here(1, HoldVerb::Approve, &ANN, at(1)).unwrap();
    drop(goes(holds.join_here(request(1, "a", "p"), None, at(1))));
    assert_eq!(state(&holds, 1), State::Failed);
    holds.act_here(1, HoldVerb::Retry, &ANN, at(1)).unwrap();
    holds.act_here(1, HoldVerb::Approve, &ANN, at(1)).unwrap();
    let passage = goes(holds.join_here(request(1, "a", "p"), None, at(1)));
    passage.suspend();
    assert_eq!(state(&holds, 1), State::Approved);
    let text = digest("a", "app").1;
    holds.resume_here(&text).unwrap().finish(true);
    assert!(holds.resume_here(&text).is_none());
}

#[test]
fn another_plan_needs_its_own_approval() {
    let holds = Arc::new(Holds::default());
    drop(holds.join_here(request(1, "a", "lock t\nrun x"), None, at(0)));
    holds.act_here(1, HoldVerb::Approve, &ANN, at(1)).unwrap();
    let waiting = waits(holds.join_here(request(2, "a", "lock t\nrun y"), None, at(2)));
    let held = holds.get(1).unwrap();
    assert!(waiting.is_of(&held) && held.change.approvals().is_empty());
    assert_eq!(held.difference.as_deref(), Some("- run x\n+ run y"));
    // Found out while it runs: what has run so far was rolled back.
    holds.act_here(1, HoldVerb::Approve, &ANN, at(3)).unwrap();
    let passage = goes(holds.join_here(request(2, "a", "lock t\nrun y"), None, at(3)));
    waits(holds.join_here(request(2, "a", "lock t\nrun z"), Some(passage), at(3)));
    assert_eq!(state(&holds, 1), State::Held);
    // Other terms are as another plan.
    holds.act_here(1, HoldVerb::Approve, &ANN, at(4)).unwrap();
    waits(holds.join_here(HoldRequest { needs: 2, ..request(2, "a", "lock t\nrun z") }, None, at(4)));
    assert_eq!(holds.get(1).unwrap().approvals(), "0 of 2");
}

#[test]
fn time_is_over() {
    let holds = Arc::new(Holds::default());
    let waiting = waits(holds.join_here(request(1, "a", "p"), None, at(0)));
    // A client that waits has time.
    assert_eq!(holds.all(at(500)).len(), 1);
    assert_eq!(state(&holds, 1), State::Held);
    drop(waiting);
    holds.act_here(1, HoldVerb::Approve, &ANN, at(50)).unwrap();
    holds.all(at(149));
    assert_eq!(state(&holds, 1), State::Approved);
    holds.all(at(150));
    assert_eq!(state(&holds, 1), State::Expired);
    assert_eq!(holds.act_here(1, HoldVerb::Approve, &ANN, at(151)).unwrap_err().sqlstate, "55000");
    waits(holds.join_here(request(1, "a", "p"), None, at(160)));
    assert_eq!(state(&holds, 1), State::Held);
}

#[test]
fn rejected_and_withdrawn() {
    let holds = Arc::new(Holds::default());
    let waiting = waits(holds.join_here(request(1, "a", "p"), None, at(0)));
    let other = waits(holds.join_here(request(2, "a", "p"), None, at(0)));
    holds.withdraw(1, at(1));
    assert_eq!(state(&holds, 1), State::Held, "another client waits for it");
    drop(other);
    holds.withdraw(1, at(1));
    assert_eq!(state(&holds, 1), State::Cancelled);
    drop(waiting);
    drop(holds.join_here(request(1, "a", "p"), None, at(1)));
    let held = holds.act_here(1, HoldVerb::Reject, &Actor { why: Some("not today"), ..ANN }, at(2)).unwrap();
    assert_eq!(held.ended().message, "DROP TABLE was rejected by ann: not today");
    assert!(matches!(holds.join_here(request(1, "a", "p"), None, at(3)), Ok(Joined::Rejected(_))));
    assert_eq!(holds.act_here(1, HoldVerb::Approve, &ANN, at(3)).unwrap_err().sqlstate, "55000");
    let own = Actor { user: "app", ..ANN };
    holds.act_here(1, HoldVerb::Retry, &own, at(3)).unwrap();
    assert_eq!(holds.act_here(1, HoldVerb::Approve, &own, at(3)).unwrap_err().sqlstate, "42501");
    assert_eq!(holds.act_here(9, HoldVerb::Approve, &own, at(3)).unwrap_err().sqlstate, "42704");
}

#[test]
fn the_table_has_a_bound() {
    let holds = Arc::new(Holds::default());
    let enter = |number: u64| holds.join_here(request(number, &format!("s{number}"), "p"), None, at(0));
    for number in 1..=3_000 {
        drop(enter(number));
        if number <= 2_000 {
            holds.withdraw(number, at(0));
        }
    }
    assert_eq!(holds.all(at(0)).len(), 2_000);
    assert!(holds.get(1_000).is_none() && holds.get(1_001).is_some());
    // What is over is given up for what is held.
    for number in 3_001..=12_000 {
        drop(enter(number));
    }
    assert_eq!(enter(20_000).unwrap_err().sqlstate, "53400");
}
