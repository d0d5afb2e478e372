-- The tables that the maintenance guide names, with rows on both sides of each age.
CREATE ROLE zehrasec LOGIN;
CREATE TABLE schema_version (version int NOT NULL);
INSERT INTO schema_version VALUES (1);
CREATE TABLE firewall_rules (id int PRIMARY KEY, action text NOT NULL, note text);
INSERT INTO firewall_rules SELECT n, CASE WHEN n % 3 = 0 THEN 'drop' ELSE 'accept' END, 'rule ' || n || E' \u00fc\t"' FROM generate_series(1, 200) n;
CREATE TABLE threat_events (id bigserial PRIMARY KEY, at timestamptz NOT NULL, source inet NOT NULL);
INSERT INTO threat_events (at, source) SELECT now() - n * interval '1 hour', ('198.51.100.' || n % 250)::inet FROM generate_series(1, 1000) n;
CREATE TABLE audit_logs (id bigserial PRIMARY KEY, created_at timestamptz NOT NULL, note text);
INSERT INTO audit_logs (created_at, note) SELECT now() - n * interval '1 day', md5(n::text) FROM generate_series(1, 180) n;
CREATE TABLE session_logs (id bigserial PRIMARY KEY, created_at timestamptz NOT NULL, who text);
INSERT INTO session_logs (created_at, who) SELECT now() - n * interval '1 day', 'user ' || n % 7 FROM generate_series(1, 60) n;
CREATE TABLE temp_data (id bigserial PRIMARY KEY, created_at timestamptz NOT NULL);
INSERT INTO temp_data (created_at) SELECT now() - n * interval '6 hours' FROM generate_series(1, 40) n;
CREATE INDEX audit_logs_at ON audit_logs (created_at);
GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA public TO zehrasec;
ALTER TABLE firewall_rules OWNER TO zehrasec;
