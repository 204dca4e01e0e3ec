-- +goose Up
CREATE TABLE private_item (
    owner text NOT NULL, -- bare, prepared
    space text NOT NULL, -- namespace of the root element
    name  text NOT NULL, -- its local name
    data  blob NOT NULL, -- the element, or several of that name
    PRIMARY KEY (owner, space, name)
);

-- +goose Down
DROP TABLE private_item;
