"""Django with psycopg 3. Its default is one transaction for each migration, with foreign keys and some indexes at its end."""

import importlib
import os
import pathlib
import sys

import django
from django.conf import settings
from serve import serve

# The state of the models that stand for the tables of beginning.sql.
BEGINNING = """
class Migration(migrations.Migration):
    initial = True
    operations = [migrations.SeparateDatabaseAndState(state_operations=[
        migrations.CreateModel("Shop", [("id", models.BigAutoField(primary_key=True)), ("name", models.TextField())],
            options={"db_table": "shops"}),
        migrations.CreateModel("Region", [("id", models.BigAutoField(primary_key=True)), ("name", models.TextField())],
            options={"db_table": "regions"}),
        migrations.CreateModel("Basket", [
            ("id", models.BigAutoField(primary_key=True)),
            ("amount", models.DecimalField(max_digits=12, decimal_places=2)),
            ("code", models.CharField(max_length=60, db_collation="und-x-icu")),
            ("pieces", models.IntegerField(db_default=1)),
            ("note", models.TextField(null=True)),
        ], options={"db_table": "baskets"}),
        migrations.CreateModel("Order", [
            ("id", models.BigAutoField(primary_key=True)),
            ("shop", models.ForeignKey("shop.Shop", models.CASCADE, db_index=False, db_constraint=False)),
            ("number", models.CharField(max_length=40, db_collation="und-x-icu")),
            ("email", models.CharField(max_length=60, null=True, db_collation="und-x-icu")),
            ("amount", models.DecimalField(max_digits=12, decimal_places=2)),
            ("note", models.TextField(null=True)),
            ("old_note", models.TextField(null=True)),
            ("created_at", models.DateTimeField()),
        ], options={"db_table": "orders"}),
    ])]
"""
MIGRATION = """
class Migration(migrations.Migration):
    dependencies = [("shop", {before!r})]
    operations = [{operations}]
"""
IMPORTS = """
from django.contrib.postgres.functions import RandomUUID
from django.db import migrations, models
"""
STEPS = {
    "nullable_column": 'migrations.AddField("Order", "comment", models.TextField(null=True))',
    "constant_default": 'migrations.AddField("Order", "priority", models.IntegerField(db_default=0))',
    "volatile_default": 'migrations.AddField("Basket", "token", models.UUIDField(db_default=RandomUUID()))',
    "index": 'migrations.AddIndex("Order", models.Index(fields=["email"], name="orders_email"))',
    "unique": 'migrations.AddConstraint("Order", models.UniqueConstraint(fields=["number"], name="orders_number"))',
    "foreign_key": 'migrations.AlterField("Order", "shop", models.ForeignKey("shop.Shop", models.CASCADE, db_index=False))',
    "not_null": 'migrations.AlterField("Order", "email", models.CharField(max_length=60, db_collation="und-x-icu"))',
    "check": 'migrations.AddConstraint("Order", models.CheckConstraint(condition=models.Q(amount__gte=0), name="orders_amount"))',
    "rename_column": 'migrations.RenameField("Order", "note", "remark")',
    "drop_column": 'migrations.RemoveField("Order", "old_note")',
    # A foreign key has an index of its own.
    "column_index_key": """
        migrations.AddField("Order", "region", models.ForeignKey("shop.Region", models.CASCADE, null=True)),
        migrations.AddIndex("Order", models.Index(fields=["region", "email"], name="orders_region")),
    """,
    "table_and_orders": """
        migrations.CreateModel("Refund", [
            ("id", models.BigAutoField(primary_key=True)),
            ("order", models.ForeignKey("shop.Order", models.CASCADE)),
        ], options={"db_table": "refunds"}),
        migrations.AddField("Order", "refunded", models.DecimalField(max_digits=12, decimal_places=2, null=True)),
        migrations.AddConstraint("Order", models.CheckConstraint(condition=models.Q(refunded__gte=0), name="orders_refunded")),
        migrations.AddIndex("Order", models.Index(fields=["email", "created_at"], name="orders_created")),
    """,
    "column_and_index": 'migrations.AddField("Basket", "tracking", models.UUIDField(db_default=RandomUUID(), db_index=True))',
    # Django has no enum types of its own.
    "enum": """
        migrations.RunSQL("CREATE TYPE order_kind AS ENUM ('web', 'phone')", "DROP TYPE order_kind"),
        migrations.RunSQL(
            "ALTER TABLE orders ADD COLUMN kind order_kind NOT NULL DEFAULT 'web'", "ALTER TABLE orders DROP COLUMN kind"
        ),
    """,
    "filled_column": """
        migrations.AddField("Basket", "label", models.TextField(null=True, db_default="")),
        migrations.RunSQL("UPDATE baskets SET label = 'basket ' || id", ""),
        migrations.AlterField("Basket", "label", models.TextField(db_default="")),
    """,
    "type": 'migrations.AlterField("Basket", "pieces", models.BigIntegerField(db_default=1))',
}
FOLDER = pathlib.Path("shop/migrations")

FOLDER.mkdir(parents=True)
for package in (FOLDER.parent, FOLDER):
    (package / "__init__.py").touch()
(FOLDER / "0000_beginning.py").write_text(IMPORTS + BEGINNING)
sys.path.insert(0, os.getcwd())
settings.configure(
    INSTALLED_APPS=["django.contrib.postgres", "shop"],
    USE_TZ=True,
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": os.environ["PGDATABASE"],
            "HOST": os.environ["PGHOST"],
            "PORT": os.environ["PGPORT"],
            "USER": os.environ["PGUSER"],
        }
    },
)
django.setup()
from django.core.management import call_command  # noqa: E402
from django.db import connection  # noqa: E402


def migrate(*target):
    """As `manage.py migrate`, which ends its connection with its process."""
    importlib.invalidate_caches()
    try:
        call_command("migrate", *target, verbosity=1, no_color=True)
    finally:
        connection.close()


def up(count):
    before = "0000_beginning"
    for number, (step, operations) in enumerate(list(STEPS.items())[:count], 1):
        name = f"{number:04}_{step}"
        (FOLDER / f"{name}.py").write_text(IMPORTS + MIGRATION.format(before=before, operations=operations))
        before = name
    migrate()


serve(STEPS, "SELECT app, name FROM django_migrations ORDER BY id", up, lambda: migrate("shop", "0000"))
