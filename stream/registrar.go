package stream

import (
	"context"
	"net"
	"net/http"
	"net/url"
	"slices"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins"
	"parley/router/channel"
	"parley/router/sessions"
	"parley/stream/sasl"
)

// Credentials knows accounts' keys and tokens; the accounts feature brings it.
type Credentials interface {
	// SASL returns the mechanisms of a domain of ours.
	SASL(domain string) (*sasl.Server, error)
	// Throttle slows down guessing.
	Throttle() *sasl.Throttle
	// Issue makes a FAST token for the client (XEP-0484 §3.2).
	Issue(ctx context.Context, account jid.JID, clientID, mechanism string) (sasl.Token, error)
	// Revoke forgets the client's tokens (XEP-0484 §3.6).
	Revoke(ctx context.Context, account jid.JID, clientID string) error
}

// Phase is how far a stream has come.
type Phase uint8

// The phases; a set of them is their sum.
const (
	Fresh         Phase = 1 << iota // not encrypted, not authenticated
	Secured                         // encrypted (or need not be), not authenticated
	Authenticated                   // not bound
	Established                     // bound
)

// Feature is one of <stream:features/> with the elements that belong to it.
type Feature struct {
	In        Phase                          // when it is advertised and its elements are taken
	Order     int                            // among the features; smaller comes first
	Advertise func(*Conn) *stanza.Element    // nil: not on this stream
	Elements  map[stanza.Name]ElementHandler // first-level elements, by name
}

// ElementHandler deals with one first-level element that is no stanza. A
// *stanza.StreamError ends the stream.
type ElementHandler func(context.Context, *Conn, *stanza.Element) error

// Inline is a feature that a client may ask for while it binds (XEP-0386 §3.2).
type Inline struct {
	Name stanza.Name // the element inside <bind/>; its namespace is advertised
	// Always calls Handle for clients that did not ask as well, with a nil
	// element; with an empty Name nothing is advertised.
	Always bool
	// Handle changes the state the session is bound with, and returns what
	// goes into <bound/>; nil: nothing.
	Handle func(context.Context, *Conn, *stanza.Element, *sessions.State) *stanza.Element
}

// PreAuthIQ answers a request of a client that has not logged in (XEP-0077 §3).
type PreAuthIQ func(ctx context.Context, c *Conn, st *stanza.Stanza) (*stanza.Element, error)

// Registrar takes down what a component adds to streams. Everything registered
// vanishes with the component.
type Registrar struct {
	server      *Server
	name        string
	features    []Feature
	inlines     []Inline
	preAuth     map[stanza.Name]PreAuthIQ
	routes      map[string]http.Handler
	credentials Credentials
	resumptions Resumptions
	loggedIn    func(Login)
	noted       func(ctx context.Context, refs []sessions.Ref, note []byte)
}

// Noted lets f hear what the component of the same name in the processor notes
// of this streamer's sessions. f must not wait.
func (r *Registrar) Noted(f func(ctx context.Context, refs []sessions.Ref, note []byte)) { r.noted = f }

// Note tells the component of the same name in the processor about a session, in
// its place among what that one sends.
func (r *Registrar) Note(ctx context.Context, ref sessions.Ref, note []byte) error {
	return r.server.send(ctx, &channel.Envelope{Kind: channel.Note, Session: ref, Reason: r.name, Raw: note})
}

// SurrenderOne is Surrender for a session whose reference is known.
func (r *Registrar) SurrenderOne(ctx context.Context, ref sessions.Ref) bool {
	s, ok := r.server.session(ref)
	if !ok {
		return false
	}
	s.mu.Lock()
	m := s.sm
	s.mu.Unlock()
	return m != nil && r.server.surrender(ctx, m.key, ref.JID.Bare())
}

// Later runs f on a goroutine that the Server waits for when it stops.
func (r *Registrar) Later(f func(context.Context)) { r.server.later(f) }

// LoggedIn calls f with each login. It must not wait.
func (r *Registrar) LoggedIn(f func(Login)) { r.loggedIn = f }

// Credentials sets who knows the keys. One component does.
func (r *Registrar) Credentials(c Credentials) { r.credentials = c }

// Resumptions sets who keeps sessions across a restart. One component does.
func (r *Registrar) Resumptions(k Resumptions) { r.resumptions = k }

// StreamFeature adds a feature.
func (r *Registrar) StreamFeature(f Feature) { r.features = append(r.features, f) }

// InlineFeature adds to Bind 2.
func (r *Registrar) InlineFeature(i Inline) { r.inlines = append(r.inlines, i) }

// PreAuthIQ answers requests with the payload name before login.
func (r *Registrar) PreAuthIQ(name stanza.Name, h PreAuthIQ) {
	if r.preAuth == nil {
		r.preAuth = map[stanza.Name]PreAuthIQ{}
	}
	r.preAuth[name] = h
}

// HTTP serves a pattern of net/http on the HTTP doors.
func (r *Registrar) HTTP(pattern string, h http.Handler) {
	if r.routes == nil {
		r.routes = map[string]http.Handler{}
	}
	r.routes[pattern] = h
}

// HTTPLasting is HTTP for requests that last, like uploads: what is installed or
// reconfigured meanwhile does not wait for them. The component's own Stop ends them
// and waits. The path is not split up for h (http.Request.PathValue).
func (r *Registrar) HTTPLasting(pattern string, h http.Handler) { r.HTTP(pattern, lasting{h}) }

// lasting is a handler that its component waits for.
type lasting struct{ http.Handler }

// Routed reports whether a component serves the path on the HTTP doors.
func (r *Registrar) Routed(path string) bool {
	_, pattern := r.server.table.Load().http.Handler(&http.Request{Method: http.MethodGet, URL: &url.URL{Path: path}})
	return pattern == path
}

// Serve runs a stream over a transport that the component has accepted, until
// the stream is bound or has ended: a bound one goes on by itself. While the
// Server is stopped nobody is served.
func (r *Registrar) Serve(ctx context.Context, t Transport, p Profile) {
	if r.server.serving.Load() == nil {
		t.Close(0)
		if i, ok := p.(Initiator); ok {
			i.Ended()
		}
		return
	}
	r.server.Serve1(ctx, t, p)
}

// Draining reports whether nobody is let in, because clients are to go to other
// nodes.
func (r *Registrar) Draining() bool { return r.server.draining.Load() }

// Close ends a bound stream of this node with a stream error.
func (r *Registrar) Close(ref sessions.Ref, se *stanza.StreamError) {
	if s, ok := r.server.session(ref); ok {
		s.closeWith(se)
	}
}

// Surrender ends the account's session that may be resumed by the key, so that
// another node goes on with it: its client is told of the conflict, nobody else
// of an end, and Pause has been called. False: there is none here.
func (r *Registrar) Surrender(ctx context.Context, key Key, account jid.JID) bool {
	return r.server.surrender(ctx, key, account)
}

// Door notes where a component listens, for Addresses; nil: nowhere any more.
func (r *Registrar) Door(name string, at net.Addr) {
	r.server.noteAddress(name, at)
}

// Client is the profile of ordinary clients, for Serve.
func (r *Registrar) Client() Profile { return clientProfile{} }

// Addresses returns where the doors are open, by name (c2s, c2s-tls, http,
// https): what was configured, or what the system chose for port 0.
func (r *Registrar) Addresses() map[string]string { return r.server.Addresses() }

// table is what the attached components have registered: immutable.
type table struct {
	*plugins.Usage
	features    []Feature
	elements    map[stanza.Name][]boundElement
	inlines     []Inline
	preAuth     map[stanza.Name]PreAuthIQ
	http        *http.ServeMux
	credentials Credentials
	resumptions Resumptions // nil: a restart ends every session
	parts       []*Registrar
}

// acquire returns the table in force and keeps it from being drained; who has
// it calls Leave.
func (s *Server) acquire() *table {
	for {
		t := s.table.Load()
		t.Enter()
		if s.table.Load() == t {
			return t
		}
		t.Leave()
	}
}

type boundElement struct {
	in Phase
	h  ElementHandler
}

func newTable(parts []*Registrar) *table {
	t := &table{parts: parts, Usage: plugins.NewUsage(), elements: map[stanza.Name][]boundElement{}, preAuth: map[stanza.Name]PreAuthIQ{}, http: http.NewServeMux()}
	t.features = append(t.features, coreFeatures()...)
	for _, p := range parts {
		t.features = append(t.features, p.features...)
		t.inlines = append(t.inlines, p.inlines...)
		for n, h := range p.preAuth {
			t.preAuth[n] = h
		}
		for pattern, h := range p.routes {
			t.http.Handle(pattern, h)
		}
		if p.credentials != nil {
			t.credentials = p.credentials
		}
		if p.resumptions != nil {
			t.resumptions = p.resumptions
		}
	}
	slices.SortStableFunc(t.features, func(a, b Feature) int { return a.Order - b.Order })
	for _, f := range t.features {
		for n, h := range f.Elements {
			t.elements[n] = append(t.elements[n], boundElement{f.In, h})
		}
	}
	return t
}
