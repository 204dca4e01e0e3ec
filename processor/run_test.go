package processor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins"
	"parley/router/channel"
	"parley/router/sessions"
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

func stage(db storage.DB, out *road) *Server {
	counter := prometheus.NewCounter(prometheus.CounterOpts{Name: "x"})
	return &Server{
		log:     slog.New(slog.NewTextHandler(io.Discard, nil)),
		env:     plugins.Env{DB: db},
		links:   plugins.Links{Out: func(string) channel.MessageChannel { return out }},
		metrics: metrics{panics: counter, refused: counter},
	}
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
			r := &run{server: stage(db, out)}
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

// diary is a Keeper that adds no rows and writes down what it is told.
type diary struct{ lines []string }

func (d *diary) Keep(_ sessions.Ref, seq uint64, rows bool, _ *storage.WriteSet) bool {
	if !rows {
		d.lines = append(d.lines, fmt.Sprintf("%d done", seq))
	}
	return rows
}

func (d *diary) Kept(_ sessions.Ref, seq uint64, stored bool) bool {
	d.lines = append(d.lines, fmt.Sprintf("%d stored %v", seq, stored))
	return stored
}

func (d *diary) Refused(_ sessions.Ref, seq uint64) {
	d.lines = append(d.lines, fmt.Sprintf("%d refused", seq))
}

// answers is a database that says one thing after the other.
type answers struct {
	storage.DB
	list []error
}

func (a *answers) Commit(context.Context, *storage.WriteSet) error {
	err := a.list[0]
	a.list = a.list[1:]
	return err
}

// What a batch that fails leaves behind is done message by message; all of it is
// when each is stored or refused, and not before (D1).
func TestAFailedBatchIsDoneMessageByMessage(t *testing.T) {
	row := &storage.Stmt{Name: "row", SQL: "INSERT"}
	no := errors.New("no")
	for _, c := range []struct {
		name   string
		says   []error
		want   []string
		errors int
	}{
		{"all", []error{nil}, []string{"3 stored true"}, 0},
		{"one is to blame", []error{no, nil, no, nil}, []string{"3 stored false", "1 stored true", "2 stored false", "2 refused", "3 stored true", "3 done"}, 1},
		{"nobody is", []error{storage.ErrUnavailable}, []string{"3 stored false", "1 refused", "2 refused", "3 refused", "3 done"}, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, book := &road{}, &diary{}
			r := &run{server: stage(&answers{list: c.says}, out), table: &table{keeper: book}}
			by := &sessions.Entry{Ref: sessions.Ref{Conn: 1, JID: jid.MustParse("romeo@b/x")}}
			for seq := uint64(1); seq <= 3; seq++ {
				st := stanza.Make(stanza.Message, "chat", by.JID, jid.MustParse("juliet@b"), "1")
				w := r.begin(st)
				w.seq, w.flow = seq, Flow{Stanza: st, Session: by, work: w}
				w.flow.Store(row)
				r.handled(by.Ref, seq)
			}
			r.flush(t.Context())
			if !slices.Equal(book.lines, c.want) {
				t.Errorf("%q", book.lines)
			}
			errs := 0
			for _, e := range out.sent {
				if e.Kind == channel.Route && e.Stanza.Type == stanza.TypeError {
					errs++
				}
			}
			last := out.sent[len(out.sent)-1]
			if errs != c.errors || last.Kind != channel.Handled || last.Seq != 3 || last.Stored != (len(c.says) == 1 && c.errors == 0) {
				t.Errorf("%d errors, last %+v", errs, last)
			}
		})
	}
}
