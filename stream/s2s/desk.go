package s2s

import (
	"cmp"
	"context"
	"net/http"
	"net/url"
	"slices"
	"time"

	"parley/plugins"
	"parley/plugins/admin"
	"parley/plugins/admin/client"
)

// Direction is who has begun a stream.
type Direction string

// The directions.
const (
	In  Direction = "in"  // another server: it speaks
	Out Direction = "out" // we: our stanzas go out on it
)

// State is how it stands with what we have to say to a domain.
type State string

// The states. What comes in is always Open.
const (
	Open       State = "open"       // stanzas go on it
	Connecting State = "connecting" // a stream is being made
	Failing    State = "failing"    // it is tried again at Next
	Refused    State = "refused"    // until Next everybody gets an error at once
	Idle       State = "idle"       // nothing was to be said for a while
)

// Stream is a pair of domains that talk, or would, on this node; on the wire.
type Stream struct {
	Direction    Direction `json:"direction"`
	Ours         string    `json:"ours"`
	Theirs       string    `json:"theirs"`
	State        State     `json:"state"`
	Since        time.Time `json:"since,omitzero"` // when it became open
	Remote       string    `json:"remote,omitempty"`
	Proof        Proof     `json:"proof,omitempty"` // how who has begun it has shown who it is
	TLS          bool      `json:"tls"`
	Acknowledged bool      `json:"acknowledged"` // what we say, by them (XEP-0198)
	BothWays     bool      `json:"both_ways"`    // XEP-0288
	Waiting      int       `json:"waiting"`      // stanzas that are not on their way
	Bytes        int       `json:"bytes"`        // of them
	Tries        int       `json:"tries"`        // that have failed in a row
	Next         time.Time `json:"next,omitzero"`
	Error        string    `json:"error,omitempty"` // of the last try
}

// Client asks a running server.
type Client struct{ *client.Client }

// List returns what there is with a domain of others, or of ours; "": with all. It is
// of one node.
func (c Client) List(ctx context.Context, domain string) (all []Stream, err error) {
	q := url.Values{"domain": {domain}}
	err = c.Do(ctx, http.MethodGet, client.Path("s2s")+"?"+q.Encode(), nil, &all)
	return all, err
}

// desk is the part in the administration.
type desk struct{ fed *Federation }

var _ admin.Component = (*desk)(nil)

func newDesk(env plugins.Env, _ plugins.Config) (plugins.Component, error) {
	f, err := plugins.Need[*Federation](env, Name)
	return &desk{f}, err
}

// Start implements plugins.Component.
func (*desk) Start(context.Context) error { return nil }

// Stop implements plugins.Component.
func (*desk) Stop(context.Context) error { return nil }

// Routes implements admin.Component.
func (d *desk) Routes(mux *http.ServeMux) {
	mux.HandleFunc("GET /v1/s2s", func(w http.ResponseWriter, r *http.Request) {
		o := d.fed.out.Load()
		if o == nil {
			admin.WriteError(w, admin.Fail(http.StatusConflict, "this node has no streams to other servers: the component s2s of the streamer does not run here"))
			return
		}
		all := o.all()
		if named := r.URL.Query().Get("domain"); named != "" {
			domain, ok := domainOf(named)
			if !ok {
				admin.WriteError(w, admin.Fail(http.StatusBadRequest, "%q is not a domain", named))
				return
			}
			all = slices.DeleteFunc(all, func(s Stream) bool { return s.Ours != domain && s.Theirs != domain })
		}
		admin.Write(w, all)
	})
}

// all tells of every pair, by their names.
func (o *outbound) all() []Stream {
	o.mu.Lock()
	out := make([]Stream, 0, len(o.routes)+len(o.guests))
	for _, r := range o.routes {
		out = append(out, r.status(o.env.Clock.Now())...)
	}
	for in, c := range o.guests {
		out = append(out, in.status(c.Transport().RemoteAddr().String())...)
	}
	o.mu.Unlock()
	slices.SortFunc(out, func(a, b Stream) int {
		return cmp.Or(cmp.Compare(a.Theirs, b.Theirs), cmp.Compare(a.Ours, b.Ours), cmp.Compare(b.Direction, a.Direction), a.Since.Compare(b.Since))
	})
	return out
}

// status tells of the pairs that a stream of another server has proven.
func (in *incoming) status(remote string) []Stream {
	in.mu.Lock()
	defer in.mu.Unlock()
	out := make([]Stream, 0, len(in.pairs))
	for p, shown := range in.pairs {
		out = append(out, Stream{
			Direction: In, Ours: p.to, Theirs: p.from, State: Open, Since: shown.at, Remote: remote,
			Proof: shown.by, TLS: shown.tls, BothWays: shown.both,
		})
	}
	return out
}

// status tells of a route, and of what comes on its stream when that goes both ways.
func (r *route) status(now time.Time) []Stream {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := Stream{
		Direction: Out, Ours: r.from, Theirs: r.to, State: Idle,
		Waiting: len(r.queue), Bytes: r.bytes, Tries: r.tries, Error: r.trouble,
	}
	switch {
	case r.on != nil:
		s.State, s.Since, s.Proof, s.TLS, s.BothWays, s.Acknowledged = Open, r.shown.at, r.shown.by, r.shown.tls, r.shown.both, r.on.acknowledges()
		s.Remote = r.on.conn.Transport().RemoteAddr().String()
	case r.busy:
		s.State = Connecting
	case r.refused != nil && now.Before(r.next):
		s.State, s.Next = Refused, r.next
	case len(r.queue) > 0:
		s.State, s.Next = Failing, r.next
	}
	if s.BothWays && r.link != nil && r.on == &r.link.carrier {
		return append(r.link.in.status(s.Remote), s)
	}
	return []Stream{s}
}
