-- Takes the ledger away. The roles stay if another database uses them.
DROP SCHEMA IF EXISTS pgsluice CASCADE;
DO $body$
DECLARE
    _role text;
BEGIN
    FOREACH _role IN ARRAY ARRAY['pgsluice_operator', 'pgsluice_viewer', 'pgsluice_proxy'] LOOP
        IF EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.rolname = _role) THEN
            BEGIN
                EXECUTE pg_catalog.format('DROP ROLE %I', _role);
            EXCEPTION WHEN dependent_objects_still_exist OR insufficient_privilege THEN
                RAISE NOTICE 'role % stays: %', _role, SQLERRM;
            END;
        END IF;
    END LOOP;
END
$body$;
