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

// Room is a room (XEP-0045): many are in it, one posts.
type Room struct {
	Common
	Occupants, Posts, Window, Body int
}

// Run fills a room, then posts.
func (o Room) Run(ctx context.Context, s *Server) (*Result, error) {
	f, room, err := s.room(ctx, o.Common, o.Occupants)
	if err != nil {
		return nil, err
	}
	defer f.close()
	r := &Result{}
	if r.Faults, err = f.fill(room, o.Patience); err != nil {
		return nil, err
	}
	n := &fan{fleet: f, lanes: make([]count.Lane, o.Occupants), window: o.Window}
	body := text(o.Body)
	n.send = func(i int) {
		f.all[0].SendString("<message to='" + room + "' type='groupchat' id='" + strconv.Itoa(i) + "'><body>" + body + "</body></message>")
	}
	for i, x := range f.all {
		x.On = func(el []byte) {
			if !x.Counted(el) && bytes.HasPrefix(el, message) {
				n.came(i, wire.Number(wire.Attr(el, " id=")))
			}
		}
	}
	return r, n.measure(s, o.Common, o.Posts, "deliveries", r)
}

// Joins is how a room fills: each one who comes is shown to everybody in there,
// and everybody to who comes.
type Joins struct {
	Common
	Occupants int
}

// Run lets one after the other in.
func (o Joins) Run(ctx context.Context, s *Server) (*Result, error) {
	f, room, err := s.room(ctx, o.Common, o.Occupants)
	if err != nil {
		return nil, err
	}
	defer f.close()
	m, err := s.meter()
	if err != nil {
		return nil, err
	}
	r := &Result{}
	if r.Faults, err = f.fill(room, o.Patience); err != nil {
		return nil, err
	}
	return r, m.stop(r, o.Occupants*o.Occupants, 1_000_000, "stanzas of joins")
}

// room brings sessions for a room that is not there yet.
func (s *Server) room(ctx context.Context, c Common, occupants int) (*fleet, string, error) {
	f, err := s.bring(ctx, c, 0, occupants, true)
	if err != nil {
		return nil, "", err
	}
	if err := f.quiet(c.Settle); err != nil {
		f.close()
		return nil, "", err
	}
	return f, fmt.Sprintf("load%d@%s", time.Now().UnixNano(), s.Rooms), nil
}

// roll is whom an occupant has been shown; occupants have numbers in the order of
// their coming.
type roll struct {
	me, last, got int
	seen          []bool
	faults        count.Faults // Lost is counted by fill
}

// shown takes an occupant down, and returns how many are new. Who was there before comes before the occupant
// itself, in any order, who comes later in the order of coming (XEP-0045 §7.2.2).
func (r *roll) shown(n int) int {
	if n < 0 || n >= len(r.seen) {
		return 0
	}
	if r.seen[n] {
		r.faults.Duplicated++
		return 0
	}
	if n < r.me && r.seen[r.me] || n > r.me && (n < r.last || !r.seen[r.me]) {
		r.faults.Reordered++
	}
	if n > r.me {
		r.last = max(r.last, n)
	}
	r.seen[n] = true
	r.got++
	return 1
}

// fill brings everybody in, until everybody has seen everybody or nothing comes any
// more. The first one makes the room and opens it as it is (XEP-0045 §10.1.2).
func (f *fleet) fill(room string, patience time.Duration) (faults count.Faults, err error) {
	rolls := make([]roll, len(f.all))
	open, missing := false, len(f.all)*len(f.all)
	nick := []byte(room + "/n")
	for i, x := range f.all {
		r := &rolls[i]
		r.me, r.seen = i, make([]bool, len(f.all))
		x.On = func(el []byte) {
			if x.Counted(el) {
				return
			}
			typ := wire.Attr(el, " type=")
			switch from := wire.Attr(el, " from="); {
			case string(typ) == "error" && f.err == nil:
				f.err = fmt.Errorf("room %s: %s", room, el)
			case typ == nil && bytes.HasPrefix(el, presence) && bytes.HasPrefix(from, nick):
				missing -= r.shown(wire.Number(from[len(nick):]))
			case string(wire.Attr(el, " id=")) == "open":
				open = true
			}
		}
		x.SendString(fmt.Sprintf("<presence to='%s/n%d'><x xmlns='http://jabber.org/protocol/muc'><history maxstanzas='0'/></x></presence>", room, i))
		if i == 0 {
			x.SendString("<iq type='set' id='open' to='" + room + "'><query xmlns='http://jabber.org/protocol/muc#owner'><x xmlns='jabber:x:data' type='submit'/></query></iq>")
		}
		if err := f.run(func() bool { return r.seen[i] && open }, patience); err != nil {
			return faults, fmt.Errorf("joining %s as number %d: %w", room, i, err)
		}
		if !r.seen[i] || !open {
			return faults, fmt.Errorf("joining %s as number %d: no answer for %v", room, i, patience)
		}
	}
	if err := f.run(func() bool { return missing == 0 }, patience); err != nil && !errors.Is(err, wire.ErrStalled) {
		return faults, err
	} // what has not come is lost, the books say
	for i := range rolls {
		rolls[i].faults.Lost = len(rolls) - rolls[i].got
		faults = faults.Plus(rolls[i].faults)
	}
	return faults, nil
}
