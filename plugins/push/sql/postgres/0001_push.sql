-- +goose Up
-- The push services that accounts have enabled, and what each is to be told.
CREATE TABLE push_target (
    owner         text    NOT NULL, -- bare, prepared
    service       text    NOT NULL, -- the push service's address
    node          text    NOT NULL, -- at it; '' when the client has named none
    options       bytea,            -- <x/> with publish-options; NULL: none
    enabled_at    bigint  NOT NULL, -- unix microseconds, like all times here
    waiting       integer NOT NULL DEFAULT 0, -- messages of which it does not know
    calls         integer NOT NULL DEFAULT 0, -- of those
    failed        integer NOT NULL DEFAULT 0, -- tries in a row
    due_at        bigint  NOT NULL DEFAULT 0, -- when it is to be told; 0: nothing waits
    told_at       bigint  NOT NULL DEFAULT 0,
    claimed_until bigint  NOT NULL DEFAULT 0, -- a node is telling it
    PRIMARY KEY (owner, service, node)
);
CREATE INDEX push_target_due ON push_target (due_at) WHERE due_at > 0;

-- +goose Down
DROP TABLE push_target;
