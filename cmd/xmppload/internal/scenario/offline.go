//go:build linux

package scenario

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"parley/cmd/xmppload/internal/count"
	"parley/cmd/xmppload/internal/wire"
)

// Offline is messages for people who are away (RFC 6121 §8.5.2.2.1).
type Offline struct {
	Common
	Pairs int
	Each  int // messages per receiver
	Body  int
}

// Run stores, then logs the receivers in and delivers. The receivers' logins
// are not measured, their presence is: it asks for what waits.
func (o Offline) Run(ctx context.Context, s *Server) (*Result, error) {
	if err := s.Accounts(ctx, 2*o.Pairs, o.Parallel); err != nil {
		return nil, err
	}
	lanes := make([]count.Lane, o.Pairs)
	run := newRun()
	r := &Result{}
	if err := o.store(ctx, s, r, run, lanes); err != nil {
		return nil, err
	}
	if err := o.deliver(ctx, s, r, run, lanes); err != nil {
		return nil, err
	}
	for i := range lanes {
		r.Faults = r.Faults.Plus(lanes[i].Faults())
	}
	return r, nil
}

func (o Offline) store(ctx context.Context, s *Server, r *Result, run string, lanes []count.Lane) error {
	f, err := s.bring(ctx, o.Common, 0, o.Pairs, true)
	if err != nil {
		return err
	}
	defer f.close()
	synced := 0
	for _, x := range f.all {
		x.On = func(el []byte) {
			switch {
			case x.Counted(el):
			case bytes.HasPrefix(el, message) && f.err == nil:
				f.err = fmt.Errorf("%s got %s", x.JID, el)
			case string(wire.Attr(el, " id=")) == "sync":
				synced++
			}
		}
	}
	if err := f.quiet(o.Settle); err != nil {
		return err
	}
	m, err := s.meter()
	if err != nil {
		return err
	}
	for i, x := range f.all {
		to := User(o.Pairs+i) + "@" + s.Login.Domain
		for range o.Each {
			x.SendString(fmt.Sprintf("<message to='%s' type='chat' id='%s%d'><body>%s</body></message>", to, run, lanes[i].Send(), text(o.Body)))
		}
		x.SendString(wire.Ping) // stanzas of a stream are handled in order
	}
	if err := f.run(func() bool { return synced == o.Pairs }, o.Patience); err != nil {
		return fmt.Errorf("storing: %w", err)
	}
	var sub Result
	err = m.stop(&sub, o.Pairs*o.Each, 100_000, "stored")
	if len(s.PIDs) > 0 {
		r.Metrics = append(r.Metrics, sub.Metrics[0])
	}
	r.add("stored at", "/s", sub.Metrics[len(sub.Metrics)-1].Value)
	return err
}

func (o Offline) deliver(ctx context.Context, s *Server, r *Result, run string, lanes []count.Lane) error {
	f, err := s.bring(ctx, o.Common, o.Pairs, o.Pairs, false)
	if err != nil {
		return err
	}
	defer f.close()
	left := o.Pairs * o.Each
	for i, x := range f.all {
		x.On = func(el []byte) {
			if x.Counted(el) || !bytes.HasPrefix(el, message) {
				return
			}
			if n, ours := number(el, run); ours && lanes[i].Receive(n) {
				left--
			}
		}
	}
	if err := f.quiet(o.Settle); err != nil {
		return err
	}
	m, err := s.meter()
	if err != nil {
		return err
	}
	for _, x := range f.all {
		x.SendString("<presence/>")
	}
	if err := f.run(func() bool { return left == 0 }, o.Patience); err != nil && !errors.Is(err, wire.ErrStalled) {
		return fmt.Errorf("delivering: %w", err)
	} // what has not come is lost, the books say
	if err := m.stop(r, o.Pairs*o.Each, 100_000, "delivered"); err != nil {
		return err
	}
	return f.quiet(late + 200*time.Millisecond)
}
