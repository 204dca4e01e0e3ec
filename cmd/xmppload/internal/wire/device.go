//go:build linux

package wire

import (
	"bytes"
	"context"
	"fmt"
)

// Device is a client that goes on with its session on another connection
// (XEP-0198 §5). It is on no loop; one goroutine works with it.
type Device struct {
	*Session
	user, password string
	previd         string
}

// Device brings account user in, with a session that can be resumed, and sends
// presence.
func (lg *Login) Device(ctx context.Context, user, password string) (*Device, error) {
	s, err := lg.Login(ctx, 0, user, password)
	if err != nil {
		return nil, err
	}
	d := &Device{Session: s, user: user, password: password}
	err = d.begin()
	if err == nil {
		err = d.Settle()
	}
	if err != nil {
		d.Drop()
		return nil, fmt.Errorf("login of %s: %w", user, err)
	}
	return d, nil
}

// begin makes a bound session one that can be resumed, and available. What that
// leads to is left to be read.
func (d *Device) begin() error {
	if err := d.write("<enable xmlns='urn:xmpp:sm:3' resume='true'/>"); err != nil {
		return err
	}
	el, err := d.next()
	if err != nil {
		return err
	}
	if d.previd = string(Attr(el, " id=")); !bytes.HasPrefix(el, []byte("<enabled")) || d.previd == "" {
		return fmt.Errorf("<enabled id=…> expected, not %s", el)
	}
	d.sm, d.seen = true, 0
	return d.write("<presence/>")
}

// Settle waits until the server has dealt with everything sent so far; what
// comes meanwhile is dropped.
func (d *Device) Settle() error {
	if err := d.write(Ping); err != nil {
		return err
	}
	_, err := d.answer("sync")
	return err
}

// Resume connects anew and goes on with the session; when the server does not
// have it any more, it begins another one, and resumed is false.
func (d *Device) Resume(ctx context.Context, lg *Login) (resumed bool, err error) {
	d.Drop()
	s, err := lg.Dial(ctx, 0)
	if err != nil {
		return false, err
	}
	s.JID, s.Bare, s.seen = d.JID, d.Bare, d.seen
	d.Session = s
	if err := lg.enter(s, d.user, d.password); err != nil {
		return false, err
	}
	if err := s.write(fmt.Sprintf("<resume xmlns='urn:xmpp:sm:3' previd='%s' h='%d'/>", escape(d.previd), d.seen)); err != nil {
		return false, err
	}
	el, err := s.next()
	switch {
	case err != nil:
		return false, err
	case bytes.HasPrefix(el, []byte("<resumed")):
		s.sm = true
		return true, nil
	case !bytes.HasPrefix(el, []byte("<failed")):
		return false, fmt.Errorf("<resumed> or <failed> expected, not %s", el)
	}
	if err := lg.bind(s); err != nil {
		return false, err
	}
	return false, d.begin()
}

// Say sends.
func (d *Device) Say(text string) error { return d.write(text) }

// Await reads until an element is the one; what comes before is counted, and
// dropped.
func (d *Device) Await(is func(el []byte) bool) error {
	for {
		el, err := d.next()
		if err != nil {
			return err
		}
		if err := d.acknowledge(el); err != nil {
			return err
		}
		if is(el) {
			return nil
		}
	}
}

// Drop closes the connection without a farewell.
func (d *Device) Drop() { _ = d.sock.Conn.Close() }
