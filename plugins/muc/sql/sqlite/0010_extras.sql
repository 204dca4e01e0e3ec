-- +goose Up
CREATE TABLE muc_hat (
    room  text NOT NULL,
    uri   text NOT NULL,
    title text NOT NULL,
    hue   text NOT NULL, -- degrees; '' is none
    PRIMARY KEY (room, uri)
);
CREATE TABLE muc_hat_worn (
    room text NOT NULL,
    jid  text NOT NULL, -- bare
    uri  text NOT NULL,
    PRIMARY KEY (room, jid, uri)
);
CREATE INDEX muc_hat_worn_jid ON muc_hat_worn (jid);
CREATE TABLE muc_card (
    room   text  NOT NULL PRIMARY KEY,
    card   blob  NOT NULL, -- vCard
    hashes text  NOT NULL  -- of its pictures: SHA-1 in hexadecimal, a space between them
);
CREATE TABLE muc_departure (
    room    text   NOT NULL,
    jid     text   NOT NULL, -- who has no affiliation any more; '': before this version nothing is known
    version bigint NOT NULL, -- of the room's affiliations, since when
    PRIMARY KEY (room, jid)
);
CREATE TABLE muc_token (
    room       text   NOT NULL,
    token      text   NOT NULL,
    creator    text   NOT NULL, -- bare
    uses_left  bigint NOT NULL, -- negative: no limit
    expires_at bigint NOT NULL, -- unix microseconds
    PRIMARY KEY (room, token)
);
CREATE INDEX muc_token_creator ON muc_token (creator);
ALTER TABLE muc_occupant ADD COLUMN versions boolean NOT NULL DEFAULT false; -- has asked for affiliations

-- +goose Down
ALTER TABLE muc_occupant DROP COLUMN versions;
DROP TABLE muc_token;
DROP TABLE muc_departure;
DROP TABLE muc_card;
DROP TABLE muc_hat_worn;
DROP TABLE muc_hat;
