-- +goose Up
CREATE TABLE mucsub_subscription (
    room    text NOT NULL,
    account text NOT NULL, -- bare, prepared
    nick    text NOT NULL, -- '' is none
    events  text NOT NULL, -- names of nodes, with spaces between
    PRIMARY KEY (room, account)
);
CREATE INDEX mucsub_subscription_account ON mucsub_subscription (account);

-- +goose Down
DROP TABLE mucsub_subscription;
