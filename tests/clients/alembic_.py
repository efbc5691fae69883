"""Alembic with SQLAlchemy: the usual migrations up and down, with indexes built outside the transaction too."""
import asyncio
import os
import tempfile
import textwrap
from pathlib import Path

import alembic.command
import alembic.config
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine
from stage import failure, in_the_way, say

DRIVER = os.environ["DRIVER"]
URL = "postgresql+{}://{PGUSER}@{PGHOST}:{PGPORT}/{PGDATABASE}".format(DRIVER, **os.environ)

ENV = """
import asyncio
from alembic import context
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import create_async_engine

url = context.config.get_main_option("sqlalchemy.url")

def migrate(connection):
    context.configure(connection=connection, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()

async def migrate_async():
    engine = create_async_engine(url)
    async with engine.connect() as connection:
        await connection.run_sync(migrate)
    await engine.dispose()

if "asyncpg" in url:
    asyncio.run(migrate_async())
else:
    engine = create_engine(url)
    with engine.connect() as connection:
        migrate(connection)
    engine.dispose()
"""

MIGRATIONS = [
    """
def upgrade():
    op.create_table("author", sa.Column("id", sa.Integer, primary_key=True), sa.Column("name", sa.String(50)))
    op.add_column("big", sa.Column("author_id", sa.Integer))
    op.create_foreign_key("big_author", "big", "author", ["author_id"], ["id"])
    op.create_index("big_author_id", "big", ["author_id"])

def downgrade():
    op.drop_index("big_author_id")
    op.drop_constraint("big_author", "big")
    op.drop_column("big", "author_id")
    op.drop_table("author")
""",
    """
def upgrade():
    with op.get_context().autocommit_block():
        op.create_index("big_n", "big", ["n"], postgresql_concurrently=True)
        op.create_index("big_v", "big", [sa.text("lower(v)")], if_not_exists=True)

def downgrade():
    with op.get_context().autocommit_block():
        op.drop_index("big_v", if_exists=True)
        op.drop_index("big_n", postgresql_concurrently=True)
""",
    """
def upgrade():
    op.alter_column("big", "n", nullable=False, server_default="5")
    op.alter_column("small", "v", type_=sa.String(200), new_column_name="w")
    op.create_unique_constraint("small_w", "small", ["w"])
    op.create_check_constraint("big_positive", "big", "id > 0")
    op.execute("CREATE TYPE mood AS ENUM ('sad', 'ok')")
    op.add_column("small", sa.Column("mood", sa.Enum("sad", "ok", name="mood", create_type=False), server_default="ok"))
    op.execute("UPDATE small SET mood = 'sad' WHERE id = 1")
    op.rename_table("small", "tiny")

def downgrade():
    op.rename_table("tiny", "small")
    op.drop_column("small", "mood")
    op.execute("DROP TYPE mood")
    op.drop_constraint("big_positive", "big")
    op.drop_constraint("small_w", "small")
    op.alter_column("small", "w", type_=sa.Text, new_column_name="v")
    op.alter_column("big", "n", nullable=True, server_default=None)
""",
    """
def upgrade():
    op.add_column("big", sa.Column("fails", sa.Integer))
    op.create_index("fails", "big", ["n"], unique=True)
""",
]

with tempfile.TemporaryDirectory() as folder:
    versions = Path(folder, "versions")
    versions.mkdir()
    Path(folder, "env.py").write_text(ENV)
    for number, body in enumerate(MIGRATIONS, 1):
        before = repr(str(number - 1)) if number > 1 else None
        head = f"from alembic import op\nimport sqlalchemy as sa\nrevision = '{number}'\ndown_revision = {before}\n"
        Path(versions, f"{number}.py").write_text(head + textwrap.dedent(body))
    config = alembic.config.Config()
    config.set_main_option("script_location", folder)
    config.set_main_option("path_separator", "os")
    config.set_main_option("sqlalchemy.url", URL)
    with in_the_way(0.5):
        alembic.command.upgrade(config, "1")
    alembic.command.upgrade(config, "3")
    alembic.command.downgrade(config, "base")
    alembic.command.upgrade(config, "3")
    try:
        alembic.command.upgrade(config, "4")
    except sa.exc.DBAPIError as error:
        say(type(error).__name__, failure(error.orig))


def schema(connection):
    """What SQLAlchemy's inspector sees, as autogenerate would."""
    inspector = sa.inspect(connection)
    for table in sorted(inspector.get_table_names()):
        say(table, [(c["name"], str(c["type"]), c["nullable"], c["default"]) for c in inspector.get_columns(table)])
        say(sorted(str(index) for index in inspector.get_indexes(table)), inspector.get_foreign_keys(table))


if DRIVER == "asyncpg":

    async def reflect():
        engine = create_async_engine(URL)
        async with engine.connect() as connection:
            await connection.run_sync(schema)
        await engine.dispose()

    asyncio.run(reflect())
else:
    engine = sa.create_engine(URL)
    with engine.connect() as connection:
        schema(connection)
    metadata = sa.MetaData()
    metadata.reflect(engine, only=["author", "big"])
    metadata.drop_all(engine)
    engine.dispose()
