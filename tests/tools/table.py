"""The table of docs/tools.md: for each tool the longest wait of the application in each kind of step, directly and through the proxy.

Holds: the table says what one run has seen, and nothing else. It stands between two marks, and the rest of the page is written by hand.
"""

import pathlib
import re

from report import ALL, DOWN
from staged import Failed

# The columns, and the steps of each. The brief steps are together.
COLUMNS = {
    "brief": ["nullable_column", "constant_default", "rename_column", "drop_column", "enum"],
    "volatile default": ["volatile_default"],
    "index": ["index"],
    "UNIQUE": ["unique"],
    "key, NOT NULL, CHECK": ["foreign_key", "not_null", "check"],
    "column, index, key": ["column_index_key"],
    "table and more": ["table_and_orders"],
    "uuid and index": ["column_and_index"],
    "all at once": [ALL],
    "filled": ["filled_column"],
    "type": ["type"],
    "down": [DOWN],
}
MARKS = re.compile(r"(<!-- run -->\n).*(<!-- end of run -->\n)", re.DOTALL)


def cell(report, steps):
    waits = {}
    for way in ("direct", "proxy"):
        measured = [report.measured[step, way] for step in steps if (step, way) in report.measured]
        if not measured:
            return "–"
        waits[way] = "fails" if any(each.error for each in measured) else f"{max(each.waits.worst() for each in measured):.2f}"
    over = any(report.measured[step, "proxy"].over() for step in steps if (step, "proxy") in report.measured)
    return f"{waits['direct']} → " + (f"**{waits['proxy']}**" if over else waits["proxy"])


def two(report, way):
    """How two instances at once end: the first, the second, and a third run."""
    errors, third = report.two[way]
    return ", ".join("fails" if error else "ok" for error in [*errors, third])


def write(path, head, reports):
    lines = [head, "", "| tool | " + " | ".join(COLUMNS) + " |", "|---" + "|--:" * len(COLUMNS) + "|"]
    lines += [f"| {report.name} | " + " | ".join(cell(report, steps) for steps in COLUMNS.values()) + " |" for report in reports]
    lines += ["", "| tool | two instances and a third run, directly | through the proxy | left behind |", "|---|---|---|---|"]
    lines += [f"| {report.name} | {two(report, 'direct')} | {two(report, 'proxy')} | {report.parity()} |" for report in reports]
    page = pathlib.Path(path).read_text()
    if not MARKS.search(page):
        raise Failed(f"{path} has no marks for the table")
    said = "\n".join(lines)
    pathlib.Path(path).write_text(MARKS.sub(lambda found: f"{found[1]}{said}\n{found[2]}", page))
