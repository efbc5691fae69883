"""The application at work: readers and writers of `orders` and `baskets`, which measure their own longest wait in each step.

Each worker is a thread with a connection of its own. It runs one short transaction after the other, and notes how long each took. A
transaction counts in the step in which it began or ended. The readers of `quiet`, which no migration touches, tell how
slow the machine is meanwhile. Holds: an error of any worker is reported; a worker never tries a transaction again.
"""

import dataclasses
import random
import threading
import time

import psycopg

READS = ["SELECT id, amount, created_at FROM orders WHERE id = %(row)s"] * 3 + ["SELECT id, amount, code FROM baskets WHERE id = %(row)s / 4"]
QUIET = ["SELECT v FROM quiet WHERE id = %(row)s %% 1000"]
WRITES = [
    "UPDATE orders SET amount = amount + 1 WHERE id = %(row)s",
    "UPDATE baskets SET amount = amount + 1 WHERE id = %(row)s / 4",
    """INSERT INTO orders (shop_id, number, email, amount)
        VALUES (1 + %(row)s %% 1000, 'new-' || gen_random_uuid(), 'new@example.org', 1)""",
    "INSERT INTO baskets (amount, code) VALUES (1, 'new')",
]
# The pause after each transaction: some hundred transactions per second, which leaves the server time for the migration.
PAUSE = 0.005


@dataclasses.dataclass
class Waits:
    """The longest wait of one step, in seconds, by kind of worker."""

    readers: float
    writers: float
    quiet: float

    def worst(self):
        return max(self.readers, self.writers)


class Worker(threading.Thread):
    def __init__(self, application, kind, statements):
        super().__init__(daemon=True)
        self.application, self.kind, self.statements = application, kind, statements
        # Begin and end of transactions since the last step.
        self.done = []
        self.rounds = 0
        self.error = None

    def run(self):
        try:
            with psycopg.connect(self.application.dsn, autocommit=True, prepare_threshold=None) as connection:
                self.work(connection)
        except psycopg.Error as error:
            self.error = f"{self.kind}: {type(error).__name__} {error.sqlstate}: {error}"

    def work(self, connection):
        numbers = random.Random(id(self))
        while not self.application.ended.is_set():
            statement = self.statements[self.rounds % len(self.statements)]
            row = numbers.randint(1, self.application.rows)
            began = time.monotonic()
            connection.execute(statement, {"row": row})
            self.done.append((began, time.monotonic()))
            self.rounds += 1
            time.sleep(PAUSE)


class Application:
    """Works from `with` to its end, directly on the server: it also is what does not go through the proxy."""

    def __init__(self, dsn, rows):
        self.dsn, self.rows = dsn, rows
        self.ended = threading.Event()
        kinds = [("readers", READS)] * 2 + [("writers", WRITES)] * 2 + [("quiet", QUIET)]
        self.workers = [Worker(self, kind, statements) for kind, statements in kinds]

    def __enter__(self):
        for worker in self.workers:
            worker.start()
        self.settle()
        return self

    def __exit__(self, *_):
        self.ended.set()
        for worker in self.workers:
            worker.join()

    def settle(self):
        """Until every worker has begun and ended a transaction from now on: what waited before is measured then."""
        before = {worker: worker.rounds for worker in self.workers}
        while any(worker.is_alive() and worker.rounds < before[worker] + 2 for worker in self.workers):
            time.sleep(0.005)

    def measured(self, act):
        """Runs one step; returns what it gave, how long it took, and the waits during it."""
        self.settle()
        began = time.monotonic()
        given = act()
        ended = time.monotonic()
        self.settle()
        longest = dict.fromkeys(("readers", "writers", "quiet"), 0.0)
        for worker in self.workers:
            done, worker.done = worker.done, []
            waits = [end - begin for begin, end in done if end >= began and begin <= ended]
            longest[worker.kind] = max([longest[worker.kind], *waits])
        return given, ended - began, Waits(**longest)

    def errors(self):
        return [worker.error for worker in self.workers if worker.error]
