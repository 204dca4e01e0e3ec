-- +goose Up
ALTER TABLE account ADD COLUMN password_at bigint NOT NULL DEFAULT 0; -- when the password was last changed, unix microseconds; 0: never

-- +goose Down
ALTER TABLE account DROP COLUMN password_at;
