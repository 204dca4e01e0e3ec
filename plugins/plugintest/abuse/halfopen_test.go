package abuse

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Clients whose connection is there and whose machine is not: they are asked,
// do not answer, and are cut off; what was sent to them reaches the next
// session, once.
func TestReliability06HalfOpen(t *testing.T) {
	const before, since = 20, 20
	w := start(t, configured([]string{unlimited, "timeouts: {idle: 1s}", "resumption: {request_gap: 2s}"}, nil))
	writer := w.bound("writer", "w")
	send := func(user string, from, n int) {
		for i := range n {
			w.must(writer.say(fmt.Sprintf("<message to='%s@localhost' type='chat' id='half-%d'><body>b</body></message>", user, from+i)))
		}
		w.must(writer.exchange("<iq type='get' id='"+user+strconv.Itoa(from)+"'><ping xmlns='urn:xmpp:ping'/></iq>", "id='"+user+strconv.Itoa(from)+"'"))
	}
	gone := map[string]*peer{}
	for _, user := range []string{"resumable", "managed", "plain"} {
		p := w.bound(user, "gone")
		switch user {
		case "resumable":
			w.must(p.manage())
		case "managed":
			w.must(p.exchange("<enable xmlns='urn:xmpp:sm:3'/>", "<enabled"))
		}
		w.must(p.exchange("<presence/>", "<presence"))
		gone[user] = p
	}
	w.during(8, func() {
		for _, row := range []struct{ user, asked, end string }{
			{"resumable", "<r xmlns='urn:xmpp:sm:3'/>", ""}, // no word: the session goes on without it
			{"managed", "<r xmlns='urn:xmpp:sm:3'/>", "<connection-timeout "},
			{"plain", "<ping xmlns='urn:xmpp:ping'/>", "<connection-timeout "},
		} {
			held := before
			if row.user == "plain" { // without acknowledgements what the socket takes is delivered
				held = 0
			}
			send(row.user, 0, held)
			got, err := gone[row.user].rest()
			if err != nil || !strings.Contains(got, row.asked) || strings.Contains(got, "<stream:error>") != (row.end != "") || !strings.Contains(got, row.end) {
				t.Errorf("%s: %q, %v", row.user, tail(got), err)
			}
			send(row.user, held, before+since-held)
		}
	})

	again := w.dial()
	w.must(again.auth("resumable"))
	w.must(again.exchange("<resume xmlns='urn:xmpp:sm:3' h='0' previd='"+gone["resumable"].id+"'/>", "<resumed "))
	w.inOrder("resumable", again, before+since)
	for _, user := range []string{"managed", "plain"} {
		p := w.bound(user, "next")
		w.must(p.say("<presence/>"))
		w.inOrder(user, p, before+since)
	}
}

// inOrder asserts that the messages half-0 to half-<n-1> come, in their order, each once.
func (w *world) inOrder(user string, p *peer, n int) {
	w.Helper()
	for i := range n {
		skipped, err := p.until(fmt.Sprintf("id='half-%d'", i))
		w.must(err)
		if strings.Contains(skipped, "id='half-") {
			w.Errorf("%s: before half-%d came %s", user, i, skipped)
		}
	}
	id := w.fresh("end")
	w.must(p.say("<iq type='get' id='" + id + "'><ping xmlns='urn:xmpp:ping'/></iq>"))
	if more, err := p.until("id='" + id + "'"); err != nil || strings.Contains(more, "<message ") {
		w.Errorf("%s: after the last one came %s, %v", user, more, err)
	}
}

// A connection on which nothing is said is looked after by TCP, on every door,
// and not so often that it wakes telephones.
func TestReliability06KeepAlive(t *testing.T) {
	const least, most = 16 * time.Second, time.Minute
	if runtime.GOOS != "linux" {
		t.Skip("needs /proc/net/tcp")
	}
	w := start(t, configured([]string{unlimited}, nil))
	for _, door := range []string{"c2s", "c2s-tls", "http"} {
		c, err := net.Dial("tcp", w.Door(door))
		w.must(err)
		t.Cleanup(func() { _ = c.Close() })
		if left := w.keepAlive(c); left < least || left > most {
			t.Errorf("%s: the next probe is sent in %v", door, left)
		}
	}
	w.unharmed()
}

// keepAlive is the time until the server's end of c sends a probe, once it is
// accepted.
func (w *world) keepAlive(c net.Conn) time.Duration {
	w.Helper()
	const timer, keepAlive, userHZ = 5, "02", 100 // proc(5): fields of /proc/net/tcp; tr is 2 for the keep-alive timer
	local, remote := procAddr(c.RemoteAddr()), procAddr(c.LocalAddr())
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); runtime.Gosched() {
		f, err := os.Open("/proc/net/tcp")
		w.must(err)
		for lines := bufio.NewScanner(f); lines.Scan(); {
			row := strings.Fields(lines.Text())
			if row[1] != local || row[2] != remote {
				continue
			}
			kind, when, _ := strings.Cut(row[timer], ":")
			ticks, err := strconv.ParseInt(when, 16, 64)
			w.must(err)
			if kind == keepAlive {
				_ = f.Close()
				return time.Duration(ticks) * time.Second / userHZ
			}
		}
		_ = f.Close()
	}
	w.Fatalf("the server does not look after %s", c.RemoteAddr())
	return 0
}

// procAddr is an IPv4 address as /proc/net/tcp has it.
func procAddr(a net.Addr) string {
	ap := a.(*net.TCPAddr).AddrPort()
	ip := ap.Addr().Unmap().As4()
	return fmt.Sprintf("%02X%02X%02X%02X:%04X", ip[3], ip[2], ip[1], ip[0], ap.Port())
}
