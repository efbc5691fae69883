//! Whether a window is open: by the clock, and by what the server has said to its condition.
//!
//! It is pure. It keeps true: a condition that nobody has asked, or that fails, is not known, and what is not known opens nothing.

use super::condition::{ConditionAnswer, answer};
use super::session::Session;
use super::truth::Truth;
use crate::config::Window;

/// Whether a window is open: its hours are, and its condition is true.
pub(super) fn is_open(window: &Window, session: &Session<'_>) -> Truth {
    let hours = Truth::of(session.now.map(|now| window.is_open(now)));
    if window.condition.is_none() || hours == Truth::No {
        return hours;
    }
    hours.min(match answer(window, session.conditions) {
        Some(ConditionAnswer::True) => Truth::Yes,
        Some(ConditionAnswer::NotTrue) => Truth::No,
        Some(ConditionAnswer::Failed(_)) | None => Truth::Maybe,
    })
}

#[cfg(test)]
mod tests {
    use super::super::condition::SeenCondition;
    use super::*;
    use crate::config::Hours;

    #[test]
    fn what_is_not_known_opens_nothing() {
        let hours = vec![Hours::new("00:00-12:00").unwrap()];
        let window = Window { name: "w".to_owned(), hours, condition: Some("a".to_owned()), ..Window::default() };
        let seen = |answer| [SeenCondition { window: "w".to_owned(), answer }];
        let truth = |now, conditions: &[SeenCondition]| {
            is_open(&window, &Session { now: Some(now), conditions, ..Session::default() })
        };
        let (morning, evening) = (3_600, 80_000);
        assert_eq!(truth(morning, &seen(ConditionAnswer::True)), Truth::Yes);
        assert_eq!(truth(morning, &seen(ConditionAnswer::NotTrue)), Truth::No);
        assert_eq!(truth(morning, &seen(ConditionAnswer::Failed("why".to_owned()))), Truth::Maybe);
        assert_eq!(truth(morning, &[]), Truth::Maybe);
        assert_eq!(truth(evening, &seen(ConditionAnswer::True)), Truth::No);
        let other = [SeenCondition { window: "v".to_owned(), answer: ConditionAnswer::True }];
        assert_eq!(truth(morning, &other), Truth::Maybe);
        // Nobody has told the time.
        let conditions = &seen(ConditionAnswer::True);
        assert_eq!(is_open(&window, &Session { conditions, ..Session::default() }), Truth::Maybe);
        assert_eq!(
            is_open(&window, &Session { conditions: &seen(ConditionAnswer::NotTrue), ..Session::default() }),
            Truth::No
        );
    }
}
