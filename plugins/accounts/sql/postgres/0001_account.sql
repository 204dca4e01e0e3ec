-- +goose Up
CREATE TABLE account (
    jid         text COLLATE "C" NOT NULL PRIMARY KEY, -- bare, prepared (RFC 7622)
    domain      text   NOT NULL,
    skeleton    text   NOT NULL,           -- of the localpart: names that look alike share it
    created_at  bigint NOT NULL,           -- unix microseconds, as the others
    login_at    bigint NOT NULL DEFAULT 0, -- last session; 0: never
    disabled_at bigint NOT NULL DEFAULT 0, -- 0: enabled
    removed_at  bigint NOT NULL DEFAULT 0  -- not 0: deleted; the row goes when every feature has forgotten it
);
CREATE INDEX account_domain ON account (domain, jid);
CREATE INDEX account_skeleton ON account (skeleton);
CREATE INDEX account_removed ON account (removed_at) WHERE removed_at <> 0;
CREATE TABLE account_key (
    jid        text COLLATE "C" NOT NULL,
    hash       bigint NOT NULL,            -- 1: SHA-1 (RFC 5802), 2: SHA-256 (RFC 7677)
    salt       bytea  NOT NULL,
    iterations bigint NOT NULL,
    stored_key bytea  NOT NULL,
    server_key bytea  NOT NULL,
    PRIMARY KEY (jid, hash)
);
CREATE TABLE account_token (
    jid        text COLLATE "C" NOT NULL,
    client     text   NOT NULL,            -- user-agent id (XEP-0388 §2.3)
    slot       text   NOT NULL,            -- new, current (XEP-0484 §5.1)
    id         bigint NOT NULL,
    secret     text   NOT NULL,            -- the HT mechanisms compute with the token itself
    mechanism  text   NOT NULL,
    expires_at bigint NOT NULL,
    counter    bigint NOT NULL DEFAULT 0,  -- highest count processed (XEP-0484 §3.4)
    PRIMARY KEY (jid, client, slot)
);

-- +goose Down
DROP TABLE account_token;
DROP TABLE account_key;
DROP TABLE account;
