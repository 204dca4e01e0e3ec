package quarantine

import (
	"context"
	"net/http"

	"parley/plugins/admin/client"
)

// Client asks a running server. Errors are *admin.Problem when it refuses: 404
// there is no such stanza.
type Client struct{ *client.Client }

// List returns what is in quarantine, without the stanzas.
func (c Client) List(ctx context.Context) (all []Entry, err error) {
	err = c.Do(ctx, http.MethodGet, client.Path("quarantine"), nil, &all)
	return all, err
}

// Show returns one with its stanza.
func (c Client) Show(ctx context.Context, id string) (e Entry, err error) {
	err = c.Do(ctx, http.MethodGet, client.Path("quarantine", id), nil, &e)
	return e, err
}

// Drop removes one.
func (c Client) Drop(ctx context.Context, id string) error {
	return c.Do(ctx, http.MethodDelete, client.Path("quarantine", id), nil, nil)
}
