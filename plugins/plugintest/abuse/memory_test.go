package abuse

import (
	"fmt"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"

	"parley/parser/stanza"
	"parley/plugins/plugintest"
)

// When memory is short those without a connection go first, fullest first,
// then those who do not read; nothing that was promised is lost, who reads
// stays, and afterwards everybody is let in again.
func TestReliability34Shedding(t *testing.T) {
	for _, c := range []struct {
		name string
		away bool // else: connected, and not reading
	}{{"away", true}, {"slow", false}} {
		t.Run(c.name, func(t *testing.T) { shedding(t, c.name, c.away) })
	}
}

func shedding(t *testing.T, which string, away bool) {
	const (
		crowd, messages, size = 60, 40, 64 << 10 // the crowd would hold 150 MB
		room, slack           = 96 << 20, 24 << 20
	)
	w := startWith(t, plugintest.Options{Config: configured([]string{unlimited, "outbox: 64MB"}, nil)})
	var all []*peer
	for i := range crowd {
		p := w.bound("crowd", "r"+strconv.Itoa(i))
		w.must(p.exchange("<enable xmlns='urn:xmpp:sm:3' resume='true'/>", "<enabled"))
		w.must(p.exchange("<presence/>", "from='crowd@localhost/r"+strconv.Itoa(i)+"'"))
		all = append(all, p)
	}
	if away {
		for _, p := range all {
			p.drop()
		}
	}
	writer := w.login("writer", "w")
	limit := int64(settledHeap()) + room
	before := debug.SetMemoryLimit(limit)
	t.Cleanup(func() { debug.SetMemoryLimit(before) })
	w.during((room+slack)>>20, func() {
		body := strings.Repeat("x", size)
		for range messages {
			for i := range crowd { // to each its own: what goes to all of them is one
				w.say(writer, "<message to='crowd@localhost/r%d' type='headline'><body>%s</body></message>", i, body)
			}
			w.until(writer)
		}
		w.say(writer, "<message to='crowd@localhost' type='chat' id='last'><body>b</body></message>")
		w.until(writer)
	})
	ended := 0
	for _, line := range []string{"away", "slow"} {
		n := w.metric(fmt.Sprintf("parley_sessions_shed_total{which=%q}", line))
		if line == which && n == 0 || line != which && n > 0 {
			t.Errorf("%v sessions that were %s were ended", n, line)
		}
		ended += int(n)
	}
	t.Logf("%d of %d sessions were ended, %v bytes are held", ended, crowd, w.metric("parley_session_buffered_bytes"))
	for _, p := range all {
		p.drop()
	}
	debug.SetMemoryLimit(before)
	settledHeap() // the bell rings: it is over
	w.next(w.comesBack("crowd"), withID("last"))
}

// comesBack returns a session that takes what waits; who is refused tries again.
func (w *world) comesBack(user string) *plugintest.Client {
	w.Helper()
	for {
		c, err := w.Login(w.ctx, user, "back")
		if err != nil {
			if !strings.Contains(err.Error(), string(stanza.StreamResourceConstraint)) {
				w.Fatal(err)
			}
			continue
		}
		w.Cleanup(c.Close)
		w.say(c, "<presence/>")
		return c
	}
}
