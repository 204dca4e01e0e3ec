-- +goose Up
CREATE TABLE stranger_wish (
    owner         text NOT NULL PRIMARY KEY, -- bare
    messages      text NOT NULL,             -- allow, limit, refuse; '': as the server has it
    subscriptions text NOT NULL,
    invitations   text NOT NULL
);
CREATE TABLE stranger_known ( -- to whom an account has turned of its own accord
    owner   text   NOT NULL, -- bare
    contact text   NOT NULL, -- bare
    at      bigint NOT NULL, -- unix microseconds
    PRIMARY KEY (owner, contact)
);
CREATE INDEX stranger_known_contact ON stranger_known (contact);
CREATE TABLE stranger_use ( -- what strangers have used of their limits
    owner    text   NOT NULL, -- bare
    stranger text   NOT NULL, -- bare; '': all together
    what     text   NOT NULL, -- messages, subscriptions, invitations
    hour     bigint NOT NULL, -- since 1970
    used     bigint NOT NULL,
    PRIMARY KEY (owner, stranger, what)
);
CREATE INDEX stranger_use_hour ON stranger_use (hour);

-- +goose Down
DROP TABLE stranger_use;
DROP TABLE stranger_known;
DROP TABLE stranger_wish;
