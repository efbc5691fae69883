"""Diesel's command, with libpq. Each file is one string inside a transaction."""

import os
import pathlib

from serve import STEPS, URL, program, serve

DIESEL = pathlib.Path(os.environ["TOOLS"]).parent / "bin" / "diesel"
FOLDER = pathlib.Path("migrations")
FOLDER.mkdir()
pathlib.Path("diesel.toml").write_text("")


def diesel(command, *options):
    program(DIESEL, "migration", command, "--migration-dir", FOLDER, "--database-url", URL, *options)


def up(count):
    for number, (step, sql) in enumerate(list(STEPS.items())[:count], 1):
        folder = FOLDER / f"{number:014}_{step}"
        folder.mkdir(exist_ok=True)
        for way in ("up", "down"):
            (folder / f"{way}.sql").write_text(";\n".join(sql[way]) + ";\n")
    diesel("run")


serve(STEPS, "SELECT version FROM __diesel_schema_migrations ORDER BY version", up, lambda: diesel("revert", "--all"))
