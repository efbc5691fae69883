-- What becomes of a change by an event: the same function as gate/change.rs, which a test compares with it.
-- by: who approves. needs_now: the approvals that the rule wants from now on (replace). flag: a client waits (expire), it is done (finish).
-- impossible: null, 'own', 'before' or 'state'; then nothing becomes of the change.
CREATE OR REPLACE FUNCTION pgsluice.transition(
    INOUT state text, author text, INOUT needs integer, INOUT approvals text[], INOUT forced boolean,
    event text, by text, needs_now integer, flag boolean, OUT impossible text)
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    target text;
BEGIN
    IF event = 'approve' THEN
        IF state <> 'held' THEN
            impossible := 'state';
        ELSIF by = author THEN
            impossible := 'own';
        ELSIF by = ANY (approvals) THEN
            impossible := 'before';
        ELSE
            approvals := ARRAY(SELECT one COLLATE "C" FROM unnest(approvals || by) AS one ORDER BY 1);
            IF cardinality(approvals) >= needs THEN
                state := 'approved';
            END IF;
        END IF;
        RETURN;
    END IF;
    target := CASE event
        WHEN 'reject' THEN CASE WHEN state IN ('held', 'approved') THEN 'rejected' END
        WHEN 'cancel' THEN CASE WHEN state IN ('held', 'approved') THEN 'cancelled' END
        WHEN 'force' THEN
            CASE WHEN state IN ('held', 'rejected', 'cancelled', 'expired', 'failed') THEN 'approved' END
        WHEN 'unforce' THEN CASE WHEN state = 'approved' AND forced THEN 'held' END
        WHEN 'retry' THEN CASE WHEN state IN ('rejected', 'cancelled', 'expired', 'failed') THEN 'held' END
        WHEN 'sent' THEN
            CASE WHEN state IN ('cancelled', 'expired', 'failed', 'done', 'released') THEN 'held' ELSE state END
        WHEN 'expire' THEN
            CASE
                WHEN flag AND state IN ('held', 'approved') THEN 'held'
                WHEN state IN ('held', 'approved', 'rejected') THEN 'expired'
            END
        WHEN 'replace' THEN CASE WHEN state IN ('held', 'approved', 'running') THEN 'held' END
        WHEN 'release' THEN CASE WHEN state IN ('held', 'approved') THEN 'released' END
        WHEN 'start' THEN CASE WHEN state = 'approved' THEN 'running' END
        WHEN 'suspend' THEN CASE WHEN state = 'running' THEN 'approved' END
        WHEN 'finish' THEN CASE WHEN state = 'running' THEN CASE WHEN flag THEN 'done' ELSE 'failed' END END
    END;
    IF target IS NULL THEN
        impossible := 'state';
        RETURN;
    END IF;
    -- It waits for its first approval again.
    IF event NOT IN ('start', 'suspend', 'finish') AND NOT (event = 'sent' AND target = state) THEN
        approvals := '{}';
        forced := event = 'force';
        IF event = 'replace' THEN
            needs := greatest(needs_now, 1);
        END IF;
    END IF;
    state := target;
END
$body$;

-- No way but an event leads from one state to another, and who has sent a change stays.
CREATE OR REPLACE FUNCTION pgsluice.check_step() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
    IF NEW.id <> OLD.id OR NEW.author <> OLD.author OR NOT EXISTS (
        SELECT FROM unnest(ARRAY['sent', 'reject', 'cancel', 'force', 'unforce', 'retry', 'expire', 'replace', 'release',
            'start', 'suspend', 'finish']) AS event, unnest(ARRAY[true, false]) AS flag,
            LATERAL pgsluice.transition(OLD.state, OLD.author, OLD.needs, OLD.approvals, OLD.forced, event, '', NEW.needs, flag) AS after
        WHERE after.impossible IS NULL AND (after.state, after.needs, after.approvals, after.forced)
            IS NOT DISTINCT FROM (NEW.state, NEW.needs, NEW.approvals, NEW.forced)
        UNION ALL
        SELECT FROM unnest(NEW.approvals) AS by,
            LATERAL pgsluice.transition(OLD.state, OLD.author, OLD.needs, OLD.approvals, OLD.forced, 'approve', by, 1, false) AS after
        WHERE after.impossible IS NULL AND (after.state, after.needs, after.approvals, after.forced)
            IS NOT DISTINCT FROM (NEW.state, NEW.needs, NEW.approvals, NEW.forced)
        UNION ALL
        SELECT WHERE (OLD.state, OLD.needs, OLD.approvals, OLD.forced) IS NOT DISTINCT FROM (NEW.state, NEW.needs, NEW.approvals, NEW.forced)
    ) THEN
        RAISE EXCEPTION USING ERRCODE = 'check_violation',
            MESSAGE = format('schema change %s cannot go from %s to %s', OLD.id, OLD.state, NEW.state),
            HINT = 'Change it by the functions of the schema pgsluice.';
    END IF;
    RETURN NEW;
END
$body$;
DROP TRIGGER IF EXISTS check_step ON pgsluice.change;
CREATE TRIGGER check_step BEFORE UPDATE ON pgsluice.change FOR EACH ROW EXECUTE PROCEDURE pgsluice.check_step();
