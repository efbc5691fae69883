"""The side of a tool's program that talks to run.py, for tools in Python and for those that are programs of their own.

One line in, one line out. First a program says which steps it has, whether it migrates down, and the question for its history
table. Then it obeys: `up K` makes the first K migrations visible and runs the tool's usual command; `down` goes back to the
beginning. Holds: what the tool prints goes to standard error, never among the answers.
"""

import json
import os
import pathlib
import subprocess
import sys
import traceback

HERE = pathlib.Path(__file__).resolve().parent
# The steps in their order, each with its SQL for the tools whose migrations are SQL.
STEPS = json.loads((HERE / "steps.json").read_text())
URL = "postgres://{PGUSER}@{PGHOST}:{PGPORT}/{PGDATABASE}?sslmode=disable".format(**os.environ)


def failure(error):
    cause = getattr(error, "__cause__", None) or error
    state = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None) or ""
    return f"{type(error).__name__} {state} {error}".strip()


def program(*command, **options):
    """Runs the tool's own program; its output is the error if it fails."""
    done = subprocess.run([str(part) for part in command], stdin=subprocess.DEVNULL, capture_output=True, text=True, **options)
    said = f"{done.stdout}\n{done.stderr}".strip()
    print(said, file=sys.stderr)
    if done.returncode:
        raise RuntimeError(f"status {done.returncode}: " + " | ".join(line for line in said.splitlines() if line.strip()))


def serve(steps, history, up, down=None):
    """`steps`: the names of the migrations, in order. `history`: SQL without times and numbers that differ from run to run."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(answer):
        print(json.dumps(answer), file=answers, flush=True)

    say({"steps": list(steps), "down": down is not None, "history": history})
    for line in sys.stdin:
        try:
            match line.split():
                case ["up", count]:
                    up(int(count))
                case ["down"]:
                    down()
            say({"ok": True})
        except Exception as error:
            traceback.print_exc()
            say({"ok": False, "error": failure(error)})
