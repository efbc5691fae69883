"""refinery's command. Each file, with its row of the history, is one transaction; it cannot go back."""

import os
import pathlib

from serve import STEPS, program, serve

REFINERY = pathlib.Path(os.environ["TOOLS"]).parent / "bin" / "refinery"
FOLDER = pathlib.Path("migrations")
FOLDER.mkdir()
pathlib.Path("refinery.toml").write_text("""[main]
db_type = "Postgres"
db_host = "{PGHOST}"
db_port = "{PGPORT}"
db_user = "{PGUSER}"
db_name = "{PGDATABASE}"
""".format(**os.environ))


def up(count):
    for number, (step, sql) in enumerate(list(STEPS.items())[:count], 1):
        (FOLDER / f"V{number}__{step}.sql").write_text(";\n".join(sql["up"]) + ";\n")
    program(REFINERY, "migrate", "-c", "refinery.toml", "-p", FOLDER)


serve(STEPS, "SELECT version, name, checksum FROM refinery_schema_history ORDER BY version", up)
