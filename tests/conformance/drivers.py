"""The tests of Python drivers, from their source packages, under pytest: asyncpg's and pg8000's.

Holds: the driver is the released wheel, its tests are those of the same version's source package, in an environment of
their own under target/.
"""

import shutil
import subprocess
import xml.etree.ElementTree as xml

import sources
from compare import Run
from stage import Failed, Stage

VERSIONS = {"asyncpg": "0.32.0", "pg8000": "1.31.6"}
# What the suites need besides the drivers.
TOOLS = ["distro", "pytest", "pytest-mock", "pytest-benchmark", "pytz"]
# A whole suite takes one to two minutes.
LIMIT = 900


def _python():
    """The Python of the suites' own environment."""
    home = sources.CACHE / "venv"
    python = home / "bin" / "python"
    if not (home / "complete").exists():
        sources.say("making a Python environment in target/conformance/venv")
        shutil.rmtree(home, ignore_errors=True)
        sources.CACHE.mkdir(parents=True, exist_ok=True)
        sources.run(["python3", "-m", "venv", home])
        pinned = [f"{name}=={version}" for name, version in VERSIONS.items()]
        sources.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *pinned, *TOOLS])
        (home / "complete").touch()
    return python


def prepare():
    """Everything is fetched before the first run, and once."""
    _python()
    for name, version in VERSIONS.items():
        sources.sdist(name, version)


def _pytest(stage, arguments, environment):
    """Runs pytest in the stage's folder, and reads a verdict for each test from its report."""
    report = stage.folder / "report.xml"
    log = (stage.folder / "pytest.log").open("w")
    command = [
        _python(), "-m", "pytest", "-q", "-p", "no:cacheprovider", "--benchmark-disable",
        f"--junitxml={report}", *arguments,
    ]
    # As ourselves: the environment need not be readable to the server's user.
    subprocess.run(
        [str(part) for part in command], cwd=stage.folder, env=stage.environment() | environment,
        stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=LIMIT,
    )
    if not report.exists():
        raise Failed(f"pytest wrote no report:\n{(stage.folder / 'pytest.log').read_text()[-2000:]}")
    verdicts = {}
    for case in xml.parse(report).getroot().iter("testcase"):
        verdict = "ok"
        for child in case:
            if child.tag in ("failure", "error"):
                # The exception's name; what it says may hold times and addresses.
                verdict = f"failed: {(child.get('message') or '').partition(':')[0]}".strip()
            elif child.tag == "skipped":
                verdict = "skipped"
        verdicts[f"{case.get('classname')}.{case.get('name')}"] = verdict
    return Run(verdicts)


def asyncpg(pgsluice, mode, tests=()):
    """asyncpg's tests, but those that start a server of their own: it would not be behind the proxy."""
    with Stage(pgsluice, mode, {"max_connections": 200, "jit": "off"}) as stage:
        tree = sources.sdist("asyncpg", VERSIONS["asyncpg"])
        shutil.copytree(tree / "tests", stage.folder / "tests")
        # Its tests expect the database of the user's name, and a superuser.
        return _pytest(stage, tests or ["tests"], {"PGUSER": "postgres", "PGDATABASE": "postgres"})


def pg8000(pgsluice, mode, tests=()):
    """pg8000's tests, but those of logins that its own CI sets up a server for each."""
    with Stage(pgsluice, mode, {"max_prepared_transactions": 10}) as stage:
        tree = sources.sdist("pg8000", VERSIONS["pg8000"])
        shutil.copytree(tree / "test", stage.folder / "test")
        for folder in (stage.folder / "test").glob("*/auth"):
            shutil.rmtree(folder)
        stage.psql("CREATE EXTENSION hstore")
        # A doctest of the README, which the package does not bring into this folder.
        return _pytest(stage, tests or ["test", "--ignore=test/test_readme.py"], {"PGPASSWORD": "pw"})
