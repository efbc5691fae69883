//! The password file of libpq: `PGPASSFILE`, or else `~/.pgpass`.
//!
//! Invariant: as in libpq, a file that others may read is not used.

use crate::config::Address;
use std::env::var;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// The password of the first line that fits.
pub(super) fn password(address: &Address, database: &str, user: &str) -> Option<String> {
    let path = var("PGPASSFILE").ok().map(PathBuf::from);
    let path = path.or_else(|| Some(PathBuf::from(var("HOME").ok()?).join(".pgpass")))?;
    let mode = std::fs::metadata(&path).ok().filter(std::fs::Metadata::is_file)?.mode();
    if mode & 0o077 != 0 {
        eprintln!(
            "WARNING:  password file \"{}\" has group or world access; permissions should be u=rw (0600) or less",
            path.display()
        );
        return None;
    }
    let host = match address {
        Address::Tcp { host, .. } => host.clone(),
        Address::Unix { dir, .. } => dir.display().to_string(),
    };
    let wanted = [host, address.port().to_string(), database.to_owned(), user.to_owned()];
    find(&std::fs::read_to_string(&path).ok()?, &wanted)
}

/// The password of the first line whose fields are the wanted ones or `*`.
fn find(text: &str, wanted: &[String; 4]) -> Option<String> {
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let fields = fields(line);
        let [first @ .., password] = fields.as_slice() else { return None };
        let fits = first.len() == wanted.len()
            && first.iter().zip(wanted).all(|(field, wanted)| field == "*" || field == wanted);
        fits.then(|| password.clone())
    })
}

/// The five fields of a line. A backslash takes the next character as it is.
fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut characters = line.chars();
    while let Some(c) = characters.next() {
        let c = match c {
            ':' if fields.len() < 5 => {
                fields.push(String::new());
                continue;
            }
            '\\' => characters.next().unwrap_or('\\'),
            other => other,
        };
        if let Some(field) = fields.last_mut() {
            field.push(c);
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_that_fits() {
        let wanted = ["db.example", "6432", "pgsluice", "ann"].map(str::to_owned);
        let file = "# a comment\nother:6432:*:ann:no\n*:*:pgsluice:ann:a\\:b\\\\:c\n*:*:*:*:last\n";
        assert_eq!(find(file, &wanted).as_deref(), Some("a:b\\:c"));
        assert_eq!(find("*:*:*:*:last", &wanted).as_deref(), Some("last"));
        assert_eq!(find("db.example:6432:pgsluice:ann", &wanted), None);
    }
}
