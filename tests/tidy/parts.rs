//! Checks of the parts, which are structs that own their state. No other module names a field of such a struct.
//!
//! A field without `pub` is seen by its own file and by the children of that file. The check of circles keeps children from naming a
//! struct of their parent, so a field without `pub` is used by its own file alone.

use super::source::{Source, closing, root};

/// The parts. The names are unique in `src`. A part whose files fill a folder names that folder (below `src`): its files see the fields that
/// are `pub(super)`, and nobody else does.
pub(super) const PARTS: [(&str, &str); 63] = [
    ("AheadOfBlock", ""),
    ("AnswerLog", ""),
    ("AttachInquiry", ""),
    ("Back", ""),
    ("Block", ""),
    ("BlockLocks", ""),
    ("CancelRequests", ""),
    ("Cancels", ""),
    ("ChangeLog", ""),
    ("ConsoleLogin", ""),
    ("ContinuingPlace", ""),
    ("ContinuingRun", ""),
    ("ControlStatements", ""),
    ("Conversation", ""),
    ("CutOver", ""),
    ("ExecutionContext", ""),
    ("Driver", ""),
    ("FileTransaction", ""),
    ("Front", ""),
    ("IndexInquiry", ""),
    ("Interceptor", ""),
    ("Journal", ""),
    ("JournalKeeper", ""),
    ("Handlers", ""),
    ("Kernel", ""),
    ("LedgerThread", ""),
    ("Link", ""),
    ("LiveConfig", ""),
    ("Load", ""),
    ("LockWait", ""),
    ("Origin", ""),
    ("Owed", ""),
    ("PendingUndo", ""),
    ("PendingUndos", ""),
    ("Places", ""),
    ("Planner", ""),
    ("PlanningRights", ""),
    ("PreparedStatements", ""),
    ("ProgressNotices", ""),
    ("Reading", ""),
    ("RecordWriter", ""),
    ("Refused", ""),
    ("Registered", ""),
    ("Registry", ""),
    ("Run", ""),
    ("RunHolder", ""),
    ("RunRecord", ""),
    ("RunState", ""),
    ("Running", ""),
    ("SchemaChanges", ""),
    ("Seat", ""),
    ("SentNotices", ""),
    ("SessionSettings", ""),
    ("Speech", ""),
    ("Steering", ""),
    ("Subcommands", ""),
    ("Throttle", ""),
    ("TryHistory", ""),
    ("Turn", ""),
    ("ServerChannel", "backend"),
    ("BackfillRun", "execute/backfill"),
    ("Record", "execute/record"),
    ("StatementContext", "session/change"),
];

/// What is wrong with a part: it is not there, it is there twice, or one of its fields is public.
pub(super) fn faults(part: &str, home: &str, sources: &[Source]) -> Vec<String> {
    let found: Vec<(&Source, &str)> =
        sources.iter().filter_map(|source| Some((source, fields(&source.code, part)?))).collect();
    match found.as_slice() {
        [(source, fields)] => {
            let in_its_folder = source.path.parent() == Some(&root().join("src").join(home)) && !home.is_empty();
            let fields = if in_its_folder { fields.replace("pub(super) ", "") } else { (*fields).to_owned() };
            let open = public_fields(&fields);
            open.into_iter().map(|field| format!("{}: {part}.{field} is public", source.name())).collect()
        }
        [] => vec![format!("{part} is not there")],
        several => {
            vec![format!("{part} is there {} times; a part has a name of its own", several.len())]
        }
    }
}

/// The text between the braces of a struct's definition; `None`: the code does not define it.
fn fields<'c>(code: &'c str, name: &str) -> Option<&'c str> {
    let definition = format!("struct {name}");
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut places = code.match_indices(&definition).map(|(at, _)| at + definition.len());
    let end_of_name = places.find(|end| !code[*end..].starts_with(is_word))?;
    let open = end_of_name + code[end_of_name..].find(['{', ';', '('])?;
    let body = &code[open..];
    if body.starts_with('{') { Some(&body[1..closing(body) - 1]) } else { Some(body.split(';').next()?) }
}

/// The names of the fields that other modules see. A field of a tuple has its type as name.
fn public_fields(fields: &str) -> Vec<String> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let is_keyword = |at: &usize| !fields[..*at].ends_with(is_word) && !fields[at + "pub".len()..].starts_with(is_word);
    let places = fields.match_indices("pub").map(|(at, _)| at).filter(is_keyword);
    let name = |at: usize| {
        let rest = fields[at + "pub".len()..].trim_start();
        let name = if rest.starts_with('(') { rest.split_once(')').map_or("", |(_, name)| name) } else { rest };
        name.split([':', ',', ')']).next().unwrap_or_default().trim().to_owned()
    };
    places.map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn faults_of(code: &str) -> Vec<String> {
        let path: PathBuf = root().join("src/a.rs");
        faults("Part", "", &[Source { path, text: code.to_owned(), code: code.to_owned() }])
    }

    #[test]
    fn a_public_field_is_a_fault() {
        assert!(faults_of("pub struct Part<'a> {\n    own: &'a str,\n    more: Vec<(u8, u8)>,\n}").is_empty());
        for field in ["pub open: u8", "pub(crate) open: u8", "pub(super) open: u8", "pub(in crate::a) open: u8"] {
            let code = format!("struct PartOther {{ pub a: u8 }}\nstruct Part {{\n    own: u8,\n    {field},\n}}");
            assert_eq!(faults_of(&code), ["src/a.rs: Part.open is public"], "{field}");
        }
        assert_eq!(faults_of("struct Part(pub u8);").len(), 1);
        assert_eq!(faults_of("struct Partial { own: u8 }"), ["Part is not there"]);
    }
}
