//go:build linux

// Package floor is a server that only moves the same bytes between the same
// sockets: logins are faked, nothing is parsed on the way, checked or stored.
// What it costs is the physical limit of the machine for an XMPP server.
//
// An element that says something new (a login, a subscription, a room, a
// message to somebody else) is looked at once. From then on what begins with
// the same bytes goes to the same sockets: one read, one write for each.
package floor

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strings"

	"parley/cmd/xmppload/internal/wire"
)

// Server is a floor.
type Server struct {
	loop   *wire.Loop
	domain string
	users  map[string]*session   // by full and by bare JID
	fans   map[string][]*session // who gets an account's presence
	rooms  map[string]*room
}

// room is who is in there, and the presence of all of them.
type room struct {
	here []*session
	roll []byte
}

// session is one connection.
type session struct {
	*wire.Conn
	server *Server
	user   string
	jid    string
	head   []byte     // what chunks that go to "to" begin with
	to     []*session //
	room   *room      // or everybody in there
	inside bool       // the last chunk ended within an element
}

// New makes a floor on a loop.
func New(loop *wire.Loop, domain string) *Server {
	return &Server{loop: loop, domain: domain, users: map[string]*session{}, fans: map[string][]*session{}, rooms: map[string]*room{}}
}

// Listen opens an address and returns it with its port.
func (s *Server) Listen(address string) (string, error) {
	return s.loop.Listen(address, func(c *wire.Conn) {
		e := &session{Conn: c, server: s}
		c.On, c.Chunk, c.Gone = e.element, e.forward, e.gone
	})
}

func (e *session) gone(error) {
	for _, key := range []string{e.jid, bare(e.jid)} {
		if e.server.users[key] == e {
			delete(e.server.users, key)
		}
	}
}

// forward is the fast way.
func (e *session) forward(p []byte) bool {
	if e.head == nil || !e.inside && !bytes.HasPrefix(p, e.head) {
		return false
	}
	to := e.to
	if e.room != nil {
		to = e.room.here
	}
	for _, t := range to {
		t.Forward(p)
	}
	e.inside = !bytes.HasSuffix(p, closing(e.head))
	return true
}

func closing(head []byte) []byte {
	if head[1] == 'm' {
		return []byte("</message>")
	}
	return []byte("</presence>")
}

// element is the slow way: what a head says for the first time, and logins.
func (e *session) element(el []byte) {
	switch el[1] {
	case 's':
		e.SendString(e.header())
	case 'a':
		e.login(el)
	case 'i':
		e.iq(el)
	case 'p':
		e.presence(el)
	case 'm':
		e.message(el)
	case '/':
		e.SendString("</stream:stream>")
	}
}

func (e *session) header() string {
	features := "<mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>PLAIN</mechanism></mechanisms>"
	if e.user != "" {
		features = "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>"
	}
	return "<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' id='1' version='1.0' from='" +
		e.server.domain + "'><stream:features>" + features + "</stream:features>"
}

func (e *session) login(el []byte) {
	text, _ := base64.StdEncoding.DecodeString(string(wire.Between(el, ">", "<")))
	if parts := strings.Split(string(text), "\x00"); len(parts) == 3 {
		e.user = parts[1]
	}
	e.SendString("<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>")
}

func (e *session) iq(el []byte) {
	payload := ""
	if bytes.Contains(el, []byte("urn:ietf:params:xml:ns:xmpp-bind")) {
		resource := string(wire.Between(el, "<resource>", "</resource>"))
		if resource == "" {
			resource = "floor"
		}
		account := e.user + "@" + e.server.domain
		e.jid = account + "/" + resource
		e.server.users[account], e.server.users[e.jid] = e, e
		payload = "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><jid>" + e.jid + "</jid></bind>"
	}
	e.SendString(fmt.Sprintf("<iq type='result' id='%s'>%s</iq>", wire.Attr(el, " id="), payload))
}

func (e *session) presence(el []byte) {
	to := string(wire.Attr(el, " to="))
	switch {
	case string(wire.Attr(el, " type=")) == "subscribe":
		e.server.fans[to] = append(e.server.fans[to], e)
	case to != "": // into a room; its name is the bare address
		r := e.server.rooms[bare(to)]
		if r == nil {
			r = &room{}
			e.server.rooms[bare(to)] = r
		}
		shown := []byte("<presence to='" + e.jid + "' from='" + to + "'><x xmlns='http://jabber.org/protocol/muc#user'><item affiliation='none' role='participant'/></x></presence>")
		for _, t := range r.here {
			t.Forward(shown)
		}
		e.Send(r.roll)
		r.here, r.roll = append(r.here, e), append(r.roll, shown...)
		e.SendString("<presence to='" + e.jid + "' from='" + to + "'><x xmlns='http://jabber.org/protocol/muc#user'><item affiliation='none' role='participant'/><status code='110'/></x></presence>")
		e.SendString("<message from='" + bare(to) + "' type='groupchat'><subject/></message>")
	case !bytes.HasPrefix(el, []byte("<presence>")):
	default:
		e.via(el, len("<presence>"), e.server.fans[bare(e.jid)], nil)
	}
}

func (e *session) message(el []byte) {
	to := wire.Attr(el, " to=")
	if to == nil {
		return
	}
	head := bytes.Index(el, to) + len(to) + 1
	if r := e.server.rooms[string(to)]; r != nil {
		e.via(el, head, nil, r)
	} else if t := e.server.users[string(to)]; t != nil {
		e.via(el, head, []*session{t}, nil)
	}
}

// via forwards el, and from now on everything that begins like it.
func (e *session) via(el []byte, head int, to []*session, r *room) {
	e.head, e.to, e.room, e.inside = bytes.Clone(el[:head]), to, r, false
	e.forward(el)
}

func bare(j string) string {
	b, _, _ := strings.Cut(j, "/")
	return b
}
