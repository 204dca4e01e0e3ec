package clients

import (
	"log/slog"
	"strconv"
	"testing"
	"time"

	"parley/parser/jid"
	"parley/plugins"
	"parley/storage"
	"parley/storage/storagetest"
	"parley/stream"
)

// A client is one row, whatever it is called later; that it has used the password stays
// known; and who has not been seen for long is forgotten.
func TestLog(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db storage.DB) {
		if err := db.Migrate(t.Context(), Name, migrations); err != nil {
			t.Fatal(err)
		}
		l := newLog(plugins.Env{DB: db, Log: slog.New(slog.DiscardHandler)})
		ann, ben := jid.MustParse("ann@localhost"), jid.MustParse("ben@localhost")
		then := time.UnixMicro(1_000_000_000)
		in := func(who jid.JID, agent, software string, password bool, at time.Time) {
			l.note(stream.Login{Account: who, Agent: agent, Software: software, Password: password, At: at})
			if err := l.write(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		in(ann, "a", "One", true, then)
		in(ann, "a", "Two", false, then.Add(time.Hour))
		in(ann, "", "Nameless", true, then)
		in(ann, "b", "Three", false, then.Add(2*time.Hour))
		in(ben, "a", "Four", true, then)
		all, err := l.of(t.Context(), ann)
		want := []client{
			{"b", "Three", "", then.Add(2 * time.Hour), then.Add(2 * time.Hour), time.Time{}},
			{"a", "Two", "", then, then.Add(time.Hour), then},
		}
		if err != nil || len(all) != 2 || all[0] != want[0] || all[1] != want[1] {
			t.Errorf("%+v: %v", all, err)
		}
		for i := range most + 5 {
			l.note(stream.Login{Account: ben, Agent: "x" + strconv.Itoa(i), At: then.Add(time.Minute)})
		}
		if err := l.write(t.Context()); err != nil {
			t.Fatal(err)
		}
		var n int
		if err := db.QueryRow(t.Context(), `SELECT count(*) FROM client WHERE owner = $1`, ben.String()).Scan(&n); err != nil || n != most {
			t.Errorf("%d are remembered of ben: %v", n, err)
		}
		if err := l.forgetBefore(t.Context(), then.Add(90*time.Minute)); err != nil {
			t.Fatal(err)
		}
		if all, err := l.of(t.Context(), ann); err != nil || len(all) != 1 || all[0].agent != "b" {
			t.Errorf("%+v: %v", all, err)
		}
		l.note(stream.Login{Account: ann, Agent: "c", At: then})
		if err := l.forgetAll(t.Context(), ann); err != nil {
			t.Fatal(err)
		}
		if all, err := l.of(t.Context(), ann); err != nil || len(all) != 0 {
			t.Errorf("of an account that is gone: %+v: %v", all, err)
		}
	})
}

// However many log in while the database does not take it, what waits is bounded.
func TestReliability8LoginsThatWaitAreBounded(t *testing.T) {
	l := newLog(plugins.Env{Log: slog.New(slog.DiscardHandler)})
	for i := range maxWaiting + 10 {
		l.note(stream.Login{Account: jid.MustParse("ann@localhost"), Agent: strconv.Itoa(i), At: time.Now()})
	}
	if n := l.waiting.Len(); n != maxWaiting {
		t.Errorf("%d wait", n)
	}
}
