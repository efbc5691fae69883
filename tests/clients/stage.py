"""What the Python scripts share: a way to print that is the same in every run, and somebody in the way.

PG* in the environment say where the client under test connects; DIRECT_PORT is the server itself.
"""
import contextlib
import os
import threading
import time

import psycopg


def say(*words):
    print(*words, flush=True)


def failure(error):
    """An error of the driver's, as class and SQLSTATE."""
    state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    return f"{type(error).__name__} {state}"


@contextlib.contextmanager
def in_the_way(seconds, table="big", *, forever=False):
    """A transaction that has read `table` and stays open for some seconds, or to the end of the block."""
    blocker = psycopg.connect(port=os.environ["DIRECT_PORT"])
    blocker.execute(f"SELECT FROM {table} LIMIT 1")

    def leave():
        time.sleep(seconds)
        blocker.commit()

    thread = None if forever else threading.Thread(target=leave)
    if thread:
        thread.start()
    try:
        yield
    finally:
        if thread:
            thread.join()
        blocker.close()
