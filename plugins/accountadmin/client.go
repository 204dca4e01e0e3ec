package accountadmin

import (
	"context"
	"net/http"
	"net/url"

	"parley/plugins/admin/client"
)

// Client manages the accounts of a running server. Errors are *admin.Problem
// when the server refuses: 404 there is no such account, 409 it exists.
type Client struct{ *client.Client }

// Create makes an account.
func (c Client) Create(ctx context.Context, jid, password string) (a Account, err error) {
	err = c.Do(ctx, http.MethodPost, client.Path("accounts"), Credentials{jid, password}, &a)
	return a, err
}

// SetPassword changes the password.
func (c Client) SetPassword(ctx context.Context, jid, password string) error {
	return c.Do(ctx, http.MethodPut, client.Path("accounts", jid, "password"), Credentials{Password: password}, nil)
}

// Disable keeps the account from being used.
func (c Client) Disable(ctx context.Context, jid string) error {
	return c.Do(ctx, http.MethodPost, client.Path("accounts", jid, "disable"), nil, nil)
}

// Enable undoes Disable.
func (c Client) Enable(ctx context.Context, jid string) error {
	return c.Do(ctx, http.MethodPost, client.Path("accounts", jid, "enable"), nil, nil)
}

// Delete ends the account and everything that is kept of it.
func (c Client) Delete(ctx context.Context, jid string) error {
	return c.Do(ctx, http.MethodDelete, client.Path("accounts", jid), nil, nil)
}

// Show describes the account.
func (c Client) Show(ctx context.Context, jid string) (a Account, err error) {
	err = c.Do(ctx, http.MethodGet, client.Path("accounts", jid), nil, &a)
	return a, err
}

// List is a page of a domain's accounts; domain "" is the first one served.
func (c Client) List(ctx context.Context, domain, after string) (p Page, err error) {
	q := url.Values{"domain": {domain}, "after": {after}, "limit": {"1000"}}
	err = c.Do(ctx, http.MethodGet, client.Path("accounts")+"?"+q.Encode(), nil, &p)
	return p, err
}
