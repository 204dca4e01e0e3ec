-- +goose Up
-- A page of the public rooms is read in the order of their addresses. SQLite does
-- not take "listed" for "listed = true", so an index with that column in it did not help.
CREATE INDEX muc_room_public ON muc_room (service, room) WHERE listed;
DROP INDEX muc_room_listed;

-- +goose Down
CREATE INDEX muc_room_listed ON muc_room (service, listed, room);
DROP INDEX muc_room_public;
