-- What operators and viewers see.

CREATE OR REPLACE VIEW pgsluice.changes AS
SELECT c.id, c.state, c.author, c.database, c.application, c.client AS address, c.statement, c.rule, c.because,
    pg_catalog.cardinality(c.approvals) AS approved, c.needs, c.approvals, c.forced, c.since, c.changed,
    CASE WHEN c.state = ANY (ARRAY['held', 'approved', 'rejected']) THEN c.changed + c.expires_ms * interval '1 millisecond' END AS expires,
    (SELECT coalesce(pg_catalog.sum(w.clients), 0) FROM pgsluice.waiter w WHERE w.change = c.id) AS clients_waiting,
    c.phase, c.phases, c.waiting, c.plan, c.difference, c.decided_verb, c.decided_by, c.decided_from, c.decided_why, c.decided_at,
    c.digest, p.name AS proxy
FROM pgsluice.change c LEFT JOIN pgsluice.proxy p ON p.id = c.proxy;

CREATE OR REPLACE VIEW pgsluice.events AS
SELECT e.id, e.at, e.what, e.change, e.state, e.by, e."from", e.why, e.rule, e.author, e.database, e.statement, e.plan, e.proxy
FROM pgsluice.event e;

CREATE OR REPLACE VIEW pgsluice.holds AS
SELECT pg_catalog.btrim('HOLD ' || pg_catalog.upper(h.kind) || ' ' || h.name) AS scope, h.by, h."from", h.why, h.since FROM pgsluice.hold h;
