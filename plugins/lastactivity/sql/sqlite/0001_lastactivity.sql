-- +goose Up
CREATE TABLE last_activity (
    owner  text   NOT NULL PRIMARY KEY, -- bare, prepared
    at     bigint NOT NULL,             -- when its last session became unavailable, unix microseconds
    status text   NOT NULL              -- what it said
);

-- +goose Down
DROP TABLE last_activity;
