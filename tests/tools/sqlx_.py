"""sqlx's command. Each file is one string inside a transaction. The command takes no lock, as the library does."""

import os
import pathlib

from serve import STEPS, URL, program, serve

SQLX = pathlib.Path(os.environ["TOOLS"]).parent / "bin" / "sqlx"
FOLDER = pathlib.Path("migrations")
FOLDER.mkdir()


def sqlx(command, *options):
    program(SQLX, "migrate", command, "--source", FOLDER, "--database-url", URL, *options)


def up(count):
    for number, (step, sql) in enumerate(list(STEPS.items())[:count], 1):
        for way in ("up", "down"):
            (FOLDER / f"{number:04}_{step}.{way}.sql").write_text(";\n".join(sql[way]) + ";\n")
    sqlx("run")


HISTORY = "SELECT version, description, success, encode(checksum, 'hex') FROM _sqlx_migrations ORDER BY version"
serve(STEPS, HISTORY, up, lambda: sqlx("revert", "--target-version", "0"))
