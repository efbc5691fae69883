"""psycopg2: everything by the simple protocol; autocommit, transactions, COPY, large objects, notifications."""
import io
import select
import threading

import psycopg2
from stage import failure, in_the_way, say

conn = psycopg2.connect("")
cursor = conn.cursor()


def attempt(query):
    try:
        cursor.execute(query)
        say("ok", cursor.statusmessage)
    except psycopg2.Error as error:
        say(failure(error), query)


# Each statement is in a transaction that psycopg2 opened.
attempt("ALTER TABLE big ADD COLUMN a int")
attempt("CREATE INDEX big_n ON big (n)")
conn.commit()
attempt("ALTER TABLE big ADD COLUMN a int")
attempt("SELECT 1")
conn.rollback()
attempt("CREATE INDEX CONCURRENTLY big_v ON big (v)")
conn.rollback()
conn.autocommit = True
attempt("CREATE INDEX CONCURRENTLY big_v ON big (v)")
attempt("CREATE INDEX big_an ON big (a, n)")
attempt("DROP INDEX big_v; DROP INDEX big_an")
attempt("SET lock_timeout = '200ms'")
with in_the_way(0, forever=True):
    attempt("ALTER TABLE big ADD COLUMN b int")
attempt("RESET lock_timeout")
with in_the_way(0, forever=True):
    threading.Timer(0.4, conn.cancel).start()
    attempt("ALTER TABLE big ADD COLUMN b int")
with in_the_way(0.5):
    attempt("ALTER TABLE big ADD COLUMN b int")
cursor.copy_expert("COPY small FROM STDIN", io.StringIO("".join(f"{n}\tx\n" for n in range(1000, 3000))))
out = io.StringIO()
cursor.copy_expert("COPY small TO STDOUT", out)
say(len(out.getvalue()))
attempt("LISTEN news")
attempt("NOTIFY news, 'hello'")
if not conn.notifies:
    select.select([conn], [], [], 5)
    conn.poll()
say([n.payload for n in conn.notifies])
conn.autocommit = False
large = conn.lobject(0, "wb")
large.write(b"x" * 300000)
oid = large.oid
large.close()
attempt("ALTER TABLE big ADD COLUMN c int")
conn.commit()
say(len(conn.lobject(oid, "rb").read()))
conn.rollback()
with conn, conn.cursor("named") as named:
    named.execute("SELECT id FROM big ORDER BY id")
    say(sum(row[0] for row in named))
conn.close()
