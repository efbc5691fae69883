"""Django: its own applications' migrations, and one with AddIndex, AlterField and the concurrent operations."""
import os
import sys
import tempfile
from pathlib import Path

import django
from django.conf import settings
from stage import in_the_way, say

FIRST = """
from django.db import migrations, models
class Migration(migrations.Migration):
    initial = True
    operations = [
        migrations.CreateModel("Book", [
            ("id", models.BigAutoField(primary_key=True)),
            ("title", models.CharField(max_length=50, db_index=True)),
            ("pages", models.IntegerField(null=True)),
            ("notes", models.TextField(default="none")),
        ]),
        migrations.CreateModel("Chapter", [
            ("id", models.BigAutoField(primary_key=True)),
            ("book", models.ForeignKey("shop.Book", models.CASCADE)),
        ]),
    ]
"""
SECOND = """
from django.db import migrations, models
def fill(apps, editor):
    Book = apps.get_model("shop", "Book")
    Book.objects.bulk_create([Book(title=f"book {n}", notes="x" * 300) for n in range(6000)])
class Migration(migrations.Migration):
    dependencies = [("shop", "0001_first")]
    operations = [migrations.RunPython(fill, migrations.RunPython.noop)]
"""
THIRD = """
from django.db import migrations, models
class Migration(migrations.Migration):
    dependencies = [("shop", "0002_second")]
    operations = [
        migrations.AddField("Book", "isbn", models.CharField(max_length=13, null=True, unique=True)),
        migrations.AddField("Book", "price", models.DecimalField(max_digits=8, decimal_places=2, default=1)),
        migrations.AlterField("Book", "title", models.CharField(max_length=200, db_index=True)),
        migrations.AlterField("Book", "pages", models.BigIntegerField(null=True)),
        migrations.AddIndex("Book", models.Index(fields=["price", "title"], name="book_price")),
        migrations.AddConstraint("Book", models.CheckConstraint(condition=models.Q(price__gt=0), name="priced")),
        migrations.RenameField("Book", "notes", "remarks"),
        migrations.AlterUniqueTogether("Chapter", {("id", "book")}),
        migrations.RenameIndex("Book", new_name="book_by_price", old_name="book_price"),
    ]
"""
FOURTH = """
from django.contrib.postgres.operations import AddIndexConcurrently, RemoveIndexConcurrently, AddConstraintNotValid, ValidateConstraint
from django.db import migrations, models
class Migration(migrations.Migration):
    atomic = False
    dependencies = [("shop", "0003_third")]
    operations = [
        AddIndexConcurrently("Book", models.Index(fields=["remarks"], name="book_remarks")),
        RemoveIndexConcurrently("Book", "book_remarks"),
        migrations.AddIndex("Book", models.Index(fields=["pages"], name="book_pages")),
        AddConstraintNotValid("Book", models.CheckConstraint(condition=models.Q(pages__gt=0), name="paged")),
        ValidateConstraint("Book", "paged"),
        migrations.AlterField("Book", "pages", models.BigIntegerField(default=1)),
    ]
"""

with tempfile.TemporaryDirectory() as folder:
    app = Path(folder, "shop", "migrations")
    app.mkdir(parents=True)
    Path(app.parent, "__init__.py").touch()
    Path(app, "__init__.py").touch()
    for name, text in (("0001_first", FIRST), ("0002_second", SECOND), ("0003_third", THIRD), ("0004_fourth", FOURTH)):
        Path(app, f"{name}.py").write_text(text)
    sys.path.insert(0, folder)
    settings.configure(
        INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.admin", "django.contrib.sessions", "shop"],
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
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
    from django.core.management import call_command
    from django.db import connection

    call_command("migrate", "shop", "0002", verbosity=1, no_color=True)
    with in_the_way(0.5, "shop_book"):
        call_command("migrate", verbosity=1, no_color=True)
    call_command("migrate", "shop", "0002", verbosity=1, no_color=True)
    call_command("migrate", "shop", verbosity=1, no_color=True)
    call_command("inspectdb", "shop_book", "shop_chapter")
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*), count(pages) FROM shop_book")
        say(cursor.fetchone())
    call_command("flush", interactive=False, verbosity=0)
