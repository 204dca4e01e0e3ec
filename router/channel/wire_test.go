package channel

import (
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/router/sessions"
)

// full is an envelope with every field set, so that a field that Encode
// forgets is a difference. A field that version 3 did not have at first is set here.
func full(t testing.TB) *Envelope {
	e := third(t)
	e.Link = &Link{Feature: "muc", Chain: jid.MustParse("room@conference.b"), After: 3, At: 1 << 61, Start: true, End: true, Check: true}
	return e
}

// third is what testdata/envelope-3.hex was made of; it stays as it is.
func third(t testing.TB) *Envelope {
	e := second(t)
	e.Behind, e.Splice = true, Full
	return e
}

// second is what testdata/envelope-2.hex was made of; it stays as it is.
func second(t testing.TB) *Envelope {
	raw := []byte(`<message to='juliet@b/y' id='1'><body>hi</body></message>`)
	st, err := stanza.Parse(raw, stanza.NSClient, nil)
	if err != nil {
		t.Fatal(err)
	}
	st.From = jid.MustParse("romeo@b/x")
	ref := sessions.Ref{Node: "n1", Conn: 7, JID: st.From}
	e := &Envelope{
		Kind: Route, Session: ref, Seq: 9, Lang: "de", Raw: raw, Stanza: st, To: []sessions.Ref{ref, {Node: "n2", Conn: 8, JID: st.To}},
		Edits: st.Stamp(), State: &sessions.State{
			Kind: sessions.Client, Available: true, Priority: -3, Presence: []byte("<presence/>"), PresenceAt: time.UnixMicro(123456),
			Interested: true, Carbons: true, Blocking: true, CapsNode: "n#v", CapsHash: "sha-1", Hibernated: true, Replaying: true, Paused: true, Buried: true,
			Device: "d", Remote: "127.0.0.1:1", Secure: true, Transport: "tcp", BoundAt: time.UnixMicro(99),
		},
		Pending: 5, Rows: []int64{1, 1 << 60}, Class: ChatState, Private: true, Replay: true, Solicited: true, Stored: true, AtOnce: true, Hops: 2, Reason: "conflict", Stamp: 77,
	}
	e.Edits.Cut = []stanza.Span{{Start: 3, End: 5}}
	e.Edits.Append = []byte("<x/>")
	return e
}

func TestEnvelopeCrossesANetwork(t *testing.T) {
	e := full(t)
	for i, v := 0, reflect.ValueOf(*e); i < v.NumField(); i++ {
		if f := v.Type().Field(i); f.IsExported() && v.Field(i).IsZero() {
			t.Errorf("the test does not set %s", f.Name)
		}
	}
	got, err := Decode(Encode(nil, e), jid.NewCache(16))
	if err != nil {
		t.Fatal(err)
	}
	differ(t, e, got)
}

func differ(t *testing.T, want, got *Envelope) {
	t.Helper()
	opts := cmp.Options{cmp.AllowUnexported(stanza.Stanza{}), cmpopts.IgnoreUnexported(Envelope{}), cmp.Comparer(func(a, b jid.JID) bool { return a == b }), cmp.Comparer(func(a, b time.Time) bool { return a.Equal(b) })}
	if d := cmp.Diff(want, got, opts); d != "" {
		t.Error(d)
	}
}

// What a version has written is read for ever; what a later one adds at the end is
// skipped.
func TestEnvelopesOfOtherReleases(t *testing.T) {
	for _, old := range []struct {
		file  string
		want  *Envelope
		since []byte // the fields that versions up to this one have put behind it
	}{
		{"envelope-2.hex", second(t), []byte{byte(Nobody), 0}},
		{"envelope-3.hex", third(t), []byte{0}},
	} {
		text, err := os.ReadFile("testdata/" + old.file)
		if err != nil {
			t.Fatal(err)
		}
		b, err := hex.DecodeString(string(bytes.TrimSpace(text)))
		if err != nil {
			t.Fatal(err)
		}
		now := append(bytes.Clone(b), old.since...)
		for _, b := range [][]byte{b, now, append(bytes.Clone(now), "fields of a later release"...)} {
			got, err := Decode(b, jid.NewCache(16))
			if err != nil {
				t.Fatalf("%s: %v", old.file, err)
			}
			differ(t, old.want, got)
		}
	}
}

// Who must not overlook that the recipients' addresses are to be put in refuses what
// it would deliver without them; everything else it takes.
func TestVersionOfWhatMustNotBeOverlooked(t *testing.T) {
	for _, tc := range []struct {
		splice Splice
		want   byte
	}{{Nobody, 2}, {Full, 3}, {Bare, 3}} {
		if b := Encode(nil, &Envelope{Kind: Deliver, Splice: tc.splice}); b[0] != tc.want {
			t.Errorf("splice %d: version %d, want %d", tc.splice, b[0], tc.want)
		}
	}
	if b := Encode(nil, Mark(Link{Feature: "muc", Chain: jid.MustParse("room@b")}, nil)); b[0] != 4 {
		t.Errorf("a mark: version %d", b[0])
	}
	b := Encode(nil, &Envelope{Kind: Deliver, Splice: Bare})
	b[len(b)-2]++
	if _, err := Decode(b, nil); !errors.Is(err, ErrWire) {
		t.Errorf("an address that nobody knows of: %v", err)
	}
}

func TestWhatIsNoEnvelope(t *testing.T) {
	good := Encode(nil, &Envelope{Kind: Handled})
	for _, tc := range []struct {
		at   int
		to   byte
		want error
	}{
		{0, WireVersion + 1, ErrNewer}, {0, 255, ErrNewer},
		{0, 0, ErrWire}, {0, oldestWire - 1, ErrWire},
		{1, 0, ErrWire}, {1, byte(len(kindNames)), ErrWire}, {1, 255, ErrWire},
	} {
		b := bytes.Clone(good)
		b[tc.at] = tc.to
		if _, err := Decode(b, nil); !errors.Is(err, tc.want) {
			t.Errorf("byte %d is %d: %v, want %v", tc.at, tc.to, err, tc.want)
		}
		if batch, err := DecodeBatch(append(EncodeBatch(nil, []*Envelope{{Kind: Handled}}), append([]byte{byte(len(b))}, b...)...), nil); !errors.Is(err, tc.want) || batch != nil {
			t.Errorf("byte %d is %d, in a batch: %v of it, %v", tc.at, tc.to, len(batch), err)
		}
	}
}

func TestGapsCrossANetwork(t *testing.T) {
	for _, g := range []Gap{
		{Chain: jid.MustParse("room@b"), After: 7, At: 9},
		{Chain: jid.MustParse("room@b"), Since: -1, At: 1 << 62},
		{Chain: jid.MustParse("room@b"), At: 3, Stranger: true},
	} {
		b := g.Encode()
		if got, err := DecodeGap(b); err != nil || got != g {
			t.Errorf("%+v became %+v, %v", g, got, err)
		}
		for i := range b {
			if _, err := DecodeGap(b[:i]); !errors.Is(err, ErrWire) {
				t.Errorf("%d bytes of %d: %v", i, len(b), err)
			}
		}
	}
}

func FuzzDecodeGap(f *testing.F) {
	f.Add((&Gap{Chain: jid.MustParse("room@b"), After: 7, At: 9}).Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		g, err := DecodeGap(b)
		if err != nil {
			return
		}
		if again, err := DecodeGap(g.Encode()); err != nil || again != g {
			t.Fatalf("%+v became %+v, %v", g, again, err)
		}
	})
}

func FuzzDecode(f *testing.F) {
	f.Add(Encode(nil, full(f)))
	f.Add(Encode(nil, &Envelope{Kind: Handled}))
	f.Add([]byte{WireVersion, 1, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := Decode(b, nil)
		if err != nil {
			return
		}
		e.Edits.Render(nil, e.Raw)
		again, err := Decode(Encode(nil, e), nil)
		if err != nil || again.Kind != e.Kind || again.Seq != e.Seq {
			t.Fatalf("%v", err)
		}
	})
}
