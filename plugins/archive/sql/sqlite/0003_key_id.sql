-- +goose Up
-- The key that stanza is encrypted with (storage/atrest); 0: it is not.
ALTER TABLE archive ADD COLUMN key_id bigint NOT NULL DEFAULT 0;
ALTER TABLE archive_pending ADD COLUMN key_id bigint NOT NULL DEFAULT 0;

-- +goose Down
ALTER TABLE archive_pending DROP COLUMN key_id;
ALTER TABLE archive DROP COLUMN key_id;
