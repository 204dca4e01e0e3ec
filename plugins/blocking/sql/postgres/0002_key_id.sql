-- +goose Up
-- The reporter's words can be encrypted (storage/atrest), key_id 0: they are not.
ALTER TABLE block_report ADD COLUMN key_id bigint NOT NULL DEFAULT 0;
ALTER TABLE block_report ALTER COLUMN body TYPE bytea USING convert_to(body, 'UTF8');

-- +goose Down
ALTER TABLE block_report ALTER COLUMN body TYPE text USING convert_from(body, 'UTF8');
ALTER TABLE block_report DROP COLUMN key_id;
