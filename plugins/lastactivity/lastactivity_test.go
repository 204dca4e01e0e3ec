package lastactivity

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"parley/parser/jid"
	"parley/plugins"
	"parley/storage"
	"parley/storage/storagetest"
)

func TestLog(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db storage.DB) {
		if err := db.Migrate(t.Context(), "lastactivity", migrations); err != nil {
			t.Fatal(err)
		}
		l := &Log{env: plugins.Env{DB: db}}
		romeo := jid.MustParse("romeo@localhost")
		check := func(at int64, status string) {
			t.Helper()
			a, err := l.Last(t.Context(), romeo)
			if err != nil || a.Status != status || at != 0 && a.At.UnixMicro() != at || at == 0 && !a.At.IsZero() {
				t.Errorf("%+v, %v; want %d %q", a, err, at, status)
			}
		}
		check(0, "")
		// Two sessions that end at once may be written in the other order.
		for _, x := range []struct {
			at     int64
			status string
			want   int64
			says   string
		}{{1000, "one", 1000, "one"}, {3000, "three", 3000, "three"}, {2000, "two", 3000, "three"}} {
			var w storage.WriteSet
			w.Add(&put, romeo.String(), x.at, x.status)
			if err := db.Commit(t.Context(), &w); err != nil {
				t.Fatal(err)
			}
			check(x.want, x.says)
		}
		if err := l.forget(t.Context(), romeo); err != nil {
			t.Fatal(err)
		}
		check(0, "")
	})
}

func TestAnswer(t *testing.T) {
	for d, want := range map[time.Duration]string{-time.Second: "0", 0: "0", 1900 * time.Millisecond: "1", 903 * time.Second: "903"} {
		if got := answer(d, "").Get("seconds"); got != want {
			t.Errorf("%v: %s seconds, want %s", d, got, want)
		}
	}
}

func TestShorten(t *testing.T) {
	long := strings.Repeat("é", maxStatusBytes)
	if got := shorten(long); len(got) > maxStatusBytes || !utf8.ValidString(got) || len(got) < maxStatusBytes-8 {
		t.Errorf("%d bytes, valid %v", len(got), utf8.ValidString(got))
	}
	if got := shorten("Heading Home"); got != "Heading Home" {
		t.Error(got)
	}
}
