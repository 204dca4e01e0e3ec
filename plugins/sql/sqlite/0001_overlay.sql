-- +goose Up
CREATE TABLE config_overlay (
    path    text   NOT NULL PRIMARY KEY,
    value   text   NOT NULL,
    version bigint NOT NULL,
    set_by  text   NOT NULL,
    set_at  bigint NOT NULL
);
CREATE TABLE config_version (
    id      bigint NOT NULL PRIMARY KEY,
    version bigint NOT NULL
);

-- +goose Down
DROP TABLE config_version;
DROP TABLE config_overlay;
