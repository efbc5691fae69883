//! Finds PostgreSQL's programs, and the user to run them as.
//!
//! PostgreSQL refuses to run as root. If the process runs as root, another user is found.

use crate::pg::sqlstate;
use crate::report::Report;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The folder of the programs of one PostgreSQL version.
#[derive(Debug, Clone)]
pub(super) struct Binaries {
    pub(super) folder: PathBuf,
    /// The major version, e.g. 15.
    pub(super) version: u32,
    /// The user to run the programs as; `None` is the user of this process.
    pub(super) run_as: Option<User>,
}

#[derive(Debug, Clone)]
pub(super) struct User {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// The environment variable with the folder to use before all others.
const VARIABLE: &str = "PGSLUICE_PG_BIN";

/// The places where distributions put PostgreSQL's programs, each with one folder per version.
const PLACES: [(&str, &str, &str); 5] = [
    ("/usr/lib/postgresql", "", "bin"),
    ("/usr", "pgsql-", "bin"),
    ("/opt/homebrew/opt", "postgresql@", "bin"),
    ("/usr/local/opt", "postgresql@", "bin"),
    ("/usr/local", "pgsql", "bin"),
];

impl Binaries {
    /// Finds the programs: the first of `chosen`, the environment's folder, PATH, pg_config's folder, and the distribution's
    /// highest version.
    pub(super) fn find(chosen: Option<&Path>) -> Result<Self, Report> {
        let folder = match (chosen, std::env::var_os(VARIABLE)) {
            (Some(folder), _) => whole(folder, "the folder of the server's programs")?,
            (None, Some(folder)) => whole(Path::new(&folder), VARIABLE)?,
            (None, None) => on_path().or_else(of_pg_config).or_else(of_distribution).ok_or_else(|| {
                Report::error(sqlstate::CONNECTION_FAILURE, "no PostgreSQL server is installed")
                    .detail("pgsluice looked on PATH, asked pg_config, and looked in the folders of the distributions.")
                    .hint(format!(
                        "Install PostgreSQL (Debian: apt-get install postgresql), or set {VARIABLE} to its bin folder."
                    ))
            })?,
        };
        let version = run(Command::new(folder.join("postgres")).arg("--version"))?;
        let version = major_version(&String::from_utf8_lossy(&version.stdout)).ok_or_else(|| {
            Report::error(
                sqlstate::CONNECTION_FAILURE,
                format!("could not read the version of the server in {}", folder.display()),
            )
        })?;
        Ok(Self { folder, version, run_as: unprivileged()? })
    }

    /// A command that runs `program` as the user that the server needs, without environment variables that change what the
    /// program does.
    pub(super) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.folder.join(program));
        command.env_remove("PGDATA").env_remove("PGPORT").env("LC_ALL", "C");
        // Another user may not be able to read root's working directory.
        command.current_dir("/");
        if let Some(user) = &self.run_as {
            command.uid(user.uid).gid(user.gid);
        }
        command
    }
}

/// Runs a short program to its end. An error contains the program's messages.
pub(super) fn run(command: &mut Command) -> Result<Output, Report> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .map_err(|error| Report::error(sqlstate::CONNECTION_FAILURE, format!("could not run {program}: {error}")))?;
    if output.status.success() {
        return Ok(output);
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Report::error(sqlstate::CONNECTION_FAILURE, format!("{program} failed with {}", output.status)).detail(said))
}

/// `folder`, if a server can run from it. Otherwise the error says that the folder of `what` is incomplete.
fn whole(folder: &Path, what: &str) -> Result<PathBuf, Report> {
    complete(folder).then(|| folder.to_owned()).ok_or_else(|| {
        let message = format!("{what} is {}, which does not contain postgres and initdb", folder.display());
        Report::error(sqlstate::CONNECTION_FAILURE, message)
    })
}

fn complete(folder: &Path) -> bool {
    ["postgres", "initdb"].iter().all(|program| folder.join(program).is_file())
}

fn on_path() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let folder = std::env::split_paths(&path).find(|folder| complete(folder))?;
    // The program on PATH may be a link. psql and pg_dump of its version stand beside the program itself.
    let program = folder.join("postgres").canonicalize().ok()?;
    program.parent().filter(|folder| complete(folder)).map(Path::to_owned).or(Some(folder))
}

fn of_pg_config() -> Option<PathBuf> {
    let output = run(Command::new("pg_config").arg("--bindir")).ok()?;
    let folder = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    complete(&folder).then_some(folder)
}

fn of_distribution() -> Option<PathBuf> {
    let mut found = Vec::new();
    for (parent, prefix, bin) in PLACES {
        let Ok(entries) = std::fs::read_dir(parent) else { continue };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some(version) = name.to_str().and_then(|name| name.strip_prefix(prefix)) else { continue };
            let folder = entry.path().join(bin);
            let bare = version.is_empty();
            let number = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
            if (bare || number.is_some()) && complete(&folder) {
                found.push((number, folder));
            }
        }
    }
    found.into_iter().max().map(|(_, folder)| folder)
}

/// The major version in a text such as `postgres (PostgreSQL) 15.18 (Debian …)` or `16beta1`.
fn major_version(text: &str) -> Option<u32> {
    let number = text.split_once("(PostgreSQL)")?.1.trim_start();
    let end = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
    number[..end].parse().ok()
}

/// The user to run the server as if the process runs as root: postgres if it exists, else nobody.
fn unprivileged() -> Result<Option<User>, Report> {
    let id = |arguments: &[&str]| -> Option<u32> {
        let output = run(Command::new("id").args(arguments)).ok()?;
        String::from_utf8_lossy(&output.stdout).trim().parse().ok()
    };
    if id(&["-u"]) != Some(0) {
        return Ok(None);
    }
    for name in ["postgres", "nobody"] {
        if let (Some(uid), Some(gid)) = (id(&["-u", name]), id(&["-g", name])) {
            return Ok(Some(User { uid, gid }));
        }
    }
    Err(Report::error(sqlstate::CONNECTION_FAILURE, "PostgreSQL does not run as root")
        .hint("Run as another user, or create the user postgres."))
}

#[cfg(test)]
mod tests {
    use super::major_version;

    #[test]
    fn versions_are_read() {
        assert_eq!(major_version("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some(15));
        assert_eq!(major_version("postgres (PostgreSQL) 19beta1\n"), Some(19));
        assert_eq!(major_version("something else"), None);
    }
}
