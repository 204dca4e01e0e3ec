package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"parley/stream/s2s"
)

func TestS2SList(t *testing.T) {
	s := serve(t, t.TempDir())
	contains(t, must(t, "s2s", "list", "--data", s.data), "no streams with other servers")
	contains(t, must(t, "s2s", "list", "--json", "--data", s.data), "[]")
	if _, _, err := parley(t, "", "s2s", "list", "a@b", "--data", s.data); err == nil || !strings.Contains(err.Error(), `"a@b" is not a domain`) {
		t.Error(err)
	}
	if _, _, err := parley(t, "", "s2s", "list", "--data", t.TempDir()); err == nil || !strings.Contains(err.Error(), "not running") {
		t.Error(err)
	}
	var out bytes.Buffer
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.Local)
	if err := printTable(&out, s2sRows([]s2s.Stream{
		{Direction: s2s.Out, Ours: "a.example", Theirs: "b.example", State: s2s.Open, Since: at, Remote: "192.0.2.1:5269", Proof: s2s.Certificate, TLS: true},
		{Direction: s2s.Out, Ours: "a.example", Theirs: "c.example", State: s2s.Failing, Next: at, Waiting: 3, Error: "connection\nrefused\u009b"},
		{Direction: s2s.Out, Ours: "a.example", Theirs: "d.example", State: s2s.Idle},
	})); err != nil {
		t.Fatal(err)
	}
	want := `OURS            THEIRS     STATE    SINCE / NEXT         PROOF        TLS  WAITING  REMOTE / ERROR
a.example  out  b.example  open     2026-01-02 03:04:05  certificate  yes  0        192.0.2.1:5269
a.example  out  c.example  failing  2026-01-02 03:04:05  -            -    3        connection refused
a.example  out  d.example  idle     -                    -            -    0
`
	if out.String() != want {
		t.Errorf("\n%s", out.String())
	}
}
