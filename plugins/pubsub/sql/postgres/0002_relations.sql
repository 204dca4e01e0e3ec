-- +goose Up
-- What nodes are to others of the same service, by name; '': nothing.
ALTER TABLE pubsub_node ADD COLUMN base text NOT NULL DEFAULT '';   -- it derives from that one, and goes with it
ALTER TABLE pubsub_node ADD COLUMN link text NOT NULL DEFAULT '';   -- XEP-0496 §4, as in settings
ALTER TABLE pubsub_node ADD COLUMN parent text NOT NULL DEFAULT ''; -- as well
CREATE INDEX pubsub_node_base ON pubsub_node (service, base) WHERE base <> '';
CREATE INDEX pubsub_node_link ON pubsub_node (service, link) WHERE link <> '';
CREATE INDEX pubsub_node_parent ON pubsub_node (service, parent) WHERE parent <> '';

-- +goose Down
DROP INDEX pubsub_node_parent;
DROP INDEX pubsub_node_link;
DROP INDEX pubsub_node_base;
ALTER TABLE pubsub_node DROP COLUMN parent;
ALTER TABLE pubsub_node DROP COLUMN link;
ALTER TABLE pubsub_node DROP COLUMN base;
