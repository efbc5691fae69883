"""Sqitch. Its scripts, made from its templates, have a BEGIN and a COMMIT of their own; psql runs them, and a second connection holds a lock."""

import pathlib

from serve import STEPS, URL, program, serve

TARGET = "db:" + URL.replace("postgres://", "pg://")
SCRIPT = "-- {way} shop:{step} {to} pg\n\nBEGIN;\n\n{sql};\n\nCOMMIT;\n"
AUTHOR = "Test <test@example.org>"
for name, value in (("user.name", "Test"), ("user.email", "test@example.org")):
    program("sqitch", "config", "--user", name, value)
program("sqitch", "init", "shop", "--engine", "pg", "--target", TARGET)


def up(count):
    """Writes the plan as `sqitch add` does, at a fixed time: a change is told by all that the plan says of it."""
    plan = ["%syntax-version=1.0.0", "%project=shop", ""]
    for number, (step, sql) in enumerate(list(STEPS.items())[:count]):
        plan.append(f"{step} 2026-01-01T00:{number:02}:00Z {AUTHOR} # {step}")
        for way, to, folder, statements in (("Deploy", "to", "deploy", sql["up"]), ("Revert", "from", "revert", sql["down"])):
            text = SCRIPT.format(way=way, step=step, to=to, sql=";\n".join(statements))
            pathlib.Path(folder, f"{step}.sql").write_text(text)
    pathlib.Path("sqitch.plan").write_text("\n".join(plan) + "\n")
    program("sqitch", "deploy", "--no-verify")


serve(STEPS, "SELECT change FROM sqitch.changes ORDER BY committed_at", up, lambda: program("sqitch", "revert", "-y"))
