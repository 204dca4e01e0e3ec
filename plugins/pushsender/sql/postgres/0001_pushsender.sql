-- +goose Up
-- What is to be woken by which outside service. Whoever has a node and its secret
-- wakes one device, and can do nothing else.
CREATE TABLE push_registration (
    node          text    NOT NULL PRIMARY KEY, -- unguessable
    owner         text    NOT NULL, -- bare, prepared
    kind          text    NOT NULL, -- webpush, apns, fcm
    endpoint      text    NOT NULL, -- the URL, or the service's token
    p256dh        text    NOT NULL, -- webpush: the client's keys (RFC 8291 §3), base64url
    auth          text    NOT NULL,
    app           text    NOT NULL, -- apns: the topic
    with_text     integer NOT NULL, -- 1: the client wants what stands for the text
    secret        text    NOT NULL, -- SHA-256 of it, hexadecimal
    created_at    bigint  NOT NULL, -- unix microseconds, like all times here
    failures      integer NOT NULL DEFAULT 0, -- in a row
    failing_since bigint  NOT NULL DEFAULT 0,
    retry_at      bigint  NOT NULL DEFAULT 0, -- the outside service is left alone until then
    UNIQUE (owner, kind, endpoint)
);

-- +goose Down
DROP TABLE push_registration;
