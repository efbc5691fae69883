"""Liquibase with pgjdbc, by the extended protocol. Its default is one transaction for each change set; its lock is a row."""

import os
import pathlib

from serve import STEPS, program, serve

HOME = pathlib.Path(os.environ["TOOLS"], "liquibase", "dist", "liquibase")
CLASSES = ":".join(str(jar) for folder in ("internal/lib", "lib") for jar in (HOME / folder).glob("*.jar"))
URL = "jdbc:postgresql://{PGHOST}:{PGPORT}/{PGDATABASE}?sslmode=disable".format(**os.environ)
CHANGES = pathlib.Path("changes.sql")


def liquibase(*command):
    program(
        "java", "-cp", CLASSES, "liquibase.integration.commandline.LiquibaseCommandLine", "--show-banner=false",
        f"--changelog-file={CHANGES}", f"--url={URL}", f"--username={os.environ['PGUSER']}", "--password=none", *command,
    )


def up(count):
    text = ["--liquibase formatted sql"]
    for step, sql in list(STEPS.items())[:count]:
        text += ["", f"--changeset test:{step}", ";\n".join(sql["up"]) + ";"] + [f"--rollback {statement};" for statement in sql["down"]]
    CHANGES.write_text("\n".join(text) + "\n")
    liquibase("update")


HISTORY = "SELECT id, md5sum, exectype FROM databasechangelog ORDER BY orderexecuted"
serve(STEPS, HISTORY, up, lambda: liquibase("rollback-count", str(len(STEPS))))
