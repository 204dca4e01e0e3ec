//go:build linux

package scenario

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"parley/cmd/xmppload/internal/count"
	"parley/cmd/xmppload/internal/wire"
)

// fan is one sender and many who get everything it sends.
type fan struct {
	*fleet
	lanes  []count.Lane // by receiver
	sent   int
	left   int // to be sent
	due    int // receipts outstanding
	window int
	send   func(n int) // queues number n
}

// phase sends n and waits until everybody has everything.
func (f *fan) phase(n int, patience time.Duration) error {
	f.left = n
	for range min(f.window, n) {
		f.next()
	}
	return f.run(func() bool { return f.left == 0 && f.due == 0 }, patience)
}

func (f *fan) next() {
	f.left--
	f.sent++
	for i := range f.lanes {
		f.lanes[i].Send()
	}
	f.due += len(f.lanes)
	f.send(f.sent)
}

// came takes down a receipt; when a whole number's worth has come, the next
// goes out.
func (f *fan) came(i, n int) {
	if n < 1 || !f.lanes[i].Receive(n) {
		return
	}
	f.due--
	if f.left > 0 && f.due <= (f.window-1)*len(f.lanes) {
		f.next()
	}
}

func (f *fan) faults() (all count.Faults) {
	for i := range f.lanes {
		all = all.Plus(f.lanes[i].Faults())
	}
	return all
}

// whole is a phase; over: it is the last one, because something has not come.
func (f *fan) whole(n int, patience time.Duration, r *Result) (over bool, err error) {
	err = f.phase(n, patience)
	if errors.Is(err, wire.ErrStalled) { // it is lost, the books say, and nothing is to be read off
		r.Faults = r.Faults.Plus(f.faults())
		return true, nil
	}
	return err != nil, err
}

// measure warms up, measures, and closes the books.
func (f *fan) measure(s *Server, c Common, n int, what string, r *Result) error {
	if err := f.quiet(c.Settle); err != nil {
		return err
	}
	if over, err := f.whole(max(n/10, 1), c.Patience, r); over {
		return err
	}
	m, err := s.meter()
	if err != nil {
		return err
	}
	if over, err := f.whole(n, c.Patience, r); over {
		return err
	}
	if err := m.stop(r, n*len(f.lanes), 100_000, what); err != nil {
		return err
	}
	if err := f.quiet(late); err != nil {
		return err
	}
	r.Faults = r.Faults.Plus(f.faults())
	return nil
}

// Presence is somebody with many contacts whose presence changes (RFC 6121 §4.4.2).
type Presence struct {
	Common
	Contacts, Changes, Window int
}

// Run subscribes the contacts to the first account, then changes its presence.
func (o Presence) Run(ctx context.Context, s *Server) (*Result, error) {
	f, err := s.bring(ctx, o.Common, 0, o.Contacts+1, true)
	if err != nil {
		return nil, err
	}
	defer f.close()
	if err := o.subscribe(f); err != nil {
		return nil, err
	}
	hub := f.all[0]
	n := &fan{fleet: f, lanes: make([]count.Lane, o.Contacts), window: o.Window}
	n.send = func(i int) {
		hub.SendString("<presence><show>away</show><status>" + strconv.Itoa(i) + "</status></presence>")
	}
	hub.On = func(el []byte) { hub.Counted(el) }
	for i, x := range f.all[1:] {
		from := []byte(hub.JID)
		x.On = func(el []byte) {
			if !x.Counted(el) && bytes.HasPrefix(el, presence) && (bytes.Contains(el, from) || wire.Attr(el, " from=") == nil) {
				n.came(i, wire.Number(wire.Between(el, "<status>", "</status>")))
			}
		}
	}
	r := &Result{}
	return r, n.measure(s, o.Common, o.Changes, "presences", r)
}

// subscribe makes every session but the first a contact of the first: pending
// requests are approved by the hub (RFC 6121 §3.1). Contacts of an earlier run
// are contacts already: the server answers for the hub, or the hub does again.
func (o Presence) subscribe(f *fleet) error {
	hub := f.all[0]
	synced := map[*wire.Session]bool{}
	mark := func(x *wire.Session, el []byte) {
		if string(wire.Attr(el, " id=")) == "sync" {
			synced[x] = true
		}
	}
	hub.On = func(el []byte) {
		if hub.Counted(el) {
			return
		}
		if string(wire.Attr(el, " type=")) == "subscribe" {
			hub.SendString("<presence to='" + string(bare(wire.Attr(el, " from="))) + "' type='subscribed'/>")
		}
		mark(hub, el)
	}
	// A pending request is what the hub approves, so each round of pings finds
	// more of them done; the roster says when all are.
	for _, x := range f.all[1:] {
		x.On = func(el []byte) {
			if !x.Counted(el) {
				mark(x, el)
			}
		}
		x.SendString("<presence to='" + hub.Bare + "' type='subscribe'/>" + wire.Ping)
	}
	if err := f.run(func() bool { return len(synced) == len(f.all)-1 }, o.Patience); err != nil {
		return fmt.Errorf("subscriptions: %w", err)
	}
	for range 2 { // what has been asked has reached the hub, and its answers the server
		delete(synced, hub)
		hub.SendString(wire.Ping)
		if err := f.run(func() bool { return synced[hub] }, o.Patience); err != nil {
			return fmt.Errorf("approvals: %w", err)
		}
		if err := f.quiet(o.Settle); err != nil {
			return err
		}
	}
	return nil
}

func bare(j []byte) []byte {
	if i := bytes.IndexByte(j, '/'); i >= 0 {
		return j[:i]
	}
	return j
}
