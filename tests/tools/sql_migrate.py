"""sql-migrate. Its default is one transaction for each migration, statement by statement."""

import pathlib

from serve import STEPS, URL, program, serve

FOLDER = pathlib.Path("migrations")
FOLDER.mkdir()
pathlib.Path("dbconfig.yml").write_text(f"development:\n  dialect: postgres\n  datasource: {URL}\n  dir: migrations\n")


def up(count):
    for number, (step, sql) in enumerate(list(STEPS.items())[:count], 1):
        text = "-- +migrate Up\n{};\n\n-- +migrate Down\n{};\n".format(";\n".join(sql["up"]), ";\n".join(sql["down"]))
        (FOLDER / f"{number:04}_{step}.sql").write_text(text)
    program("sql-migrate", "up")


serve(STEPS, "SELECT id FROM gorp_migrations ORDER BY id", up, lambda: program("sql-migrate", "down", "-limit=0"))
