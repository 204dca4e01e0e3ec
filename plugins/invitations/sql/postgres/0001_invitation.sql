-- +goose Up
CREATE TABLE invitation (
    id         text   NOT NULL PRIMARY KEY, -- SHA-256 of the token, hex
    inviter    text   NOT NULL, -- bare, prepared; '': the server
    account    text   NOT NULL, -- the address that an account made with it has, or the domain
    opens      bigint NOT NULL, -- 1: an account can be made with it
    created_at bigint NOT NULL, -- unix microseconds, as the others
    expires_at bigint NOT NULL,
    used_at    bigint NOT NULL  -- 0: it is open
);
CREATE INDEX invitation_inviter ON invitation (inviter);
CREATE INDEX invitation_account ON invitation (account);
CREATE INDEX invitation_expires ON invitation (expires_at);

-- +goose Down
DROP TABLE invitation;
