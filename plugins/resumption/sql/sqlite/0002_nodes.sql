-- +goose Up
-- The node that has the session: only a later process of that node goes on with
-- it by itself. Empty: from before there were several. buried is 1 when another
-- node has told its contacts that it has gone. span 0: it has ended at away.
-- given is 1 when its node lets another one have it.
ALTER TABLE resumption ADD COLUMN node text NOT NULL DEFAULT '';
ALTER TABLE resumption ADD COLUMN buried bigint NOT NULL DEFAULT 0;
ALTER TABLE resumption ADD COLUMN given bigint NOT NULL DEFAULT 0;
CREATE INDEX resumption_account ON resumption (account);

-- +goose Down
DROP INDEX resumption_account;
ALTER TABLE resumption DROP COLUMN given;
ALTER TABLE resumption DROP COLUMN buried;
ALTER TABLE resumption DROP COLUMN node;
