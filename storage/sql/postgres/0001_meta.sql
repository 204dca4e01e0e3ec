-- +goose Up
CREATE TABLE parley_meta (key text NOT NULL PRIMARY KEY, value bytea NOT NULL);

-- +goose Down
DROP TABLE parley_meta;
