-- +goose Up
-- The reporter's words can be encrypted (storage/atrest), key_id 0: they are not.
ALTER TABLE block_report ADD COLUMN key_id bigint NOT NULL DEFAULT 0;
ALTER TABLE block_report ADD COLUMN words blob NOT NULL DEFAULT x'';
UPDATE block_report SET words = CAST(body AS blob);
ALTER TABLE block_report DROP COLUMN body;
ALTER TABLE block_report RENAME COLUMN words TO body;

-- +goose Down
ALTER TABLE block_report ADD COLUMN words text NOT NULL DEFAULT '';
UPDATE block_report SET words = CAST(body AS text);
ALTER TABLE block_report DROP COLUMN body;
ALTER TABLE block_report RENAME COLUMN words TO body;
ALTER TABLE block_report DROP COLUMN key_id;
