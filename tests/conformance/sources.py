"""Where the suites come from: fetched once into target/conformance, unpacked and built there.

Holds: nothing outside target/ is written, and each package comes through its registry's own client.
"""

import os
import pathlib
import shutil
import subprocess

from stage import ROOT, Failed, pg_version

CACHE = ROOT / "target" / "conformance"


def say(text):
    print(f"conformance: {text}", flush=True)


def run(command, cwd=CACHE, **options):
    """A command whose output is only of interest if it fails."""
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, **options)
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-30:])
        raise Failed(f"{' '.join(str(part) for part in command)} failed:\n{tail}")
    return done.stdout


def _apt():
    """apt-get with Debian's own sources as deb-src, its lists and caches here: needs no root and changes nothing."""
    home = CACHE / "apt"
    for folder in ("sources.d", "lists/partial", "cache/archives/partial"):
        (home / folder).mkdir(parents=True, exist_ok=True)
    for file in pathlib.Path("/etc/apt/sources.list.d").glob("*.sources"):
        lines = ["Types: deb-src" if line.startswith("Types:") else line for line in file.read_text().splitlines()]
        (home / "sources.d" / file.name).write_text("\n".join(lines) + "\n")
    old = pathlib.Path("/etc/apt/sources.list")
    if old.exists():
        text = old.read_text().replace("deb-src ", "deb ").replace("deb ", "deb-src ")
        (home / "sources.d" / "old.list").write_text(text)
    return [
        "apt-get", "-qq",
        "-o", "Dir::Etc::SourceList=/dev/null",
        "-o", f"Dir::Etc::SourceParts={home / 'sources.d'}",
        "-o", f"Dir::State::Lists={home / 'lists'}",
        "-o", f"Dir::Cache={home / 'cache'}",
    ]


def postgres():
    """The tree of the server's source package, with pg_regress, isolationtester and regress.so built."""
    version = pg_version()
    tree = CACHE / f"postgresql-{version}"
    if (tree / "built").exists():
        return tree
    CACHE.mkdir(parents=True, exist_ok=True)
    major = version.split(".")[0]
    if not list(CACHE.glob(f"postgresql-{major}_{version}.orig.tar.*")):
        say(f"fetching the source package of PostgreSQL {version}")
        apt = _apt()
        run([*apt, "update"])
        # The suites go with the server that is installed; the archive may have a newer one too.
        found = run(["apt-cache", *apt[2:], "showsrc", f"postgresql-{major}"])
        versions = [line.split()[1] for line in found.splitlines() if line.startswith("Version: ")]
        wanted = [each for each in versions if each.split("-")[0] == version]
        if not wanted:
            raise Failed(f"Debian has no source of PostgreSQL {version}, only of {', '.join(versions) or 'none'}")
        run([*apt, "source", "--download-only", f"postgresql-{major}={wanted[0]}"])
    say(f"building pg_regress, isolationtester and regress.so of PostgreSQL {version}")
    shutil.rmtree(tree, ignore_errors=True)
    run(["tar", "xf", next(CACHE.glob(f"postgresql-{major}_{version}.orig.tar.*"))])
    options = ["--without-readline", "--without-zlib"] + (["--without-icu"] if int(major) > 15 else [])
    run(["./configure", *options, "CFLAGS=-O1"], cwd=tree)
    jobs = f"-j{os.cpu_count()}"
    for target in (["src/backend", "generated-headers"], ["src/test/isolation", "all"], ["src/test/regress", "all"]):
        run(["make", "-s", jobs, "-C", *target], cwd=tree)
    (tree / "built").touch()
    return tree


def sdist(package, version):
    """A PyPI source package, unpacked."""
    tree = CACHE / f"{package}-{version}"
    if not tree.exists():
        say(f"fetching {package} {version}")
        CACHE.mkdir(parents=True, exist_ok=True)
        python = ROOT / "target" / "venv" / "bin" / "python"
        run([python, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", package, f"{package}=={version}"])
        run(["tar", "xf", next(CACHE.glob(f"{package}-{version}.tar.gz"))])
    return tree
