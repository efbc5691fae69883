"""yoyo with psycopg 3. Its default is one transaction for each migration; its lock is a row that another connection writes."""

import pathlib
import sys

from serve import STEPS, URL, program, serve

FOLDER = pathlib.Path("migrations")
FOLDER.mkdir()
# Its URLs name the driver.
DATABASE = URL.replace("postgres://", "postgresql+psycopg://")


def yoyo(command, *options):
    program(
        pathlib.Path(sys.executable), "-m", "yoyo", command, "--batch", "--no-config-file", *options, "--database", DATABASE, FOLDER
    )


def up(count):
    before = None
    for number, (step, sql) in enumerate(list(STEPS.items())[:count], 1):
        name = f"{number:04}.{step}"
        head = f"-- depends: {before}\n" if before else ""
        (FOLDER / f"{name}.sql").write_text(head + ";\n".join(sql["up"]) + ";\n")
        (FOLDER / f"{name}.rollback.sql").write_text(";\n".join(sql["down"]) + ";\n")
        before = name
    yoyo("apply")


serve(STEPS, "SELECT migration_id FROM _yoyo_migration ORDER BY migration_id", up, lambda: yoyo("rollback", "--all"))
