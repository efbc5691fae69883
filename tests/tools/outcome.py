"""What a migration leaves: the schema, the tool's history, the rows, and whatever should not be there.

Holds: two outcomes are equal exactly if nobody could tell which of the two databases was migrated through the proxy. Values that
differ from run to run (random defaults, what the application writes) are counted instead of compared.
"""

import dataclasses
import difflib

import psycopg

# `amount` is what the application changes; `token` and `tracking` have random defaults.
ROWS = """SELECT format('SELECT count(*), sum(hashtextextended(ROW(%%s)::text, 0)) FROM %%I WHERE id <= %d',
        string_agg(quote_ident(attname), ', ' ORDER BY attname), relname)
    FROM pg_attribute JOIN pg_class c ON attrelid = c.oid
    WHERE relname IN ('orders', 'baskets') AND attnum > 0 AND NOT attisdropped AND attname NOT IN ('amount', 'token', 'tracking')
    GROUP BY relname ORDER BY relname"""
TOKENS = "SELECT count(*) FILTER (WHERE token IS NULL), count(*) - count(DISTINCT token) FROM baskets"
HAS_TOKENS = "SELECT FROM pg_attribute WHERE attrelid = 'baskets'::regclass AND attname = 'token' AND NOT attisdropped"
LEFT = """SELECT 'invalid index ' || indexrelid::regclass FROM pg_index WHERE NOT indisvalid
    UNION ALL SELECT 'constraint not validated: ' || conname FROM pg_constraint WHERE NOT convalidated
    UNION ALL SELECT 'relation ' || relname FROM pg_class WHERE relname ~ 'pgsluice'
    UNION ALL SELECT 'constraint ' || conname FROM pg_constraint WHERE conname ~ 'pgsluice'
    UNION ALL SELECT 'comment ' || description FROM pg_description WHERE description ~ 'pgsluice'"""


@dataclasses.dataclass
class Outcome:
    schema: list
    history: list
    rows: list
    left: list

    def differences(self, other):
        """Lines for a person; none if both are equal. `self` is the direct one."""
        found = []
        for part in ("schema", "history", "rows", "left"):
            one, two = getattr(self, part), getattr(other, part)
            found += [f"{part}: {line}" for line in difflib.unified_diff(one, two, "direct", "proxy", lineterm="", n=1)]
        return found


def outcome(stage, database, history, rows):
    """Asked of the server itself."""
    dump = stage.pg_dump(database)
    # Newer programs write a key of their own, chosen at random.
    schema = [line for line in dump.splitlines() if line.strip() and not line.startswith(("--", "\\restrict", "\\unrestrict"))]
    with psycopg.connect(stage.dsn(database), autocommit=True) as connection:
        ask = lambda sql: [str(row) for row in connection.execute(sql).fetchall()]
        digest = [line for (question,) in connection.execute((ROWS % (rows // 4)).replace("%%", "%")).fetchall() for line in ask(question)]
        if connection.execute(HAS_TOKENS).fetchone() is not None:
            digest += ask(TOKENS)
        left = ask(LEFT)
        try:
            return Outcome(schema, ask(history), digest, left)
        except psycopg.errors.UndefinedTable:
            return Outcome(schema, ["no history"], digest, left)
