"""The console by psycopg 3 (both protocols, binary results, transactions) and by asyncpg."""
import asyncio
import datetime

import asyncpg
import psycopg
from psycopg.rows import dict_row


def by_psycopg():
    with psycopg.connect(autocommit=True, row_factory=dict_row) as conn:
        assert conn.info.dbname == "pgsluice"
        for binary in (False, True):
            with conn.cursor(binary=binary) as cursor:
                rows = cursor.execute("SHOW SESSIONS").fetchall()
                assert isinstance(rows[0]["number"], int), rows
                assert isinstance(rows[0]["since"], datetime.datetime), rows
                assert rows[0]["console"] is True, rows
                assert cursor.execute("SELECT %s::text AS t, 1 AS one", ["ä"], prepare=True).fetchone() == {"t": "ä", "one": 1}
        conn.execute("SET locks.poll = '70ms'")
        assert conn.execute("SHOW locks.poll").fetchone() == {"locks.poll": "70ms"}
        try:
            conn.execute("CREATE TABLE t (id int)")
        except psycopg.errors.FeatureNotSupported as error:
            assert "SHOW HELP" in error.diag.message_hint
        else:
            raise AssertionError("the console has run DDL")
    with psycopg.connect() as conn, conn.pipeline():
        cursors = [conn.execute("SHOW STATE") for _ in range(5)]
        assert all(cursor.fetchall() for cursor in cursors)
    print("psycopg")


async def by_asyncpg():
    conn = await asyncpg.connect()
    assert await conn.fetchval("SELECT 1") == 1
    rows = await conn.fetch("SHOW SESSIONS")
    assert any(row["user"] == "ann" and row["console"] for row in rows), rows
    assert await conn.fetchval("SELECT $1::text", "x") == "x"
    async with conn.transaction():
        assert await conn.fetchval("SHOW locks.poll") == "70ms"
    assert await conn.fetch("SELECT relname::text FROM pg_catalog.pg_class WHERE relname = $1", "t") == []
    await conn.reset()
    await conn.close()
    print("asyncpg")


by_psycopg()
asyncio.run(by_asyncpg())
