"""asyncpg: it describes with Flush before it executes, and prepares everything."""
import asyncio
import os

import asyncpg
from stage import failure, in_the_way, say


async def attempt(conn, query, *parameters, by="execute"):
    try:
        say("ok", await getattr(conn, by)(query, *parameters))
    except (asyncpg.PostgresError, asyncio.TimeoutError) as error:
        say(failure(error), query)
    assert not conn.is_in_transaction()


async def statements(conn):
    for by in ("execute", "fetch", "fetchval"):
        await attempt(conn, f"ALTER TABLE big ADD COLUMN {by} int", by=by)
        await attempt(conn, f"ALTER TABLE big ADD COLUMN {by} int", by=by)
        await attempt(conn, f"CREATE INDEX big_{by} ON big ({by})", by=by)
        await attempt(conn, f"CREATE INDEX CONCURRENTLY big_{by}_2 ON big ({by}, n)", by=by)
        await attempt(conn, f"DROP INDEX big_{by}_2", by=by)
        await attempt(conn, f"ALTER TABLE nothing ADD COLUMN {by} int", by=by)
    await attempt(conn, "CREATE UNIQUE INDEX twice ON big (n)", by="fetch")
    await attempt(conn, "ALTER TABLE big ADD COLUMN s1 int; ALTER TABLE big ADD COLUMN s2 int; SELECT 1")
    await attempt(conn, "ALTER TABLE big ADD COLUMN s3 int; ALTER TABLE big ADD COLUMN s2 int")
    statement = await conn.prepare("ALTER TABLE big ALTER COLUMN n SET DEFAULT 1")
    say(statement.get_attributes(), statement.get_parameters())
    for _ in range(3):
        await statement.fetch()
        say(statement.get_statusmsg())


async def prepared(conn):
    statement = await conn.prepare("SELECT * FROM small WHERE id = $1")
    say(tuple(await statement.fetchrow(1)))
    await conn.execute("ALTER TABLE small ADD COLUMN extra int DEFAULT 7")
    try:
        say(tuple(await statement.fetchrow(1)))
    except asyncpg.PostgresError as error:
        say(failure(error))
    # asyncpg itself prepares anew where it cached.
    for _ in range(2):
        say(tuple(await conn.fetchrow("SELECT * FROM small WHERE id = $1", 1)))
        await conn.fetch("ALTER TABLE small ALTER COLUMN extra TYPE bigint")
    await conn.executemany("INSERT INTO small (id, v) VALUES ($1, $2)", [(n, str(n)) for n in range(50, 2000)])
    try:
        await conn.executemany("INSERT INTO small (id, v) VALUES ($1, $2)", [(5000, "a"), (5000, "b")])
    except asyncpg.PostgresError as error:
        say(failure(error))
    say(await conn.fetchval("SELECT count(*) FROM small"))


async def transactions(conn):
    async with conn.transaction():
        await conn.execute("ALTER TABLE big ADD COLUMN t1 int")
        await conn.fetch("CREATE INDEX big_t1 ON big (t1)")
        try:
            async with conn.transaction():
                await conn.fetch("ALTER TABLE big ADD COLUMN t1 int")
        except asyncpg.PostgresError as error:
            say(failure(error))
        total = 0
        async for record in conn.cursor("SELECT id FROM big ORDER BY id", prefetch=1000):
            total += record["id"]
        say(total)
    transaction = conn.transaction(isolation="serializable")
    await transaction.start()
    await conn.execute("ALTER TABLE big ADD COLUMN t2 int")
    await transaction.rollback()
    async with conn.transaction():
        try:
            async with conn.transaction():
                await conn.execute("CREATE INDEX CONCURRENTLY t ON big (id, n)")
        except asyncpg.PostgresError as error:
            say(failure(error))


async def copies(conn):
    await conn.execute("CREATE TABLE copied (id int, v text)")
    say(await conn.copy_records_to_table("copied", records=[(n, "y" * 50) for n in range(20000)]))
    await conn.fetch("ALTER TABLE copied ADD COLUMN w int")
    with open(os.devnull, "wb") as nowhere:
        say(await conn.copy_from_query("SELECT * FROM copied", output=nowhere))
    try:
        await conn.copy_records_to_table("small", records=[(1, "x", 1)])
    except asyncpg.PostgresError as error:
        say(failure(error))
    await attempt(conn, "ALTER TABLE copied DROP COLUMN w", by="fetch")


async def waits(conn):
    for by in ("execute", "fetch"):
        with in_the_way(0.5):
            await attempt(conn, f"ALTER TABLE big ADD COLUMN w_{by} int", by=by)
        await conn.execute("SET lock_timeout = '150ms'")
        with in_the_way(0, forever=True):
            await attempt(conn, "ALTER TABLE big ADD COLUMN w int", by=by)
        await conn.execute("RESET lock_timeout")
        with in_the_way(0, forever=True):
            try:
                await getattr(conn, by)("ALTER TABLE big ADD COLUMN w int", timeout=0.5)
            except asyncio.TimeoutError as error:
                say(type(error).__name__)
            # Cancelled before the way is free: asyncpg's next statement waits for that.
            say(await conn.fetchval("SELECT 4"))
        with in_the_way(0, forever=True):
            task = asyncio.create_task(getattr(conn, by)("ALTER TABLE big ADD COLUMN w int"))
            await asyncio.sleep(0.4)
            task.cancel()
            try:
                await task
            except asyncio.CancelledError as error:
                say(type(error).__name__)
            say(await conn.fetchval("SELECT 5"))
    await attempt(conn, "ALTER TABLE big ADD COLUMN w int")


async def listeners(conn):
    heard = asyncio.Queue()
    await conn.add_listener("news", lambda *words: heard.put_nowait(words[3]))
    other = await asyncpg.connect()
    await other.execute("CREATE TABLE news (id int)")
    await other.execute("NOTIFY news, 'hello'")
    say(await asyncio.wait_for(heard.get(), 5))
    with in_the_way(0.6):
        task = asyncio.create_task(conn.fetch("ALTER TABLE big ADD COLUMN heard int"))
        await asyncio.sleep(0.2)
        await other.execute("NOTIFY news, 'meanwhile'")
        await task
    say(await asyncio.wait_for(heard.get(), 5))
    await other.close()


async def pools():
    async with asyncpg.create_pool(min_size=4, max_size=4) as pool:
        await asyncio.gather(*(pool.execute(f"ALTER TABLE big ADD COLUMN pool{n} int") for n in range(8)))
        await asyncio.gather(*(pool.fetch(f"ALTER TABLE big DROP COLUMN pool{n}") for n in range(8)))


async def main():
    conn = await asyncpg.connect()
    for part in (statements, prepared, transactions, copies, waits, listeners):
        say("#", part.__name__)
        await part(conn)
    await conn.close()
    await pools()


asyncio.run(main())
