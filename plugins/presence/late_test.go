package presence

import (
	"strconv"
	"testing"
	"time"

	"parley/parser/jid"
	"parley/router/sessions"
)

// TestReliability32EndsThatWereToldLate: of the sessions whose end was told those are
// shown once whose address a later one has at another node; the others are kept for
// a while, and not without a bound.
func TestReliability32EndsThatWereToldLate(t *testing.T) {
	reg, now := sessions.NewRegistry(), time.UnixMicro(1_000_000)
	entry := func(node string, conn uint64, user string, bound int64) *sessions.Entry {
		return &sessions.Entry{Ref: sessions.Ref{Node: node, Conn: conn, JID: jid.MustParse(user + "@localhost/a")}, State: sessions.State{Kind: sessions.Client, Available: true, BoundAt: time.UnixMicro(bound)}}
	}
	var l late
	for i, user := range []string{"elsewhere", "here", "earlier", "nowhere"} {
		l.add(entry("one", uint64(i+1), user, 10), now)
	}
	for i, e := range []*sessions.Entry{entry("two", 1, "elsewhere", 11), entry("one", 9, "here", 11), entry("two", 2, "earlier", 9)} {
		if _, why := reg.BindIf(e.Ref, e.State, func([]*sessions.Entry) string { return "" }); why != "" {
			t.Fatal(i, why)
		}
	}
	if got := l.followed(reg, "one"); len(got) != 1 || got[0].JID.Local() != "elsewhere" {
		t.Errorf("followed: %v", got)
	}
	if got := l.followed(reg, "one"); len(got) != 0 || len(l.ended) != 3 {
		t.Errorf("followed again: %v, kept %d", got, len(l.ended))
	}
	l.add(entry("one", 5, "next", 10), now.Add(lateFor+1))
	if len(l.ended) != 1 {
		t.Errorf("%d are remembered", len(l.ended))
	}
	for i := range 2 * maxLate {
		l.add(entry("one", uint64(i), "p"+strconv.Itoa(i), 10), now.Add(lateFor+1))
	}
	if len(l.ended) != maxLate {
		t.Errorf("%d are remembered", len(l.ended))
	}
}
