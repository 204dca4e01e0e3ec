// Package accountadmin lets accounts be managed through the administration socket
// (plugins/admin): its routes, and a client for them (client.go).
//
//	GET    /v1/accounts?domain=D&after=JID&limit=N   a page, by address
//	POST   /v1/accounts                              {"jid", "password"}
//	GET    /v1/accounts/JID
//	PUT    /v1/accounts/JID/password                 {"password"}
//	POST   /v1/accounts/JID/disable, …/enable
//	DELETE /v1/accounts/JID
//
// Passwords are in bodies only, so they never come near a log.
package accountadmin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"parley/parser/jid"
	"parley/plugins"
	"parley/plugins/accounts"
	"parley/plugins/admin"
)

// Name is the plugin's name.
const Name = "accountadmin"

// Plugin provides the component.
var Plugin = plugins.Plugin{
	Name:       Name,
	Doc:        "Accounts on the administration socket.",
	Requires:   []string{admin.Name, accounts.Name},
	Components: []plugins.Maker{{Server: admin.Name, New: newComponent}},
}

// Account is one account on the wire. Times that never were are left out.
type Account struct {
	JID       string    `json:"jid"`
	Created   time.Time `json:"created,omitzero"`
	LastLogin time.Time `json:"last_login,omitzero"`
	Disabled  time.Time `json:"disabled,omitzero"`
	Sessions  []Session `json:"sessions"`
}

// Session is one of an account's sessions.
type Session struct {
	Resource  string    `json:"resource"`
	Since     time.Time `json:"since"`
	Available bool      `json:"available"`
}

// Page is a part of a list; Next, when not empty, is the after of the next.
type Page struct {
	Accounts []Account `json:"accounts"`
	Next     string    `json:"next,omitempty"`
}

// Credentials is the body that makes an account or, without a JID, sets its
// password.
type Credentials struct {
	JID      string `json:"jid,omitempty"`
	Password string `json:"password"`
}

// keeper is what is used of *accounts.Accounts.
type keeper interface {
	Create(context.Context, jid.JID, string) error
	SetPassword(context.Context, jid.JID, string) error
	Disable(context.Context, jid.JID) error
	Enable(context.Context, jid.JID) error
	Delete(context.Context, jid.JID) error
	Show(context.Context, jid.JID) (accounts.Account, error)
	List(ctx context.Context, domain string, after jid.JID, limit int) ([]accounts.Account, error)
}

// component has the routes.
type component struct {
	env  plugins.Env
	keep keeper
}

var _ admin.Component = (*component)(nil)

func newComponent(env plugins.Env, _ plugins.Config) (plugins.Component, error) {
	a, err := plugins.Need[*accounts.Accounts](env, accounts.Name)
	if err != nil {
		return nil, err
	}
	return &component{env, a}, nil
}

// Start implements plugins.Component.
func (*component) Start(context.Context) error { return nil }

// Stop implements plugins.Component.
func (*component) Stop(context.Context) error { return nil }

// Routes implements admin.Component.
func (c *component) Routes(mux *http.ServeMux) {
	mux.HandleFunc("GET /v1/accounts", admin.Answer(refused, c.list))
	mux.HandleFunc("POST /v1/accounts", admin.Answer(refused, c.create))
	mux.HandleFunc("GET /v1/accounts/{jid}", admin.Answer(refused, c.show))
	mux.HandleFunc("PUT /v1/accounts/{jid}/password", admin.Answer(refused, c.password))
	mux.HandleFunc("POST /v1/accounts/{jid}/disable", admin.Answer(refused, c.simple(c.keep.Disable)))
	mux.HandleFunc("POST /v1/accounts/{jid}/enable", admin.Answer(refused, c.simple(c.keep.Enable)))
	mux.HandleFunc("DELETE /v1/accounts/{jid}", admin.Answer(refused, c.simple(c.keep.Delete)))
}

// refused gives the contract's errors their status.
func refused(err error) error {
	for _, row := range []struct {
		err    error
		status int
	}{
		{accounts.ErrUnknown, http.StatusNotFound},
		{accounts.ErrExists, http.StatusConflict},
		{accounts.ErrName, http.StatusUnprocessableEntity},
		{accounts.ErrPassword, http.StatusUnprocessableEntity},
		{accounts.ErrBusy, http.StatusServiceUnavailable},
	} {
		if errors.Is(err, row.err) {
			return admin.Fail(row.status, "%s", err.Error())
		}
	}
	return err
}

func address(text string) (jid.JID, error) {
	j, err := jid.Parse(text)
	if err != nil {
		return j, admin.Fail(http.StatusUnprocessableEntity, "%q is no address, NAME@DOMAIN without blanks and \" & ' / : < > in NAME (%v)", text, err)
	}
	return j, nil
}

func (c *component) simple(f func(context.Context, jid.JID) error) func(*http.Request) (any, error) {
	return func(r *http.Request) (any, error) {
		j, err := address(r.PathValue("jid"))
		if err != nil {
			return nil, err
		}
		return nil, c.named(j, f(r.Context(), j))
	}
}

// named says whom an error is about.
func (c *component) named(j jid.JID, err error) error {
	switch {
	case errors.Is(err, accounts.ErrName):
		return fmt.Errorf("%s: %w: NAME@DOMAIN, and the domains are %s", j, err, strings.Join(c.env.Domains.List(), ", "))
	case err != nil:
		return fmt.Errorf("%s: %w", j, err)
	}
	return nil
}

func (c *component) create(r *http.Request) (any, error) {
	var in Credentials
	if err := admin.Read(r, &in); err != nil {
		return nil, err
	}
	j, err := address(in.JID)
	if err != nil {
		return nil, err
	}
	if err := c.keep.Create(r.Context(), j, in.Password); err != nil {
		return nil, c.named(j, err)
	}
	return c.describe(r.Context(), j)
}

func (c *component) password(r *http.Request) (any, error) {
	var in Credentials
	if err := admin.Read(r, &in); err != nil {
		return nil, err
	}
	j, err := address(r.PathValue("jid"))
	if err != nil {
		return nil, err
	}
	return nil, c.named(j, c.keep.SetPassword(r.Context(), j, in.Password))
}

func (c *component) show(r *http.Request) (any, error) {
	j, err := address(r.PathValue("jid"))
	if err != nil {
		return nil, err
	}
	return c.describe(r.Context(), j)
}

func (c *component) describe(ctx context.Context, j jid.JID) (any, error) {
	a, err := c.keep.Show(ctx, j)
	if err != nil {
		return nil, c.named(j, err)
	}
	return wire(a), nil
}

// pageSize is how many accounts a page has when nobody says.
const pageSize = 100

func (c *component) list(r *http.Request) (any, error) {
	q := r.URL.Query()
	var after jid.JID
	var err error
	if t := q.Get("after"); t != "" {
		if after, err = address(t); err != nil {
			return nil, err
		}
	}
	limit := pageSize
	if t := q.Get("limit"); t != "" {
		if limit, err = strconv.Atoi(t); err != nil || limit < 1 {
			return nil, admin.Fail(http.StatusBadRequest, "limit is a number above 0")
		}
	}
	domain := q.Get("domain")
	if own := c.env.Domains.List(); domain == "" && len(own) > 0 {
		domain = own[0]
	}
	if !c.env.Local(domain) {
		return nil, admin.Fail(http.StatusNotFound, "%q is not served here", domain)
	}
	list, err := c.keep.List(r.Context(), domain, after, limit)
	if err != nil {
		return nil, err
	}
	p := Page{Accounts: make([]Account, 0, len(list))}
	for _, a := range list {
		p.Accounts = append(p.Accounts, wire(a))
	}
	if len(list) >= limit {
		p.Next = list[len(list)-1].JID.String()
	}
	return p, nil
}

func wire(a accounts.Account) Account {
	out := Account{JID: a.JID.String(), Created: a.Created, LastLogin: a.LastLogin, Disabled: a.Disabled, Sessions: []Session{}}
	for _, s := range a.Sessions {
		out.Sessions = append(out.Sessions, Session{Resource: s.JID.Resource(), Since: s.BoundAt, Available: s.Available})
	}
	return out
}
