package processor

import (
	"context"
	"strings"
	"testing"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/router/channel"
	"parley/router/cluster/owner"
	"parley/router/sessions"
)

// TestReliability33OwnersKnowWhoEnters: a room's owner hears of somebody's entry before it is
// shown the session, or sees one that had the address before: nodes have not heard each
// other for a while. What the room says then has to go to the new session.
func TestReliability33OwnersKnowWhoEnters(t *testing.T) {
	s := newBare()
	at, then := jid.MustParse("romeo@b/x"), time.UnixMicro(1_000_000)
	entry := func(conn uint64, bound time.Time) *sessions.Entry {
		return &sessions.Entry{Ref: sessions.Ref{Node: "other", Conn: conn, JID: at}, State: sessions.State{Kind: sessions.Client, BoundAt: bound}}
	}
	knew := make(chan sessions.Ref, 10)
	if _, err := s.Attach("room", owns(func(context.Context, *stanza.Stanza) error {
		e, _ := s.env.Sessions.Find(at)
		if e == nil {
			e = &sessions.Entry{}
		}
		knew <- e.Ref
		return nil
	})); err != nil {
		t.Fatal(err)
	}
	do := func(ctx context.Context, typ string, bound time.Time) string {
		st := stanza.Make(stanza.Presence, typ, at, jid.MustParse("room@rooms.b/romeo"), "", nil)
		answer, err := s.owned(ctx, &owner.Hold{Key: "room"}, channel.Encode(nil, &channel.Envelope{Kind: channel.Arrive, Raw: st.Raw, Stanza: st, Stamp: bound.UnixMicro()}))
		if err != nil {
			t.Error(err)
		}
		return string(answer)
	}
	s.env.Sessions.Adopt("other", at.Bare(), []*sessions.Entry{entry(1, then)})
	later := then.Add(time.Microsecond)
	answered := make(chan string)
	go func() { answered <- do(t.Context(), "", later) }()
	s.env.Sessions.Adopt("other", at.Bare(), []*sessions.Entry{entry(1, then)}) // is not news
	s.env.Sessions.Adopt("other", at.Bare(), []*sessions.Entry{entry(2, later)})
	if got := <-answered; got != "" {
		t.Errorf("answered %q", got)
	}
	if got := <-knew; got.Conn != 2 {
		t.Errorf("knows %v", got)
	}
	if do(t.Context(), "", then); (<-knew).Conn != 2 {
		t.Error("a later session with the address is not enough")
	}
	never, stop := context.WithCancel(t.Context())
	stop()
	s.sights.Store(maxSights)
	if got := do(t.Context(), "", later.Add(time.Hour)); !strings.Contains(got, "remote-server-timeout") {
		t.Errorf("with enough that waits: %q", got)
	}
	if do(t.Context(), "", then); (<-knew).Conn != 2 {
		t.Error("who is known does not wait")
	}
	s.sights.Store(0)
	if got := do(never, "", later.Add(time.Hour)); !strings.Contains(got, "remote-server-timeout") || len(knew) != 0 {
		t.Errorf("whose session is never shown: %q, the work done %d times", got, len(knew))
	}
	if do(never, stanza.TypeUnavailable, later.Add(time.Hour)); len(knew) != 1 {
		t.Error("who leaves may have ended, and is not waited for")
	}
}

// Who is behind a component has no session of its own that another node could know.
func TestBoundOfWhoIsBehindAComponent(t *testing.T) {
	e := &sessions.Entry{Ref: sessions.Ref{JID: jid.MustParse("bridge.b")}, State: sessions.State{Kind: sessions.Component, BoundAt: time.UnixMicro(1)}}
	for from, want := range map[string]bool{"ghost@bridge.b/x": false, "bridge.b": true} {
		st := stanza.Make(stanza.Presence, "", jid.MustParse(from), jid.MustParse("room@rooms.b/ghost"), "", nil)
		if got := (&Flow{Stanza: st, Session: e}).bound(); got.IsZero() == want {
			t.Errorf("%s: bound at %v", from, got)
		}
	}
}

// owns is a component whose work is all.
type owns func(context.Context, *stanza.Stanza) error

func (owns) Start(context.Context) error { return nil }
func (owns) Stop(context.Context) error  { return nil }
func (f owns) Register(r *Registrar) {
	r.Owned(Owned{
		Key: func(*stanza.Stanza) (string, bool) { return "room", true },
		Presence: func(ctx context.Context, st *stanza.Stanza, _ time.Time, _ *owner.Hold) error {
			return f(ctx, st)
		},
	})
}
