-- +goose Up
CREATE TABLE roster_versions (
    owner text   NOT NULL PRIMARY KEY,
    ver   bigint NOT NULL,
    floor bigint NOT NULL
) WITHOUT ROWID;
CREATE TABLE roster_items (
    owner    text    NOT NULL,
    jid      text    NOT NULL,
    name     text    NOT NULL,
    in_groups text    NOT NULL,
    state    bigint  NOT NULL,
    approved boolean NOT NULL,
    removed  boolean NOT NULL,
    ver      bigint  NOT NULL,
    PRIMARY KEY (owner, jid)
) WITHOUT ROWID;
CREATE INDEX roster_items_ver ON roster_items (owner, ver);
CREATE TABLE roster_requests (
    owner  text   NOT NULL,
    jid    text   NOT NULL,
    stanza blob   NOT NULL,
    at     bigint NOT NULL,
    PRIMARY KEY (owner, jid)
);

-- +goose Down
DROP TABLE roster_requests;
DROP TABLE roster_items;
DROP TABLE roster_versions;
