-- +goose Up
-- How long messages are kept, in microseconds: with a contact, or with peer 0 and no
-- contact in all of an archive. What a contact's say is gone up to and including upto.
CREATE TABLE archive_age (
    owner   bigint NOT NULL,
    peer    bigint NOT NULL,
    contact text   NOT NULL,
    age     bigint NOT NULL,
    upto    bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (owner, peer)
) WITHOUT ROWID;

-- +goose Down
DROP TABLE archive_age;
