"""A throw-away PostgreSQL, the proxy in front of it, and a folder for both.

Holds: whatever ends this process, the server stops and the folder goes. A watchdog (a tiny shell) holds the reading
end of a pipe whose writing end is ours; on end of file it stops the server and removes the folder. PostgreSQL does not
run as root, so for root everything but the proxy runs as another user.
"""

import os
import pathlib
import pwd
import shutil
import socket
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
# A start takes 0.2 s on a fast machine; a loaded one is given this long.
START_TIMEOUT = 60

WATCHDOG = """
read -r _
kill -QUIT "$1" 2>/dev/null
n=0
while kill -0 "$1" 2>/dev/null && [ $n -lt 100 ]; do sleep 0.1; n=$((n + 1)); done
rm -rf -- "$2"
"""


class Failed(Exception):
    """What a person is told when a suite cannot run at all."""


def pg_bin():
    """The folder of PostgreSQL's programs: PGSLUICE_PG_BIN, PATH, else the distribution's newest."""
    if chosen := os.environ.get("PGSLUICE_PG_BIN"):
        return pathlib.Path(chosen)
    if found := shutil.which("postgres"):
        return pathlib.Path(found).resolve().parent
    folders = pathlib.Path("/usr/lib/postgresql").glob("*/bin/postgres")
    newest = max(folders, key=lambda path: int(path.parts[-3]), default=None)
    if newest is None:
        raise Failed("no PostgreSQL server is installed; scripts/setup.sh server installs one")
    return newest.parent


def pg_version():
    """Of the server's programs, e.g. 15.18."""
    said = subprocess.run([pg_bin() / "postgres", "--version"], check=True, capture_output=True, text=True).stdout
    return said.split("(PostgreSQL)")[1].split()[0]


def as_server_user():
    """Arguments of subprocess that make a program run as a user PostgreSQL accepts."""
    if os.getuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    raise Failed("PostgreSQL does not run as root; run as another user, or create the user postgres")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for_port(port, process, what):
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise Failed(f"{what} did not start")


class Stage:
    """A server, and with a `mode` the proxy before it. Tests connect to `port`; `server_port` is behind the proxy."""

    def __init__(self, pgsluice, mode=None, settings=None, port=None, initdb=(), hba=None):
        self.mode = mode
        self.pgsluice = pgsluice
        self.settings = settings or {}
        self.wanted_port = port
        self.initdb_options = initdb
        self.hba = hba
        self.proxy = None

    def __enter__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="pgsluice-conformance-"))
        self.run_as = as_server_user()
        if self.run_as:
            os.chown(self.folder, self.run_as["user"], self.run_as["group"])
        self.folder.chmod(0o755)
        try:
            self._start_server()
            if self.mode:
                self._start_proxy()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if self.proxy:
            self.proxy.kill()
            self.proxy.wait()
        if watchdog := getattr(self, "watchdog", None):
            watchdog.stdin.close()
            # The watchdog looks whether the process is there, and it is until it is waited for.
            self.server.wait()
            watchdog.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, command, **options):
        """A program in the folder, as the server's user, with an environment that cannot lead it astray."""
        options.setdefault("cwd", self.folder)
        options["env"] = self.environment() | options.get("env", {})
        return subprocess.run([str(part) for part in command], **self.run_as, **options)

    def environment(self):
        keep = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
        return keep | {"PGHOST": "127.0.0.1", "PGPORT": str(self.port), "PGUSER": "postgres", "HOME": str(self.folder)}

    def psql(self, sql, database="postgres"):
        """Runs SQL on the server itself, not through the proxy."""
        command = [pg_bin() / "psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-d", database, "-c", sql]
        done = self.run(command, env={"PGPORT": str(self.server_port)}, capture_output=True, text=True)
        if done.returncode:
            raise Failed(f"psql failed: {done.stderr.strip()}")
        return done.stdout

    def _start_server(self):
        data = self.folder / "data"
        locale = ["--locale=C", "--encoding=UTF8", "--auth=trust", "--username=postgres", "--no-sync"]
        self.port = self.server_port = free_port()
        self.run([pg_bin() / "initdb", *locale, *self.initdb_options, "--pgdata", data], check=True, capture_output=True)
        lines = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(self.folder),
            # It is thrown away: a crash need not be survived.
            "fsync": "off",
            "synchronous_commit": "on",
            "full_page_writes": "off",
        } | self.settings
        with (data / "postgresql.conf").open("a") as conf:
            conf.writelines(f"{name} = '{value}'\n" for name, value in lines.items())
        if self.hba:
            (data / "pg_hba.conf").write_text(self.hba)
        if self.wanted_port and not self.mode:
            self.port = self.server_port = self.wanted_port
        log = (self.folder / "server.log").open("w")
        command = [pg_bin() / "postgres", "-D", data, "-p", self.server_port]
        self.server = subprocess.Popen(
            [str(part) for part in command],
            cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment(),
            start_new_session=True, **self.run_as,
        )
        self.watchdog = subprocess.Popen(
            ["sh", "-c", WATCHDOG, "pgsluice-watchdog", str(self.server.pid), str(self.folder)],
            stdin=subprocess.PIPE, start_new_session=True,
        )
        wait_for_port(self.server_port, self.server, "PostgreSQL")
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            pid_file = (data / "postmaster.pid").read_text().splitlines()
            if len(pid_file) > 7 and pid_file[7].strip() == "ready":
                return
            time.sleep(0.02)
        raise Failed("PostgreSQL did not get ready")

    def _start_proxy(self):
        self.port = self.wanted_port or free_port()
        log = (self.folder / "proxy.log").open("w")
        self.proxy = subprocess.Popen(
            [
                self.pgsluice, "run", "--listen", f"127.0.0.1:{self.port}",
                "--backend", f"127.0.0.1:{self.server_port}", "--ddl", self.mode,
            ],
            cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )
        wait_for_port(self.port, self.proxy, "the proxy")
