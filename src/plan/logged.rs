//! A plan without the strings of the client's statement, for people other than its author.
//!
//! It owns nothing. It keeps true: no string of the client's is in the text, since every SQL of the plan is shown as the log may show it.

use super::model::{Phase, Undo};
use super::{Plan, print};
use crate::sql::{ParseOptions, logged_text};

/// The plan as text. `options`: how the session's server reads SQL.
pub fn to_text(plan: &Plan, options: ParseOptions) -> String {
    let mut plan = plan.clone();
    plan.phases.iter_mut().for_each(|phase| hide(phase, options));
    print::to_text(&plan)
}

fn hide(phase: &mut Phase, options: ParseOptions) {
    for step in &mut phase.steps {
        step.sql = logged_text(&step.named(&[]), options);
        step.name_at = None;
    }
    if let Some(detach) = &mut phase.detach {
        hide(&mut detach.finish, options);
    }
    if let Some(Undo::Run(undo)) = &mut phase.undo {
        hide(undo, options);
    }
}
