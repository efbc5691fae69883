-- The ledger's tables, in the schema pgsluice. Running this twice does nothing the second time.

CREATE TABLE IF NOT EXISTS pgsluice.ledger (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    version integer NOT NULL,
    installed timestamptz NOT NULL DEFAULT pg_catalog.now()
);

-- The proxies that have written here. A proxy says every few seconds that it is alive.
CREATE TABLE IF NOT EXISTS pgsluice.proxy (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    started timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    seen timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);

-- The schema changes that a rule holds or has held (digest is set), and those that run (digest is null).
CREATE TABLE IF NOT EXISTS pgsluice.change (
    id bigint PRIMARY KEY,
    digest text,
    -- The digest without the plan.
    text_digest text,
    state text NOT NULL CHECK (state = ANY (ARRAY[
        'held', 'approved', 'running', 'done', 'failed', 'rejected', 'cancelled', 'expired', 'released'])),
    author text NOT NULL,
    needs integer NOT NULL DEFAULT 1 CHECK (needs >= 1),
    approvals text[] NOT NULL DEFAULT '{}',
    forced boolean NOT NULL DEFAULT false,
    database text NOT NULL,
    application text NOT NULL,
    client text NOT NULL,
    session bigint NOT NULL,
    tag text NOT NULL,
    statement text NOT NULL,
    plan text NOT NULL,
    difference text,
    rule text NOT NULL,
    because text NOT NULL,
    expires_ms bigint NOT NULL DEFAULT 0,
    since timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    changed timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    decided_verb text,
    decided_by text,
    decided_from text,
    decided_why text,
    decided_at timestamptz,
    -- The proxy whose client has sent it last.
    proxy bigint NOT NULL,
    -- How far it is, while it runs.
    phase integer,
    phases integer,
    waiting text,
    -- An operator has asked for this. Its proxy does it.
    cancel_asked boolean NOT NULL DEFAULT false,
    CONSTRAINT runs_if_approved CHECK (
        digest IS NULL OR state <> ALL (ARRAY['approved', 'running', 'done']) OR forced
        OR pg_catalog.cardinality(approvals) >= needs),
    CONSTRAINT author_does_not_count CHECK (author <> ALL (approvals))
);
CREATE INDEX IF NOT EXISTS change_digest ON pgsluice.change (digest);
CREATE INDEX IF NOT EXISTS change_text ON pgsluice.change (text_digest);
CREATE INDEX IF NOT EXISTS change_open ON pgsluice.change (state)
    WHERE state = ANY (ARRAY['held', 'approved', 'running', 'rejected']);

-- How many clients of a proxy wait for a change.
CREATE TABLE IF NOT EXISTS pgsluice.waiter (
    change bigint NOT NULL REFERENCES pgsluice.change ON DELETE CASCADE,
    proxy bigint NOT NULL REFERENCES pgsluice.proxy ON DELETE CASCADE,
    clients integer NOT NULL CHECK (clients >= 0),
    PRIMARY KEY (change, proxy)
);

-- What has happened, by whom, from where and why. Rows are added and not changed.
CREATE TABLE IF NOT EXISTS pgsluice.event (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    what text NOT NULL,
    change bigint,
    state text,
    by text,
    "from" text,
    why text,
    rule text,
    author text,
    database text,
    statement text,
    plan text,
    proxy bigint
);
CREATE INDEX IF NOT EXISTS event_change ON pgsluice.event (change);
CREATE INDEX IF NOT EXISTS event_at ON pgsluice.event (at);

-- What operators hold by hand.
CREATE TABLE IF NOT EXISTS pgsluice.hold (
    kind text NOT NULL CHECK (kind = ANY (ARRAY['all', 'database', 'relation'])),
    name text NOT NULL DEFAULT '',
    by text NOT NULL,
    "from" text NOT NULL,
    why text NOT NULL,
    since timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (kind, name),
    CHECK ((kind = 'all') = (name = ''))
);

-- Numbers of changes: a proxy takes a hundred at a time.
CREATE SEQUENCE IF NOT EXISTS pgsluice.change_number INCREMENT BY 100;
