package lastactivity

import (
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"parley/parser/jid"
	"parley/plugins"
	"parley/storage"
	"parley/storage/storagetest"
)

// What is seen does not depend on whether it has been written.
func TestLog(t *testing.T) {
	for name, written := range map[string]bool{"waiting": false, "written": true} {
		t.Run(name, func(t *testing.T) {
			storagetest.Each(t, func(t *testing.T, db storage.DB) { testLog(t, db, written) })
		})
	}
}

func testLog(t *testing.T, db storage.DB, written bool) {
	if err := db.Migrate(t.Context(), "lastactivity", migrations); err != nil {
		t.Fatal(err)
	}
	l := newLog(plugins.Env{DB: db, Clock: plugins.SystemClock{}})
	l.collect(true)
	romeo := jid.MustParse("romeo@localhost")
	check := func(at int64, status string) {
		t.Helper()
		a, err := l.Last(t.Context(), romeo)
		if err != nil || a.Status != status || at != 0 && a.At.UnixMicro() != at || at == 0 && !a.At.IsZero() {
			t.Errorf("%+v, %v; want %d %q", a, err, at, status)
		}
	}
	check(0, "")
	// Two sessions that end at once may be noted in the other order.
	for _, x := range []struct {
		at     int64
		status string
		want   int64
		says   string
	}{{1000, "one", 1000, "one"}, {3000, "three", 3000, "three"}, {2000, "two", 3000, "three"}} {
		if l.note(romeo, Activity{At: time.UnixMicro(x.at), Status: x.status}) {
			t.Error("a commit for one goodbye")
		}
		if written {
			if err := l.write(t.Context()); err != nil || l.waiting.Len() != 0 {
				t.Fatal(l.waiting.Len(), err)
			}
		} else {
			check(x.want, x.says)
		}
	}
	if written {
		check(3000, "three")
	}
	if err := l.forget(t.Context(), romeo); err != nil {
		t.Fatal(err)
	}
	check(0, "")
}

// Nobody collects: each goodbye is written at once. The table of those who wait
// has a bound, and what the database does not take is not lost before that.
func TestWaitingIsBounded(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db storage.DB) {
		l := newLog(plugins.Env{DB: db, Clock: plugins.SystemClock{}}) // there is no table
		if !l.note(jid.MustParse("first@localhost"), Activity{At: time.UnixMicro(1)}) {
			t.Error("not written, and nobody will")
		}
		l.collect(true)
		for i := range maxWaiting + 10 {
			due := l.note(jid.MustParse(fmt.Sprintf("n%d@localhost", i)), Activity{At: time.UnixMicro(1)})
			if due != (i+2 >= maxWaiting) {
				t.Fatalf("%d wait, write is due: %v", i+2, due)
			}
		}
		if err := l.write(t.Context()); err == nil {
			t.Fatal("written into a table that is not there")
		}
		if l.waiting.Len() != maxWaiting {
			t.Errorf("%d wait", l.waiting.Len())
		}
		if err := db.Migrate(t.Context(), "lastactivity", migrations); err != nil {
			t.Fatal(err)
		}
		if err := l.write(t.Context()); err != nil || l.waiting.Len() != 0 {
			t.Errorf("%d wait after a write that works: %v", l.waiting.Len(), err)
		}
		if a, err := l.Last(t.Context(), jid.MustParse("first@localhost")); err != nil || a.At.UnixMicro() != 1 {
			t.Error(a, err)
		}
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
