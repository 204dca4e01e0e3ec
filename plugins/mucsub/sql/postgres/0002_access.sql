-- +goose Up
-- Who may not follow a room: accounts, and whole domains.
CREATE TABLE mucsub_banned (
    room text NOT NULL,
    jid  text NOT NULL, -- bare, or a domain
    PRIMARY KEY (room, jid)
);
-- A digest of the room's password that the subscriber knew; '': there was none.
ALTER TABLE mucsub_subscription ADD COLUMN proof text NOT NULL DEFAULT '';

-- +goose Down
ALTER TABLE mucsub_subscription DROP COLUMN proof;
DROP TABLE mucsub_banned;
