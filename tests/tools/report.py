"""What was seen of one tool, as a table for a person and as a list of problems.

Holds: a wait is *over* only if it is longer than the stall budget by a margin for a busy machine, and by what the reader of
a table that nobody migrates waited in the same step. It is *within* if it is no longer than the budget and that reader's wait.
Between the two nothing is said.
"""

import collections
import dataclasses

from application import Waits
from staged import STALL_BUDGET

# Of an error, and errors of one way: more would hide the rest.
LENGTH, FEW = 600, 3
# For a busy machine.
MARGIN = 0.5
# Of two instances at once, the second waits for the first until it is done. Of other tools the second often fails, with and without the proxy.
WAITING = ["kysely"]
# These send each statement alone, so that nothing is ahead of a transaction.
WITHOUT_TRANSACTION = ["sequelize"]
# In these, every tool that sends a migration in a transaction has a statement done ahead of it, whatever the size of the tables.
AHEAD = ["volatile_default", "index", "unique", "foreign_key", "not_null", "check", "column_index_key", "table_and_orders", "column_and_index"]
DOWN, ALL, REST, TWO = "down", "all at once", "the rest", "two at once"
# The steps that keep their place in a transaction, and so do those after them on the same table: the last of every tool.
IN_PLACE = ["enum", "filled_column", "type"]


@dataclasses.dataclass
class Measured:
    seconds: float
    waits: Waits
    error: str | None
    # The statements that the proxy did ahead of the tool's transactions.
    ahead: int

    def over(self):
        return self.waits.worst() > STALL_BUDGET + MARGIN + self.waits.quiet

    def within(self):
        return self.waits.worst() <= STALL_BUDGET + self.waits.quiet

    def cells(self):
        mark = "**" if self.over() else ""
        figures = f"{self.waits.readers:.2f} / {self.waits.writers:.2f}"
        return [f"{self.seconds:.1f}", f"{mark}{figures}{mark}", f"{self.waits.quiet:.2f}"]


class Report:
    def __init__(self, name):
        self.name = name
        self.measured = {}
        self.outcomes = {}
        self.two = {}
        self.errors = collections.defaultdict(list)

    def steps(self):
        return list(dict.fromkeys(step for step, _ in self.measured))

    def text(self):
        lines = [
            f"\n### {self.name}: longest wait of readers / writers in seconds; **over** {STALL_BUDGET:.1f} s and a margin of {MARGIN:.1f} s\n",
            "| step | direct: took | waited | quiet | proxy: took | waited | quiet | ahead | outcome |",
            "|---|--:|--:|--:|--:|--:|--:|--:|---|",
        ]
        for step in self.steps():
            direct, proxy = self.measured[step, "direct"], self.measured[step, "proxy"]
            lines.append("| " + " | ".join([step, *direct.cells(), *proxy.cells(), str(proxy.ahead), self.verdict(direct, proxy)]) + " |")
        for way, (errors, third) in self.two.items():
            said = ", ".join(error.splitlines()[0][:100] if error else "ok" for error in [*errors, third])
            lines.append(f"\n{TWO}, {way} (first, second, a third run): {said}")
        return "\n".join(lines)

    @staticmethod
    def verdict(direct, proxy):
        if direct.error or proxy.error:
            short = lambda error: error.splitlines()[0][:120] if error else "ok"
            return f"direct: {short(direct.error)}; proxy: {short(proxy.error)}"
        return "same"

    def problems(self):
        """What is wrong whatever the waits are."""
        found = []
        for way in ("direct", "proxy"):
            failed = [(step, each.error) for (step, where), each in self.measured.items() if where == way and each.error]
            # What fails once often fails in each later step.
            found += [f"{self.name}, {step}, {way}: {error[:LENGTH]}" for step, error in failed[:FEW]]
            found += [f"{self.name}, {way}: {len(failed) - FEW} more steps fail"] if len(failed) > FEW else []
        for (part, way), after in self.outcomes.items():
            direct = self.outcomes.get((part, "direct"))
            if way == "proxy" and direct and (different := direct.differences(after)):
                found.append(f"{self.name}, {part}: the proxy leaves something else:\n  " + "\n  ".join(different[:40]))
        found += [f"{self.name}, {way}: the application failed: {error}" for way in self.errors for error in self.errors[way]]
        return found + self.not_ahead() + self.two_problems()

    def not_ahead(self):
        """The steps in which nothing went ahead of the tool's transactions, although it goes ahead there."""
        wanted = [] if self.name in WITHOUT_TRANSACTION else [*AHEAD, ALL]
        missing = [step for step in wanted if (step, "proxy") in self.measured and not self.measured[step, "proxy"].ahead]
        return [f"{self.name}, {step}: nothing goes ahead of the transaction" for step in missing]

    def parity(self):
        """In words: whether the proxy leaves what the direct runs have left."""
        pairs = [(self.outcomes.get((part, "direct")), after) for (part, way), after in self.outcomes.items() if way == "proxy"]
        different = any(direct and direct.differences(after) for direct, after in pairs)
        return "something else" if different else f"the same in {len(pairs)} of {len(pairs)}"

    def two_problems(self):
        """One of two instances at once succeeds, both if the tool has a lock that the second waits for, and nothing is left to repair."""
        if "proxy" not in self.two:
            return []
        errors, third = self.two["proxy"]
        succeed, wanted = sum(error is None for error in errors), 2 if self.name in WAITING else 1
        found = []
        if succeed < wanted:
            found.append(f"{self.name}, {TWO}: {succeed} of two succeed, {wanted} should: {errors}")
        if third:
            found.append(f"{self.name}, {TWO}: a third run fails: {third}")
        return found
