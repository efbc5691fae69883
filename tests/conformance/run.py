#!/usr/bin/env python3
"""`make conformance`: suites that others wrote, directly against PostgreSQL and through the proxy, compared test by test.

Prints a table in Markdown, and every difference that is not explained; there is none if the status is 0.
"""

import argparse
import concurrent.futures
import pathlib
import signal
import subprocess
import sys
import time

import crates
import drivers
import postgres
import sources
import sqlx_
from compare import Explained, differences
from stage import ROOT, Failed

HERE = pathlib.Path(__file__).resolve().parent
# Suite: how one run of it goes. The proxy has to pass all in each of these modes.
SUITES = {
    "regress": postgres.regress,
    "isolation": postgres.isolation,
    "asyncpg": drivers.asyncpg,
    "pg8000": drivers.pg8000,
    "tokio-postgres": crates.tokio_postgres,
    "sqlx": sqlx_.sqlx,
}
MODES = ["relay", "plan"]
PREPARE = {
    "regress": sources.postgres,
    "isolation": sources.postgres,
    "asyncpg": drivers.prepare,
    "pg8000": drivers.prepare,
    "tokio-postgres": crates.prepare,
    "sqlx": sqlx_.prepare,
}
HEAD = """| suite | `--ddl` | tests | passed directly | passed through the proxy | differences explained | not explained |
|---|---|---|---|---|---|---|"""


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"of {', '.join(SUITES)}; all if none is named")
    parser.add_argument("--pgsluice", default=ROOT / "target" / "debug" / "pgsluice", help="the proxy's program")
    parser.add_argument("--modes", nargs="+", default=MODES, choices=MODES, help="only these modes")
    parser.add_argument("--tests", nargs="+", default=[], help="only these of a suite's tests")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--keep", type=pathlib.Path, help="a folder for the outputs of all runs")
    parser.add_argument("--all", action="store_true", help="print the explained differences too")
    chosen = parser.parse_args()
    if unknown := [suite for suite in chosen.suites if suite not in SUITES]:
        parser.error(f"unknown suite: {', '.join(unknown)} (expected {', '.join(SUITES)})")
    return chosen


def keep(folder, suite, name, run):
    there = folder / suite / name
    there.mkdir(parents=True, exist_ok=True)
    for test, text in run.outputs.items():
        (there / f"{test}.out").write_text(text, errors="surrogateescape")
    verdicts = "".join(f"{verdict}\t{test}\n" for test, verdict in run.verdicts.items())
    (there / "verdicts").write_text(verdicts, errors="surrogateescape")


def repeated(chosen, suite, mode, runs, unexplained):
    """Those of a driver's tests that differ in a second run too. Many wait for fixed times, which a busy machine does not
    keep; a test that differs in one of two runs is told, and is no difference."""
    second = SUITES[suite](str(chosen.pgsluice), mode, chosen.tests)
    still = {each.test for each in differences(suite, mode, runs["direct"], runs["again"], second)}
    for each in unexplained:
        if each.test not in still:
            sources.say(f"{suite} ({mode}): {each.test} differed in one of two runs: {each.direct[0]}, {each.proxied[0]}")
    return [each for each in unexplained if each.test in still]


def compare(chosen, suite, explained, pool):
    """Runs one suite; returns its rows of the table, and the differences."""
    start, modes = SUITES[suite], chosen.modes
    PREPARE[suite]()
    # The second direct run tells what is noise.
    names = ["direct", "again", *modes]
    waiting = [
        pool.submit(start, str(chosen.pgsluice), name if name in modes else None, chosen.tests) for name in names
    ]
    runs = dict(zip(names, (each.result() for each in waiting)))
    for name, run in runs.items():
        if not run.verdicts:
            raise Failed(f"the suite {suite} ran no test ({name})")
        if chosen.keep:
            keep(chosen.keep, suite, name, run)
    rows, found = [], []
    for mode in modes:
        different = differences(suite, mode, runs["direct"], runs["again"], runs[mode])
        unexplained = [each for each in different if not explained.explain(each)]
        # PostgreSQL's own suites, which are compared by their outputs, get no second chance.
        if unexplained and not runs[mode].outputs:
            unexplained = repeated(chosen, suite, mode, runs, unexplained)
            different = [each for each in different if each.why or each in unexplained]
        direct, proxied = runs["direct"], runs[mode]
        cells = [
            suite, mode, len(direct.verdicts), direct.passed(), proxied.passed(),
            len(different) - len(unexplained), len(unexplained),
        ]
        rows.append("| " + " | ".join(str(cell) for cell in cells) + " |")
        found += different
    return rows, found


def main():
    chosen = arguments()
    explained = Explained(HERE / "explained.toml")
    rows, unexplained = [], []
    with concurrent.futures.ThreadPoolExecutor(chosen.jobs) as pool:
        for suite in chosen.suites or SUITES:
            began = time.monotonic()
            more, found = compare(chosen, suite, explained, pool)
            for difference in found:
                if not difference.why or chosen.all:
                    print(f"{difference}\n  why:     {difference.why or 'not explained'}\n")
            print(f"conformance: {suite} took {time.monotonic() - began:.0f} s", flush=True)
            rows += more
            unexplained += [each for each in found if not each.why]
    print("\n".join([HEAD, *rows]))
    return 1 if unexplained else 0


if __name__ == "__main__":
    # As Ctrl-C: what was started is ended first.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("conformance: terminated"))
    try:
        sys.exit(main())
    except (Failed, subprocess.TimeoutExpired) as failure:
        sys.exit(f"conformance: {failure}")
