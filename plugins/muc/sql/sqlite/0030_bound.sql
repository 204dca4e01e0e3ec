-- +goose Up
ALTER TABLE muc_occupant ADD COLUMN bound bigint NOT NULL DEFAULT 0; -- when the session was, unix microseconds; 0: nobody knows

-- +goose Down
ALTER TABLE muc_occupant DROP COLUMN bound;
