//! The one printer of plans: for the command line, for EXPLAIN through the proxy, and for the goldens.

use super::block_place::{BlockPlace, NotAhead};
use super::model::{LockNeed, Phase, PhaseKind, Plan, Undo};
use crate::report::Report;
use crate::sql::form::Cost;
use std::fmt::Write;

/// The plan as text: a line for each thing, no empty lines, a newline at the end.
///
/// ```text
/// direct   ACCESS EXCLUSIVE, brief: ADD COLUMN
/// phase 1  brief, in a transaction: a catalogue change only
///   lock   public.orders ACCESS EXCLUSIVE
///   run    ALTER TABLE orders ADD COLUMN note text
/// ```
pub fn to_text(plan: &Plan) -> String {
    let mut out = String::new();
    let titles: Vec<&str> = plan.forms.iter().map(|form| form.row().title).collect();
    let lock = plan.lock.map_or("no lock", |lock| lock.sql());
    line(&mut out, "direct", &format!("{lock}, {}{}", cost(plan.cost), suffix(&titles.join("; "))));
    for note in &plan.notes {
        report(&mut out, "note", note);
    }
    if let Some(notices) = &plan.answer {
        line(&mut out, "answer", &format!("nothing is to be done; the client gets {}", plan.tag));
        for notice in notices {
            report(&mut out, "  tell", notice);
        }
    }
    for meanwhile in &plan.meanwhile {
        prose(&mut out, "meaning", meanwhile);
    }
    for (i, one) in plan.phases.iter().enumerate() {
        phase(&mut out, i + 1, one);
    }
    out
}

/// Where a statement of a transaction is run, as text above its plan.
///
/// ```text
/// ahead    of the transaction, in which the application would wait for it
///          With it go ahead:
///          line 2: ALTER TABLE orders ADD COLUMN shop_id bigint
/// ```
pub fn place_to_text(place: &BlockPlace) -> String {
    let mut out = String::new();
    match place {
        BlockPlace::Inside => {
            line(&mut out, "inside", "the transaction, in which the application does not wait for it");
        }
        BlockPlace::Ahead { with } => {
            line(&mut out, "ahead", "of the transaction, in which the application would wait for it");
            if !with.is_empty() {
                line(&mut out, "", "With it go ahead:");
            }
            for earlier in with {
                line(&mut out, "", &format!("{}: {}", earlier.at, first_line(&earlier.statement)));
            }
        }
        BlockPlace::AheadWith { at } => {
            line(&mut out, "ahead", &format!("of the transaction, with {at}, which goes ahead"));
        }
        BlockPlace::NotAhead(NotAhead { detail, hint }) => {
            line(&mut out, "inside", "the transaction, in which the application may wait for it");
            prose(&mut out, "", &format!("DETAIL: {detail}"));
            prose(&mut out, "", &format!("HINT: {hint}"));
        }
    }
    out
}

/// Why there is no plan, in place of one.
pub fn unknown(why: &str) -> String {
    let mut out = String::new();
    prose(&mut out, "unknown", why);
    out
}

/// Sentences beside a label, as they stand in a plan.
pub fn labelled(label: &str, text: &str) -> String {
    let mut out = String::new();
    prose(&mut out, label, text);
    out
}

/// The first line of a statement.
pub fn first_line(statement: &str) -> String {
    let more = if statement.contains('\n') { " …" } else { "" };
    format!("{}{more}", statement.lines().next().unwrap_or_default())
}

/// The plan as one JSON document.
pub fn to_json(plan: &Plan) -> Result<String, serde_json::Error> {
    serde_json::to_string_pretty(plan)
}

/// A size for people: three digits at most.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if bytes < 1024 {
        return format!("{bytes} bytes");
    }
    let mut unit = 0;
    let mut divisor = 1024;
    while bytes / divisor >= 1000 && unit + 1 < UNITS.len() {
        divisor *= 1024;
        unit += 1;
    }
    let tenths = u128::from(bytes) * 10 / u128::from(divisor);
    let unit = UNITS.get(unit).copied().unwrap_or("TB");
    if tenths < 100 && tenths % 10 != 0 {
        format!("{}.{} {unit}", tenths / 10, tenths % 10)
    } else {
        format!("{} {unit}", tenths / 10)
    }
}

fn phase(out: &mut String, number: usize, phase: &Phase) {
    let place = if phase.in_transaction { "in a transaction" } else { "no transaction" };
    line(out, &format!("phase {number}"), &format!("{}, {place}: {}", kind(phase.kind), phase.purpose));
    for need in &phase.locks {
        line(out, if by_itself(phase.kind) { "  takes" } else { "  lock" }, &lock(phase.kind, need));
    }
    steps(out, phase, ["  run", "  hidden"]);
    if let Some(detach) = &phase.detach {
        steps(out, &detach.finish, ["  finish", "  finish"]);
    }
    match &phase.undo {
        None => {}
        Some(Undo::Run(undo)) => steps(out, undo, ["  undo", "  undo"]),
        Some(Undo::DropBuiltIndex { index, .. }) => {
            line(out, "  undo", &format!("drop {index}, whether it is finished or not, without blocking anybody"));
        }
        Some(Undo::DropNewIndex { .. }) => {
            line(out, "  undo", "drop the new index, whether it is finished or not, without blocking anybody");
        }
        Some(Undo::DropInvalidIndexes { table, known, .. }) => {
            let but = match known.len() {
                0 => String::new(),
                n => format!(", but for {n} that {} invalid before", if n == 1 { "was" } else { "were" }),
            };
            line(out, "  undo", &format!("drop the invalid indexes of {table}{but}"));
        }
        Some(Undo::FinishDrop { index, .. }) => line(out, "  undo", &format!("finish dropping {index}")),
    }
}

/// The steps of a phase. A name that the server is yet to choose is shown as `…`.
fn steps(out: &mut String, phase: &Phase, [visible, hidden]: [&str; 2]) {
    for step in &phase.steps {
        if let Some(otherwise) = step.must_hold {
            prose(out, "  unless", otherwise);
            continue;
        }
        line(out, if step.visible { visible } else { hidden }, &step.named(&[]));
    }
}

/// Whether the steps of such a phase take their locks themselves.
fn by_itself(kind: PhaseKind) -> bool {
    matches!(kind, PhaseKind::Long | PhaseKind::Backfill | PhaseKind::Detach)
}

fn lock(kind: PhaseKind, need: &LockNeed) -> String {
    let only = if need.only { "ONLY " } else { "" };
    let guard = if need.lockable || by_itself(kind) { "" } else { " (by lock_timeout only)" };
    format!("{only}{} {}{guard}", need.relation, need.mode)
}

fn report(out: &mut String, label: &str, report: &Report) {
    let text = format!("{} {}: {}", report.severity.as_str(), report.sqlstate, report.message);
    prose(out, label, &text);
    for (name, text) in [("DETAIL", &report.detail), ("HINT", &report.hint)] {
        if let Some(text) = text {
            prose(out, "", &format!("{name}: {text}"));
        }
    }
}

/// Writes sentences, and breaks lines between words so that they fit a terminal of usual width. SQL is never broken.
fn prose(out: &mut String, label: &str, text: &str) {
    /// The width of the text. With the label's column it is 100.
    const WIDTH: usize = 91;
    let mut broken = String::new();
    for paragraph in text.lines() {
        let mut width = 0;
        for word in paragraph.split_whitespace() {
            let length = word.chars().count();
            let fits = width + 1 + length <= WIDTH;
            broken.push_str(if width == 0 {
                ""
            } else if fits {
                " "
            } else {
                "\n"
            });
            width = if width > 0 && fits { width + 1 + length } else { length };
            broken.push_str(word);
        }
        broken.push('\n');
    }
    line(out, label, &broken);
}

/// Writes a label in a column of its own. A text of several lines stays in the column beside it.
fn line(out: &mut String, label: &str, text: &str) {
    for (i, part) in text.lines().filter(|part| !part.trim().is_empty()).enumerate() {
        let label = if i == 0 { label } else { "" };
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{}", format!("{label:<8} {part}").trim_end());
    }
}

fn suffix(titles: &str) -> String {
    if titles.is_empty() { String::new() } else { format!(": {titles}") }
}

fn kind(kind: PhaseKind) -> &'static str {
    match kind {
        PhaseKind::Relay => "relay",
        PhaseKind::Brief => "brief",
        PhaseKind::Guarded => "guarded",
        PhaseKind::Long => "long",
        PhaseKind::Backfill => "in batches",
        PhaseKind::Detach => "detach",
    }
}

fn cost(cost: Cost) -> &'static str {
    match cost {
        Cost::Brief => "brief",
        Cost::Scan => "reads the table",
        Cost::Build => "builds",
        Cost::Rewrite => "rewrites the table",
        Cost::Unknown => "cost unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::{prose, size};

    #[test]
    fn sentences_are_broken_between_words() {
        let mut out = String::new();
        let word = "w".repeat(95);
        prose(&mut out, "note", &format!("{} end\n{word} x", "some words ".repeat(10)));
        let lines: Vec<&str> = out.lines().collect();
        assert_eq!(lines.len(), 4, "{out}");
        assert!(lines[0].starts_with("note     some") && lines[1].starts_with("         some"), "{out}");
        assert!(lines[0].chars().count() <= 100 && lines[2].ends_with(&word) && lines[3].ends_with(" x"), "{out}");
    }

    #[test]
    fn sizes_are_short() {
        let sizes = [0, 1023, 1024, 1536, 10 * 1024 * 1024, 999 * 1024, 31 * (1 << 30), u64::MAX];
        let texts = ["0 bytes", "1023 bytes", "1 kB", "1.5 kB", "10 MB", "999 kB", "31 GB", "16777215 TB"];
        assert_eq!(sizes.map(size), texts);
    }
}
