package processor

import (
	"context"
	"fmt"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/router/channel"
	"parley/router/sessions"
)

// The core hooks. A feature that others build on declares its own in its
// folder, the same way.
var (
	// Outgoing fires for each stanza of a local client, before anything else.
	// Stop: the hook has dealt with it. An error becomes the stanza's answer.
	Outgoing = NewHook[*Flow]("outgoing")
	// Incoming fires for each message and presence to a local account, and for
	// each IQ to one of its full JIDs, whoever sent it. Stop: it goes no further.
	Incoming = NewHook[*Flow]("incoming")
	// Asked fires for each IQ request that the house answers in the place of a
	// local account that is not the sender's own.
	Asked = NewHook[*Flow]("asked")
	// Requested fires for each IQ request that the house itself is asked, behind
	// Asked and before whoever answers it. Stop: the hook has dealt with it.
	Requested = NewHook[*Flow]("requested")
	// ToServer fires for messages and presence addressed to a domain of ours.
	ToServer = NewHook[*Flow]("to-server")
	// Binding fires before a stream gets its address: what is set in its State
	// counts from the first moment that somebody can write to it. It may still be
	// refused, and then nothing has happened.
	Binding = NewHook[*sessions.Entry]("binding")
	// Bound fires when a stream got its address, before its client knows.
	Bound = NewHook[*sessions.Entry]("bound")
	// Resumed fires when a session that had lost its connection has one again
	// (XEP-0198 §5).
	Resumed = NewHook[*sessions.Entry]("resumed")
	// Unbound fires when a session has ended and receives no more. Paused: it
	// goes on in the next process, and nobody is to be told.
	Unbound = NewHook[*sessions.Entry]("unbound")
	// Acked fires when a recipient has taken pending rows (design: D2).
	Acked = NewHook[Rows]("acked")
	// Undelivered fires for each stanza that a session left behind when it
	// ended. Without a Stop an IQ request gets an error and the rest is dropped
	// (XEP-0198 §5).
	Undelivered = NewHook[*Flow]("undelivered")
	// AccountCreated fires when an account has been made. An error keeps nothing from
	// being so.
	AccountCreated = NewHook[jid.JID]("account-created")
	// AccountRemoved fires when an account is deleted; features forget what
	// they keep of it.
	AccountRemoved = NewHook[jid.JID]("account-removed")
	// Poisoned fires when a stanza has made handlers panic for the third time.
	// Normal keeps it in a safe place and says so in Kept; Late forgets what is
	// kept. An error: it is not set aside yet.
	Poisoned = NewHook[*Poison]("poisoned")
)

// Rows are archive rows of one account that one of its sessions has taken.
type Rows struct {
	Session sessions.Ref
	IDs     []int64
}

// Verdict tells whether the next hook gets to see the event.
type Verdict uint8

// The verdicts.
const (
	Continue Verdict = iota
	Stop
)

// Band orders the functions of one hook; within a band the component's name
// decides.
type Band uint8

// The bands, in order.
const (
	First  Band = iota // may this happen at all: account exists, blocked, rate
	Early              // looks at it before features do
	Normal             // the feature's work
	Late               // stores what is final
	Last               // observes
)

// Hook is the typed key of a point where features meet.
type Hook[E any] struct{ name string }

// NewHook returns a new key; name is for logs.
func NewHook[E any](name string) *Hook[E] { return &Hook[E]{name: name} }

type hooked[E any] struct {
	band      Band
	component string
	f         func(context.Context, E) (Verdict, error)
}

// On lets f take part in h while the component is attached.
func On[E any](r *Registrar, h *Hook[E], b Band, f func(context.Context, E) (Verdict, error)) {
	e := hooked[E]{band: b, component: r.name, f: f}
	r.hooks = append(r.hooks, func(t *table) {
		list := hooksOf(t, h)
		at := len(list)
		for at > 0 && (list[at-1].band > e.band || list[at-1].band == e.band && list[at-1].component > e.component) {
			at--
		}
		list = append(list, hooked[E]{})
		copy(list[at+1:], list[at:])
		list[at] = e
		t.hooks[h] = list
	})
}

// Fire runs the hook's functions in their order until one stops or fails.
func Fire[E any](ctx context.Context, r *Registrar, h *Hook[E], e E) (Verdict, error) {
	t := r.server.acquire()
	defer t.Leave()
	return fire(ctx, t, h, e)
}

func fire[E any](ctx context.Context, t *table, h *Hook[E], e E) (Verdict, error) {
	return fireAll(ctx, hooksOf(t, h), e)
}

func hooksOf[E any](t *table, h *Hook[E]) []hooked[E] {
	list, _ := t.hooks[h].([]hooked[E])
	return list
}

func fireAll[E any](ctx context.Context, list []hooked[E], e E) (Verdict, error) {
	for i := range list {
		if v, err := list[i].f(ctx, e); err != nil || v == Stop {
			return Stop, err
		}
	}
	return Continue, nil
}

// tell fires a hook about a session, which has nobody to answer to: what fails
// is logged, and a function that panics does not keep the others from being
// told (reliability row 38).
func tell[E any](ctx context.Context, r *run, h *Hook[E], about sessions.Ref, e E) {
	list := hooksOf(r.table, h)
	for i := range list {
		v, err := told(ctx, r, &list[i], e)
		if err != nil {
			r.server.log.Error("hook failed", "hook", h.name, "component", list[i].component, "jid", about.JID.String(), "conn", about.Conn, "err", err)
		}
		if v == Stop {
			return
		}
	}
}

func told[E any](ctx context.Context, r *run, f *hooked[E], e E) (v Verdict, err error) {
	defer func() {
		if p := recover(); p != nil {
			v, err = Continue, r.server.panicked(p)
		}
	}()
	if v, err = f.f(ctx, e); err != nil {
		v = Stop
	}
	return v, err
}

// Flow is one stanza on its way through the processor.
type Flow struct {
	*stanza.Stanza
	Session *sessions.Entry // the sender's, when it is a local client or component; else nil
	Account jid.JID         // Incoming, Undelivered: the local account it is for, bare
	Pending int64           // the archive row that the recipient's acknowledgement frees
	Private bool            // no copies to other devices (XEP-0280 §9)
	Fails   *stanza.Error   // Incoming: why no session can take it unless it is stored (RFC 6121 §8.5); nil: somebody can
	Keep    bool            // Incoming, with Fails: it may be stored (§8.5.2.2.1); without, it is refused whatever is stored
	Since   int64           // Undelivered: when it was first handed over, unix microseconds; 0: unknown
	Hops    uint8
	edits   stanza.Edits
	edited  bool
	came    *channel.Envelope // what brought it, to carry it on; nil: used up, or nothing has
	marks   []byte
	ended   time.Time // when the session was bound that has ended, and that it is said for; zero: none
	row     int64     // Undelivered: Pending as it came, which is in the database
	work    *work
}

// Mark adds an element to the copies that the sender's other devices get, and
// to nothing that leaves the account (XEP-0313 §3.5).
func (f *Flow) Mark(el *stanza.Element) { f.marks = el.Append(f.marks, stanza.NSClient) }

// Marks returns what Mark has added, serialised.
func (f *Flow) Marks() []byte { return f.marks }

// Append adds an element to the recipient's copy.
func (f *Flow) Append(el *stanza.Element) {
	f.stamp()
	f.edits.Append = el.Append(f.edits.Append, stanza.NSClient)
}

// Cut removes a top-level child from the recipient's copy.
func (f *Flow) Cut(c stanza.Child) {
	f.stamp()
	f.edits.Cut = append(f.edits.Cut, c.Span)
}

func (f *Flow) stamp() {
	if !f.edited {
		f.edits = f.Stamp()
		f.edited = true
	}
}

// Settle makes the recipient's copy as it stands the stanza itself: hooks that come
// later, the archive and the sender's other devices see no other. It is for what a
// client's stanza must lose or gain before anybody looks at it.
func (f *Flow) Settle() error {
	if !f.edited {
		return nil
	}
	st, err := stanza.Parse(f.edits.Render(nil, f.Raw), stanza.NSClient, nil)
	if err != nil {
		return fmt.Errorf("settle stanza: %w", err)
	}
	f.Stanza, f.edits, f.edited = st, stanza.Edits{}, false
	return nil
}

// Edits returns the recipient's copy as it stands: Render it with Raw.
func (f *Flow) Edits() stanza.Edits {
	f.stamp()
	return f.edits
}
