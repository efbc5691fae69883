#!/usr/bin/env python3
"""`make tools`: real migration tools, unmodified and in their default mode, directly and through the proxy.

Each tool applies its migrations one by one to a table that an application works on, goes back, applies all pending ones at
once, and at last runs twice at the same time. Prints for each step how long readers and writers waited at most, and what
differs. With --check, the status is 0 exactly if nothing differs and only the steps of expected_waits.toml wait.
"""

import argparse
import os
import pathlib
import signal
import sys
import time

import table
from expected import Expected
from measure import Subject
from report import Report
from staged import ROOT, Failed, ToolStage
from tool import TOOLS

# Of the proxy's log, if a tool hangs.
LENGTH = 6000
# `baskets` has a quarter of them, and is several times as large as `small_table` with them.
FEW_ROWS = 24_000
HERE = pathlib.Path(__file__).resolve().parent


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tools", nargs="*", metavar="TOOL", help=f"of {', '.join(TOOLS)}; all if none is named")
    parser.add_argument("--pgsluice", default=ROOT / "target" / "debug" / "pgsluice", help="the proxy's program")
    parser.add_argument("--rows", type=int, default=int(os.environ.get("TOOLS_ROWS", 0)), help="of the table orders; by default so many that building an index takes a second")
    parser.add_argument("--few-rows", dest="rows", action="store_const", const=FEW_ROWS, help="too few for long waits: what differs and what goes ahead is seen in less time")
    parser.add_argument("--check", action="store_true", help="fail if a step waits that is not in expected_waits.toml")
    parser.add_argument("--table", metavar="FILE", help="write the table of the run into this page, between its marks")
    parser.add_argument("--logs", action="store_true", help="print the proxy's log of each tool")
    chosen = parser.parse_args()
    if unknown := [tool for tool in chosen.tools if tool not in TOOLS]:
        parser.error(f"unknown tool: {', '.join(unknown)} (expected {', '.join(TOOLS)})")
    return chosen


def one(chosen, stage, name, rows, expected):
    """Runs one tool and prints what was seen; returns it, and the problems."""
    began = time.monotonic()
    report = Report(name)
    try:
        Subject(stage, name, rows).run(report)
    except Failed:
        print((stage.folder / "proxy.log").read_text()[-LENGTH:], file=sys.stderr)
        raise
    print(report.text())
    print(f"tools: {name} took {time.monotonic() - began:.0f} s", flush=True)
    if chosen.logs:
        print((stage.folder / "proxy.log").read_text())
    return report, report.problems() + (expected.problems(report) if chosen.check else [])


def main():
    chosen = arguments()
    expected = Expected(HERE / "expected_waits.toml")
    problems, reports = [], []
    with ToolStage(chosen.pgsluice) as stage:
        rows = chosen.rows or stage.choose_rows()
        print(f"tools: {rows} rows", flush=True)
        stage.make_template("beginning", rows)
        # For two instances at once, where nothing is measured.
        stage.make_template("beginning_small", min(rows, 20_000))
        for name in chosen.tools or TOOLS:
            report, found = one(chosen, stage, name, rows, expected)
            if found and chosen.check:
                print(f"tools: {name} runs once more, as a busy machine makes anything wait: {len(found)} problems", flush=True)
                report, found = one(chosen, stage, name, rows, expected)
            problems += found
            reports.append(report)
            if chosen.table:
                table.write(chosen.table, f"{rows} rows, {stage.psql('SHOW server_version', 'postgres').strip()}.", reports)
    for problem in problems:
        print(f"tools: {problem}")
    return 1 if problems else 0


if __name__ == "__main__":
    # As Ctrl-C: what was started is ended first.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("tools: terminated"))
    try:
        sys.exit(main())
    except Failed as failure:
        sys.exit(f"tools: {failure}")
