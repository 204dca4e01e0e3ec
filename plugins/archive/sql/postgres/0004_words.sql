-- +goose Up
-- Where words are (XEP-0431): word is a hash of one, of two characters of a script
-- without spaces, of a sender's id, or of whom a row is with (words.go).
CREATE TABLE archive_word (
    owner bigint NOT NULL,
    word  bigint NOT NULL,
    id    bigint NOT NULL,
    PRIMARY KEY (owner, word, id)
);
-- Up to which row an archive is in archive_word.
ALTER TABLE archive_owner ADD COLUMN indexed bigint NOT NULL DEFAULT 0;
-- Whether archive_word has words: not while messages are encrypted.
CREATE TABLE archive_index (
    id    bigint  NOT NULL PRIMARY KEY,
    words boolean NOT NULL
);

-- +goose Down
DROP TABLE archive_index;
ALTER TABLE archive_owner DROP COLUMN indexed;
DROP TABLE archive_word;
