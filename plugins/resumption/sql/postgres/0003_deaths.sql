-- +goose Up
-- life is that of the process which has the session, larger than those of all
-- before it; 0: from before it was noted. died is when its node was seen to be
-- gone, in unix microseconds; 0: it was not.
ALTER TABLE resumption ADD COLUMN life bigint NOT NULL DEFAULT 0;
ALTER TABLE resumption ADD COLUMN died bigint NOT NULL DEFAULT 0;

-- +goose Down
ALTER TABLE resumption DROP COLUMN died;
ALTER TABLE resumption DROP COLUMN life;
