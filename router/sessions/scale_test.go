package sessions

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"parley/parser/jid"
)

// BenchmarkReplica measures what another node's session costs this one: memory
// of its entry, and the work of hearing of a change (docs/scaling.md).
func BenchmarkReplica(b *testing.B) {
	const accounts = 200_000
	presence := []byte("<presence from='someone12345@example.org/AbCdEfGhIjKl'><show>away</show><c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='https://example.org' ver='QgayPKawpkPSDYmwT/WM94uAlu0='/></presence>")
	r := NewRegistry()
	entries := make([]*Entry, accounts)
	owners := make([]jid.JID, accounts)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range entries {
		at := jid.MustParse(fmt.Sprintf("someone%d@example.org/AbCdEfGhIjKl", i))
		owners[i] = at.Bare()
		entries[i] = &Entry{Ref: Ref{Node: "other", Conn: uint64(i + 1), JID: at}, State: State{
			Kind: Client, Available: true, Presence: append([]byte(nil), presence...), PresenceAt: time.Now(), BoundAt: time.Now(),
			CapsNode: "https://example.org#QgayPKawpkPSDYmwT/WM94uAlu0=", CapsHash: "sha-1", Device: "d4565fa7-4d72-4749-b3d3-740edbf87770", Remote: "203.0.113.7:50123", Secure: true, Transport: "tls",
		}}
		r.Adopt("other", owners[i], entries[i:i+1])
	}
	clear(entries)
	runtime.GC()
	runtime.ReadMemStats(&after)
	i := 0
	for b.Loop() {
		i = (i + 1) % accounts
		e := *r.Account(owners[i])[0]
		r.Adopt("other", owners[i], []*Entry{&e})
	}
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/accounts, "B/session")
}
