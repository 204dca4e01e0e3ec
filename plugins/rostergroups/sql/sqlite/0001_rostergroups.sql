-- +goose Up
CREATE TABLE roster_group (
    domain    text    NOT NULL,
    name      text    NOT NULL, -- as rosters show it
    everyone  boolean NOT NULL, -- every account of the domain is a member
    everybody boolean NOT NULL, -- every account of the domain sees the members
    PRIMARY KEY (domain, name)
);
CREATE TABLE roster_group_member (
    domain  text NOT NULL,
    name    text NOT NULL,
    jid     text NOT NULL, -- bare
    display text NOT NULL, -- what rosters call the member; ''
    PRIMARY KEY (domain, name, jid)
);
CREATE INDEX roster_group_member_jid ON roster_group_member (jid);
CREATE TABLE roster_group_version (
    one     integer PRIMARY KEY, -- 1
    version bigint NOT NULL -- larger with each change; no row: there was none
);

-- +goose Down
DROP TABLE roster_group_version;
DROP TABLE roster_group_member;
DROP TABLE roster_group;
