//! The condition of a window: what the server has said to it.
//!
//! It is plain data: who asks the server is not here.

use crate::config::Window;

/// What the server has said to the condition of a window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenCondition {
    /// The name of the window.
    pub window: String,
    pub answer: ConditionAnswer,
}

/// The result of a condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConditionAnswer {
    True,
    /// It is false or NULL.
    NotTrue,
    /// It failed, with this message.
    Failed(String),
}

/// What the server has said to a window's condition.
pub(super) fn answer<'s>(window: &Window, seen: &'s [SeenCondition]) -> Option<&'s ConditionAnswer> {
    seen.iter().find(|seen| seen.window == window.name).map(|seen| &seen.answer)
}
