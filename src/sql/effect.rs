//! What a statement of a transaction block does, and what running it again means.
//!
//! A block is run again when a schema change has been done ahead of it. This file owns no state: the kinds stand in [`kind`], the
//! known functions in [`functions`], and the walk over the grammar's tree in `parse/effect.rs`.
//! `docs/decisions/0056-what-goes-ahead-of-its-block.md` has the reasons.
//!
//! Invariant: a statement that is not known to be harmless is [`EffectKind::Once`].

pub mod functions;
pub mod kind;

use super::Statement;
use super::parse::{self, ParseOptions, Unparsable};
pub use kind::{Effect, EffectKind};

/// The statements of `text`, each with its effect.
///
/// # Errors
/// The grammar does not understand the text.
pub fn effects(text: &str, options: ParseOptions) -> Result<Vec<(Statement, Effect)>, Unparsable> {
    let statements = parse::parse_with(text, options)?;
    Ok(statements.into_iter().map(|statement| parse::with_effect(statement, options)).collect())
}
