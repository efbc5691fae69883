"""The tests of Rust drivers, from their packages on crates.io: tokio-postgres', and in `sqlx_.py` sqlx's.

Holds: what runs is the tests of the released crate, built once under target/.
"""

import os
import re
import shutil
import subprocess
import threading

import sources
from compare import Run
from stage import Stage

VERSION = "0.7.18"
# The tests have it written in them: runs take turns.
PORT = 5433
TURN = threading.Lock()
# As the database that the project's own CI sets up.
HBA = """\
host all pass_user all password
host all md5_user all md5
host all scram_user all scram-sha-256
local all all trust
host all all all trust
"""
ROLES = """
SET password_encryption = 'md5'; CREATE ROLE pass_user PASSWORD 'password' LOGIN; CREATE ROLE md5_user PASSWORD 'password' LOGIN;
SET password_encryption = 'scram-sha-256'; CREATE ROLE scram_user PASSWORD 'password' LOGIN;
CREATE EXTENSION hstore; CREATE EXTENSION citext; CREATE EXTENSION ltree;
"""


def unpacked(name, version, change=lambda tree: None):
    """The crate's own folder, copied from where cargo keeps it, and changed once."""
    tree = sources.CACHE / f"{name}-{version}"
    if not (tree / "complete").exists():
        # A package of no workspace, whose dependency cargo fetches.
        fetch = sources.CACHE / f"fetch-{name}"
        (fetch / "src").mkdir(parents=True, exist_ok=True)
        (fetch / "src" / "lib.rs").touch()
        (fetch / "Cargo.toml").write_text(
            f'[package]\nname = "fetch"\nversion = "0.0.0"\n[dependencies]\n{name} = "={version}"\n[workspace]\n'
        )
        said = sources.run(["cargo", "metadata", "--format-version", "1"], cwd=fetch)
        manifest = re.search(rf'"manifest_path":"([^"]*/{name}-{re.escape(version)}/Cargo.toml)"', said)[1]
        shutil.rmtree(tree, ignore_errors=True)
        shutil.copytree(os.path.dirname(manifest), tree)
        with (tree / "Cargo.toml").open("a") as file:
            file.write("\n[workspace]\n")
        change(tree)
        (tree / "complete").touch()
    return tree


def _tree():
    return unpacked("tokio-postgres", VERSION)


def environment():
    """Of cargo: what it builds for the suites is kept apart."""
    return os.environ | {"CARGO_TARGET_DIR": str(sources.CACHE / "cargo")}


def _cargo_test(arguments, **options):
    features = re.findall(r"^(with-\S+) = ", (_tree() / "Cargo.toml").read_text(), re.M)
    command = ["cargo", "test", "--quiet", "--test", "test", "--features", " ".join(["array-impls", *features]), *arguments]
    return subprocess.run(command, cwd=_tree(), env=environment(), capture_output=True, text=True, **options)


def prepare():
    """Builds the tests, once: some minutes."""
    sources.say(f"building the tests of tokio-postgres {VERSION}")
    built = _cargo_test(["--no-run"])
    if built.returncode:
        raise sources.Failed(f"they do not build:\n{built.stderr[-2000:]}")


def tokio_postgres(pgsluice, mode, tests=()):
    """tokio-postgres' tests: types, COPY, cancel, pipelines, notices, logins with each kind of password."""
    with TURN, Stage(pgsluice, mode, port=PORT, hba=HBA) as stage:
        stage.psql(ROLES)
        done = _cargo_test(["--", "--format=pretty", *tests], timeout=600)
        found = re.findall(r"^test (\S+) \.\.\. (ok|FAILED|ignored)", done.stdout, re.M)
        return Run({name: verdict if verdict == "ok" else verdict.lower() for name, verdict in found})
