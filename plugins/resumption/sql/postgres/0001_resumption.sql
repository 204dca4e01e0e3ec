-- +goose Up
-- Sessions that go on after a restart. id is a part of key, which is a hash:
-- what the table holds resumes nothing. h is how many of the client's stanzas
-- are done; it never goes back. epoch counts the processes that have had the
-- session: what an earlier one still writes counts for nothing. span and away
-- are microseconds; away is since when it has no connection, 0: it has one.
-- alone is 1 as long as the account has had no other session beside it.
-- acked and queue are what its client had been sent when the server stopped.
CREATE TABLE resumption (
    id      bigint NOT NULL PRIMARY KEY,
    key     bytea  NOT NULL,
    account text   NOT NULL,
    epoch   bigint NOT NULL,
    h       bigint NOT NULL,
    span    bigint NOT NULL,
    away    bigint NOT NULL,
    state   bytea  NOT NULL,
    alone   bigint NOT NULL,
    acked   bigint,
    queue   bytea
) WITH (fillfactor = 50);

-- +goose Down
DROP TABLE resumption;
