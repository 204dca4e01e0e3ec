-- +goose Up
CREATE TABLE parley_meta (key text NOT NULL PRIMARY KEY, value blob NOT NULL);

-- +goose Down
DROP TABLE parley_meta;
