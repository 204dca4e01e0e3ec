package abuse

import (
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// Openings of streams.
const (
	header  = "<stream:stream to='localhost' version='1.0' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>"
	nsTLS   = "urn:ietf:params:xml:ns:xmpp-tls"
	nsSASL  = "urn:ietf:params:xml:ns:xmpp-sasl"
	nsSASL2 = "urn:xmpp:sasl:2"
	secret  = "correct horse battery staple" // of every account that plugintest makes
)

// peer is a client made of bytes. Everything it reads has to be well-formed.
type peer struct {
	tcp  *net.TCPConn
	conn net.Conn // tcp, or TLS on it
	got  []byte   // everything that came, of the current layer
	seen int      // how much of it until has passed
	id   string   // of the session, for resumption
	buf  [8 << 10]byte

	wrap  func(string) string // what becomes of fuzzed bytes; nil: nothing
	check func([]byte) error  // what is well-formed here
}

func dialPeer(addr string) (*peer, error) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	_ = c.SetDeadline(time.Now().Add(patience))
	return &peer{tcp: c.(*net.TCPConn), conn: c, check: checkStream}, nil
}

// dial returns a peer that ends with the test.
func (w *world) dial() *peer {
	w.Helper()
	p, err := dialPeer(w.Door("c2s"))
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(p.drop)
	return p
}

func (p *peer) drop() { _ = p.tcp.Close() }

func (p *peer) say(s string) error {
	_, err := io.WriteString(p.conn, s)
	return err
}

func (p *peer) fill() error {
	n, err := p.conn.Read(p.buf[:])
	p.got = append(p.got, p.buf[:n]...)
	if n > 0 {
		return nil
	}
	return err
}

// until reads up to and including text and returns what came before it.
func (p *peer) until(text string) (string, error) {
	for {
		if i := bytes.Index(p.got[p.seen:], []byte(text)); i >= 0 {
			before := string(p.got[p.seen : p.seen+i])
			p.seen += i + len(text)
			return before, nil
		}
		if err := p.fill(); err != nil {
			return "", fmt.Errorf("waiting for %s after %s: %w", text, p.got[p.seen:], err)
		}
	}
}

// exchange says one thing and waits for another.
func (p *peer) exchange(say, wait string) error {
	if err := p.say(say); err != nil {
		return err
	}
	_, err := p.until(wait)
	return err
}

// rest reads until the server closes and returns what came. A stream's end is
// answered as RFC 6120 §4.4 asks.
func (p *peer) rest() (string, error) {
	for ended := false; ; {
		if !ended && bytes.HasSuffix(p.got, []byte("</stream:stream>")) {
			ended = true
			p.hangUp()
		}
		err := p.fill()
		if err == nil {
			continue
		}
		if errors.Is(err, io.EOF) || isReset(err) {
			err = nil
		}
		return string(p.got[p.seen:]), err
	}
}

// isReset reports the end of a connection whose peer had not read everything.
func isReset(err error) bool {
	return strings.Contains(err.Error(), "connection reset") || strings.Contains(err.Error(), "broken pipe")
}

// hangUp says that nothing more comes.
func (p *peer) hangUp() {
	if c, ok := p.conn.(*tls.Conn); ok {
		_ = c.CloseWrite()
	}
	_ = p.tcp.CloseWrite()
}

// secure does the handshake after <proceed/>.
func (p *peer) secure() error {
	c := tls.Client(p.conn, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // the test's own server
	if err := c.Handshake(); err != nil {
		return err
	}
	p.conn, p.got, p.seen = c, nil, 0
	return nil
}

func plain(user, password string) string {
	return "<auth xmlns='" + nsSASL + "' mechanism='PLAIN'>" + b64("\x00"+user+"\x00"+password) + "</auth>"
}

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// auth logs in and opens the stream that follows.
func (p *peer) auth(user string) error {
	if err := p.exchange(header, "</stream:features>"); err != nil {
		return err
	}
	if err := p.say(plain(user, secret)); err != nil {
		return err
	}
	if answer, err := p.until(" xmlns='" + nsSASL + "'"); err != nil || !strings.HasSuffix(answer, "<success") {
		return fmt.Errorf("login of %s: %s: %w", user, answer, errLogin)
	}
	return p.exchange(header, "</stream:features>")
}

var errLogin = errors.New("login refused")

// bind asks for a resource.
func (p *peer) bind(resource string) error {
	return p.exchange("<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>"+resource+"</resource></bind></iq>", "</jid></bind></iq>")
}

// bound returns a peer with a session.
func (w *world) bound(user, resource string) *peer {
	w.Helper()
	_ = w.Account(w.ctx, user, secret) // there already
	p := w.dial()
	w.must(p.auth(user))
	w.must(p.bind(resource))
	return p
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// refused asserts that the server ends the stream with one of the conditions.
func (w *world) refused(p *peer, conditions ...string) {
	w.Helper()
	got, err := p.rest()
	if err != nil {
		w.Errorf("the stream does not end: %v after %s", err, tail(got))
		return
	}
	for _, c := range conditions {
		if strings.Contains(got, "<stream:error><"+c+" ") && strings.HasSuffix(got, "</stream:stream>") {
			return
		}
	}
	w.Errorf("expected <%s/> and the stream's end, got %q", strings.Join(conditions, "/> or <"), tail(got))
}

func tail(s string) string { return s[max(0, len(s)-500):] }

// wellFormed asserts that all that came is.
func (w *world) wellFormed(p *peer) {
	w.Helper()
	if err := p.check(p.got); err != nil {
		w.Errorf("the server's XML: %v in %q", err, tail(string(p.got)))
	}
}

var _ testing.TB = (*world)(nil)
