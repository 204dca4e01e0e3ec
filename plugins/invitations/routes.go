package invitations

import (
	"context"
	"net/http"
	"time"

	"parley/parser/jid"
	"parley/plugins"
	"parley/plugins/admin"
	"parley/plugins/admin/client"
)

// Request is the body of POST /v1/invitations.
type Request struct {
	For   string `json:"for"`   // an account's address, or a domain, whose people choose a name
	Hours int    `json:"hours"` // how long it is good
}

// Made is its answer. The token is in the URI.
type Made struct {
	URI     string    `json:"uri"`
	Expires time.Time `json:"expires"`
	Token   string    `json:"token"`
}

// routes are those of the administration.
type routes struct {
	env    plugins.Env
	tokens *Tokens
}

var _ admin.Component = (*routes)(nil)

func newRoutes(env plugins.Env, _ plugins.Config) (plugins.Component, error) {
	t, err := plugins.Need[*Tokens](env, Name)
	return &routes{env, t}, err
}

// Start implements plugins.Component.
func (*routes) Start(context.Context) error { return nil }

// Stop implements plugins.Component.
func (*routes) Stop(context.Context) error { return nil }

// Routes implements admin.Component.
func (r *routes) Routes(mux *http.ServeMux) {
	mux.HandleFunc("POST /v1/invitations", func(w http.ResponseWriter, req *http.Request) {
		made, err := r.make(req)
		if err != nil {
			admin.WriteError(w, err)
			return
		}
		admin.Write(w, made)
	})
}

// maxHours is a year.
const maxHours = 8760

func (r *routes) make(req *http.Request) (*Made, error) {
	var in Request
	if err := admin.Read(req, &in); err != nil {
		return nil, err
	}
	j, err := jid.Parse(in.For)
	switch {
	case err != nil || !j.IsBare() || !r.env.Local(j.Domain()):
		return nil, admin.Fail(http.StatusUnprocessableEntity, "%q is neither an account's address nor a domain of this server", in.For)
	case in.Hours < 1 || in.Hours > maxHours:
		return nil, admin.Fail(http.StatusUnprocessableEntity, "hours: from 1 to %d", maxHours)
	}
	one := Invitation{Account: j, Opens: true, Expires: r.env.Clock.Now().Add(time.Duration(in.Hours) * time.Hour).Truncate(time.Second)}
	if j.Local() != "" {
		taken, err := r.tokens.Reserved(req.Context(), j, "")
		if err != nil {
			return nil, err
		}
		if taken {
			return nil, admin.Fail(http.StatusConflict, "somebody is invited to %s already", j)
		}
	}
	token, err := r.tokens.issue(req.Context(), one, -1)
	if err != nil {
		return nil, err
	}
	return &Made{one.URI(token), one.Expires, token}, nil
}

// Client makes invitations at a running server.
type Client struct{ *client.Client }

// Invite invites somebody to an account, or a domain.
func (c Client) Invite(ctx context.Context, to string, hours int) (m Made, err error) {
	err = c.Do(ctx, http.MethodPost, client.Path("invitations"), Request{to, hours}, &m)
	return m, err
}
