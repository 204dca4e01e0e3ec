-- +goose Up
-- A row is one node's last life. Times are unix microseconds of the database's clock.
CREATE TABLE cluster_node (
    node        text    NOT NULL PRIMARY KEY,
    incarnation bigint  NOT NULL,
    number      bigint  NOT NULL UNIQUE,
    servers     text    NOT NULL, -- separated by spaces
    version     text    NOT NULL,
    draining    boolean NOT NULL,
    since       bigint  NOT NULL,
    until       bigint  NOT NULL, -- not indexed: Postgres renews a row in its page then
    ended       boolean NOT NULL  -- it left, or somebody saw it run out: it is never renewed
);
-- The last incarnation that was given; one row.
CREATE TABLE cluster_life (
    id   bigint NOT NULL PRIMARY KEY,
    last bigint NOT NULL
);

-- +goose Down
DROP TABLE cluster_life;
DROP TABLE cluster_node;
