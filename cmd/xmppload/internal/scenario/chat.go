//go:build linux

package scenario

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"parley/cmd/xmppload/internal/count"
	"parley/cmd/xmppload/internal/wire"
)

// Chat is one-to-one chat between pairs of full JIDs.
type Chat struct {
	Common
	Pairs    int
	Window   int     // closed loop: messages under way per pair
	Rate     float64 // open loop: messages per second over all pairs; 0: closed
	Messages int     // measured; a tenth more go before
	Body     int     // bytes of text
	Pages    int     // archive: so many clients then fetch their last page, one after the other
}

// pair is a sender and a receiver.
type pair struct {
	count.Lane
	from, to *wire.Session
	head     []byte // up to the number
}

// chat is one run.
type chat struct {
	Chat
	*fleet
	pairs   []*pair
	tail    []byte
	left    int // to be sent
	waiting int // sent, not come
	times   count.Times
	planned [][]time.Time // open loop, by pair: when messages on their way were due
	start   time.Time
	sent    int // open loop
	num     []byte
	mark    string         // in every id, so that what an earlier run left is told apart
	earlier map[string]int // messages of other runs, by mark
}

// Run logs in and chats.
func (o Chat) Run(ctx context.Context, s *Server) (*Result, error) {
	f, err := s.bring(ctx, o.Common, 0, 2*o.Pairs, true)
	if err != nil {
		return nil, err
	}
	defer f.close()
	return o.on(s, f)
}

// on chats on a fleet that is there.
func (o Chat) on(s *Server, f *fleet) (*Result, error) {
	c := o.join(f)
	if err := c.quiet(o.Settle); err != nil {
		return nil, err
	}
	r := &Result{}
	warm := max(o.Messages/10, o.Pairs*max(o.Window, 1))
	if err := c.phase(warm); err != nil {
		return c.failed(r, err)
	}
	c.times = count.Times{}
	m, err := s.meter()
	if err != nil {
		return nil, err
	}
	if err := c.phase(o.Messages); err != nil {
		return c.failed(r, err)
	}
	if err := m.stop(r, o.Messages, 100_000, "messages"); err != nil {
		return nil, err
	}
	if o.Rate > 0 {
		for _, q := range []int{50, 95, 99} {
			r.add(fmt.Sprintf("p%d", q), "ms", c.times.Quantile(float64(q)/100).Seconds()*1000)
		}
	}
	if o.Pages > 0 {
		if err := c.pages(s, r); err != nil {
			return nil, err
		}
	}
	if err := c.quiet(late); err != nil {
		return nil, err
	}
	r.Faults = c.faults()
	c.again(s, r)
	return r, nil
}

// again deals with messages of other runs: those that came then are duplicates,
// what is known of no run (another process's) is only told.
func (c *chat) again(s *Server, r *Result) {
	unknown := 0
	for mark, n := range c.earlier {
		if s.delivered[mark] {
			r.Faults.Duplicated += n
		} else {
			unknown += n
		}
	}
	if unknown > 0 {
		r.add("messages of earlier runs", "", float64(unknown))
	}
	if s.delivered == nil {
		s.delivered = map[string]bool{}
	}
	s.delivered[c.mark] = r.Faults.Lost == 0
}

// newRun is a prefix of ids that no other run has.
func newRun() string { return rand.Text()[:6] + "-" }

// number is a message's number, and whether it is of this run.
func number(el []byte, run string) (int, bool) {
	id := wire.Attr(el, " id=")
	if !bytes.HasPrefix(id, []byte(run)) {
		return 0, false
	}
	n := wire.Number(id[len(run):])
	return n, n > 0
}

// late is how long a message may come a second time.
const late = 100 * time.Millisecond

// failed makes a result of a run that came to a standstill: messages are lost.
func (c *chat) failed(r *Result, err error) (*Result, error) {
	if r.Faults = c.faults(); errors.Is(err, wire.ErrStalled) {
		return r, nil
	}
	return nil, err
}

func (c *chat) faults() (f count.Faults) {
	for _, p := range c.pairs {
		f = f.Plus(p.Faults())
	}
	return f
}

func (o Chat) join(f *fleet) *chat {
	c := &chat{Chat: o, fleet: f, planned: make([][]time.Time, o.Pairs)}
	c.mark, c.earlier = newRun(), map[string]int{}
	c.tail = []byte("'><body>" + text(o.Body) + "</body></message>")
	for i := range o.Pairs {
		p := &pair{from: f.all[2*i], to: f.all[2*i+1]}
		p.head = []byte("<message to='" + p.to.JID + "' type='chat' id='" + c.mark)
		p.from.On = func(el []byte) { c.back(p, el) }
		p.to.On = func(el []byte) { c.came(i, p, el) }
		c.pairs = append(c.pairs, p)
	}
	return c
}

// text is n bytes of what people write.
func text(n int) string {
	const words = "But soft, what light through yonder window breaks? It is the east, and Juliet is the sun. "
	return strings.Repeat(words, n/len(words)+1)[:n]
}

var message, presence = []byte("<message"), []byte("<presence")

// came is a receiver's handler.
func (c *chat) came(i int, p *pair, el []byte) {
	if p.to.Counted(el) || !bytes.HasPrefix(el, message) {
		return
	}
	n, ours := number(el, c.mark)
	if !ours {
		mark, _, _ := bytes.Cut(wire.Attr(el, " id="), []byte("-"))
		c.earlier[string(mark)+"-"]++
	}
	if !ours || !p.Receive(n) {
		return
	}
	c.waiting--
	if c.Rate > 0 {
		due := c.planned[i]
		c.times.Add(c.loop.Now.Sub(due[0]))
		c.planned[i] = due[1:]
		return
	}
	c.next(p)
}

// back is what a sender gets: errors end the run.
func (c *chat) back(p *pair, el []byte) {
	if p.from.Counted(el) {
		return
	}
	if bytes.HasPrefix(el, message) && c.err == nil {
		c.err = fmt.Errorf("%s got %s", p.from.JID, el)
	}
}

// next sends the pair's next message, if any is left to send.
func (c *chat) next(p *pair) {
	if c.left == 0 {
		return
	}
	c.left--
	c.waiting++
	c.num = strconv.AppendInt(c.num[:0], int64(p.Send()), 10)
	p.from.Send(p.head, c.num, c.tail)
}

// phase sends n messages and waits until they have come.
func (c *chat) phase(n int) error {
	c.left = n
	if c.Rate > 0 {
		c.start, c.sent, c.loop.Tick = time.Now(), 0, c.tick
		defer func() { c.loop.Tick = nil }()
	} else {
		for range c.Window {
			for _, p := range c.pairs {
				c.next(p)
			}
		}
	}
	return c.run(func() bool { return c.left == 0 && c.waiting == 0 }, c.Patience)
}

// tick sends what is due. Its latency counts from when it was due, however late
// the generator is.
func (c *chat) tick() {
	for c.left > 0 {
		due := c.start.Add(time.Duration(float64(c.sent) / c.Rate * float64(time.Second)))
		if due.After(c.loop.Now) {
			return
		}
		i := c.sent % len(c.pairs)
		c.sent++
		c.planned[i] = append(c.planned[i], due)
		c.next(c.pairs[i])
	}
}

// pages times how long the last page of an archive takes (XEP-0313 §4.3).
func (c *chat) pages(s *Server, r *Result) error {
	var times count.Times
	m, err := s.meter()
	if err != nil {
		return err
	}
	items := 0
	for i := range c.Pages {
		n, took, err := c.page(c.pairs[i%len(c.pairs)].to, LastPage, c.Patience)
		if err != nil {
			return err
		}
		items += n
		times.Add(took)
	}
	var sub Result
	if err := m.stop(&sub, c.Pages, 1000, "pages"); err != nil {
		return err
	}
	if len(s.PIDs) > 0 {
		r.Metrics = append(r.Metrics, sub.Metrics[0])
	}
	r.pages(&times, items)
	return nil
}

// LastPage asks for an archive's last 50 (XEP-0313 §4.3.3).
const LastPage = "<set xmlns='http://jabber.org/protocol/rsm'><max>50</max><before/></set>"

// page fetches a page: how many messages came, and how long the last was in coming.
func (f *fleet) page(x *wire.Session, query string, patience time.Duration) (items int, took time.Duration, err error) {
	ended := false
	x.On = func(el []byte) {
		switch {
		case x.Counted(el):
		case bytes.HasPrefix(el, message):
			items++
		case string(wire.Attr(el, " id=")) == "page":
			ended = true
			if string(wire.Attr(el, " type=")) != "result" && f.err == nil {
				f.err = fmt.Errorf("archive query: %s", el)
			}
		}
	}
	x.SendString("<iq type='set' id='page'><query xmlns='urn:xmpp:mam:2' queryid='q'>" + query + "</query></iq>")
	start := time.Now()
	if err := f.run(func() bool { return ended }, patience); err != nil {
		return 0, 0, fmt.Errorf("archive page: %w", err)
	}
	return items, time.Since(start), nil
}
