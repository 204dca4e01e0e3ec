package stream

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/router/channel"
	"parley/router/sessions"
)

var testRoom = jid.MustParse("room@x")

// link delivers one of a chain to a session; text "": nothing but the link.
func (h *house) link(t *testing.T, s *Session, text string, l channel.Link) {
	t.Helper()
	l.Feature, l.Chain = "rooms", testRoom
	e := channel.Mark(l, []sessions.Ref{s.ref})
	if text != "" {
		st, err := stanza.Parse([]byte("<message from='room@x/n'><body>"+text+"</body></message>"), stanza.NSClient, nil)
		if err != nil {
			t.Fatal(err)
		}
		e = channel.Spread(sessions.Ref{}, st, channel.Full, []sessions.Ref{s.ref})
		e.Link = &l
	}
	_ = h.deliver(t.Context(), []*channel.Envelope{e})
}

// told are the gaps that the house has been told of since the last time.
func (h *house) told(t *testing.T, already *int) (all []channel.Gap) {
	t.Helper()
	notes := h.sent(channel.Note)
	for _, e := range notes[*already:] {
		if e.Reason != "rooms" {
			t.Errorf("told %q", e.Reason)
		}
		g, err := channel.DecodeGap(e.Raw)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, g)
	}
	*already = len(notes)
	return all
}

// Of a chain a session gets everything from its start on, once and in order; what is
// missing it asks for, once at a time (D2, D3 in a room).
func TestChains(t *testing.T) {
	type step struct {
		text string
		link channel.Link
		got  bool         // it goes to the client
		gap  *channel.Gap // the session says
		wait time.Duration
	}
	for name, steps := range map[string][]step{
		"in order": {
			{text: "a", link: channel.Link{At: 5, Start: true}, got: true},
			{text: "b", link: channel.Link{After: 3, At: 7}, got: true},
			{text: "c", link: channel.Link{After: 7, At: 9}, got: true},
		},
		"again": {
			{text: "a", link: channel.Link{At: 5, Start: true}, got: true},
			{text: "b", link: channel.Link{After: 5, At: 7}, got: true},
			{text: "b", link: channel.Link{After: 5, At: 7}},
			{text: "a", link: channel.Link{After: 3, At: 5}},
		},
		"one is lost": {
			{text: "a", link: channel.Link{At: 5, Start: true}, got: true},
			{text: "c", link: channel.Link{After: 7, At: 9}, gap: &channel.Gap{After: 5, At: 9}},
			{text: "d", link: channel.Link{After: 9, At: 11}}, // it has been said
			{text: "d", link: channel.Link{After: 9, At: 11}, wait: askAgain, gap: &channel.Gap{After: 5, At: 11}},
			{text: "b", link: channel.Link{After: 5, At: 7}, got: true},
			{text: "c", link: channel.Link{After: 7, At: 9}, got: true},
			{text: "e", link: channel.Link{After: 11, At: 13}, gap: &channel.Gap{After: 9, At: 13}},
		},
		"the last is lost": {
			{text: "a", link: channel.Link{At: 5, Start: true}, got: true},
			{link: channel.Link{After: 5, At: 20, Check: true}},
			{link: channel.Link{After: 7, At: 20, Check: true}, gap: &channel.Gap{After: 5, At: 20}},
			{text: "b", link: channel.Link{After: 5, At: 7}, got: true},
		},
		"not for this one": {
			{text: "a", link: channel.Link{At: 5, Start: true}, got: true},
			{link: channel.Link{After: 5, At: 7}},
			{text: "c", link: channel.Link{After: 7, At: 9}, got: true},
		},
		"of an earlier session": {
			{text: "b", link: channel.Link{After: 5, At: 7}, gap: &channel.Gap{At: 7, Stranger: true}},
			{text: "a", link: channel.Link{At: 9, Start: true}, got: true},
			{text: "c", link: channel.Link{After: 7, At: 11}, got: true},
		},
		"left": {
			{text: "a", link: channel.Link{At: 5, Start: true}, got: true},
			{text: "b", link: channel.Link{End: true}, got: true},
			{text: "c", link: channel.Link{After: 5, At: 7}, gap: &channel.Gap{At: 7, Stranger: true}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, nil)
			c, p := h.bound(t, "a")
			told := 0
			for i, st := range steps {
				h.clock.add(st.wait)
				h.link(t, c.session, st.text, st.link)
				if got := strings.Contains(p.read(), "<body>"+st.text+"<"); got != st.got {
					t.Errorf("step %d: got it: %v", i, got)
				}
				var want []channel.Gap
				if st.gap != nil {
					want = []channel.Gap{*st.gap}
					want[0].Chain = testRoom
				}
				if gaps := h.told(t, &told); !slices.Equal(gaps, want) {
					t.Errorf("step %d: says %+v", i, gaps)
				}
			}
		})
	}
}

// A session that was another process's does not know what its client has: it asks for
// everything since its client may not have got what it was sent, and when its client
// comes, not before.
func TestChainsOfSessionsThatGoOn(t *testing.T) {
	h := newHouse(t, nil)
	c, p := h.bound(t, "a")
	since := h.clock.Now().Add(-time.Minute)
	c.session.chains.unsure = since
	c.session.sm = &management{before: &Outbound{Acked: unknown}}
	told := 0
	h.link(t, c.session, "b", channel.Link{After: 5, At: 7})
	if gaps := h.told(t, &told); len(gaps) > 0 {
		t.Errorf("says %+v to nobody", gaps)
	}
	if _, err := c.session.regain(3); err != nil {
		t.Fatal(err)
	}
	h.link(t, c.session, "", channel.Link{After: 7, At: 9, Check: true})
	if gaps := h.told(t, &told); len(gaps) != 1 || gaps[0] != (channel.Gap{Chain: testRoom, Since: since.UnixMicro(), At: 9}) {
		t.Errorf("says %+v", gaps)
	}
	for i, text := range []string{"a", "b"} {
		h.link(t, c.session, text, channel.Link{After: int64(3 + 2*i), At: int64(5 + 2*i), Start: i == 0})
		if got := p.read(); !strings.Contains(got, "<body>"+text) {
			t.Errorf("%s: got %s", text, got)
		}
	}
}

// One that was left in order knows what its client has: of what it had not
// acknowledged, what the client says when it comes back.
func TestRule58ChainsAreExactAfterAnOrderlyStop(t *testing.T) {
	for h, want := range map[uint32]int64{0: 5, 1: 7, 2: 9} {
		house := newHouse(t, nil)
		c, p := house.bound(t, "a")
		enable(t, c, p)
		house.link(t, c.session, "a", channel.Link{At: 5, Start: true})
		mustSay(t, c, "<a xmlns='urn:xmpp:sm:3' h='1'/>")
		house.link(t, c.session, "b", channel.Link{After: 5, At: 7})
		house.link(t, c.session, "c", channel.Link{After: 7, At: 9})
		c.session.mu.Lock()
		left := c.session.outbound()
		c.session.mu.Unlock()
		later, _ := house.bound(t, "b")
		later.session.sm = &management{before: left}
		if _, err := later.session.regain(1 + h); err != nil {
			t.Fatal(err)
		}
		if got := later.session.chains.at[testRoom]; got == nil || got.at != want {
			t.Errorf("with %d of two: %+v, want %d", h, got, want)
		}
	}
}

// What a session remembers of chains is bounded; beyond, it takes what comes.
func TestFault27Chains(t *testing.T) {
	h := newHouse(t, nil)
	c, p := h.bound(t, "a")
	for i := range maxChains {
		c.session.follow(&channel.Link{Chain: jid.MustParse(fmt.Sprintf("room%d@x", i)), At: 1, Start: true})
	}
	h.link(t, c.session, "b", channel.Link{After: 5, At: 7})
	if got := p.read(); !strings.Contains(got, "<body>b") || len(c.session.chains.at) != maxChains {
		t.Errorf("got %s, remembers %d", got, len(c.session.chains.at))
	}
}
