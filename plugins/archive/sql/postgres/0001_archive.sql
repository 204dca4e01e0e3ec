-- +goose Up
-- Whose archive it is, under a small number that goes into every key. A
-- number is never used again: what an old owner left is nobody's.
CREATE TABLE archive_owner (
    id   bigint  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    jid  text    NOT NULL UNIQUE,
    mode text    NOT NULL DEFAULT 'always'
);
CREATE TABLE archive_rule (
    owner bigint  NOT NULL,
    jid   text    NOT NULL,
    keep  boolean NOT NULL,
    PRIMARY KEY (owner, jid)
);
-- Append-only with one unique index; peer stands in it so that a
-- query for one contact need not touch the rows of the others.
CREATE TABLE archive (
    owner    bigint NOT NULL,
    id       bigint NOT NULL,
    peer     bigint NOT NULL,
    contact  text   NOT NULL,
    resource text   NOT NULL,
    stanza   bytea  NOT NULL
);
CREATE UNIQUE INDEX archive_key ON archive (owner, id, peer);
-- What its owner has not got yet. stanza is set when the archive must not
-- hold the message: it goes with this row.
CREATE TABLE archive_pending (
    owner  bigint NOT NULL,
    id     bigint NOT NULL,
    stanza bytea,
    PRIMARY KEY (owner, id)
);
CREATE TABLE archive_gone (
    owner bigint NOT NULL PRIMARY KEY,
    at    bigint NOT NULL
);
-- How far ids have come.
CREATE TABLE archive_mark (
    id   bigint NOT NULL PRIMARY KEY,
    mark bigint NOT NULL
);

-- +goose Down
DROP TABLE archive_mark;
DROP TABLE archive_gone;
DROP TABLE archive_pending;
DROP TABLE archive;
DROP TABLE archive_rule;
DROP TABLE archive_owner;
