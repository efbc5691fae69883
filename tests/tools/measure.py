"""One tool, directly and through the proxy: the parts of its run, in order.

    one by one   each step is a migration that comes in and is run by the tool's usual command, as in daily work
    down         back to the beginning, if the tool can
    all at once  all migrations pending but those of IN_PLACE, one command: for many tools one transaction
    the rest     these, in a command of their own
    two at once  in a fresh small database, two instances start all of them; then a third looks whether anything is left to do

Owns: the databases of the tool. Holds: both ways begin in databases that are alike, one after the other, never at the same time.
"""

import contextlib
import sys

from application import Application
from outcome import outcome
from report import ALL, DOWN, IN_PLACE, REST, TWO, Measured
from tool import Tool, two_at_once


class Subject:
    def __init__(self, stage, name, rows):
        self.stage, self.name, self.rows = stage, name, rows

    def run(self, report):
        for way, port in (("direct", self.stage.server_port), ("proxy", self.stage.port)):
            self.one_way(report, way, port)
            self.two(report, way, port)

    def folder(self, name):
        return self.stage.folder / name

    def fresh(self, database, template="beginning"):
        self.stage.drop_database(database)
        self.stage.make_database(database, template)

    def one_way(self, report, way, port):
        database = self.database(way)
        self.fresh(database)
        with self.at_work(report, way, port, database, database) as (tool, application):
            for number, step in enumerate(tool.steps, 1):
                self.measure(report, way, step, application, tool, f"up {number}")
            self.note_outcome(report, way, "one by one", database, tool)
            if tool.has_down:
                self.measure(report, way, DOWN, application, tool, "down")
                self.note_outcome(report, way, DOWN, database, tool)
        if not tool.has_down:
            self.fresh(database)
        # In another folder, where no migration has been seen yet.
        with self.at_work(report, way, port, database, f"{database}_again") as (tool, application):
            apart = sum(step in IN_PLACE for step in tool.steps)
            for part, count in ((ALL, len(tool.steps) - apart), (REST, len(tool.steps))):
                self.measure(report, way, part, application, tool, f"up {count}")
            self.note_outcome(report, way, ALL, database, tool)
        self.stage.drop_database(database)

    @contextlib.contextmanager
    def at_work(self, report, way, port, database, folder):
        """The tool's program, and the application beside it."""
        application = Application(self.stage.dsn(database), self.rows)
        with Tool(self.name, self.stage, database, port, self.folder(folder)) as tool, application:
            yield tool, application
        report.errors[way] += application.errors()

    def two(self, report, way, port):
        database = self.database(f"{way}_two")
        self.fresh(database, "beginning_small")
        start = lambda number: Tool(self.name, self.stage, database, port, self.folder(f"{database}_{number}"))
        with start(1) as one, start(2) as other:
            command = f"up {len(one.steps)}"
            errors = two_at_once(one, other, command)
            third = one.tell(command)
            self.stage.check_proxy()
            report.two[way] = errors, third
            if third is None:
                self.note_outcome(report, way, TWO, database, one)
        self.stage.drop_database(database)

    def database(self, way):
        return f"{self.name}_{way}".replace("-", "_")

    def measure(self, report, way, step, application, tool, command):
        print(f"tools: {self.name}, {way}: {step}", file=sys.stderr, flush=True)
        before = self.stage.counters()
        error, seconds, waits = application.measured(lambda: tool.tell(command))
        ahead = self.stage.counters()["ddl_ahead"] - before["ddl_ahead"]
        report.measured[step, way] = Measured(seconds, waits, error, ahead)

    def note_outcome(self, report, way, part, database, tool):
        report.outcomes[part, way] = outcome(self.stage, database, tool.history, min(self.rows, 20_000) if part == TWO else self.rows)
