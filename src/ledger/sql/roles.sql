-- Who may do what. pgsluice_viewer reads the views, pgsluice_operator calls the verbs as well, and pgsluice_proxy is for proxies.

DO $body$
DECLARE
    _role text;
BEGIN
    FOREACH _role IN ARRAY ARRAY['pgsluice_viewer', 'pgsluice_operator', 'pgsluice_proxy'] LOOP
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.rolname = _role) THEN
            EXECUTE pg_catalog.format('CREATE ROLE %I NOLOGIN', _role);
        END IF;
    END LOOP;
    -- A role that was there already may have been given rights by somebody; what it is a member of is not ours to judge.
    IF NOT pg_catalog.pg_has_role('pgsluice_operator', 'pgsluice_viewer', 'MEMBER') THEN
        GRANT pgsluice_viewer TO pgsluice_operator;
    END IF;
END
$body$;

REVOKE ALL ON SCHEMA pgsluice FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA pgsluice FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA pgsluice FROM PUBLIC;
GRANT USAGE ON SCHEMA pgsluice TO pgsluice_viewer, pgsluice_operator, pgsluice_proxy;
GRANT SELECT ON pgsluice.changes, pgsluice.events, pgsluice.holds, pgsluice.ledger TO pgsluice_viewer, pgsluice_proxy;
GRANT SELECT ON pgsluice.change, pgsluice.waiter, pgsluice.hold TO pgsluice_proxy;
GRANT EXECUTE ON FUNCTION
    pgsluice.approve(bigint, text), pgsluice.reject(bigint, text), pgsluice.cancel(bigint, text), pgsluice.retry(bigint, text),
    pgsluice.force(bigint, text), pgsluice.unforce(bigint, text), pgsluice.hold(text, text), pgsluice.release(text, text)
TO pgsluice_operator;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA pgsluice TO pgsluice_proxy;
-- These take the name of whoever calls from session_user, which in a proxy is the proxy's role.
REVOKE EXECUTE ON FUNCTION
    pgsluice.approve(bigint, text), pgsluice.reject(bigint, text), pgsluice.cancel(bigint, text), pgsluice.retry(bigint, text),
    pgsluice.force(bigint, text), pgsluice.unforce(bigint, text), pgsluice.hold(text, text), pgsluice.release(text, text)
FROM pgsluice_proxy;
