"""A tool's program at work: one process in a folder of its own, which run.py tells what to do.

Owns: the table of tools, and how each program is started. Holds: a program that says nothing for as long as nobody would wait is ended,
and that is an error of the step.
"""

import json
import pathlib
import selectors
import shutil
import subprocess
import time

from staged import ROOT, Failed

HERE = pathlib.Path(__file__).resolve().parent
PYTHON = ROOT / "target" / "venv" / "bin" / "python"
NODE_MODULES = ROOT / "target" / "tools" / "node_modules"
# Name: the program, as a command in front of the file.
TOOLS = {
    "alembic": "alembic_.py",
    "django": "django_.py",
    "knex": "knex.mjs",
    "typeorm": "typeorm.mjs",
    "sequelize": "sequelize.mjs",
    "drizzle": "drizzle.mjs",
    "node-pg-migrate": "node_pg_migrate.mjs",
    "rails": "rails.rb",
    "kysely": "kysely.mjs",
    "yoyo": "yoyo_.py",
    "dbmate": "dbmate_.py",
    "sql-migrate": "sql_migrate.py",
    "sqitch": "sqitch_.py",
    "liquibase": "liquibase_.py",
    "sqlx": "sqlx_.py",
    "diesel": "diesel_.py",
    "refinery": "refinery_.py",
}
COMMANDS = {".py": PYTHON, ".mjs": "node", ".rb": "ruby"}
# No step needs this long, unless something hangs.
PATIENCE = 120


class Tool:
    def __init__(self, name, stage, database, port, folder):
        self.name = name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        script = HERE / TOOLS[name]
        if script.suffix == ".mjs":
            # An import is looked up beside the file that has it.
            for each in HERE.glob("*.mjs"):
                shutil.copy(each, folder)
            (folder / "node_modules").symlink_to(NODE_MODULES)
            script = folder / script.name
        self.log = folder.with_suffix(".log")
        environment = stage.environment() | {
            "PGPORT": str(port), "PGDATABASE": database, "PYTHONDONTWRITEBYTECODE": "1", "STEPS": str(HERE / "steps.json"),
            "PYTHONWARNINGS": "ignore", "TOOLS": str(NODE_MODULES),
        }
        try:
            self.process = subprocess.Popen(
                [str(COMMANDS[script.suffix]), str(script)], cwd=folder, env=environment, text=True, bufsize=1,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log.open("w"),
            )
        except FileNotFoundError as error:
            raise Failed(f"{name}: {error}; scripts/setup.sh tools installs it") from error
        try:
            hello = self.answer()
        except BaseException:
            self.end()
            raise
        self.steps, self.has_down, self.history = hello["steps"], hello["down"], hello["history"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()

    def end(self):
        self.process.stdin.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()

    def answer(self):
        """The next line, which is waited for without a thread."""
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            ready = selector.select(PATIENCE)
        line = self.process.stdout.readline() if ready else ""
        if not line:
            self.process.kill()
            end = "\n".join(self.log.read_text().splitlines()[-15:])
            raise Failed(f"{self.name} {'ended' if ready else 'hangs'}; it had said:\n{end}")
        return json.loads(line)

    def send(self, command):
        print(command, file=self.process.stdin, flush=True)

    def tell(self, command):
        """`None`, or the tool's error."""
        self.send(command)
        said = self.answer()
        return None if said["ok"] else said["error"]


def two_at_once(one, other, command):
    """Both get the command, the second a moment later; returns their errors."""
    one.send(command)
    time.sleep(0.3)
    other.send(command)
    said = [each.answer() for each in (one, other)]
    return [None if each["ok"] else each["error"] for each in said]
