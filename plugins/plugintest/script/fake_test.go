package script

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
)

// fake is a tiny server: PLAIN without TLS, bind, presence echo, messages to full and bare JIDs, XEP-0198 counting.
type fake struct {
	mu       sync.Mutex
	accounts map[string]string
	sessions map[string]*fakeConn // by full JID
	count    int
	noise    bool // sends a message nobody asked for before each ping answer
	service  *rooms
	wg       sync.WaitGroup
}

type fakeConn struct {
	*fake
	conn    net.Conn
	wmu     sync.Mutex
	user    string
	full    string
	handled int
}

func newFake(t *testing.T) *fake {
	f := &fake{accounts: map[string]string{}, sessions: map[string]*fakeConn{}}
	t.Cleanup(f.wg.Wait)
	return f
}

func (f *fake) Domain() string { return "fake.test" }
func (f *fake) Service(name string) string {
	return map[string]string{"muc": "rooms.fake.test"}[name]
}
func (f *fake) Restart(context.Context) error { return ErrUnsupported }
func (f *fake) Reload(context.Context) error  { return nil }

func (f *fake) Account(_ context.Context, user, password string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.accounts[user] = password
	return nil
}

func (f *fake) Dial(_ context.Context, kind DialKind) (net.Conn, error) {
	if kind != TCP {
		return nil, fmt.Errorf("dial kind %d: %w", kind, ErrUnsupported)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return nil, err
	}
	server, err := l.Accept()
	if err != nil {
		return nil, err
	}
	f.wg.Add(1)
	go func() { defer f.wg.Done(); (&fakeConn{fake: f, conn: server}).serve() }()
	return client, nil
}

func (c *fakeConn) say(format string, args ...any) {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	fmt.Fprintf(c.conn, format, args...)
}

func (c *fakeConn) serve() {
	defer c.conn.Close()
	defer func() {
		c.mu.Lock()
		delete(c.sessions, c.full)
		c.mu.Unlock()
	}()
	d := newDecoder(c.conn, false)
	for {
		it, err := d.next()
		switch {
		case err != nil:
			if !strings.Contains(err.Error(), "EOF") && !strings.Contains(err.Error(), "reset") {
				c.say("<stream:error><not-well-formed xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error></stream:stream>")
			}
			return
		case it.kind == itemClose:
			c.say("</stream:stream>")
			return
		case it.kind == itemOpen:
			features := "<mechanisms xmlns='" + nsSASL + "'><mechanism>PLAIN</mechanism></mechanisms>"
			if c.user != "" {
				features = "<bind xmlns='" + nsBind + "'/>"
			}
			c.say("<?xml version='1.0'?><stream:stream from='fake.test' id='s%p' version='1.0' xmlns='jabber:client' xmlns:stream='%s'><stream:features>%s</stream:features>", c, nsStream, features)
		default:
			c.element(it.node)
		}
	}
}

func (c *fakeConn) element(n *node) {
	switch {
	case n.is(nsSASL, "auth"):
		plain, _ := base64.StdEncoding.DecodeString(n.text)
		parts := strings.Split(string(plain), "\x00")
		c.mu.Lock()
		ok := len(parts) == 3 && c.accounts[parts[1]] != "" && c.accounts[parts[1]] == parts[2]
		c.mu.Unlock()
		if !ok {
			c.say("<failure xmlns='%s'><not-authorized/></failure>", nsSASL)
			return
		}
		c.user = parts[1]
		c.say("<success xmlns='%s'/>", nsSASL)
	case n.is(nsSM, "enable"):
		c.handled = 0
		c.say("<enabled xmlns='%s' id='resume-me'/><r xmlns='%s'/>", nsSM, nsSM)
	case n.is(nsSM, "r"):
		c.say("<a xmlns='%s' h='%d'/>", nsSM, c.handled)
	case n.isStanza():
		c.handled++
		c.stanza(n)
	}
}

func (c *fakeConn) stanza(n *node) {
	if c.service != nil {
		if strings.HasSuffix(n.get("to"), "rooms.fake.test") {
			c.service.take(c, n)
			return
		}
		if n.child(nsPing, "ping") != nil {
			c.service.pinged(c)
		}
	}
	switch n.name.local {
	case "iq":
		if n.child(nsBind, "bind") != nil {
			c.bound(n)
			return
		}
		if c.noise {
			c.say("<message from='spam.test'><body>noise</body></message>")
		}
		c.say("<iq type='result' id='%s'/>", n.get("id"))
	case "presence":
		c.say("<presence from='%s'/>", c.full)
	case "message":
		n.attrs = append(n.attrs, attr{name{"", "from"}, c.full})
		c.mu.Lock()
		defer c.mu.Unlock()
		for full, s := range c.sessions {
			if to := n.get("to"); full == to || strings.HasPrefix(full, to+"/") {
				s.say("%s", n.String())
			}
		}
	}
}

func (c *fakeConn) bound(n *node) {
	c.mu.Lock()
	c.count++
	res := fmt.Sprintf("r%d", c.count)
	if r := n.child(nsBind, "bind").child(nsBind, "resource"); r != nil {
		res = r.text
	}
	c.full = c.user + "@fake.test/" + res
	c.sessions[c.full] = c
	c.mu.Unlock()
	c.say("<iq type='result' id='%s'><bind xmlns='%s'><jid>%s</jid></bind></iq>", n.get("id"), nsBind, c.full)
}

// rooms is a fake of several nodes: what is sent to its service comes back from
// another one. It is handled when the sender's next ping is, is under way until the
// target has settled, and the answer to a request does not wait for it.
type rooms struct {
	*fake
	back map[*fakeConn][]string // handled with the next ping
	away []func()               // under way
}

func newRooms(t *testing.T) *rooms {
	r := &rooms{fake: newFake(t), back: map[*fakeConn][]string{}}
	r.service = r
	return r
}

func (r *rooms) Scattered() bool { return true }

func (r *rooms) Settled(context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, arrive := range r.away {
		arrive()
	}
	r.away = nil
	return nil
}

// take takes what is sent to the service.
func (r *rooms) take(c *fakeConn, n *node) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n.name.local == "iq" {
		c.say("<iq type='result' from='%s' id='%s'/>", n.get("to"), n.get("id"))
		c.say("<message from='%s' id='told-%s'/>", n.get("to"), n.get("id"))
		return
	}
	r.back[c] = append(r.back[c], fmt.Sprintf("<message from='%s' id='%s'/>", n.get("to"), n.get("id")))
}

func (r *rooms) pinged(c *fakeConn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, text := range r.back[c] {
		r.away = append(r.away, func() { c.say("%s", text) })
	}
	delete(r.back, c)
}

func runScript(t *testing.T, f Target, text string) Result {
	t.Helper()
	s, err := Parse("test", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	r := &Runner{Target: f, Via: ViaPlain, Trace: tracer{t}}
	return r.Run(t.Context(), s)
}

type tracer struct{ t *testing.T }

func (w tracer) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimRight(string(p), "\n"))
	return len(p), nil
}

var _ io.Writer = tracer{}
