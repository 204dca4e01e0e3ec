-- +goose Up
-- The old table goes at once: a node of an earlier release that still runs is
-- refused when it changes something, instead of changing what nobody reads.
CREATE TABLE config_setting (
    path    text   NOT NULL,
    node    text   NOT NULL,
    value   text   NOT NULL,
    version bigint NOT NULL,
    set_by  text   NOT NULL,
    set_at  bigint NOT NULL,
    PRIMARY KEY (path, node)
);
CREATE TABLE config_phase (
    server    text   NOT NULL,
    component text   NOT NULL,
    phase     text   NOT NULL,
    version   bigint NOT NULL,
    set_by    text   NOT NULL,
    set_at    bigint NOT NULL,
    PRIMARY KEY (server, component)
);
CREATE TABLE config_log (
    version   bigint  NOT NULL,
    path      text    NOT NULL,
    set_at    bigint  NOT NULL,
    set_by    text    NOT NULL,
    node      text    NOT NULL,
    own       boolean NOT NULL,
    old_value text    NOT NULL,
    new_value text    NOT NULL,
    PRIMARY KEY (version, path)
);
CREATE TABLE config_node (
    node    text   NOT NULL PRIMARY KEY,
    version bigint NOT NULL, -- that counts there
    tried   bigint NOT NULL, -- later: one that does not go with its file
    seen_at bigint NOT NULL,
    error   text   NOT NULL
);
INSERT INTO config_setting (path, node, value, version, set_by, set_at) SELECT path, '', value, version, set_by, set_at FROM config_overlay;
INSERT INTO config_log (version, path, set_at, set_by, node, own, old_value, new_value)
    SELECT version, path, set_at, set_by, '', false, '', value FROM config_overlay;
DROP TABLE config_overlay;

-- +goose Down
CREATE TABLE config_overlay (
    path    text   NOT NULL PRIMARY KEY,
    value   text   NOT NULL,
    version bigint NOT NULL,
    set_by  text   NOT NULL,
    set_at  bigint NOT NULL
);
INSERT INTO config_overlay (path, value, version, set_by, set_at) SELECT path, value, version, set_by, set_at FROM config_setting WHERE node = '';
DROP TABLE config_setting;
DROP TABLE config_phase;
DROP TABLE config_log;
DROP TABLE config_node;
