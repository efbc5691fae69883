"""psycopg 3: blocking, pipelines, COPY, cursors, notifications, cancels, prepared statements, encodings."""
import threading
import time

import psycopg
from psycopg import sql
from stage import failure, in_the_way, say


def connect(**options):
    return psycopg.connect(**options)


def attempt(conn, query, parameters=None):
    try:
        conn.execute(query, parameters)
        say("ok", query)
    except psycopg.Error as error:
        say(failure(error), query)


def autocommit():
    with connect(autocommit=True) as conn:
        for query in [
            "ALTER TABLE big ADD COLUMN a int",
            "ALTER TABLE big ADD COLUMN a int",
            "ALTER TABLE big ADD COLUMN IF NOT EXISTS a int",
            "CREATE INDEX big_n ON big (n)",
            "CREATE INDEX big_n ON big (n)",
            "CREATE INDEX IF NOT EXISTS big_n ON big (n)",
            "CREATE INDEX CONCURRENTLY big_v ON big (v)",
            "CREATE UNIQUE INDEX big_twice ON big (n)",
            "DROP INDEX big_v",
            "DROP INDEX CONCURRENTLY big_n",
            "DROP INDEX nothing",
            "ALTER TABLE nothing ADD COLUMN a int",
            "ALTER TABLE big ALTER COLUMN n SET DEFAULT 1",
            "ALTER TABLE big ADD CHECK (n > 5)",
            "CREATE TABLE child (id int REFERENCES big)",
            "DROP TABLE big",
            "DROP TABLE child",
        ]:
            attempt(conn, query)
            assert conn.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        cursor = conn.execute("ALTER TABLE big RENAME COLUMN a TO b")
        say(cursor.statusmessage, cursor.rowcount, cursor.description)
        # A string of several, as psycopg sends without parameters.
        cursor = conn.execute("ALTER TABLE big ADD COLUMN c int; SELECT 1 AS one; CREATE TABLE x ()")
        say(cursor.statusmessage, cursor.nextset(), cursor.fetchall(), cursor.nextset(), cursor.statusmessage)
        try:
            conn.execute("SELECT 1; ALTER TABLE big ADD COLUMN d int; SELEC 2")
        except psycopg.Error as error:
            say(failure(error), error.diag.statement_position)
        try:
            conn.execute("SELECT 1; ALTER TABLE big ADD COLUMN d nothing; SELECT 2")
        except psycopg.Error as error:
            say(failure(error), error.diag.statement_position, error.diag.message_primary)


def transactions():
    with connect() as conn:
        with conn.transaction():
            conn.execute("ALTER TABLE big ADD COLUMN t1 int")
            conn.execute("CREATE INDEX big_t1 ON big (t1)")
            conn.execute("UPDATE big SET t1 = 1 WHERE id <= %s", [10])
            with conn.transaction():
                conn.execute("ALTER TABLE big ADD COLUMN t2 int")
        try:
            with conn.transaction():
                conn.execute("ALTER TABLE big ADD COLUMN t3 int")
                with conn.transaction():
                    conn.execute("ALTER TABLE big ADD COLUMN t3 int")
        except psycopg.errors.DuplicateColumn as error:
            say(failure(error))
        with conn.transaction():
            try:
                with conn.transaction():
                    conn.execute("CREATE INDEX CONCURRENTLY big_t2 ON big (t2)")
            except psycopg.Error as error:
                say(failure(error))
            conn.execute("ALTER TABLE big ADD COLUMN t4 int")
        say(conn.execute("SELECT count(t1), count(*) FROM big").fetchone())
        conn.rollback()
        conn.execute("ALTER TABLE big DROP COLUMN t4")
        conn.rollback()
        conn.execute("SELECT t4 FROM big LIMIT 0")
        say(conn.info.transaction_status.name)


def prepared():
    with connect(autocommit=True) as conn:
        select = "SELECT * FROM big WHERE id = %s"
        say(len(conn.execute(select, [1], prepare=True).fetchone()))
        attempt(conn, "ALTER TABLE big ADD COLUMN p int")
        try:
            say(len(conn.execute(select, [1], prepare=True).fetchone()))
        except psycopg.Error as error:
            say(failure(error))
        # DDL that is itself prepared, run twice.
        conn.execute("CREATE TABLE again (id int)", prepare=True)
        attempt(conn, "DROP TABLE again")
        conn.execute("CREATE TABLE again (id int)", prepare=True)
        conn.prepare_threshold = 0
        for _ in range(3):
            conn.execute("ALTER TABLE big ALTER COLUMN p SET DEFAULT 3")
            conn.execute("ALTER TABLE big ALTER COLUMN p DROP DEFAULT")
            say(conn.execute("SELECT count(*) FROM big WHERE id < %s", [5]).fetchone())


def pipelines():
    with connect(autocommit=True) as conn:
        with conn.pipeline() as pipeline:
            a = conn.execute("SELECT %s::int", [1])
            conn.execute("ALTER TABLE big ADD COLUMN q1 int")
            b = conn.execute("SELECT count(q1) FROM big")
            pipeline.sync()
            conn.execute("CREATE INDEX big_q1 ON big (q1)")
            c = conn.execute("SELECT %s::text", ["c"])
            say(a.fetchone(), b.fetchone(), c.fetchone())
        try:
            with conn.pipeline() as pipeline:
                conn.execute("ALTER TABLE big ADD COLUMN q2 int")
                conn.execute("SELECT 1 / %s", [0])
                conn.execute("ALTER TABLE big ADD COLUMN q3 int")
        except psycopg.Error as error:
            say(failure(error))
        try:
            with conn.pipeline() as pipeline:
                conn.execute("ALTER TABLE big ADD COLUMN q1 int")
                conn.execute("SELECT %s::int", [1])
        except psycopg.Error as error:
            say(failure(error))
        with conn.pipeline() as pipeline, conn.transaction():
            conn.execute("ALTER TABLE big ADD COLUMN q4 int")
            conn.execute("CREATE TABLE q (id int)")
            with conn.cursor() as cursor:
                cursor.executemany("INSERT INTO q VALUES (%s)", [(n,) for n in range(100)])
        say(conn.execute("SELECT count(*) FROM q").fetchone())
        columns = "SELECT attname FROM pg_attribute WHERE attrelid = 'big'::regclass AND attname ~ '^q' ORDER BY 1"
        say(conn.execute(columns).fetchall())


def copies():
    with connect() as conn:
        conn.execute("CREATE TABLE copied (id int, v text)")
        with conn.cursor().copy("COPY copied FROM STDIN") as copy:
            for n in range(5000):
                copy.write_row((n, "x" * 100))
        conn.execute("ALTER TABLE copied ADD COLUMN w text")
        with conn.cursor().copy("COPY (SELECT id, v, w FROM copied ORDER BY id) TO STDOUT") as copy:
            say(sum(len(block) for block in copy))
        conn.commit()
        try:
            with conn.cursor().copy("COPY copied FROM STDIN") as copy:
                copy.write("not a number\tx\t\\N\n")
        except psycopg.Error as error:
            say(failure(error))
        conn.rollback()
        try:
            with conn.cursor().copy("COPY copied FROM STDIN") as copy:
                raise RuntimeError("changed my mind")
        except RuntimeError as error:
            say(type(error).__name__)
        conn.rollback()
        conn.execute("ALTER TABLE copied DROP COLUMN w")
        conn.commit()


def cursors():
    with connect() as conn:
        with conn.cursor(name="server side") as cursor:
            cursor.itersize = 100
            cursor.execute("SELECT id FROM big ORDER BY id")
            say(sum(row[0] for row in cursor))
        with conn.cursor(name="scrolled", scrollable=True, withhold=True) as cursor:
            cursor.execute("SELECT id FROM big ORDER BY id LIMIT 10")
            conn.commit()
            conn.execute("CREATE INDEX big_lower ON big (lower(v))")
            conn.commit()
            cursor.scroll(5)
            say(cursor.fetchone())
        # An open cursor is in the way of its own session's DDL.
        with conn.cursor(name="open") as cursor:
            cursor.execute("SELECT id FROM big")
            cursor.fetchone()
            try:
                conn.execute("ALTER TABLE big ADD COLUMN k int")
            except psycopg.Error as error:
                say(failure(error))
        conn.rollback()
        with conn.cursor(binary=True) as cursor:
            say(cursor.execute("SELECT id, v FROM big WHERE id = %b", [7]).fetchone())


def notifies():
    with connect(autocommit=True) as listener, connect(autocommit=True) as talker:
        listener.execute("LISTEN news")
        talker.execute("ALTER TABLE big ADD COLUMN l int")
        talker.execute("SELECT pg_notify('news', 'hello')")
        say([n.payload for n in listener.notifies(timeout=5, stop_after=1)])
        # One that comes while DDL of the listener's own waits.
        with in_the_way(0.6):
            threading.Timer(0.2, lambda: talker.execute("NOTIFY news, 'meanwhile'")).start()
            listener.execute("ALTER TABLE big ADD COLUMN l2 int")
        say([n.payload for n in listener.notifies(timeout=5, stop_after=1)])


def waits():
    with connect(autocommit=True) as conn:
        notices = []
        conn.add_notice_handler(lambda diag: notices.append(diag.message_primary))
        with in_the_way(0.6):
            begun = time.monotonic()
            conn.execute("ALTER TABLE big ADD COLUMN w1 int")
            say("waited", 0.3 < time.monotonic() - begun < 5)
        for query, settings in [
            ("ALTER TABLE big ADD COLUMN w2 int", "SET lock_timeout = '150ms'"),
            ("ALTER TABLE big ADD COLUMN w2 int", "SET lock_timeout = 0; SET statement_timeout = '150ms'"),
        ]:
            conn.execute(settings)
            with in_the_way(0, forever=True):
                attempt(conn, query)
            conn.execute("RESET lock_timeout; RESET statement_timeout")
            say(conn.execute("SELECT 1").fetchone(), conn.info.transaction_status.name)
        for cancel in ("cancel", "cancel_safe"):
            with in_the_way(0, forever=True):
                threading.Timer(0.4, getattr(conn, cancel)).start()
                attempt(conn, "ALTER TABLE big ADD COLUMN w3 int")
            say(conn.execute("SELECT 2").fetchone())
        with in_the_way(0, forever=True):
            conn.execute("BEGIN")
            threading.Timer(0.4, conn.cancel).start()
            attempt(conn, "ALTER TABLE big ADD COLUMN w3 int")
            say(conn.info.transaction_status.name)
            conn.execute("ROLLBACK")
        threading.Timer(0.3, conn.cancel).start()
        attempt(conn, "SELECT pg_sleep(10)")
        attempt(conn, "ALTER TABLE big ADD COLUMN w3 int")


def encodings():
    with connect(autocommit=True, client_encoding="latin1") as conn:
        conn.execute('ALTER TABLE big ADD COLUMN "gr\u00f6\u00dfe" text DEFAULT \'caf\u00e9\'')
        conn.execute(sql.SQL("CREATE INDEX {} ON big ({})").format(sql.Identifier("\u00fcber"), sql.Identifier("gr\u00f6\u00dfe")))
        say(ascii(conn.execute("SELECT \"gr\u00f6\u00dfe\" FROM big LIMIT 1").fetchone()))
        attempt(conn, "ALTER TABLE big ADD COLUMN e nothing")
        try:
            conn.execute("ALTER TABLE big ADD COLUMN \"\u00e4\" nothing")
        except psycopg.Error as error:
            say(failure(error), error.diag.statement_position)
        conn.execute("COMMENT ON TABLE big IS 'na\u00efve'")
        conn.execute("SET client_encoding = 'UTF8'")
        say(ascii(conn.execute("SELECT attname FROM pg_attribute WHERE attname ~ '^gr'").fetchone()))
        conn.execute("ALTER TABLE big ADD COLUMN \"\u65e5\u672c\" text")


for part in (autocommit, transactions, prepared, pipelines, copies, cursors, notifies, waits, encodings):
    say("#", part.__name__)
    part()
