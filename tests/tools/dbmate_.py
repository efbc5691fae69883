"""dbmate. Each file is one string inside BEGIN and COMMIT."""

import os
import pathlib

from serve import STEPS, URL, program, serve

FOLDER = pathlib.Path("db/migrations")
FOLDER.mkdir(parents=True)
DBMATE = pathlib.Path(os.environ["TOOLS"], ".bin", "dbmate")


def dbmate(command):
    program(DBMATE, "--no-dump-schema", "--url", URL, command)


def up(count):
    for number, (step, sql) in enumerate(list(STEPS.items())[:count], 1):
        text = "-- migrate:up\n{};\n\n-- migrate:down\n{};\n".format(";\n".join(sql["up"]), ";\n".join(sql["down"]))
        (FOLDER / f"2026010100{number:04}_{step}.sql").write_text(text)
    dbmate("migrate")


def down():
    """Its rollback takes back one migration."""
    for _ in STEPS:
        dbmate("rollback")


serve(STEPS, "SELECT version FROM schema_migrations ORDER BY version", up, down)
