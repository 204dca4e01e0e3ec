//go:build linux

package wire

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"
)

// Security is how a client encrypts.
type Security string

// The kinds of security.
const (
	Plain    Security = "none"
	StartTLS Security = "starttls" // RFC 6120 §5
	Direct   Security = "direct"   // XEP-0368
)

// Login says how clients come in.
type Login struct {
	Addr, Domain string
	TLS          Security
	Mechanism    string // PLAIN, SCRAM-SHA-1, SCRAM-SHA-256
	Resource     string // asked for; empty: the server chooses
	SM           bool   // XEP-0198, without resumption
	Sources      int    // local addresses 127.0.0.1 and up that connections are spread over; 0: the kernel's choice
	Keys         *Keys
	Timeout      time.Duration
}

// Session is a client that is bound, or on its way there.
type Session struct {
	*Conn
	JID   string
	Bare  string
	in    []byte // read and not cut yet
	queue [][]byte
	raw   net.Conn // the socket, or TLS over it
	sm    bool
	seen  uint32 // stanzas received since SM was enabled
}

// Dial connects and, when asked, encrypts; the stream is not open yet.
func (lg *Login) Dial(ctx context.Context, n int) (*Session, error) {
	d := net.Dialer{Timeout: lg.Timeout, KeepAlive: -1}
	if lg.Sources > 0 {
		d.LocalAddr = &net.TCPAddr{IP: net.IPv4(127, 0, byte((1+n%lg.Sources)>>8), byte(1+n%lg.Sources))}
	}
	conn, err := d.DialContext(ctx, "tcp", lg.Addr)
	if err != nil {
		return nil, err
	}
	s := &Session{Conn: &Conn{sock: &socket{Conn: conn, fd: -1}}}
	s.raw = s.sock
	_ = conn.SetDeadline(time.Now().Add(lg.Timeout))
	if err := lg.encrypt(ctx, s); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return s, nil
}

func (lg *Login) encrypt(ctx context.Context, s *Session) error {
	switch lg.TLS {
	case StartTLS:
		if err := s.open(lg.Domain); err != nil {
			return err
		}
		if err := s.ask("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>", "<proceed"); err != nil {
			return fmt.Errorf("STARTTLS: %w", err)
		}
	case Direct:
	default:
		return nil
	}
	// The server under test makes its own certificate.
	s.tls = tls.Client(s.sock, &tls.Config{InsecureSkipVerify: true, ServerName: lg.Domain, NextProtos: []string{"xmpp-client"}})
	s.raw = s.tls
	if err := s.tls.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("TLS: %w", err)
	}
	return nil
}

// Login brings account user in. n tells clients apart: it chooses the source
// address.
func (lg *Login) Login(ctx context.Context, n int, user, password string) (*Session, error) {
	s, err := lg.Dial(ctx, n)
	if err != nil {
		return nil, err
	}
	if err := lg.login(s, user, password); err != nil {
		_ = s.sock.Conn.Close()
		return nil, fmt.Errorf("login of %s: %w", user, err)
	}
	return s, nil
}

func (lg *Login) login(s *Session, user, password string) error {
	if err := lg.enter(s, user, password); err != nil {
		return err
	}
	if err := lg.bind(s); err != nil {
		return err
	}
	if lg.SM {
		if err := s.ask("<enable xmlns='urn:xmpp:sm:3'/>", "<enabled"); err != nil {
			return fmt.Errorf("stream management: %w", err)
		}
		s.sm = true
	}
	return nil
}

// enter brings the stream to where it may bind, or resume.
func (lg *Login) enter(s *Session, user, password string) error {
	if err := s.open(lg.Domain); err != nil {
		return err
	}
	if err := lg.authenticate(s, user, password); err != nil {
		return err
	}
	return s.open(lg.Domain)
}

// bind is RFC 6120 §7.
func (lg *Login) bind(s *Session) error {
	resource := ""
	if lg.Resource != "" {
		resource = "<resource>" + escape(lg.Resource) + "</resource>"
	}
	if err := s.write("<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>" + resource + "</bind></iq>"); err != nil {
		return err
	}
	el, err := s.answer("bind")
	if err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	s.JID = string(Between(el, "<jid>", "</jid>"))
	if s.JID == "" {
		return fmt.Errorf("bind: %s", el)
	}
	s.Bare, _, _ = strings.Cut(s.JID, "/")
	return nil
}

const saslNS = " xmlns='urn:ietf:params:xml:ns:xmpp-sasl'"

// authenticate is RFC 6120 §6.4.
func (lg *Login) authenticate(s *Session, user, password string) error {
	b64 := base64.StdEncoding
	if lg.Mechanism == "PLAIN" {
		first := b64.EncodeToString([]byte("\x00" + user + "\x00" + password))
		return s.ask("<auth"+saslNS+" mechanism='PLAIN'>"+first+"</auth>", "<success")
	}
	x, err := newScram(lg.Mechanism, user, password, lg.Keys)
	if err != nil {
		return err
	}
	if err := s.write("<auth" + saslNS + " mechanism='" + lg.Mechanism + "'>" + b64.EncodeToString([]byte(x.first())) + "</auth>"); err != nil {
		return err
	}
	challenge, err := s.payload("<challenge")
	if err != nil {
		return err
	}
	final, err := x.final(challenge)
	if err != nil {
		return err
	}
	if err := s.write("<response" + saslNS + ">" + b64.EncodeToString([]byte(final)) + "</response>"); err != nil {
		return err
	}
	last, err := s.payload("<success")
	if err != nil {
		return err
	}
	return x.verify(last)
}

// payload is the decoded text of the next element, which must be the one named.
func (s *Session) payload(name string) (string, error) {
	el, err := s.next()
	if err != nil {
		return "", err
	}
	if !bytes.HasPrefix(el, []byte(name)) {
		return "", fmt.Errorf("%s> expected, not %s", name, el)
	}
	text, err := base64.StdEncoding.DecodeString(string(Between(el, ">", "<")))
	return string(text), err
}

// Register makes an account in band (XEP-0077 §3.1); one that is there already
// is fine.
func (lg *Login) Register(ctx context.Context, n int, user, password string) error {
	s, err := lg.Dial(ctx, n)
	if err != nil {
		return err
	}
	defer s.sock.Conn.Close()
	if err := s.open(lg.Domain); err != nil {
		return err
	}
	if err := s.write("<iq type='set' id='reg'><query xmlns='jabber:iq:register'><username>" + escape(user) +
		"</username><password>" + escape(password) + "</password></query></iq>"); err != nil {
		return err
	}
	el, err := s.answer("reg")
	if err != nil && !bytes.Contains(el, []byte("<conflict")) {
		return fmt.Errorf("registering %s: %w (does the server allow registration in band, and before TLS? A Parley with examples/interop.yaml does; see --tls and --register)", user, err)
	}
	_ = s.write("</stream:stream>")
	return nil
}

// Adopt hands a session over to the loop.
func (l *Loop) Adopt(s *Session) error {
	_ = s.sock.Conn.SetDeadline(time.Time{})
	for _, el := range s.queue { // came behind the last answer; nobody waits for it
		if s.sm {
			if err := s.acknowledge(el); err != nil {
				return err
			}
		}
	}
	s.queue = nil
	if err := s.sock.adopt(); err != nil {
		return err
	}
	s.raw, s.in = nil, nil
	return l.attach(s.Conn)
}

// Quit ends a session that no loop has, and waits until the server agrees
// (RFC 6120 §4.4).
func (s *Session) Quit() error {
	defer s.sock.Conn.Close()
	if err := s.write("</stream:stream>"); err != nil {
		return err
	}
	for {
		el, err := s.next()
		if err != nil || bytes.HasPrefix(el, []byte("</stream")) {
			return nil // some servers just close
		}
	}
}

// Available sends initial presence and waits until the server has dealt with
// everything sent so far. before is sent first.
func (s *Session) Available(before string) error {
	if err := s.write(before + "<presence/>" + Ping); err != nil {
		return err
	}
	_, err := s.answer("sync")
	if err != nil && errors.Is(err, errStanza) {
		return nil // an error is an answer, too
	}
	return err
}

// Ping is an IQ that every server answers, if only with an error; its id is sync.
const Ping = "<iq type='get' id='sync'><ping xmlns='urn:xmpp:ping'/></iq>"

// Counted answers XEP-0198 requests and counts; true: el was none of the
// scenario's business. For sessions on a loop.
func (s *Session) Counted(el []byte) bool {
	if !s.sm {
		return false
	}
	switch {
	case bytes.HasPrefix(el, []byte("<r ")), bytes.HasPrefix(el, []byte("<r/")):
		s.SendString(fmt.Sprintf("<a xmlns='urn:xmpp:sm:3' h='%d'/>", s.seen))
		return true
	case bytes.HasPrefix(el, []byte("<a ")):
		return true
	}
	s.seen++
	return false
}

func (s *Session) open(domain string) error {
	if err := s.write("<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' version='1.0' to='" + domain + "'>"); err != nil {
		return err
	}
	for {
		el, err := s.next()
		if err != nil {
			return fmt.Errorf("stream: %w", err)
		}
		switch {
		case bytes.HasPrefix(el, streamTag):
		case bytes.HasPrefix(el, []byte("<stream:features")):
			return nil
		default:
			return fmt.Errorf("stream: %s", el)
		}
	}
}

func (s *Session) write(text string) error {
	_, err := s.raw.Write([]byte(text))
	return err
}

// ask sends and expects.
func (s *Session) ask(text, want string) error {
	if err := s.write(text); err != nil {
		return err
	}
	el, err := s.next()
	if err != nil {
		return err
	}
	if !bytes.HasPrefix(el, []byte(want)) {
		return fmt.Errorf("%s> expected, not %s", want, el)
	}
	return nil
}

var errStanza = errors.New("refused")

// answer waits for the answer to an IQ; what else comes is dropped, and
// answered when it is a request for an acknowledgement.
func (s *Session) answer(id string) ([]byte, error) {
	for {
		el, err := s.next()
		if err != nil {
			return nil, err
		}
		if s.sm {
			if err := s.acknowledge(el); err != nil {
				return nil, err
			}
		}
		if !bytes.HasPrefix(el, []byte("<iq")) || string(Attr(el, " id=")) != id {
			continue
		}
		if string(Attr(el, " type=")) == "error" {
			return el, fmt.Errorf("%w: %s", errStanza, el)
		}
		return el, nil
	}
}

func (s *Session) acknowledge(el []byte) error {
	if bytes.HasPrefix(el, []byte("<r ")) || bytes.HasPrefix(el, []byte("<r/")) {
		return s.write(fmt.Sprintf("<a xmlns='urn:xmpp:sm:3' h='%d'/>", s.seen))
	}
	if !bytes.HasPrefix(el, []byte("<a ")) {
		s.seen++
	}
	return nil
}

// next is the next element, while the client logs in.
func (s *Session) next() ([]byte, error) {
	for len(s.queue) == 0 {
		if s.in == nil {
			s.in = make([]byte, 4096)
		}
		n, err := s.raw.Read(s.in)
		s.scan.Feed(s.in[:n], func(el []byte) { s.queue = append(s.queue, bytes.Clone(el)) })
		if err != nil && len(s.queue) == 0 {
			return nil, err
		}
	}
	el := s.queue[0]
	if s.queue = s.queue[1:]; len(s.queue) == 0 {
		s.queue = nil
	}
	return el, nil
}

func escape(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s))
	return b.String()
}
