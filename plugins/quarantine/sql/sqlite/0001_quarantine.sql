-- +goose Up
-- Stanzas that handlers panicked at, again and again. id is when, made unique.
CREATE TABLE quarantine (
    id      bigint  NOT NULL PRIMARY KEY,
    sender  text    NOT NULL,
    account text    NOT NULL,
    pending bigint  NOT NULL,
    reason  text    NOT NULL,
    tries   integer NOT NULL,
    stanza  blob,
    key_id  bigint  NOT NULL DEFAULT 0
);

-- +goose Down
DROP TABLE quarantine;
