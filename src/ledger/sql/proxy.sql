-- What proxies call. Only the role pgsluice_proxy may.

-- Leaves an event, and tells every proxy which change it is about.
CREATE OR REPLACE FUNCTION pgsluice.note(
    _change pgsluice.change, _what text, _by text, _from text, _why text, _proxy bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
    INSERT INTO pgsluice.event (what, change, state, by, "from", why, rule, author, database, statement, plan, proxy)
    VALUES (_what, _change.id, _change.state, _by, _from, _why, _change.rule, _change.author, _change.database,
        _change.statement, _change.plan, _proxy);
    PERFORM pg_notify('pgsluice', _change.id::text);
END
$body$;

-- Lets an event happen to a change, and leaves it in the ledger. Null: it cannot happen.
CREATE OR REPLACE FUNCTION pgsluice.step(
    _id bigint, _event text, _needs integer, _flag boolean, _verb text, _by text, _from text, _why text, _proxy bigint)
RETURNS pgsluice.change
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    _row pgsluice.change;
    _after record;
BEGIN
    SELECT * INTO _row FROM pgsluice.change WHERE id = _id FOR UPDATE;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    SELECT * INTO _after FROM pgsluice.transition(
        _row.state, _row.author, _row.needs, _row.approvals, _row.forced, _event, coalesce(_by, ''), _needs, _flag);
    IF _after.impossible IS NOT NULL THEN
        RETURN NULL;
    END IF;
    UPDATE pgsluice.change SET state = _after.state, needs = _after.needs, approvals = _after.approvals, forced = _after.forced,
        changed = clock_timestamp(),
        since = CASE WHEN _event = 'sent' AND _after.state = 'held' THEN clock_timestamp() ELSE since END,
        decided_verb = CASE WHEN _verb IS NULL THEN decided_verb ELSE _verb END,
        decided_by = CASE WHEN _verb IS NULL THEN decided_by ELSE _by END,
        decided_from = CASE WHEN _verb IS NULL THEN decided_from ELSE _from END,
        decided_why = CASE WHEN _verb IS NULL THEN decided_why ELSE _why END,
        decided_at = CASE WHEN _verb IS NULL THEN decided_at ELSE clock_timestamp() END,
        proxy = CASE WHEN _event = 'start' THEN coalesce(_proxy, proxy) ELSE proxy END,
        phase = NULL, phases = NULL, waiting = NULL, cancel_asked = false
    WHERE id = _id RETURNING * INTO _row;
    PERFORM pgsluice.note(_row, coalesce(lower(_verb), CASE _event
        WHEN 'sent' THEN 'held' WHEN 'replace' THEN 'held anew' WHEN 'expire' THEN 'expired' WHEN 'release' THEN 'released'
        WHEN 'start' THEN 'started' WHEN 'suspend' THEN 'put back' WHEN 'cancel' THEN 'withdrawn' ELSE _row.state END),
        _by, _from, _why, _proxy);
    RETURN _row;
END
$body$;

-- Voids what is too old. A change without approvals for which a client waits has time.
CREATE OR REPLACE FUNCTION pgsluice.sweep(_only bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    _old record;
BEGIN
    FOR _old IN
        SELECT c.id, waits FROM pgsluice.change c,
            LATERAL (SELECT coalesce(sum(w.clients), 0) > 0 AS waits FROM pgsluice.waiter w WHERE w.change = c.id) AS w
        WHERE c.state IN ('held', 'approved', 'rejected') AND (_only IS NULL OR c.id = _only)
            AND c.changed + c.expires_ms * interval '1 millisecond' <= clock_timestamp()
            AND (NOT waits OR c.approvals <> '{}' OR c.forced)
        ORDER BY c.id
    LOOP
        PERFORM pgsluice.step(_old.id, 'expire', NULL, _old.waits, NULL, NULL, NULL, NULL, NULL);
    END LOOP;
END
$body$;

-- A client of the proxy has sent a statement that a rule holds. _own: the change under which it has run so far; its plan was made anew since.
-- outcome: 'go' (it runs now), 'held' (it waits, and is held since now), 'wait' or 'rejected'.
CREATE OR REPLACE FUNCTION pgsluice.join_change(
    _proxy bigint, _number bigint, _own bigint, _digest text, _text_digest text, _author text, _database text, _application text,
    _client text, _session bigint, _tag text, _statement text, _plan text, _rule text, _because text, _needs integer, _expires_ms bigint,
    OUT outcome text, OUT id bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    _row pgsluice.change;
    _same boolean := true;
    _old_plan text;
    _terms_differ boolean;
    _over boolean;
    _new boolean := false;
BEGIN
    -- Requests with the same text come one behind the other.
    PERFORM pg_advisory_xact_lock(1885828972, hashtext(_text_digest));
    IF _own IS NOT NULL THEN
        SELECT * INTO _row FROM pgsluice.change c WHERE c.id = _own AND c.digest = _digest AND c.state = 'running';
        IF FOUND THEN
            outcome := 'go';
            id := _own;
            RETURN;
        END IF;
    END IF;
    SELECT * INTO _row FROM pgsluice.change c WHERE c.digest = _digest ORDER BY c.id DESC LIMIT 1;
    IF NOT FOUND THEN
        _same := false;
        SELECT * INTO _row FROM pgsluice.change c
        WHERE c.id = _own OR (_own IS NULL AND c.text_digest = _text_digest AND c.state IN ('held', 'approved'))
        ORDER BY c.id DESC LIMIT 1;
    END IF;
    id := _row.id;
    IF id <> _own THEN
        -- What has run so far was rolled back, and goes on as another change.
        PERFORM pgsluice.step(_own, 'finish', NULL, false, NULL, NULL, NULL, NULL, _proxy);
    END IF;
    IF id IS NULL THEN
        -- It was taken down as one that runs and that no rule holds.
        DELETE FROM pgsluice.change c WHERE c.id = _number AND c.digest IS NULL AND c.proxy = _proxy;
        IF _number IS NULL OR EXISTS (SELECT FROM pgsluice.change c WHERE c.id = _number) THEN
            _number := nextval('pgsluice.change_number'::regclass);
        END IF;
        id := _number;
        INSERT INTO pgsluice.change (id, digest, text_digest, state, author, needs, database, application, client, session, tag, statement,
            plan, rule, because, expires_ms, proxy)
        VALUES (_number, _digest, _text_digest, 'held', _author, greatest(_needs, 1), _database, _application, _client, _session, _tag,
            _statement, _plan, _rule, _because, _expires_ms, _proxy)
        RETURNING * INTO _row;
        PERFORM pgsluice.note(_row, 'held', NULL, NULL, NULL, _proxy);
        _new := true;
    ELSE
        PERFORM pgsluice.sweep(id);
        SELECT * INTO _row FROM pgsluice.change c WHERE c.id = join_change.id FOR UPDATE;
        _over := _row.state NOT IN ('held', 'approved', 'running');
        _terms_differ := _row.rule <> _rule OR _row.needs <> greatest(_needs, 1);
        _old_plan := _row.plan;
        UPDATE pgsluice.change c SET session = _session, client = _client, application = _application, proxy = _proxy
        WHERE c.id = join_change.id AND (_row.state <> 'running' OR _own = join_change.id);
        IF (NOT _same OR _terms_differ) AND _row.state <> 'rejected'
            AND NOT (_same AND _row.state = 'running' AND _own IS DISTINCT FROM id) THEN
            UPDATE pgsluice.change c SET digest = _digest, rule = _rule, because = _because, expires_ms = _expires_ms, plan = _plan,
                decided_verb = NULL, decided_by = NULL, decided_from = NULL, decided_why = NULL, decided_at = NULL,
                difference = CASE WHEN _old_plan = _plan THEN c.difference ELSE pgsluice.difference(_old_plan, _plan) END
            WHERE c.id = join_change.id;
            IF _over THEN
                PERFORM pgsluice.step(id, 'sent', NULL, NULL, NULL, NULL, NULL, NULL, _proxy);
            END IF;
            PERFORM pgsluice.step(id, 'replace', _needs, NULL, NULL, NULL, NULL, NULL, _proxy);
            _new := true;
        ELSIF _over AND _row.state <> 'rejected' THEN
            PERFORM pgsluice.step(id, 'sent', NULL, NULL, NULL, NULL, NULL, NULL, _proxy);
            _new := true;
        END IF;
    END IF;
    SELECT * INTO _row FROM pgsluice.change c WHERE c.id = join_change.id;
    IF _row.state = 'approved' THEN
        PERFORM pgsluice.step(id, 'start', NULL, NULL, NULL, NULL, NULL, NULL, _proxy);
        outcome := 'go';
    ELSIF _row.state = 'rejected' THEN
        outcome := 'rejected';
    ELSE
        INSERT INTO pgsluice.waiter AS w (change, proxy, clients) VALUES (id, _proxy, 1)
        ON CONFLICT (change, proxy) DO UPDATE SET clients = w.clients + 1;
        PERFORM pg_notify('pgsluice', id::text);
        outcome := CASE WHEN _new THEN 'held' ELSE 'wait' END;
    END IF;
END
$body$;

-- The lines of a plan that are gone (-) or new (+), in their order.
CREATE OR REPLACE FUNCTION pgsluice.difference(before text, after text) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT string_agg(sign || ' ' || line, E'\n' ORDER BY part, place) FROM (
        SELECT 1 AS part, '-' AS sign, line, place FROM unnest(string_to_array(before, E'\n')) WITH ORDINALITY AS old(line, place)
        WHERE line <> ALL (string_to_array(after, E'\n'))
        UNION ALL
        SELECT 2, '+', line, place FROM unnest(string_to_array(after, E'\n')) WITH ORDINALITY AS new(line, place)
        WHERE line <> ALL (string_to_array(before, E'\n'))
    ) AS lines
$body$;

-- A client of the proxy waits for a change no longer. _withdrawn: it has cancelled its statement, which ends the change unless another
-- client waits for it, too.
CREATE OR REPLACE FUNCTION pgsluice.leave_change(_proxy bigint, _id bigint, _withdrawn boolean) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
    PERFORM FROM pgsluice.change c WHERE c.id = _id FOR UPDATE;
    UPDATE pgsluice.waiter w SET clients = greatest(w.clients - 1, 0) WHERE w.change = _id AND w.proxy = _proxy;
    DELETE FROM pgsluice.waiter w WHERE w.change = _id AND w.proxy = _proxy AND w.clients = 0;
    IF _withdrawn AND NOT EXISTS (SELECT FROM pgsluice.waiter w WHERE w.change = _id AND w.clients > 0) THEN
        PERFORM pgsluice.step(_id, 'cancel', NULL, NULL, NULL, NULL, NULL, NULL, _proxy);
    END IF;
    PERFORM pg_notify('pgsluice', _id::text);
END
$body$;

-- A statement begins that was approved before its transaction was suspended, whatever its plan is there. Null: there is none.
CREATE OR REPLACE FUNCTION pgsluice.resume_change(_proxy bigint, _text_digest text) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    _id bigint;
BEGIN
    SELECT c.id INTO _id FROM pgsluice.change c
    WHERE c.text_digest = _text_digest AND c.proxy = _proxy AND c.state = 'approved' ORDER BY c.id DESC LIMIT 1 FOR UPDATE;
    RETURN (pgsluice.step(_id, 'start', NULL, NULL, NULL, NULL, NULL, NULL, _proxy)).id;
END
$body$;

-- A change that no rule holds runs, or has gone further. What is not known is null.
CREATE OR REPLACE FUNCTION pgsluice.change_runs(
    _proxy bigint, _id bigint, _author text, _database text, _application text, _client text, _session bigint, _statement text,
    _phase integer, _phases integer, _waiting text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
    INSERT INTO pgsluice.change AS c (id, state, author, database, application, client, session, tag, statement, plan, rule, because, proxy,
        phase, phases, waiting)
    VALUES (_id, 'running', _author, _database, _application, _client, _session, '', _statement, '', '', '', _proxy, _phase, _phases, _waiting)
    ON CONFLICT ON CONSTRAINT change_pkey DO UPDATE SET phase = _phase, phases = _phases, waiting = _waiting
    WHERE c.proxy = _proxy;
END
$body$;

-- A change has ended that ran without an approval.
CREATE OR REPLACE FUNCTION pgsluice.change_ends(
    _proxy bigint, _id bigint, _done boolean, _author text, _database text, _client text, _statement text, _why text)
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
    UPDATE pgsluice.change c SET state = CASE WHEN _done THEN 'done' ELSE 'failed' END, changed = clock_timestamp(),
        phase = NULL, phases = NULL, waiting = NULL
    WHERE c.id = _id AND c.proxy = _proxy AND c.digest IS NULL AND c.state = 'running';
    INSERT INTO pgsluice.event (what, change, state, "from", why, author, database, statement, proxy)
    SELECT word, _id, word, _client, _why, _author, _database, _statement, _proxy
    FROM (SELECT CASE WHEN _done THEN 'done' ELSE 'failed' END AS word) AS outcome;
    PERFORM pg_notify('pgsluice', _id::text);
END
$body$;

-- A change that no rule holds is not there any more, and its end was not told.
CREATE OR REPLACE FUNCTION pgsluice.change_left(_proxy bigint, _id bigint) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
    DELETE FROM pgsluice.change c WHERE c.id = _id AND c.proxy = _proxy AND c.digest IS NULL AND c.state = 'running'
$body$;

-- A proxy begins. _name: what people call it.
CREATE OR REPLACE FUNCTION pgsluice.begin_proxy(_name text) RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
    INSERT INTO pgsluice.proxy (name) VALUES (_name) RETURNING id
$body$;

-- A proxy is alive. What others have left behind that have not been alive for a minute is ended, what is too old is voided, and events
-- older than _keep_ms are forgotten (0: never).
CREATE OR REPLACE FUNCTION pgsluice.beat(_proxy bigint, _name text, _keep_ms bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    _left bigint;
BEGIN
    INSERT INTO pgsluice.proxy AS p (id, name) OVERRIDING SYSTEM VALUE VALUES (_proxy, _name)
    ON CONFLICT (id) DO UPDATE SET seen = clock_timestamp();
    -- One proxy does it for all.
    IF NOT pg_try_advisory_xact_lock(1885828972, 0) THEN
        RETURN;
    END IF;
    PERFORM pgsluice.bury(p.id) FROM pgsluice.proxy p WHERE p.seen < clock_timestamp() - interval '1 minute';
    PERFORM pgsluice.sweep(NULL);
    IF _keep_ms > 0 THEN
        DELETE FROM pgsluice.event WHERE at < clock_timestamp() - _keep_ms * interval '1 millisecond';
        DELETE FROM pgsluice.change WHERE state NOT IN ('held', 'approved', 'running', 'rejected')
            AND changed < clock_timestamp() - _keep_ms * interval '1 millisecond';
    END IF;
END
$body$;

-- Ends what a proxy has left behind.
CREATE OR REPLACE FUNCTION pgsluice.bury(_proxy bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    _id bigint;
    _row pgsluice.change;
BEGIN
    DELETE FROM pgsluice.proxy p WHERE p.id = _proxy;
    FOR _id IN SELECT c.id FROM pgsluice.change c WHERE c.proxy = _proxy AND c.state = 'running' ORDER BY c.id LOOP
        _row := pgsluice.step(_id, 'finish', NULL, false, NULL, NULL, NULL, 'its proxy has ended', _proxy);
    END LOOP;
END
$body$;

-- The first of a hundred numbers of changes.
CREATE OR REPLACE FUNCTION pgsluice.take_numbers() RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
    SELECT nextval('pgsluice.change_number'::regclass)
$body$;

-- Something that is about no change, such as a setting that was changed on the console.
CREATE OR REPLACE FUNCTION pgsluice.note_event(_proxy bigint, _what text, _by text, _from text, _why text) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
    INSERT INTO pgsluice.event (what, by, "from", why, proxy) VALUES (_what, _by, _from, _why, _proxy)
$body$;
