-- +goose Up
CREATE TABLE upload_file (
    id      bigint PRIMARY KEY, -- in the order of time: when the slot was given
    token   blob NOT NULL,      -- SHA-256 of the one in the address
    owner   text NOT NULL,      -- bare, prepared
    purpose text NOT NULL,
    type    text NOT NULL,      -- media type; '': nobody has said
    shown   boolean NOT NULL,   -- browsers may show it
    size    bigint NOT NULL,    -- bytes
    state   bigint NOT NULL,    -- 0: a slot; 1: being uploaded; 2: a file
    ends    bigint NOT NULL,    -- unix microseconds: when that is over; 0: never
    until   bigint NOT NULL,    -- and when a file is, at the latest; 0: never
    keep    bigint NOT NULL,    -- how long a file stays, in microseconds; 0: for good
    blob    bigint,             -- its content, when it is a file
    what    blob NOT NULL,      -- the token, and the file's name
    key_id  bigint NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX upload_file_token ON upload_file (token);
CREATE INDEX upload_file_owner ON upload_file (owner, id);
CREATE INDEX upload_file_ends ON upload_file (ends) WHERE ends > 0;
CREATE TABLE upload_blob (
    id      bigint PRIMARY KEY, -- random
    hash    blob NOT NULL,      -- HMAC of the content's SHA-256
    object  text NOT NULL,      -- its key in the store
    size    bigint NOT NULL,    -- of the content
    refs    bigint NOT NULL,    -- files that have it
    missing bigint NOT NULL,    -- unix microseconds: since when the store has not got it; 0: it has
    secret  blob,               -- the key of what is encrypted; NULL: it is not
    key_id  bigint NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX upload_blob_hash ON upload_blob (hash);
CREATE UNIQUE INDEX upload_blob_object ON upload_blob (object);
CREATE INDEX upload_blob_unused ON upload_blob (id) WHERE refs = 0;
CREATE TABLE upload_secret (
    id     bigint PRIMARY KEY, -- 1: of the hashes
    secret blob NOT NULL,
    key_id bigint NOT NULL DEFAULT 0
);

-- +goose Down
DROP TABLE upload_secret;
DROP TABLE upload_blob;
DROP TABLE upload_file;
