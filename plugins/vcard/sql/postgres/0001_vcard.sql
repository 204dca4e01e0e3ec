-- +goose Up
CREATE TABLE vcard (
    owner      text   NOT NULL PRIMARY KEY, -- bare, prepared
    card       bytea  NOT NULL,             -- the element vCard, serialised
    changed_at bigint NOT NULL              -- unix microseconds
);

-- +goose Down
DROP TABLE vcard;
