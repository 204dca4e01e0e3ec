//go:build linux

package wire

import (
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

// scripted is a server that answers each thing of a list when it comes; on the
// next connection, the next list.
func scripted(t *testing.T, connections ...[][2]string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { _ = l.Close(); <-done })
	go func() {
		defer close(done)
		for _, lines := range connections {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
			serve(t, conn, lines)
			_ = conn.Close()
		}
	}()
	return l.Addr().String()
}

func serve(t *testing.T, conn net.Conn, lines [][2]string) {
	got, b := "", make([]byte, 4096)
	for _, line := range lines {
		for !strings.Contains(got, line[0]) {
			n, err := conn.Read(b)
			if err != nil {
				t.Errorf("%s was waited for, after %q: %v", line[0], got, err)
				return
			}
			got += string(b[:n])
		}
		_, got, _ = strings.Cut(got, line[0])
		if _, err := conn.Write([]byte(line[1])); err != nil {
			t.Error(err)
			return
		}
	}
	_, _ = conn.Read(b) // until the client goes
}

const opened = "<stream:stream xmlns='jabber:client'><stream:features/>"

var (
	entered = [][2]string{{"<stream:stream", opened}, {"</auth>", "<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>"}, {"<stream:stream", opened}}
	bound   = [][2]string{{"<bind", "<iq type='result' id='bind'><bind><jid>a@localhost/x</jid></bind></iq>"}, {"<enable ", "<enabled xmlns='urn:xmpp:sm:3' id='old' resume='true'/>"}}
	there   = slices.Concat(entered, bound, [][2]string{{Ping, "<presence from='a@localhost/x'/><iq type='result' id='sync'/>"}})
)

// A device that resumes says how much it had, and reads on; one whose session is
// gone begins anew, and misses nothing that comes with that.
func TestDeviceResumes(t *testing.T) {
	for name, c := range map[string]struct {
		second  [][2]string
		resumed bool
	}{
		"resumed": {slices.Concat(entered, [][2]string{{"<resume xmlns='urn:xmpp:sm:3' previd='old' h='3'/>", "<resumed previd='old' h='1'/><message id='m'/><r xmlns='urn:xmpp:sm:3'/>"}, {"h='4'", "<message id='last'/>"}}), true},
		"failed":  {slices.Concat(entered, [][2]string{{"<resume", "<failed xmlns='urn:xmpp:sm:3'/>"}}, bound, [][2]string{{"<presence/>", "<message id='m'/><message id='last'/>"}}), false},
	} {
		t.Run(name, func(t *testing.T) {
			first := slices.Concat(there, [][2]string{{"<message", "<presence from='b@localhost/y'/>"}})
			lg := Login{Addr: scripted(t, first, c.second), Domain: "localhost", TLS: Plain, Mechanism: "PLAIN", Timeout: 10 * time.Second}
			d, err := lg.Device(t.Context(), "a", "secret")
			if err != nil {
				t.Fatal(err)
			}
			defer func() { d.Drop() }()
			if err := d.Say("<message/>"); err != nil {
				t.Fatal(err)
			}
			if err := d.Await(func(el []byte) bool { return string(Attr(el, " from=")) == "b@localhost/y" }); err != nil {
				t.Fatal(err)
			}
			if resumed, err := d.Resume(t.Context(), &lg); err != nil || resumed != c.resumed {
				t.Fatalf("resumed %v, %v", resumed, err)
			}
			for _, id := range []string{"m", "last"} {
				if err := d.Await(func(el []byte) bool { return string(Attr(el, " id=")) == id }); err != nil {
					t.Fatalf("%s: %v", id, err)
				}
			}
		})
	}
}
