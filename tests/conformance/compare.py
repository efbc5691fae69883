"""Two runs of a suite, test by test, and what of their differences is explained.

Holds: a difference counts as noise only where two direct runs differ in the same lines, and as explained only if every
line of it matches the patterns of one entry of explained.toml that is made for this suite, mode and test.
"""

import dataclasses
import fnmatch
import pathlib
import re
import subprocess
import tempfile
import tomllib


@dataclasses.dataclass
class Run:
    """What a suite said: a verdict for each test, and its output where the suite keeps one."""

    verdicts: dict  # test -> "ok", or what else the suite said
    outputs: dict = dataclasses.field(default_factory=dict)  # test -> text

    def passed(self):
        return sum(verdict == "ok" for verdict in self.verdicts.values())


@dataclasses.dataclass
class Difference:
    """A hunk: these lines of the direct run are those of the proxied one."""

    suite: str
    mode: str
    test: str
    start: int
    direct: list
    proxied: list
    why: str = ""

    def __str__(self):
        lines = [f"--- {self.suite} ({self.mode}): {self.test}, line {self.start}"]
        lines += [f"  direct:  {line}" for line in self.direct] + [f"  proxied: {line}" for line in self.proxied]
        return "\n".join(lines)


def hunks(old, new):
    """[(first line, last line, lines of old, lines of new)], lines counted in `old`."""
    if old == new:
        return []
    with tempfile.TemporaryDirectory() as folder:
        paths = [pathlib.Path(folder, name) for name in ("old", "new")]
        for path, text in zip(paths, (old, new)):
            path.write_text(text, errors="surrogateescape")
        said = subprocess.run(["diff", "--text", *paths], capture_output=True, text=True, errors="surrogateescape").stdout
    found = []
    for line in said.split("\n"):
        if head := re.match(r"(\d+)(?:,(\d+))?[acd]\d", line):
            first = int(head[1])
            found.append((first, int(head[2] or first), [], []))
        elif line.startswith("< "):
            found[-1][2].append(line[2:])
        elif line.startswith("> "):
            found[-1][3].append(line[2:])
    return found


def differences(suite, mode, direct, again, proxied):
    """All differences between a direct and a proxied run that are not also between two direct ones."""
    found = []
    for test, verdict in direct.verdicts.items():
        old, new = direct.outputs.get(test), proxied.outputs.get(test)
        if old is None or new is None:
            if proxied.verdicts.get(test) not in (verdict, again.verdicts.get(test)):
                found.append(Difference(suite, mode, test, 0, [verdict], [proxied.verdicts.get(test, "not run")]))
            continue
        noisy = hunks(old, again.outputs.get(test, old))
        for first, last, before, after in hunks(old, new):
            # Next to it counts too: an addition has no line of its own.
            if not any(first <= end + 1 and start - 1 <= last for start, end, _, _ in noisy):
                found.append(Difference(suite, mode, test, first, before, after))
    found += [
        Difference(suite, mode, test, 0, ["not run"], [verdict])
        for test, verdict in proxied.verdicts.items()
        if test not in direct.verdicts
    ]
    return found


class Explained:
    """The reviewed list, explained.toml."""

    def __init__(self, path):
        self.entries = tomllib.loads(path.read_text())["difference"]
        self.used = set()

    def explain(self, difference):
        """Whether an entry covers it; then its reason is noted in the difference."""
        for number, entry in enumerate(self.entries):
            if self._covers(entry, difference):
                self.used.add(number)
                difference.why = entry["why"]
                return True
        return False

    @staticmethod
    def _covers(entry, difference):
        if difference.suite != entry["suite"] or difference.mode not in entry.get("modes", ["plan"]):
            return False
        if not any(fnmatch.fnmatchcase(difference.test, pattern) for pattern in entry["tests"]):
            return False
        every = lambda lines, patterns: all(any(re.fullmatch(p, line) for p in patterns) for line in lines)
        return every(difference.direct, entry.get("direct", [])) and every(difference.proxied, entry.get("proxied", []))
