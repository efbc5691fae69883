"""The stage of tests/conformance, with a database to begin in and settings for the proxy.

Owns: how large the tables are, and the server's and the proxy's settings. Holds: server and proxy end with this process.
"""

import collections
import pathlib
import re
import signal
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "conformance"))

from stage import ROOT, START_TIMEOUT, Failed, Stage, free_port, pg_bin, wait_for_port  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent
# The proxy ends with this process, however that ends.
WATCHDOG = 'read -r _; kill "$1" 2>/dev/null'
# As proxy.toml has it.
STALL_BUDGET = 0.2
# Fewer pauses than by default, as a run should end while somebody watches. All else is the default.
SETTINGS = """
[proxy]
listen = ["127.0.0.1:{port}"]
backend = "127.0.0.1:{server_port}"
[backfill]
pause_ratio = 0.2
"""

# A build that has little memory and no helpers takes as long on a small table as one on a large table.
SERVER = {"maintenance_work_mem": "1MB", "max_parallel_maintenance_workers": "0"}
# The size of `orders` is chosen so that this takes a little more than a second. More rows make a run too long, fewer show nothing.
BUILD = "CREATE INDEX trial ON orders (email)"
BUILD_SECONDS, LEAST_ROWS, MOST_ROWS = 1.2, 60_000, 600_000


class ToolStage(Stage):
    """`port` is the proxy's, `server_port` the server's."""

    def __init__(self, pgsluice):
        super().__init__(pgsluice, "plan", SERVER)

    def _start_proxy(self):
        self.port = free_port()
        settings = self.folder / "proxy.toml"
        settings.write_text(SETTINGS.format(port=self.port, server_port=self.server_port))
        log = (self.folder / "proxy.log").open("w")
        self.proxy = subprocess.Popen(
            [self.pgsluice, "run", "--config", settings],
            cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )
        self.proxy_watchdog = subprocess.Popen(
            ["sh", "-c", WATCHDOG, "pgsluice-watchdog", str(self.proxy.pid)], stdin=subprocess.PIPE, start_new_session=True,
        )
        wait_for_port(self.port, self.proxy, "the proxy")

    def __exit__(self, *_):
        if watchdog := getattr(self, "proxy_watchdog", None):
            watchdog.stdin.close()
            watchdog.wait()
        super().__exit__()

    def check_proxy(self):
        """A proxy that has ended is an error of its own, whatever a tool says of it."""
        if (status := self.proxy.poll()) is not None:
            end = "\n".join((self.folder / "proxy.log").read_text().splitlines()[-15:])
            raise Failed(f"the proxy ended with status {status}:\n{end}")

    def counters(self):
        """The proxy's counters, as it logs them when it is asked to."""
        log = self.folder / "proxy.log"
        lines = lambda: [line for line in log.read_text().splitlines(keepends=True) if "counters: " in line and line.endswith("\n")]
        before = len(lines())
        self.proxy.send_signal(signal.SIGUSR1)
        deadline = time.monotonic() + START_TIMEOUT
        while len(found := lines()) == before:
            self.check_proxy()
            if time.monotonic() > deadline:
                raise Failed("the proxy does not log its counters")
            time.sleep(0.005)
        # Those that are zero are left out.
        return collections.Counter({name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", found[-1].split("counters: ", 1)[1])})

    def dsn(self, database):
        return f"host=127.0.0.1 port={self.server_port} user=postgres dbname={database}"

    def choose_rows(self):
        """How many rows this machine builds an index on in the time that a stall should take to be seen."""
        self.make_template("trial", LEAST_ROWS)
        began = time.monotonic()
        self.psql(BUILD, "trial")
        seconds = time.monotonic() - began
        self.drop_database("trial")
        return int(min(MOST_ROWS, LEAST_ROWS * max(1, BUILD_SECONDS / seconds)))

    def make_template(self, name, rows):
        self.psql(f"CREATE DATABASE {name}")
        # The program's `:rows` is no parameter of psql here, as -c does not know them.
        for statement in (HERE / "beginning.sql").read_text().replace(":rows", str(rows)).split(";\n"):
            self.psql(statement, name)

    def make_database(self, name, template):
        self.psql(f"CREATE DATABASE {name} TEMPLATE {template}")

    def drop_database(self, name):
        self.psql(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def pg_dump(self, database):
        command = [pg_bin() / "pg_dump", "--schema-only", "--no-owner", "-d", database]
        done = self.run(command, env={"PGPORT": str(self.server_port)}, capture_output=True, text=True)
        if done.returncode:
            raise Failed(f"pg_dump failed: {done.stderr.strip()}")
        return done.stdout
