-- +goose Up
CREATE TABLE block_item (
    owner      text   NOT NULL, -- bare, prepared
    jid        text   NOT NULL, -- of any form, prepared (XEP-0191 §6)
    created_at bigint NOT NULL, -- unix microseconds
    PRIMARY KEY (owner, jid)
);
CREATE TABLE block_report (
    id         integer PRIMARY KEY AUTOINCREMENT,
    reporter   text    NOT NULL, -- bare
    reported   text    NOT NULL,
    reason     text    NOT NULL, -- XEP-0377 §4
    body       text    NOT NULL,
    stanzas    text    NOT NULL, -- lines of "id by" (XEP-0377 §6)
    to_origin  boolean NOT NULL, -- XEP-0377 §5
    to_third   boolean NOT NULL,
    created_at bigint  NOT NULL  -- unix microseconds
);
CREATE INDEX block_report_reporter ON block_report (reporter, id);
CREATE INDEX block_report_created ON block_report (created_at);

-- +goose Down
DROP TABLE block_report;
DROP TABLE block_item;
