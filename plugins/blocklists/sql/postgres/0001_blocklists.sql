-- +goose Up
CREATE TABLE blocklist (
    source     text   NOT NULL PRIMARY KEY, -- xmpp:SERVICE?;node=NODE
    version    bigint NOT NULL DEFAULT 0,   -- of its items; larger with each change
    fetched_at bigint NOT NULL DEFAULT 0,   -- unix microseconds; 0: never
    next_at    bigint NOT NULL DEFAULT 0,   -- when it is fetched again
    failures   bigint NOT NULL DEFAULT 0,   -- in a row
    error      text   NOT NULL DEFAULT ''   -- the last try's
);
CREATE TABLE blocklist_item (
    source  text    NOT NULL,
    hash    text    NOT NULL, -- SHA-256 of a bare JID or a domain, hex in lower case
    reason  text    NOT NULL,
    listed  boolean NOT NULL, -- false: taken off since the list was fetched
    version bigint  NOT NULL, -- of the list, with this change
    PRIMARY KEY (source, hash)
);

-- +goose Down
DROP TABLE blocklist_item;
DROP TABLE blocklist;
