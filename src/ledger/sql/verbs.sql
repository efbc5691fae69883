-- What operators call, as pgsluice.approve(12, 'looks fine'): the functions of the role pgsluice_operator. Who calls is session_user, and the
-- address is the connection's. No function takes SQL.

-- A decision about a change, by somebody at a place. The console of a proxy calls this, too.
CREATE OR REPLACE FUNCTION pgsluice.decide(_id bigint, _verb text, _by text, _from text, _why text, _proxy bigint) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    _row pgsluice.change;
    _after record;
    _had text;
BEGIN
    PERFORM FROM pgsluice.change c WHERE c.id = _id FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'undefined_object', MESSAGE = format('schema change %s does not exist', _id),
            HINT = 'SHOW CHANGES on the console, or SELECT * FROM pgsluice.changes, lists the ones there are.';
    END IF;
    PERFORM pgsluice.sweep(_id);
    SELECT * INTO _row FROM pgsluice.change c WHERE c.id = _id;
    IF _verb = 'cancel' AND _row.state = 'running' THEN
        -- Its proxy cancels it.
        UPDATE pgsluice.change SET cancel_asked = true, decided_verb = 'CANCEL', decided_by = _by, decided_from = _from,
            decided_why = coalesce(_why, ''), decided_at = clock_timestamp() WHERE id = _id RETURNING * INTO _row;
        PERFORM pgsluice.note(_row, 'cancel', _by, _from, _why, _proxy);
        RETURN format('schema change %s is being cancelled', _id);
    END IF;
    SELECT * INTO _after FROM pgsluice.transition(
        _row.state, _row.author, _row.needs, _row.approvals, _row.forced, _verb, _by, NULL, NULL);
    _had := format('%s of %s', cardinality(_row.approvals), _row.needs)
        || CASE WHEN _row.approvals = '{}' THEN '' ELSE ': ' || array_to_string(_row.approvals, ', ') END;
    CASE _after.impossible
        WHEN 'own' THEN
            RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = format('schema change %s is your own', _id),
                DETAIL = format('The role %s has sent it. An approval by its author does not count.', _row.author),
                HINT = 'Somebody else approves it. FORCE lets it run without an approval, and is logged as such.';
        WHEN 'before' THEN
            RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
                MESSAGE = format('you have approved schema change %s already', _id), DETAIL = format('It has the approvals %s.', _had);
        WHEN 'state' THEN
            RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
                MESSAGE = format('schema change %s is %s, so that %s has no effect', _id, _row.state, upper(_verb)),
                HINT = CASE
                    WHEN _row.state IN ('rejected', 'cancelled', 'expired', 'failed') THEN format('RETRY %s asks for a decision anew.', _id)
                    WHEN _row.state = 'running' THEN format('CANCEL %s ends it.', _id)
                    ELSE 'SHOW CHANGES shows where it stands.' END;
        ELSE NULL;
    END CASE;
    _row := pgsluice.step(_id, _verb, NULL, NULL, upper(_verb), _by, _from, coalesce(_why, ''), _proxy);
    RETURN format('schema change %s is %s', _id, _row.state)
        || CASE WHEN _row.state IN ('held', 'approved') THEN format(' with %s of %s approvals', cardinality(_row.approvals), _row.needs) ELSE '' END
        || CASE WHEN _row.forced THEN ', forced' ELSE '' END;
END
$body$;

-- Where the connection comes from, for people.
CREATE OR REPLACE FUNCTION pgsluice.here() RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT coalesce(host(inet_client_addr()), 'a Unix socket')
$body$;

CREATE OR REPLACE FUNCTION pgsluice.approve(id bigint, why text DEFAULT '') RETURNS text
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
    SELECT pgsluice.decide(id, 'approve', session_user::text, pgsluice.here(), why, NULL)
$body$;
CREATE OR REPLACE FUNCTION pgsluice.reject(id bigint, why text DEFAULT '') RETURNS text
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
    SELECT pgsluice.decide(id, 'reject', session_user::text, pgsluice.here(), why, NULL)
$body$;
CREATE OR REPLACE FUNCTION pgsluice.cancel(id bigint, why text DEFAULT '') RETURNS text
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
    SELECT pgsluice.decide(id, 'cancel', session_user::text, pgsluice.here(), why, NULL)
$body$;
CREATE OR REPLACE FUNCTION pgsluice.retry(id bigint, why text DEFAULT '') RETURNS text
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
    SELECT pgsluice.decide(id, 'retry', session_user::text, pgsluice.here(), why, NULL)
$body$;
CREATE OR REPLACE FUNCTION pgsluice.force(id bigint, why text DEFAULT '') RETURNS text
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
    SELECT pgsluice.decide(id, 'force', session_user::text, pgsluice.here(), why, NULL)
$body$;
CREATE OR REPLACE FUNCTION pgsluice.unforce(id bigint, why text DEFAULT '') RETURNS text
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
    SELECT pgsluice.decide(id, 'unforce', session_user::text, pgsluice.here(), why, NULL)
$body$;

-- Holds a scope. The console of a proxy calls this, too.
CREATE OR REPLACE FUNCTION pgsluice.hold_scope(
    _kind text, _name text, _by text, _from text, _why text, _proxy bigint) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    _scope text := btrim('HOLD ' || upper(_kind) || ' ' || _name);
BEGIN
    INSERT INTO pgsluice.hold (kind, name, by, "from", why) VALUES (_kind, _name, _by, _from, coalesce(_why, ''))
    ON CONFLICT ON CONSTRAINT hold_pkey DO NOTHING;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state', MESSAGE = format('%s is in force already', _scope),
            HINT = 'SHOW HOLDS on the console, or SELECT * FROM pgsluice.holds, shows who has said it.';
    END IF;
    PERFORM pgsluice.note_event(_proxy, lower(_scope), _by, _from, _why);
    PERFORM pg_notify('pgsluice', 'holds');
    RETURN format('%s is in force', _scope);
END
$body$;

-- Holds a scope no longer.
CREATE OR REPLACE FUNCTION pgsluice.release_scope(
    _kind text, _name text, _by text, _from text, _why text, _proxy bigint) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    _scope text := btrim('HOLD ' || upper(_kind) || ' ' || _name);
BEGIN
    DELETE FROM pgsluice.hold h WHERE h.kind = _kind AND h.name = _name;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'undefined_object', MESSAGE = format('%s is not in force', _scope),
            HINT = 'SHOW HOLDS on the console, or SELECT * FROM pgsluice.holds, shows what is.';
    END IF;
    PERFORM pgsluice.note_event(_proxy, 'release ' || lower(substr(_scope, 6)), _by, _from, _why);
    PERFORM pg_notify('pgsluice', 'holds');
    RETURN format('%s is not in force any more', _scope);
END
$body$;

-- 'all', 'database shop' or 'relation public.orders', as a kind and a name.
CREATE OR REPLACE FUNCTION pgsluice.scope_of(scope text, OUT kind text, OUT name text)
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
    kind := lower(split_part(btrim(scope), ' ', 1));
    name := btrim(substr(btrim(scope), length(kind) + 1));
    IF kind NOT IN ('all', 'database', 'relation') OR (kind = 'all') <> (name = '') THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = format('%L is no scope', scope),
            HINT = 'A scope is ''all'', ''database NAME'', or ''relation SCHEMA.NAME''.';
    END IF;
END
$body$;

CREATE OR REPLACE FUNCTION pgsluice.hold(scope text, why text DEFAULT '') RETURNS text
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
    SELECT pgsluice.hold_scope(s.kind, s.name, session_user::text, pgsluice.here(), why, NULL) FROM pgsluice.scope_of(scope) AS s
$body$;
CREATE OR REPLACE FUNCTION pgsluice.release(scope text, why text DEFAULT '') RETURNS text
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
    SELECT pgsluice.release_scope(s.kind, s.name, session_user::text, pgsluice.here(), why, NULL) FROM pgsluice.scope_of(scope) AS s
$body$;
