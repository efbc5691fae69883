"""Alembic with SQLAlchemy and psycopg2. Its default is one transaction over all pending migrations."""

import contextlib
import os
import pathlib
import sys
import textwrap

import alembic.command
import alembic.config
from serve import serve

UPS = {
    "nullable_column": ['op.add_column("orders", sa.Column("comment", sa.Text))'],
    "constant_default": ['op.add_column("orders", sa.Column("priority", sa.Integer, nullable=False, server_default="0"))'],
    "volatile_default": [
        'op.add_column("baskets", sa.Column("token", sa.Uuid, nullable=False, server_default=sa.text("gen_random_uuid()")))'
    ],
    "index": ['op.create_index("orders_email", "orders", ["email"])'],
    "unique": ['op.create_unique_constraint("orders_number", "orders", ["number"])'],
    "foreign_key": ['op.create_foreign_key("orders_shop", "orders", "shops", ["shop_id"], ["id"])'],
    "not_null": ['op.alter_column("orders", "email", nullable=False)'],
    "check": ['op.create_check_constraint("orders_amount", "orders", "amount >= 0")'],
    "rename_column": ['op.alter_column("orders", "note", new_column_name="remark")'],
    "drop_column": ['op.drop_column("orders", "old_note")'],
    "column_index_key": [
        'op.add_column("orders", sa.Column("region_id", sa.BigInteger))',
        'op.create_index("orders_region", "orders", ["region_id", "email"])',
        'op.create_foreign_key("orders_region", "orders", "regions", ["region_id"], ["id"])',
    ],
    "table_and_orders": [
        'op.create_table("refunds", sa.Column("id", sa.BigInteger, primary_key=True),',
        '    sa.Column("order_id", sa.BigInteger, sa.ForeignKey("orders.id"), nullable=False))',
        'op.create_index("refunds_order", "refunds", ["order_id"])',
        'op.add_column("orders", sa.Column("refunded", sa.Numeric(12, 2)))',
        'op.create_check_constraint("orders_refunded", "orders", "refunded >= 0")',
        'op.create_index("orders_created", "orders", ["email", "created_at"])',
    ],
    "column_and_index": [
        'op.add_column("baskets", sa.Column("tracking", sa.Uuid, nullable=False, server_default=sa.text("gen_random_uuid()")))',
        'op.create_index("baskets_tracking", "baskets", ["tracking"])',
    ],
    "enum": [
        'sa.Enum("web", "phone", name="order_kind").create(op.get_bind())',
        'kind = postgresql.ENUM("web", "phone", name="order_kind", create_type=False)',
        'op.add_column("orders", sa.Column("kind", kind, nullable=False, server_default="web"))',
    ],
    "filled_column": [
        'op.add_column("baskets", sa.Column("label", sa.Text, server_default=""))',
        """op.execute("UPDATE baskets SET label = 'basket ' || id")""",
        'op.alter_column("baskets", "label", nullable=False)',
    ],
    "type": ['op.alter_column("baskets", "pieces", type_=sa.BigInteger)'],
}
DOWNS = {
    "nullable_column": ['op.drop_column("orders", "comment")'],
    "constant_default": ['op.drop_column("orders", "priority")'],
    "volatile_default": ['op.drop_column("baskets", "token")'],
    "index": ['op.drop_index("orders_email")'],
    "unique": ['op.drop_constraint("orders_number", "orders")'],
    "foreign_key": ['op.drop_constraint("orders_shop", "orders")'],
    "not_null": ['op.alter_column("orders", "email", nullable=True)'],
    "check": ['op.drop_constraint("orders_amount", "orders")'],
    "rename_column": ['op.alter_column("orders", "remark", new_column_name="note")'],
    "drop_column": ['op.add_column("orders", sa.Column("old_note", sa.Text))'],
    "column_index_key": [
        'op.drop_constraint("orders_region", "orders")',
        'op.drop_index("orders_region")',
        'op.drop_column("orders", "region_id")',
    ],
    "table_and_orders": [
        'op.drop_index("orders_created")',
        'op.drop_constraint("orders_refunded", "orders")',
        'op.drop_column("orders", "refunded")',
        'op.drop_table("refunds")',
    ],
    "column_and_index": ['op.drop_index("baskets_tracking")', 'op.drop_column("baskets", "tracking")'],
    "enum": ['op.drop_column("orders", "kind")', 'sa.Enum(name="order_kind").drop(op.get_bind())'],
    "filled_column": ['op.drop_column("baskets", "label")'],
    "type": ['op.alter_column("baskets", "pieces", type_=sa.Integer)'],
}
MIGRATION = """
import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = {revision!r}
down_revision = {before!r}

def upgrade():
{up}

def downgrade():
{down}
"""

config = alembic.config.Config("alembic.ini", stdout=sys.stderr)
with contextlib.redirect_stdout(sys.stderr):
    # The tool's own template, as a project begins with.
    alembic.command.init(config, "migrations")
config = alembic.config.Config("alembic.ini", stdout=sys.stderr)
config.set_main_option("sqlalchemy.url", "postgresql+psycopg2://{PGUSER}@{PGHOST}:{PGPORT}/{PGDATABASE}".format(**os.environ))


def up(count):
    before = None
    for step in list(UPS)[:count]:
        indented = {way: textwrap.indent("\n".join(lines[step]), "    ") for way, lines in (("up", UPS), ("down", DOWNS))}
        text = MIGRATION.format(revision=step, before=before, **indented)
        pathlib.Path(f"migrations/versions/{step}.py").write_text(text)
        before = step
    alembic.command.upgrade(config, "head")


serve(UPS, "SELECT version_num FROM alembic_version", up, lambda: alembic.command.downgrade(config, "base"))
