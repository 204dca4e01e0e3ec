-- +goose Up
-- How far an account's archive is counted.
CREATE TABLE inbox_account (
    owner text   NOT NULL PRIMARY KEY, -- bare, prepared
    upto  bigint NOT NULL              -- an archive id
);
-- What was counted in it. Ids are the archive's.
CREATE TABLE inbox_chat (
    owner  text   NOT NULL,
    peer   text   NOT NULL, -- with whom
    last   bigint NOT NULL, -- newest row
    said   bigint NOT NULL, -- newest instant message; 0: none
    unread bigint NOT NULL,
    seen   bigint NOT NULL, -- the read mark that unread was counted with
    PRIMARY KEY (owner, peer)
);
-- What somebody has been told is read, beside what the archive says itself.
CREATE TABLE inbox_mark (
    owner text   NOT NULL,
    peer  text   NOT NULL,
    id    bigint NOT NULL, -- in the archive of owner, of peer when that is a room
    PRIMARY KEY (owner, peer)
);
-- The rooms that an account belongs to.
CREATE TABLE inbox_room (
    owner text   NOT NULL,
    peer  text   NOT NULL, -- the room
    since bigint NOT NULL, -- what is older is not unread: an id
    PRIMARY KEY (owner, peer)
);
CREATE INDEX inbox_room_peer ON inbox_room (peer);
CREATE INDEX inbox_mark_peer ON inbox_mark (peer);
-- Messages of rooms that name an account and that it has not read.
CREATE TABLE inbox_mention (
    owner text   NOT NULL,
    peer  text   NOT NULL,
    id    bigint NOT NULL,
    PRIMARY KEY (owner, peer, id)
);
-- Notification settings: "never client/pc", one a line.
CREATE TABLE inbox_notify (
    owner text NOT NULL,
    peer  text NOT NULL,
    rules text NOT NULL,
    PRIMARY KEY (owner, peer)
);
CREATE INDEX inbox_mention_peer ON inbox_mention (peer);
CREATE INDEX inbox_notify_peer ON inbox_notify (peer);

-- +goose Down
DROP TABLE inbox_notify;
DROP TABLE inbox_mention;
DROP TABLE inbox_room;
DROP TABLE inbox_mark;
DROP TABLE inbox_chat;
DROP TABLE inbox_account;
