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

-- +goose Down
DROP TABLE archive_day;
