-- +goose Up
CREATE TABLE admin_role ( -- administrators of a domain, besides those in the configuration
    domain  text NOT NULL,
    account text NOT NULL, -- bare, prepared
    PRIMARY KEY (domain, account)
);
CREATE INDEX admin_role_account ON admin_role (account);
CREATE TABLE admin_list ( -- entities of other servers
    domain text NOT NULL,
    kind   text NOT NULL, -- black, white
    jid    text NOT NULL, -- prepared
    PRIMARY KEY (domain, kind, jid)
);
CREATE TABLE admin_text ( -- what people get when they come
    domain  text   NOT NULL,
    kind    text   NOT NULL, -- motd, welcome
    body    text   NOT NULL,
    version bigint NOT NULL, -- when it was set, unix microseconds
    PRIMARY KEY (domain, kind)
);
CREATE TABLE admin_told ( -- who has had which
    account text   NOT NULL,
    kind    text   NOT NULL,
    version bigint NOT NULL,
    PRIMARY KEY (account, kind)
);
CREATE TABLE admin_announcement ( -- messages on their way to the accounts of a domain
    id       text   NOT NULL PRIMARY KEY,
    domain   text   NOT NULL,
    audience text   NOT NULL, -- online, all
    kind     text   NOT NULL, -- motd: only to those who have not had it
    version  bigint NOT NULL, -- of the motd
    body     text   NOT NULL,
    reached  text   NOT NULL, -- the last account that it has reached
    made_at  bigint NOT NULL  -- unix microseconds
);

-- +goose Down
DROP TABLE admin_announcement;
DROP TABLE admin_told;
DROP TABLE admin_text;
DROP TABLE admin_list;
DROP TABLE admin_role;
