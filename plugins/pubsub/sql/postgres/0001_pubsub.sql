-- +goose Up
CREATE TABLE pubsub_node (
    id         bigint NOT NULL PRIMARY KEY, -- random
    service    text   NOT NULL,             -- bare JID of an account, or a domain
    name       text   NOT NULL,
    account    text   NOT NULL,             -- whose limits it counts towards, bare
    creator    text   NOT NULL,             -- bare
    created_at bigint NOT NULL,             -- unix microseconds
    settings   text   NOT NULL,             -- JSON
    seq        bigint NOT NULL,             -- of the last publication; never goes back
    newest     bigint NOT NULL,             -- seq of the newest item; 0: there is none
    items      bigint NOT NULL,
    bytes      bigint NOT NULL,             -- of their payloads
    UNIQUE (service, name)
);
CREATE INDEX pubsub_node_account ON pubsub_node (account);

CREATE TABLE pubsub_item (
    node       bigint NOT NULL,
    seq        bigint NOT NULL, -- order of publication
    id         text   NOT NULL,
    publisher  text   NOT NULL, -- as it came, bare or full
    at         bigint NOT NULL, -- unix microseconds
    born       bigint NOT NULL, -- seq of the first publication under this id
    born_at    bigint NOT NULL, -- and when that was
    expires_at bigint NOT NULL, -- unix microseconds; 0: never
    size       bigint NOT NULL, -- of the payload, in bytes, unsealed
    payload    bytea,              -- an element; NULL: none
    key_id     bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (node, seq)
);
CREATE UNIQUE INDEX pubsub_item_id ON pubsub_item (node, id);
CREATE UNIQUE INDEX pubsub_item_born ON pubsub_item (node, born);
CREATE INDEX pubsub_item_expires ON pubsub_item (expires_at) WHERE expires_at > 0;

CREATE TABLE pubsub_affiliation (
    node        bigint NOT NULL,
    jid         text   NOT NULL, -- bare
    affiliation text   NOT NULL,
    PRIMARY KEY (node, jid)
);
CREATE INDEX pubsub_affiliation_jid ON pubsub_affiliation (jid);

CREATE TABLE pubsub_subscription (
    node       bigint  NOT NULL,
    jid        text    NOT NULL, -- bare or full
    bare       text    NOT NULL,
    state      text    NOT NULL, -- subscribed, pending
    options    text    NOT NULL, -- JSON
    temp       boolean NOT NULL, -- ends when the subscriber becomes unavailable
    asked      boolean NOT NULL, -- by the subscriber: it counts towards their limit
    expires_at bigint  NOT NULL, -- unix microseconds; 0: never
    created_at bigint  NOT NULL,
    PRIMARY KEY (node, jid)
);
CREATE INDEX pubsub_subscription_bare ON pubsub_subscription (bare);
CREATE INDEX pubsub_subscription_expires ON pubsub_subscription (expires_at) WHERE expires_at > 0;
CREATE INDEX pubsub_subscription_temp ON pubsub_subscription (bare) WHERE temp;

CREATE TABLE pubsub_moved (
    service text   NOT NULL,
    name    text   NOT NULL,
    account text   NOT NULL, -- whose the node was, bare
    uri     text   NOT NULL, -- where it is now
    at      bigint NOT NULL, -- unix microseconds
    PRIMARY KEY (service, name)
);
CREATE INDEX pubsub_moved_account ON pubsub_moved (account);

-- +goose Down
DROP TABLE pubsub_moved;
DROP TABLE pubsub_subscription;
DROP TABLE pubsub_affiliation;
DROP TABLE pubsub_item;
DROP TABLE pubsub_node;
