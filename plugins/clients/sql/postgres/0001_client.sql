-- +goose Up
CREATE TABLE client (
    owner       text   NOT NULL,           -- bare, prepared
    agent       text   NOT NULL,           -- user-agent id (XEP-0388 §2.3)
    software    text   NOT NULL,
    device      text   NOT NULL,
    first_seen  bigint NOT NULL,           -- unix microseconds, as the others
    last_seen   bigint NOT NULL,
    password_at bigint NOT NULL DEFAULT 0, -- when it last logged in with the password; 0: never
    PRIMARY KEY (owner, agent)
);
CREATE INDEX client_seen ON client (last_seen);

-- +goose Down
DROP TABLE client;
