package processor

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins"
	"parley/router/channel"
	"parley/storage"
)

// database takes sets or not, and counts their rows.
type database struct {
	storage.DB // nil: what a test does not expect panics
	err        error
	rows       int
}

func (d *database) Commit(_ context.Context, w *storage.WriteSet) error {
	if d.err == nil {
		d.rows += w.Len()
	}
	return d.err
}

// road keeps what leaves the stage.
type road struct{ sent []*channel.Envelope }

func (r *road) Send(_ context.Context, batch []*channel.Envelope) error {
	r.sent = append(r.sent, batch...)
	return nil
}

// A message that is refused in the end leaves no row behind (XEP-0313 §6.1;
// rule 63), whoever refuses it, and who has counted on its row is told.
func TestRefusedMessagesLeaveNothing(t *testing.T) {
	row := &storage.Stmt{Name: "row", SQL: "INSERT"}
	for _, c := range []struct {
		name   string
		fails  func() error
		commit error
		stored bool
	}{
		{"taken", func() error { return nil }, nil, true},
		{"a hook refuses", func() error { return stanza.NewError(stanza.NotAllowed, "") }, nil, false},
		{"a hook fails", func() error { return errors.New("broken") }, nil, false},
		{"a hook panics", func() error { panic("poison") }, nil, false},
		{"the database refuses", func() error { return nil }, storage.ErrUnavailable, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			db, out := &database{err: c.commit}, &road{}
			counter := prometheus.NewCounter(prometheus.CounterOpts{Name: "x"})
			s := &Server{
				log:     slog.New(slog.NewTextHandler(io.Discard, nil)),
				env:     plugins.Env{DB: db},
				links:   plugins.Links{Out: func(string) channel.MessageChannel { return out }},
				metrics: metrics{panics: counter, refused: counter},
			}
			r := &run{server: s}
			st := stanza.Make(stanza.Message, "chat", jid.MustParse("romeo@b/x"), jid.MustParse("juliet@b"), "1")
			f := &Flow{Stanza: st, work: r.begin(st)}
			var told []bool
			r.guard(context.Background(), f, func() error {
				f.Store(row)
				f.Settled(func(stored bool) { told = append(told, stored) })
				f.Send(&channel.Envelope{Kind: channel.Route, Stanza: st, Raw: st.Raw})
				return c.fails()
			})
			r.flush(context.Background())
			if (db.rows == 1) != c.stored {
				t.Errorf("%d rows are stored", db.rows)
			}
			if len(told) != 1 || told[0] != c.stored {
				t.Errorf("told %v, want once %v", told, c.stored)
			}
			if len(out.sent) != 1 || (out.sent[0].Stanza.Type == "error") == c.stored {
				t.Errorf("%d envelopes left", len(out.sent))
			}
		})
	}
}
