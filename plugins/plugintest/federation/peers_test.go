package federation_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"parley/plugins/plugintest/federation"
)

// need skips the test unless real servers are wanted.
func need(t *testing.T) {
	t.Helper()
	if os.Getenv("PARLEY_TEST_PEERS") == "" {
		t.Skip("PARLEY_TEST_PEERS is not set: real servers run in make test, or with PARLEY_TEST_PEERS=1")
	}
}

// logs keeps a log for a test that fails, or that waits for a line.
type logs struct {
	mu   sync.Mutex
	buf  bytes.Buffer
	more chan struct{} // something was written
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case l.more <- struct{}{}:
	default:
	}
	return l.buf.Write(p)
}

func (l *logs) await(ctx context.Context, t *testing.T, text string) {
	t.Helper()
	for !strings.Contains(l.String(), text) {
		select {
		case <-l.more:
		case <-ctx.Done():
			t.Fatalf("it does not come to this: %s", text)
		}
	}
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// meeting is a Parley and a server of another kind, with somebody on each.
type meeting struct {
	*federation.World
	t             *testing.T
	log           *logs
	one           *federation.House
	other         *federation.Server
	romeo, juliet *federation.Person
}

func meet(t *testing.T, kind, config string) *meeting {
	t.Helper()
	need(t)
	w := federation.New(t)
	l := &logs{more: make(chan struct{}, 1)}
	m := &meeting{World: w, t: t, log: l, one: w.House("one.example", federation.Options{Log: l, Config: config})}
	var err error
	m.other, err = w.Server(kind, kind+".example")
	switch {
	case errors.Is(err, federation.ErrMissing) && os.Getenv("CI") != "true":
		t.Skip(err)
	case err != nil:
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("Parley:\n%s\n%s:\n%s", l, kind, m.other.Log())
		}
	})
	c, err := m.one.Login(m.limit(), "romeo", "r")
	if err != nil {
		t.Fatal(err)
	}
	m.romeo = federation.NewPerson(t, c).Online()
	m.juliet = m.arrive()
	return m
}

func (m *meeting) limit() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 2*federation.Patience)
	m.t.Cleanup(cancel)
	return ctx
}

// arrive is somebody who logs in at the other server.
func (m *meeting) arrive() *federation.Person {
	m.t.Helper()
	c, err := m.other.Login(m.limit(), "juliet")
	if err != nil {
		m.t.Fatalf("%v\n%s", err, m.other.Log())
	}
	return federation.NewPerson(m.t, c).Online()
}

var others = []string{"prosody", "ejabberd"}

// Chat, presence, rooms and personal events in both directions, with servers of
// others as Debian has them.
func TestPeers(t *testing.T) {
	for _, kind := range others {
		t.Run(kind, func(t *testing.T) {
			m := meet(t, kind, "")
			m.chats("first")
			m.sees()
			m.publishes()
			m.enters("garden@conference.one.example", m.romeo, m.juliet)
			m.enters("orchard@conference."+kind+".example", m.juliet, m.romeo)
		})
	}
}

func (m *meeting) chats(round string) {
	m.t.Helper()
	m.romeo.Say("<message type='chat' to='%s'><body>%s, to them</body></message>", m.juliet.JID, round)
	m.juliet.Hears("a message", federation.Body(round+", to them"))
	m.juliet.Say("<message type='chat' to='%s'><body>%s, to us</body></message>", m.romeo.JID, round)
	m.romeo.Hears("a message", federation.Body(round+", to us"))
	m.romeo.Say("<iq type='get' id='ping-%s' to='%s'><ping xmlns='urn:xmpp:ping'/></iq>", round, m.other.Domain)
	m.romeo.Hears("an answer", federation.WithID("ping-"+round))
	m.juliet.Say("<iq type='get' id='ping-%s' to='one.example'><ping xmlns='urn:xmpp:ping'/></iq>", round)
	m.juliet.Hears("an answer", federation.WithID("ping-"+round))
}

func (m *meeting) sees() {
	m.t.Helper()
	federation.Befriend(m.romeo, m.juliet)
	m.juliet.Say("<presence><show>away</show>%s</presence>", federation.Caps())
	m.romeo.Hears("her presence", federation.Presence("", m.juliet.JID.String()))
	m.romeo.Say("<presence><show>dnd</show>%s</presence>", federation.Caps())
	m.juliet.Hears("his presence", federation.Presence("", m.romeo.JID.String()))
}

func (m *meeting) publishes() {
	m.t.Helper()
	// Each server asks once what the other's user wants to know: both answer while they wait.
	m.romeo.Say("<iq type='get' id='settle' to='%s'><ping xmlns='urn:xmpp:ping'/></iq>", m.other.Domain)
	m.romeo.Hears("an answer", federation.WithID("settle"))
	m.juliet.Say("<iq type='get' id='settle' to='one.example'><ping xmlns='urn:xmpp:ping'/></iq>")
	m.juliet.Hears("an answer", federation.WithID("settle"))
	m.romeo.Publish("Montague")
	m.juliet.Hears("his name", federation.Nick("romeo@one.example", "Montague"))
	m.juliet.Publish("Capulet")
	m.romeo.Hears("her name", federation.Nick(m.juliet.JID.Bare().String(), "Capulet"))
}

// enters lets a guest into the host's room.
func (m *meeting) enters(room string, host, guest *federation.Person) {
	m.t.Helper()
	host.Enter(room, "host")
	guest.Enter(room, "guest")
	host.Hears("the guest", federation.Presence("", room+"/guest"))
	guest.Say("<message type='groupchat' to='%s'><body>from the guest</body></message>", room)
	host.Hears("the guest's word", federation.Body("from the guest"))
	guest.Hears("its own word", federation.Body("from the guest"))
	host.Say("<message type='groupchat' to='%s'><body>from the host</body></message>", room)
	guest.Hears("the host's word", federation.Body("from the host"))
	guest.Say("<presence type='unavailable' to='%s/guest'/>", room)
	host.Hears("the guest's end", federation.Presence("unavailable", room+"/guest"))
	guest.Hears("its own end", federation.Presence("unavailable", room+"/guest"))
}

// One stream carries both directions (XEP-0288), whichever has begun it: the other one
// cannot call, for DNS leads it nowhere.
func TestPeerBothWays(t *testing.T) {
	t.Run("theirs", func(t *testing.T) {
		m := meet(t, "prosody", "servers: {streamer: {components: {s2s: {bidi: true}}}}")
		m.Announce(m.other.Domain, nowhere)
		m.juliet.Say("<message type='chat' to='%s'><body>first</body></message>", m.romeo.JID)
		m.romeo.Hears("a message", federation.Body("first"))
		m.chats("on theirs")
		m.enters("garden@conference.one.example", m.romeo, m.juliet)
	})
	t.Run("ours", func(t *testing.T) {
		m := meet(t, "prosody", "servers: {streamer: {components: {s2s: {bidi: true}}}}")
		m.Announce("one.example", nowhere)
		m.romeo.Say("<message type='chat' to='%s'><body>first</body></message>", m.juliet.JID)
		m.juliet.Hears("a message", federation.Body("first"))
		m.log.await(m.limit(), t, "both_ways=true")
		m.chats("on ours")
	})
}

// nowhere is an address of this machine at which nobody listens.
const nowhere = "127.0.0.1:1"

// The other server is killed: what is sent meanwhile waits, and arrives when it is
// back, in order; then both talk as before.
func TestPeerKilled(t *testing.T) {
	for _, kind := range others {
		t.Run(kind, func(t *testing.T) {
			m := meet(t, kind, "servers: {streamer: {components: {s2s: {queue: {patience: 5m}}}}}")
			m.chats("before")
			m.other.Kill()
			if kind == "ejabberd" {
				// It does not acknowledge (XEP-0198), so nobody knows whether it has read what its
				// socket took in the moment of its end.
				m.log.await(m.limit(), t, "stream to another server has ended")
			}
			// What comes to ejabberd while somebody logs in it may keep for the next time.
			m.Announce(m.other.Domain, nowhere)
			const n = 20
			for i := range n {
				m.romeo.Say("<message type='chat' to='juliet@%s'><body>meanwhile %d</body></message>", m.other.Domain, i)
			}
			if err := m.other.Start(); err != nil {
				t.Fatal(err)
			}
			m.juliet = m.arrive()
			m.Announce(m.other.Domain, m.other.Door())
			for i := range n {
				m.juliet.Hears("what was sent meanwhile", federation.Body(fmt.Sprintf("meanwhile %d", i)))
			}
			m.chats("after")
		})
	}
}
