-- +goose Up
CREATE TABLE s2s_secret (
    id     bigint PRIMARY KEY, -- 1
    secret text NOT NULL       -- what dialback keys are made with (XEP-0185); every node has the same
);

-- +goose Down
DROP TABLE s2s_secret;
