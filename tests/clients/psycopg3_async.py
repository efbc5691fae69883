"""psycopg 3's asynchronous side: tasks, pipelines, cancellation of a task, notifications."""
import asyncio

import psycopg
from stage import failure, in_the_way, say


async def main():
    conn = await psycopg.AsyncConnection.connect(autocommit=True)
    async with conn:
        await conn.execute("ALTER TABLE big ADD COLUMN a int")
        cursor = await conn.execute("CREATE INDEX big_n ON big (n)")
        say(cursor.statusmessage)
        async with conn.pipeline():
            one = await conn.execute("SELECT 1")
            await conn.execute("ALTER TABLE big ADD COLUMN b int")
            two = await conn.execute("SELECT count(b) FROM big")
            say(await one.fetchone(), await two.fetchone())
        # A task that is cancelled while its DDL waits; the connection goes on.
        with in_the_way(0, forever=True):
            task = asyncio.create_task(conn.execute("ALTER TABLE big ADD COLUMN c int"))
            try:
                await asyncio.wait_for(task, 0.5)
            except (asyncio.TimeoutError, asyncio.CancelledError) as error:
                say(type(error).__name__)
        cursor = await conn.execute("SELECT 3")
        say(await cursor.fetchone(), conn.info.transaction_status.name)
        try:
            async with conn.transaction():
                await conn.execute("ALTER TABLE big ADD COLUMN d int")
                await conn.execute("ALTER TABLE big ADD COLUMN a int")
        except psycopg.Error as error:
            say(failure(error))
        async with conn.cursor().copy("COPY small FROM STDIN") as copy:
            for n in range(100, 200):
                await copy.write_row((n, str(n)))
        # Several connections change one table at once: they take turns.
        others = [await psycopg.AsyncConnection.connect(autocommit=True) for _ in range(4)]
        await asyncio.gather(*(c.execute(f"ALTER TABLE big ADD COLUMN o{n} int") for n, c in enumerate(others)))
        await asyncio.gather(*(c.execute(f"ALTER TABLE big DROP COLUMN o{n}") for n, c in enumerate(others)))
        await asyncio.gather(*(c.close() for c in others))
        await conn.execute("DROP INDEX big_n")
        cursor = await conn.execute("SELECT count(*) FROM small")
        say(await cursor.fetchone())


asyncio.run(main())
