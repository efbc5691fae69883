-- One of everything that a dump may hold.
CREATE SCHEMA app;
CREATE TYPE app.mood AS ENUM ('sad', 'ok', 'happy');
CREATE TYPE app.pair AS (a int, b text);
CREATE DOMAIN app.positive AS int CHECK (VALUE > 0);
CREATE SEQUENCE app.numbers START 10;
CREATE TABLE app.person (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text COLLATE "C" NOT NULL,
    mood app.mood DEFAULT 'ok',
    age app.positive,
    twice int GENERATED ALWAYS AS (age * 2) STORED,
    tags text[],
    details jsonb,
    extra app.pair,
    CONSTRAINT named CHECK (length(name) < 100)
);
CREATE UNIQUE INDEX person_name ON app.person (lower(name));
CREATE INDEX person_details ON app.person USING gin (details);
CREATE INDEX person_sad ON app.person (age) WHERE mood = 'sad';
ALTER TABLE app.person ADD CONSTRAINT apart EXCLUDE USING btree (id WITH =) DEFERRABLE;
CREATE STATISTICS app.correlated ON age, mood FROM app.person;
CREATE TABLE app.visit (
    id int DEFAULT nextval('app.numbers'), person bigint REFERENCES app.person ON DELETE CASCADE, at date NOT NULL
) PARTITION BY RANGE (at);
CREATE TABLE app.visit_2025 PARTITION OF app.visit FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
CREATE TABLE app.visit_other PARTITION OF app.visit DEFAULT;
CREATE INDEX visit_at ON app.visit (at);
CREATE TABLE app.child (more int) INHERITS (app.person);
CREATE VIEW app.happy AS SELECT id, name FROM app.person WHERE mood = 'happy' WITH CHECK OPTION;
CREATE MATERIALIZED VIEW app.counts AS SELECT mood, count(*) FROM app.person GROUP BY mood;
CREATE UNIQUE INDEX counts_mood ON app.counts (mood);
CREATE FUNCTION app.touch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- ALTER TABLE is only said here.
    NEW.name := trim(NEW.name);
    RETURN NEW;
END $$;
CREATE PROCEDURE app.nothing(n int) LANGUAGE sql AS 'SELECT n';
CREATE AGGREGATE app.total(int) (SFUNC = int4pl, STYPE = int, INITCOND = '0');
CREATE OPERATOR app.<-> (LEFTARG = int, RIGHTARG = int, FUNCTION = int4pl);
CREATE CAST (app.pair AS text) WITH INOUT;
CREATE TRIGGER touched BEFORE INSERT ON app.person FOR EACH ROW EXECUTE FUNCTION app.touch();
CREATE RULE quiet AS ON DELETE TO app.happy DO INSTEAD NOTHING;
ALTER TABLE app.person ENABLE ROW LEVEL SECURITY;
CREATE POLICY everyone ON app.person USING (true);
CREATE PUBLICATION changes FOR TABLE app.person;
CREATE TEXT SEARCH CONFIGURATION app.words (COPY = simple);
COMMENT ON TABLE app.person IS 'people; DROP TABLE is only said here';
COMMENT ON COLUMN app.person.name IS 'their names';
GRANT SELECT ON app.person TO PUBLIC;
ALTER DEFAULT PRIVILEGES IN SCHEMA app GRANT SELECT ON TABLES TO PUBLIC;
INSERT INTO app.person (name, mood, age, tags, details, extra)
    SELECT ' person ' || g, (ARRAY['sad', 'ok', 'happy'])[1 + g % 3]::app.mood, g, ARRAY['a', 'b' || g],
        jsonb_build_object('n', g), ROW(g, 'x')::app.pair
    FROM generate_series(1, 3000) g;
INSERT INTO app.visit (person, at) SELECT 1 + g % 3000, '2025-06-01'::date + g FROM generate_series(1, 1000) g;
REFRESH MATERIALIZED VIEW app.counts;
SELECT lo_from_bytea(0, convert_to(repeat('blob ', 20000), 'UTF8')) IS NOT NULL AS a_blob;
