"""One login by each driver, and DDL; what fails is told by class and SQLSTATE."""
import asyncio

import asyncpg
import psycopg
from stage import failure, say


async def by_asyncpg():
    conn = await asyncpg.connect()
    await conn.execute("ALTER TABLE t ADD COLUMN a int")
    say(await conn.fetchval("SELECT current_user"))
    await conn.close()


def by_psycopg():
    with psycopg.connect(autocommit=True) as conn:
        conn.execute("ALTER TABLE t ADD COLUMN p int")
        say(conn.execute("SELECT current_user").fetchone()[0])


failed = False
for login in (lambda: asyncio.run(by_asyncpg()), by_psycopg):
    try:
        login()
    except (asyncpg.PostgresError, psycopg.Error) as error:
        failed = True
        say(failure(error))
raise SystemExit(failed)
