-- +goose Up
CREATE TABLE muc_room (
    room       text    NOT NULL PRIMARY KEY, -- bare, prepared
    service    text    NOT NULL,             -- its domain
    creator    text    NOT NULL,             -- bare
    created_at bigint  NOT NULL,             -- unix microseconds
    listed     boolean NOT NULL,             -- anybody may find it
    name       text    NOT NULL,             -- for people
    locked     boolean NOT NULL,             -- waits for its first configuration
    config     text    NOT NULL,             -- RoomConfig as JSON
    version    bigint  NOT NULL,             -- of the affiliations
    subject    blob,                         -- the last change as it went out; NULL: there was none
    subject_at bigint  NOT NULL              -- unix microseconds
);
CREATE INDEX muc_room_listed ON muc_room (service, listed, room);
CREATE INDEX muc_room_creator ON muc_room (creator);
CREATE TABLE muc_affiliation (
    room        text   NOT NULL,
    jid         text   NOT NULL, -- bare, or the domain of outcasts
    affiliation text   NOT NULL, -- outcast, member, admin, owner
    nick        text   NOT NULL, -- reserved; '' is none
    reason      text   NOT NULL,
    version     bigint NOT NULL, -- of the room's affiliations, when it became so
    PRIMARY KEY (room, jid)
);
CREATE INDEX muc_affiliation_jid ON muc_affiliation (jid);
CREATE TABLE muc_occupant (
    room     text   NOT NULL,
    jid      text   NOT NULL, -- full: one session
    nick     text   NOT NULL,
    role     text   NOT NULL,
    presence blob   NOT NULL, -- the last one, as it is shown
    since    bigint NOT NULL, -- unix microseconds
    PRIMARY KEY (room, jid)
);
CREATE INDEX muc_occupant_jid ON muc_occupant (jid);

-- +goose Down
DROP TABLE muc_occupant;
DROP TABLE muc_affiliation;
DROP TABLE muc_room;
