package processor

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"sync"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins"
)

// AskTimeout is how long a server-issued request waits for its answer.
const AskTimeout = 30 * time.Second

// maxAsks bounds the requests that wait at one time; beyond it a request fails
// at once.
const maxAsks = 100_000

// An answer may come in on another node than the one that has asked: that one is
// named in the id, and told.
const (
	topicAnswer   = "processor-answer"
	askSeparator  = "@"
	maxForwarding = 256 // answers on their way at a time; what is more counts as none
)

// Errors of Ask.
var (
	ErrNoAnswer    = errors.New("no answer")
	ErrTooManyAsks = errors.New("too many unanswered requests")
)

// asks are the requests of the server's own that wait for an answer. An answer
// counts only with the id and from the address that were asked; ids are chosen
// by the asker and must be unguessable.
type asks struct {
	clock plugins.Clock
	// protect keeps an asker that panics from taking others with it: answers
	// come on goroutines of clocks, too (reliability row 38).
	protect func(func() error) error
	notices plugins.Notices // nil: this node is alone
	node    string
	away    chan struct{} // one for each answer on its way

	mu   sync.Mutex
	open map[askKey]*ask
}

type askKey struct {
	id string
	to jid.JID
}

type ask struct {
	done func(*stanza.Stanza, error)
	stop func() bool
}

func newAsks(env plugins.Env, protect func(func() error) error) *asks {
	a := &asks{clock: env.Clock, protect: protect, notices: env.Notices, node: env.Node, away: make(chan struct{}, maxForwarding), open: map[askKey]*ask{}}
	if a.notices != nil {
		a.notices.On(topicAnswer, a.forwarded)
	}
	return a
}

// id is unguessable and names the node that asks.
func (a *asks) id() string {
	if a.notices == nil {
		return rand.Text()
	}
	return rand.Text() + askSeparator + a.node
}

func (a *asks) add(q *stanza.Stanza, done func(*stanza.Stanza, error)) bool {
	key := askKey{q.ID, q.To}
	a.mu.Lock()
	if len(a.open) >= maxAsks {
		a.mu.Unlock()
		done(nil, ErrTooManyAsks)
		return false
	}
	w := &ask{done: done}
	w.stop = a.clock.AfterFunc(AskTimeout, func() { a.finish(key, nil, ErrNoAnswer) })
	a.open[key] = w
	a.mu.Unlock()
	return true
}

func (a *asks) finish(key askKey, st *stanza.Stanza, err error) bool {
	a.mu.Lock()
	w, ok := a.open[key]
	delete(a.open, key)
	a.mu.Unlock()
	if !ok {
		return false
	}
	w.stop()
	_ = a.protect(func() error { w.done(st, err); return nil }) // it is logged
	return true
}

// answer takes a result or an error from a peer.
func (a *asks) answer(st *stanza.Stanza) {
	if !a.answered(st) {
		a.forward(st)
	}
}

func (a *asks) answered(st *stanza.Stanza) bool {
	var err error
	if st.Type == "error" {
		err = stanza.ParseError(st.Child(stanza.NSClient, "error"))
	}
	return a.finish(askKey{st.ID, st.From}, st, err)
}

// forward gives an answer to the node that its id names. Nobody waits for that.
func (a *asks) forward(st *stanza.Stanza) {
	_, node, named := strings.Cut(st.ID, askSeparator)
	if !named || a.notices == nil || node == a.node || !a.notices.Alive(node) {
		return
	}
	select {
	case a.away <- struct{}{}:
	default:
		return
	}
	edits := st.Stamp()
	raw := string(edits.Render(nil, st.Raw))
	go func() {
		defer func() { <-a.away }()
		ctx, cancel := context.WithTimeout(context.Background(), AskTimeout)
		defer cancel()
		_ = a.notices.Ask(ctx, node, topicAnswer, raw) // a node that has gone asks no more
	}()
}

// forwarded takes an answer that came in on another node.
func (a *asks) forwarded(raw string) {
	if st, err := stanza.Parse([]byte(raw), stanza.NSClient, nil); err == nil {
		a.answered(st)
	}
}

// fail ends the ask whose request could not be delivered.
func (a *asks) fail(q *stanza.Stanza) bool {
	if q.Kind != stanza.IQ || q.Type != "get" && q.Type != "set" {
		return false
	}
	return a.finish(askKey{q.ID, q.To}, nil, stanza.NewError(stanza.RecipientUnavailable, ""))
}
