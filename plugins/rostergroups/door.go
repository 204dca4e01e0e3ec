package rostergroups

import (
	"context"
	"net/http"
	"net/url"

	"parley/plugins"
	"parley/plugins/admin"
	"parley/plugins/admin/client"
)

// door has the routes.
//
//	GET    /v1/groups?domain=D
//	POST   /v1/groups                         {"group", "add"}
//	GET    /v1/groups/DOMAIN/NAME
//	PUT    /v1/groups/DOMAIN/NAME             {"group"}: who sees it
//	POST   /v1/groups/DOMAIN/NAME/members     {"add", "remove"}
//	DELETE /v1/groups/DOMAIN/NAME
type door struct{ groups *Groups }

var _ admin.Component = (*door)(nil)

func newDoor(env plugins.Env, _ plugins.Config) (plugins.Component, error) {
	g, err := plugins.Need[*Groups](env, Name)
	return &door{g}, err
}

// Start implements plugins.Component.
func (*door) Start(context.Context) error { return nil }

// Stop implements plugins.Component.
func (*door) Stop(context.Context) error { return nil }

// Routes implements admin.Component.
func (d *door) Routes(mux *http.ServeMux) {
	for pattern, do := range map[string]string{
		"GET /v1/groups":                          doList,
		"POST /v1/groups":                         doAdd,
		"GET /v1/groups/{domain}/{name}":          doShow,
		"PUT /v1/groups/{domain}/{name}":          doSet,
		"POST /v1/groups/{domain}/{name}/members": doMembers,
		"DELETE /v1/groups/{domain}/{name}":       doRemove,
	} {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			all, err := d.answer(r, do)
			switch {
			case err != nil:
				admin.WriteError(w, err)
			case do == doList:
				admin.Write(w, all)
			case len(all) == 0:
				w.WriteHeader(http.StatusNoContent)
			default:
				admin.Write(w, all[0])
			}
		})
	}
}

func (d *door) answer(r *http.Request, do string) ([]Group, error) {
	var o Order
	if r.Method == http.MethodPost || r.Method == http.MethodPut {
		if err := admin.Read(r, &o); err != nil {
			return nil, err
		}
	}
	o.Do = do
	switch do {
	case doList:
		o.Group.Domain = r.URL.Query().Get("domain")
	case doAdd:
	default:
		o.Group.Domain, o.Group.Name = r.PathValue("domain"), r.PathValue("name")
	}
	all, err := d.groups.Run(r.Context(), o)
	if all == nil && do == doList {
		all = []Group{}
	}
	return all, err
}

// Client manages the groups of a running server. Errors are *admin.Problem when the
// server refuses.
type Client struct{ *client.Client }

// List returns the groups of a domain; "": of all.
func (c Client) List(ctx context.Context, domain string) (all []Group, err error) {
	q := url.Values{"domain": {domain}}
	err = c.Do(ctx, http.MethodGet, client.Path("groups")+"?"+q.Encode(), nil, &all)
	return all, err
}

// Show returns a group with its members.
func (c Client) Show(ctx context.Context, domain, name string) (g Group, err error) {
	err = c.Do(ctx, http.MethodGet, client.Path("groups", domain, name), nil, &g)
	return g, err
}

// Add makes a group.
func (c Client) Add(ctx context.Context, g Group, members []Member) (made Group, err error) {
	err = c.Do(ctx, http.MethodPost, client.Path("groups"), Order{Group: g, Add: members}, &made)
	return made, err
}

// Set changes who sees a group.
func (c Client) Set(ctx context.Context, g Group) (set Group, err error) {
	err = c.Do(ctx, http.MethodPut, client.Path("groups", g.Domain, g.Name), Order{Group: g}, &set)
	return set, err
}

// Members changes who is in a group.
func (c Client) Members(ctx context.Context, domain, name string, add []Member, remove []string) (g Group, err error) {
	err = c.Do(ctx, http.MethodPost, client.Path("groups", domain, name, "members"), Order{Add: add, Remove: remove}, &g)
	return g, err
}

// Remove takes a group away.
func (c Client) Remove(ctx context.Context, domain, name string) error {
	return c.Do(ctx, http.MethodDelete, client.Path("groups", domain, name), nil, nil)
}
