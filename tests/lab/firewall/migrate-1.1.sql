ALTER TABLE firewall_rules ADD COLUMN hits bigint NOT NULL DEFAULT 0;
UPDATE firewall_rules SET action = 'reject' WHERE action = 'drop' AND id % 5 = 0;
UPDATE schema_version SET version = 2;
