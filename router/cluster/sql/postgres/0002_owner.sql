-- +goose Up
-- Which life of a node owns a key (router/cluster/owner). A row that nobody owns is
-- kept for a while, for its epoch.
CREATE TABLE cluster_owner (
    id          bytea  NOT NULL PRIMARY KEY, -- the first half of the key's SHA-256
    key         text   NOT NULL,             -- for people
    node        text   NOT NULL,             -- empty: nobody's
    incarnation bigint NOT NULL,
    epoch       bigint NOT NULL,             -- larger for every later owner
    since       bigint NOT NULL              -- unix microseconds of the database's clock
);

-- +goose Down
DROP TABLE cluster_owner;
