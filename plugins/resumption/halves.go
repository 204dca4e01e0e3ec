package resumption

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"parley/parser/jid"
	"parley/plugins"
	"parley/router/channel"
	"parley/router/sessions"
	"parley/stream"
)

// When the streamer is on a front and the processor on its core, the book is the
// core's. What the front does to it are notes, which keep their place among the
// session's stanzas; what it wants to know are calls.

// op is what a note is about.
type op string

const (
	opBegin     op = "begin"
	opAway      op = "away"
	opHeard     op = "heard"
	opPause     op = "pause"
	opAdopt     op = "adopt"
	opEnd       op = "end"
	opSurrender op = "surrender" // to the front: let another one have it
)

type note struct {
	Op     op
	Key    []byte           `json:",omitempty"`
	Base   uint64           `json:",omitempty"`
	Window time.Duration    `json:",omitempty"`
	Since  time.Time        `json:",omitzero"`
	Seq    uint64           `json:",omitempty"`
	Sent   *stream.Outbound `json:",omitempty"`
}

func encodeNote(n note) []byte {
	b, err := json.Marshal(n)
	if err != nil { // there is nothing in it that could fail
		return nil
	}
	return b
}

// noted is what a front does.
func (b *book) noted(_ context.Context, ref sessions.Ref, text []byte) {
	var n note
	if err := json.Unmarshal(text, &n); err != nil {
		b.env.Log.Error("a front's note is not understood", "jid", ref.JID.String(), "err", err)
		return
	}
	var k stream.Key
	copy(k[:], n.Key)
	switch n.Op {
	case opBegin:
		b.begin(stream.Lasting{Ref: ref, Key: k, Base: n.Base, Window: n.Window})
	case opAway:
		b.Away(ref, n.Since)
	case opHeard:
		b.Heard(ref, n.Seq)
	case opPause:
		b.Pause(ref, n.Sent)
	case opAdopt:
		b.Adopt(k, ref)
	case opEnd:
		b.End(ref)
	default:
		b.env.Log.Error("a front's note is not known", "note", string(n.Op))
	}
}

// The calls.
const (
	callTake    = "resumption.take"
	callRestore = "resumption.restore"
	callSync    = "resumption.sync"
	callMoves   = "resumption.moves" // the answer is empty for no
)

// question is what a front asks.
type question struct {
	Key     []byte `json:",omitempty"`
	Account string `json:",omitempty"`
	Conn    uint64 `json:",omitempty"`
	JID     string `json:",omitempty"`
	Seq     uint64 `json:",omitempty"`
}

// lasting is a stream.Lasting on its way.
type lasting struct {
	JID    string
	Key    []byte
	Window time.Duration
	Away   time.Time `json:",omitzero"`
	H      uint64
	Over   bool
	State  []byte
	Sent   *stream.Outbound `json:",omitempty"`
}

func (b *book) answer() {
	b.env.OnAnswer(callTake, func(ctx context.Context, _ string, payload []byte) ([]byte, error) {
		q, err := decodeQuestion(payload)
		if err != nil {
			return nil, err
		}
		account, err := jid.Parse(q.Account)
		if err != nil {
			return nil, fmt.Errorf("account: %w", err)
		}
		var k stream.Key
		copy(k[:], q.Key)
		l, err := b.Take(ctx, k, account)
		if err != nil || l == nil {
			return nil, err
		}
		return encodeLasting([]stream.Lasting{*l})
	})
	b.env.OnAnswer(callRestore, func(ctx context.Context, _ string, _ []byte) ([]byte, error) {
		all, err := b.Restore(ctx)
		if err != nil {
			return nil, err
		}
		return encodeLasting(all)
	})
	b.env.OnAnswer(callSync, func(ctx context.Context, _ string, payload []byte) ([]byte, error) {
		ref, seq, err := b.asked(payload)
		if err != nil {
			return nil, err
		}
		return nil, b.Sync(ctx, ref, seq)
	})
	b.env.OnAnswer(callMoves, func(ctx context.Context, _ string, payload []byte) ([]byte, error) {
		ref, _, err := b.asked(payload)
		if err != nil || !b.Moves(ctx, ref) {
			return nil, err
		}
		return []byte("yes"), nil
	})
}

// asked is the session that a front asks about.
func (b *book) asked(payload []byte) (ref sessions.Ref, seq uint64, err error) {
	q, err := decodeQuestion(payload)
	if err != nil {
		return ref, 0, err
	}
	at, err := jid.Parse(q.JID)
	if err != nil {
		return ref, 0, fmt.Errorf("session: %w", err)
	}
	return sessions.Ref{Node: b.env.Node, Conn: q.Conn, JID: at}, q.Seq, nil
}

func decodeQuestion(text []byte) (q question, err error) {
	if err := json.Unmarshal(text, &q); err != nil {
		return q, fmt.Errorf("question: %w", err)
	}
	return q, nil
}

func encodeLasting(all []stream.Lasting) ([]byte, error) {
	out := make([]lasting, 0, len(all))
	for _, l := range all {
		st := l.State
		out = append(out, lasting{
			JID: l.Ref.JID.String(), Key: l.Key[:], Window: l.Window, Away: l.Away, H: l.H, Over: l.Over, Sent: l.Sent,
			State: channel.Encode(nil, &channel.Envelope{Kind: channel.Bind, Session: sessions.Ref{JID: l.Ref.JID}, State: &st}),
		})
	}
	b, err := json.Marshal(out)
	if err != nil {
		return nil, fmt.Errorf("sessions: %w", err)
	}
	return b, nil
}

func decodeLasting(text []byte) (out []stream.Lasting, err error) {
	if len(text) == 0 {
		return nil, nil
	}
	var all []lasting
	if err := json.Unmarshal(text, &all); err != nil {
		return nil, fmt.Errorf("sessions: %w", err)
	}
	for _, l := range all {
		e, err := channel.Decode(l.State, nil)
		if err != nil || e.State == nil {
			return nil, fmt.Errorf("session of %s: %w", l.JID, errors.Join(errDamaged, err))
		}
		s := stream.Lasting{Ref: sessions.Ref{JID: e.Session.JID}, Window: l.Window, Away: l.Away, H: l.H, Over: l.Over, Sent: l.Sent, State: *e.State}
		copy(s.Key[:], l.Key)
		out = append(out, s)
	}
	return out, nil
}

// far is the streamer's component of a front.
type far struct {
	env     plugins.Env
	streams *stream.Registrar
}

var (
	_ stream.Component   = (*far)(nil)
	_ stream.Resumptions = (*far)(nil)
)

// Register implements stream.Component.
func (f *far) Register(r *stream.Registrar) {
	f.streams = r
	r.Resumptions(f)
	r.Noted(func(_ context.Context, refs []sessions.Ref, text []byte) {
		var n note
		if err := json.Unmarshal(text, &n); err != nil || n.Op != opSurrender {
			f.env.Log.Error("the core's note is not understood", "err", err)
			return
		}
		for _, ref := range refs {
			r.Later(func(ctx context.Context) {
				limited, cancel := context.WithTimeout(ctx, surrenderLimit)
				defer cancel()
				r.SurrenderOne(limited, ref)
			})
		}
	})
}

// Start implements plugins.Component.
func (*far) Start(context.Context) error { return nil }

// Stop implements plugins.Component.
func (*far) Stop(context.Context) error { return nil }

func (f *far) note(ref sessions.Ref, n note) {
	if err := f.streams.Note(context.Background(), ref, encodeNote(n)); err != nil && !errors.Is(err, channel.ErrLost) { // its session is gone as well
		f.env.Log.Warn("the core does not take what is to be kept of a session", "jid", ref.JID.String(), "note", string(n.Op), "err", err)
	}
}

// Begin implements stream.Resumptions. The core's limit does not hold for its
// fronts: each session is one of theirs, and those have limits of their own.
func (f *far) Begin(l stream.Lasting) {
	f.note(l.Ref, note{Op: opBegin, Key: l.Key[:], Base: l.Base, Window: l.Window})
}

// Keeps implements stream.Resumptions.
func (f *far) Keeps(sessions.Ref) bool { return true }

// Away implements stream.Resumptions.
func (f *far) Away(ref sessions.Ref, since time.Time) { f.note(ref, note{Op: opAway, Since: since}) }

// Heard implements stream.Resumptions.
func (f *far) Heard(ref sessions.Ref, seq uint64) { f.note(ref, note{Op: opHeard, Seq: seq}) }

// Sync implements stream.Resumptions.
func (f *far) Sync(ctx context.Context, ref sessions.Ref, seq uint64) error {
	_, err := f.call(ctx, callSync, question{Conn: ref.Conn, JID: ref.JID.String(), Seq: seq})
	return err
}

// Pause implements stream.Resumptions.
func (f *far) Pause(ref sessions.Ref, sent *stream.Outbound) {
	f.note(ref, note{Op: opPause, Sent: sent})
}

// Moves implements stream.Resumptions. One that nobody can say it of is paused: then
// the next node finds out.
func (f *far) Moves(ctx context.Context, ref sessions.Ref) bool {
	answer, err := f.call(ctx, callMoves, question{Conn: ref.Conn, JID: ref.JID.String()})
	return err != nil || len(answer) > 0
}

// Restore implements stream.Resumptions: what the front has left that had the
// core before, or the core before this one under the same name.
func (f *far) Restore(ctx context.Context) ([]stream.Lasting, error) {
	text, err := f.call(ctx, callRestore, question{})
	if err != nil {
		return nil, err
	}
	return decodeLasting(text)
}

// Take implements stream.Resumptions.
func (f *far) Take(ctx context.Context, k stream.Key, account jid.JID) (*stream.Lasting, error) {
	limited, cancel := context.WithTimeout(ctx, takeLimit+surrenderLimit)
	defer cancel()
	text, err := f.ask(limited, callTake, question{Key: k[:], Account: account.String()})
	if err != nil {
		return nil, err
	}
	all, err := decodeLasting(text)
	if err != nil || len(all) == 0 {
		return nil, err
	}
	return &all[0], nil
}

// Adopt implements stream.Resumptions.
func (f *far) Adopt(k stream.Key, ref sessions.Ref) { f.note(ref, note{Op: opAdopt, Key: k[:]}) }

// End implements stream.Resumptions.
func (f *far) End(ref sessions.Ref) { f.note(ref, note{Op: opEnd}) }

// callLimit is how long a front waits for its core's answer to what takes no time.
const callLimit = 10 * time.Second

func (f *far) call(ctx context.Context, name string, q question) ([]byte, error) {
	limited, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	return f.ask(limited, name, q)
}

func (f *far) ask(ctx context.Context, name string, q question) ([]byte, error) {
	text, err := json.Marshal(q)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return f.env.Halves.CallCore(ctx, name, text)
}
