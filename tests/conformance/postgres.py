"""PostgreSQL's own regression and isolation suites, by their own drivers, pg_regress and pg_isolation_regress.

Holds: every run has a fresh cluster, so that one leaves nothing for the next. Direct and proxied outputs are compared,
not outputs and expectations: what a build of PostgreSQL prints otherwise than expected, it prints in both runs.
"""

import re
import shutil

import sources
from compare import Run
from stage import Stage, pg_bin

# As the suites' own makefile starts the server, where it matters to them.
SETTINGS = {"max_prepared_transactions": 2, "max_connections": 100}
VERDICT = re.compile(r"^(?:test|    ) +(\S+) +\.\.\. +(ok|FAILED\b.*?|failed\b.*?)(?: +\(test process.*?\))? +\d+ ms", re.M)


def _prepare(stage, suite):
    """The suite's files, and what it loads into the server, in the stage's folder: the server's user reads it there."""
    tree = sources.postgres() / "src" / "test"
    there = stage.folder / suite
    shutil.copytree(tree / suite, there, ignore=shutil.ignore_patterns("*.o", "results", "output_iso"))
    (stage.folder / "out").mkdir()
    (stage.folder / "lib").mkdir()
    shutil.copy(tree / "regress" / "regress.so", stage.folder / "lib")
    for name in ("refint.so", "autoinc.so"):
        shutil.copy(sources.postgres() / "contrib" / "spi" / name, stage.folder / "lib")
    if stage.run_as:
        shutil.chown(stage.folder / "out", stage.run_as["user"], stage.run_as["group"])
    return there


def _outputs(stage):
    """What each test printed, this run's folder and ports left out."""
    outputs = {}
    for path in stage.folder.glob("out/**/results/*.out"):
        text = path.read_text(errors="surrogateescape")
        outputs[path.stem] = text.replace(str(stage.folder), "FOLDER")
    return outputs


def _verdicts(said):
    return {name: "ok" if verdict == "ok" else "failed" for name, verdict in VERDICT.findall(said)}


def regress(pgsluice, mode, tests=()):
    """The regression suite: 200 scripts of psql, as parallel as its schedule says."""
    with Stage(pgsluice, mode, SETTINGS) as stage:
        there = _prepare(stage, "regress")
        command = [
            there / "pg_regress", f"--inputdir={there}", f"--outputdir={stage.folder / 'out'}",
            f"--dlpath={stage.folder / 'lib'}", f"--bindir={pg_bin()}", "--host=127.0.0.1", f"--port={stage.port}",
            "--user=postgres", "--max-concurrent-tests=20",
        ]
        command += tests or [f"--schedule={there / 'parallel_schedule'}"]
        said = stage.run(command, capture_output=True, text=True, errors="replace", timeout=1800).stdout
        return Run(_verdicts(said), _outputs(stage))


# Isolationtester asks the server whether a session waits for a lock. A schema change waits in the proxy instead, where
# its backend sleeps with a comment that says for whom: here the tester's question is answered with a look at that too.
BLOCKED = r"""
ALTER FUNCTION pg_catalog.pg_isolation_test_session_is_blocked(int, int[]) RENAME TO pg_isolation_test_lock_is_blocked;
CREATE FUNCTION pg_catalog.pg_isolation_test_session_is_blocked(pid int, others int[]) RETURNS boolean LANGUAGE sql AS $$
    SELECT pg_catalog.pg_isolation_test_lock_is_blocked($1, $2) OR EXISTS (
        SELECT FROM pg_catalog.pg_stat_activity a
        WHERE a.pid = $1 AND a.state = 'active'
        AND substring(a.query FROM '^/\* pgsluice: waiting [^/]* pid (\d+) ')::int = ANY ($2))
$$
"""


def isolation(pgsluice, mode, tests=()):
    """The isolation suite: what sessions see of each other, step by step, in every order of their steps."""
    settings = SETTINGS | {"allow_system_table_mods": "on", "max_prepared_transactions": 3}
    with Stage(pgsluice, mode, settings) as stage:
        there = _prepare(stage, "isolation")
        stage.psql("CREATE DATABASE isolation_regression TEMPLATE template0")
        stage.psql("ALTER DATABASE isolation_regression SET lc_messages = 'C'")
        stage.psql(BLOCKED, "isolation_regression")
        command = [
            there / "pg_isolation_regress", f"--inputdir={there}", f"--outputdir={stage.folder / 'out'}",
            f"--dlpath={stage.folder / 'lib'}", f"--bindir={pg_bin()}", "--host=127.0.0.1", f"--port={stage.port}",
            "--user=postgres", "--use-existing", "--dbname=isolation_regression",
        ]
        command += tests or [f"--schedule={there / 'isolation_schedule'}"]
        said = stage.run(
            command, env={"PGISOLATIONTIMEOUT": "30"}, capture_output=True, text=True, errors="replace", timeout=3600
        ).stdout
        return Run(_verdicts(said), _outputs(stage))
