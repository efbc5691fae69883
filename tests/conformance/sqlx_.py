"""The tests of sqlx for PostgreSQL, from its package on crates.io: queries, types, the statement cache, its pool,
LISTEN, COPY, migrations under its advisory lock, `query!`, which asks the server at compile time, and `#[sqlx::test]`,
which makes a database for each test.

Holds: the tests are those of the release. The package leaves out a helper crate of theirs, which `sqlx-test/` stands in
for. They are built once, against a server of their own, and every run is of the same programs.
"""

import json
import pathlib
import re
import shutil
import subprocess

import crates
import sources
from compare import Run
from stage import Failed, Stage, pg_version

VERSION = "0.9.0"
HERE = pathlib.Path(__file__).resolve().parent
# All that are for PostgreSQL, but the rustsec one: a string of 4 GiB, which sqlx must refuse to send.
PROGRAMS = [
    "postgres", "postgres-derives", "postgres-describe", "postgres-error", "postgres-macros", "postgres-migrate",
    "postgres-query-builder", "postgres-test-attr", "postgres-types", "any", "any-pool", "migrate-macro",
]
FEATURES = "any,postgres,macros,migrate,_unstable-all-types,runtime-tokio,tls-none"
# What only the tests for other databases need; one of them needs a library of the system's.
UNUSED = ["async-std", "criterion", "libsqlite3-sys", "trybuild"]
SETTINGS = {"max_connections": 200}


def _change(tree):
    """The package's manifest, without what is not run here and with the helper."""
    manifest = tree / "Cargo.toml"
    parts = re.split(r"^(?=\[)", manifest.read_text(), flags=re.M)
    # Its benches too: criterion goes.
    unwanted = tuple(f"[dev-dependencies.{name}]" for name in UNUSED) + ("[[bench]]",)
    kept = [part for part in parts if not part.startswith(unwanted)]
    manifest.write_text("".join(kept) + '\n[dev-dependencies.sqlx-test]\npath = "sqlx-test"\n')
    shutil.copytree(HERE / "sqlx-test", tree / "sqlx-test")
    # What a package cannot hold: a link to the folder beside it.
    link = tree / "tests" / "migrate" / "migrations_symlink"
    link.unlink(missing_ok=True)
    link.symlink_to("migrations_simple")
    # It asks for a compiler that may not be installed.
    (tree / "rust-toolchain.toml").unlink(missing_ok=True)


def _tree():
    return crates.unpacked("sqlx", VERSION, _change)


def _stage(pgsluice, mode):
    return Stage(pgsluice, mode, SETTINGS)


def _set_up(stage):
    """The database that the project's own CI sets up; its URL, through the proxy if there is one."""
    stage.psql("CREATE DATABASE sqlx")
    stage.psql((_tree() / "tests" / "postgres" / "setup.sql").read_text(), "sqlx")
    return f"postgres://postgres@127.0.0.1:{stage.port}/sqlx"


def _programs():
    """Where the paths of the built tests are kept."""
    return _tree() / "programs.json"


def prepare():
    """Builds the tests, once: some minutes."""
    if _programs().exists():
        return
    sources.say(f"building the tests of sqlx {VERSION}")
    command = ["cargo", "test", "--no-run", "--message-format=json", "--no-default-features", "--features", FEATURES]
    for program in PROGRAMS:
        command += ["--test", program]
    with _stage(None, None) as stage:
        # `query!` looks at the schema; some tests are not for every version.
        flags = f'--cfg postgres="{pg_version().split(".")[0]}"'
        environment = crates.environment() | {"DATABASE_URL": _set_up(stage), "RUSTFLAGS": flags}
        built = subprocess.run(command, cwd=_tree(), env=environment, capture_output=True, text=True)
    if built.returncode:
        said = [json.loads(line) for line in built.stdout.splitlines()]
        errors = [each["message"]["rendered"] for each in said if each.get("message", {}).get("level") == "error"]
        raise Failed("they do not build:\n" + ("\n".join(errors) or built.stderr)[-4000:])
    found = {}
    for line in built.stdout.splitlines():
        said = json.loads(line)
        if said.get("executable") and said["target"]["name"] in PROGRAMS:
            found[said["target"]["name"]] = said["executable"]
    _programs().write_text(json.dumps(found))


def sqlx(pgsluice, mode, tests=()):
    """sqlx's tests, program by program, as `cargo test` would run them. `tests`: some of the programs."""
    with _stage(pgsluice, mode) as stage:
        url = _set_up(stage)
        verdicts = {}
        for program, path in json.loads(_programs().read_text()).items():
            if tests and program not in tests:
                continue
            done = subprocess.run(
                # One after the other, so that the runs differ in nothing else.
                [path, "--format=pretty", "--test-threads=1"], cwd=_tree(), env=crates.environment() | {"DATABASE_URL": url},
                stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=900,
            )
            for name, verdict in re.findall(r"^test (\S+)(?: - should panic)? \.\.\. (ok|FAILED|ignored)", done.stdout, re.M):
                verdicts[f"{program}::{name}"] = verdict.lower()
        return Run(verdicts)
