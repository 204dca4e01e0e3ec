-- +goose Up
-- On which days (id / 86400000000, UTC) an archive has rows with somebody: a
-- query with a rare contact reads those, not the index of the whole archive.
CREATE TABLE archive_day (
    owner bigint NOT NULL,
    peer  bigint NOT NULL,
    day   bigint NOT NULL,
    PRIMARY KEY (owner, peer, day)
);
INSERT INTO archive_day (owner, peer, day) SELECT DISTINCT owner, peer, id / 86400000000 FROM archive;
-- A row's contact follows from its peer: a planner that multiplies the two
-- expects fifty times too few rows, and gives up reading them in order.
CREATE STATISTICS archive_contact (dependencies) ON peer, contact FROM archive;

-- +goose Down
DROP STATISTICS archive_contact;
DROP TABLE archive_day;
