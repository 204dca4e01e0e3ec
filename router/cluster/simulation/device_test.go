package simulation

import (
	"strconv"
	"sync"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/router/channel"
	"parley/router/sessions"
)

// device is a client. It is online or not as the plan says, comes back by itself,
// and sends again, in order, what it has seen no acknowledgement of.
type device struct {
	w    *world
	user string
	at   jid.JID

	mu      sync.Mutex
	online  bool
	retired bool // it does not come back
	node    int  // where it goes next
	session *session
	bound   bool
	tries   int
	said    int
	unsure  []*letter // that it has sent, or wants to
	flight  []*letter // of this session, by its count of stanzas; nil: no letter
	since   time.Time // it was bound
}

// letter is a message as its sender sees it; world.mu guards it.
type letter struct {
	origin
	to       string
	acked    bool
	refused  bool  // its sender was told so
	declined bool  // a node has said so, whoever heard of it
	id       int64 // of the row, as recipients saw it
	seen     map[*device]int
}

// backOff is how long a client waits before it tries another node.
const backOff = 250 * time.Millisecond

// bindWithin is how long a client waits for its address: longer than a node does
// for another one that does not answer.
const bindWithin = 15 * time.Second

// noticedAfter is how long a node takes a client for connected that has gone
// without a farewell.
const noticedAfter = 6 * time.Second

// goOnline makes the device come, to that node.
func (d *device) goOnline(node int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.node = node
	if d.online || d.retired {
		return
	}
	d.online = true
	d.connect()
}

func (d *device) goOffline() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.online = false
	d.leave(true)
}

// retire makes the device go for good.
func (d *device) retire() {
	d.goOffline()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.retired = true
}

// move makes the device come to another node; with no farewell its old node has
// to find out by itself.
func (d *device) move(node int, farewell bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.node = node
	if d.online {
		d.leave(farewell)
		d.connect()
	}
}

// leave gives the connection up; with mu.
func (d *device) leave(farewell bool) {
	x := d.session
	d.session, d.bound, d.flight = nil, false, nil
	if x == nil {
		return
	}
	after := time.Duration(0)
	if !farewell {
		after = noticedAfter
	}
	d.w.after(after, func() {
		x.wire.up.pass(&x.wire, func() { x.streamer.readers.Go(func() { x.retire("bye") }) })
	})
}

// connect is called with mu.
func (d *device) connect() {
	if !d.online || d.session != nil {
		return
	}
	d.tries++
	try := d.tries
	var x *session
	if p := d.w.at(d.node); p != nil {
		x = p.streamer.connect(d, d.at)
	}
	if x == nil {
		d.node = (d.node + 1) % len(names)
		d.again(try)
		return
	}
	d.session, d.bound, d.flight = x, false, nil
	x.wire.up.pass(&x.wire, func() {
		x.put(&channel.Envelope{Kind: channel.Bind, State: &sessions.State{Kind: sessions.Client, Transport: "sim"}})
	})
	d.w.after(bindWithin, func() { d.giveUp(x) })
}

func (d *device) again(try int) {
	d.w.after(backOff, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.tries == try {
			d.connect()
		}
	})
}

// giveUp goes elsewhere when the session is not bound.
func (d *device) giveUp(x *session) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.session == x && !d.bound {
		d.w.note("device", "%s gives up %s", d.at, x.streamer.process)
		d.elsewhere(true)
	}
}

// elsewhere is called with mu.
func (d *device) elsewhere(farewell bool) {
	d.leave(farewell)
	d.node = (d.node + 1) % len(names)
	d.again(d.tries)
}

// impatient goes elsewhere when the device is still at that process.
func (d *device) impatient(p *process) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.session != nil && d.session.streamer.process == p {
		d.w.note("device", "%s leaves %s", d.at, p)
		d.elsewhere(true)
	}
}

// lost is told by the node, or by the network.
func (d *device) lost(x *session, why string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.session != x {
		return
	}
	d.w.note("device", "%s loses %s: %s", d.at, x.streamer.process, why)
	d.elsewhere(false)
}

func (d *device) answered(x *session, why string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.session != x {
		return
	}
	if why != "" {
		d.w.note("device", "%s is not bound at %s: %s", d.at, x.streamer.process, why)
		d.elsewhere(true)
		return
	}
	d.w.note("device", "%s is bound at %s", d.at, x.streamer.process)
	d.bound, d.since = true, time.Now()
	d.transmit(nil, stanza.Make(stanza.Presence, "", jid.JID{}, jid.JID{}, ""))
	for _, l := range d.unsure {
		d.mail(l)
	}
}

// say makes the device send n messages to a user.
func (d *device) say(to string, n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for range n {
		d.said++
		l := d.w.letter(origin{d.user, d.said}, to)
		d.unsure = append(d.unsure, l)
		if d.bound {
			d.mail(l)
		}
	}
}

// mail sends a letter; with mu.
func (d *device) mail(l *letter) { d.transmit(l, message(jid.JID{}, l.to, l.origin)) }

func (d *device) transmit(l *letter, st *stanza.Stanza) {
	d.flight = append(d.flight, l)
	x := d.session
	x.wire.up.pass(&x.wire, func() { x.put(&channel.Envelope{Kind: channel.Stanza, Raw: st.Raw}) })
}

// acked is the node's h (XEP-0198).
func (d *device) acked(x *session, h uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.session != x {
		return
	}
	if h > uint64(len(d.flight)) {
		d.w.fail("%s is acknowledged %d stanzas of %d", d.at, h, len(d.flight))
		return
	}
	for i, l := range d.flight[:h] {
		if l != nil {
			d.done(l)
			d.w.settle(l, false)
		}
		d.flight[i] = nil
	}
}

// done takes a letter off the list of those that are sent again; with mu.
func (d *device) done(l *letter) {
	for i, u := range d.unsure {
		if u == l {
			d.unsure = append(d.unsure[:i:i], d.unsure[i+1:]...)
			return
		}
	}
}

// got is what the node has sent.
func (d *device) got(x *session, raw []byte, row int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.session != x {
		return
	}
	st, err := stanza.Parse(raw, stanza.NSClient, nil)
	if err != nil {
		d.w.fail("%s gets %q: %v", d.at, raw, err)
		return
	}
	o, ok := originOf(st.ID)
	if st.Kind != stanza.Message || !ok {
		return
	}
	if st.Type == stanza.TypeError {
		if l := d.w.find(o); l != nil && o.from == d.user {
			d.done(l)
			d.w.settle(l, true)
		}
		return
	}
	id := int64(0)
	if el := st.Child(nsID, "stanza-id"); el != nil {
		id, _ = strconv.ParseInt(el.Get("id"), 10, 64)
	}
	d.w.seen(d, o, st.To.Local(), id)
	if row != 0 {
		x.wire.up.pass(&x.wire, func() { x.acked(row) })
	}
}
