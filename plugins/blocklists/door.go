package blocklists

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"parley/parser/jid"
	"parley/plugins"
	"parley/plugins/admin"
	"parley/plugins/admin/client"
)

// Status is how it stands with a list, on the wire.
type Status struct {
	List     string    `json:"list"`
	Rooms    bool      `json:"rooms_only"`
	Items    int       `json:"items"`
	Fetched  time.Time `json:"fetched,omitzero"`
	Next     time.Time `json:"next,omitzero"`
	Failures int       `json:"failures"`
	Error    string    `json:"error,omitempty"`
}

// Finding is a list that somebody is on.
type Finding struct {
	List   string `json:"list"`
	Listed string `json:"listed"` // the address, or its domain
	Reason string `json:"reason,omitempty"`
}

// Client asks a running server.
type Client struct{ *client.Client }

// List returns the lists that there are.
func (c Client) List(ctx context.Context) (all []Status, err error) {
	err = c.Do(ctx, http.MethodGet, client.Path("blocklists"), nil, &all)
	return all, err
}

// Find returns the lists that somebody is on.
func (c Client) Find(ctx context.Context, who string) (all []Finding, err error) {
	err = c.Do(ctx, http.MethodGet, client.Path("blocklists", who), nil, &all)
	return all, err
}

// door has the routes.
type door struct{ lists *Lists }

var _ admin.Component = (*door)(nil)

func newDoor(env plugins.Env, _ plugins.Config) (plugins.Component, error) {
	l, err := plugins.Need[*Lists](env, Name)
	return &door{l}, err
}

// Start implements plugins.Component.
func (*door) Start(context.Context) error { return nil }

// Stop implements plugins.Component.
func (*door) Stop(context.Context) error { return nil }

// Routes implements admin.Component.
func (d *door) Routes(mux *http.ServeMux) {
	mux.HandleFunc("GET /v1/blocklists", func(w http.ResponseWriter, r *http.Request) {
		all, err := d.lists.status(r.Context())
		answer(w, all, err)
	})
	mux.HandleFunc("GET /v1/blocklists/{jid}", func(w http.ResponseWriter, r *http.Request) {
		who, err := jid.Parse(r.PathValue("jid"))
		if err != nil {
			admin.WriteError(w, admin.Fail(http.StatusBadRequest, "%q is no address", r.PathValue("jid")))
			return
		}
		all, err := d.lists.find(r.Context(), who)
		answer(w, all, err)
	})
}

func answer(w http.ResponseWriter, v any, err error) {
	if err != nil {
		admin.WriteError(w, err)
		return
	}
	admin.Write(w, v)
}

// status tells of the lists, in the order of their names.
func (l *Lists) status(ctx context.Context) ([]Status, error) {
	states, err := l.store.states(ctx)
	if err != nil {
		return nil, err
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	out := []Status{}
	for src, one := range l.lists {
		st := states[src]
		out = append(out, Status{src, one.rooms, len(one.has), st.fetched, st.next, st.failures, st.err})
	}
	slices.SortFunc(out, func(a, b Status) int { return strings.Compare(a.List, b.List) })
	return out, nil
}

// find looks somebody up on all lists.
func (l *Lists) find(ctx context.Context, who jid.JID) ([]Finding, error) {
	out := []Finding{}
	names := []string{who.Bare().String()}
	if who.Local() != "" {
		names = append(names, who.Domain())
	}
	all, err := l.status(ctx)
	if err != nil {
		return nil, err
	}
	for _, one := range all {
		for _, name := range names {
			reason, listed, err := l.store.listed(ctx, one.List, hashOf(name))
			if err != nil {
				return nil, err
			}
			if listed {
				out = append(out, Finding{one.List, name, reason})
			}
		}
	}
	return out, nil
}
