package abuse

import (
	"cmp"
	"errors"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

// fuzzHouse takes whatever can be refused only later: registration is open, nothing is
// throttled, and what is left behind goes away soon.
const fuzzHouse = `
servers:
  streamer:
    rate: {stanzas: 0, bytes: 0}
    resumption: {window: 1s}
    components:
      ` + cheap + `
      register: {enabled: true, per_hour: 0}
  processor:
    max_resources: 1000
    components:
      register: {enabled: true}
`

// protocolState is how far a connection has come when the bytes arrive.
type protocolState struct {
	name  string
	enter func(*world, *peer) (*peer, error) // may return another connection
	seeds []string
	door  string // the c2s one if empty
}

// fuzzed is who sends the bytes, at first. $ID in them is the id of its session,
// $BOB a bystander.
const fuzzed = "mallory"

// goroutineSlack is what may still be on its way out after a connection.
const goroutineSlack = 200

func FuzzConnection(f *testing.F) {
	for i, s := range protocolStates {
		for _, seed := range s.seeds {
			f.Add(byte(i), []byte(seed))
		}
	}
	w := start(f, fuzzHouse)
	w.fuzzed = fuzzed
	w.account(fuzzed, secret)
	w.rounds.Store(int64(os.Getpid()) << 20) // ids of other processes' rounds are others
	base := runtime.NumGoroutine()
	f.Fuzz(func(t *testing.T, state byte, data []byte) {
		w.TB = t
		s := protocolStates[int(state)%len(protocolStates)]
		p, err := w.enter(s)
		if errors.Is(err, errLogin) { // an earlier input has removed the account, or its password
			w.fuzzed = w.fresh(fuzzed)
			w.account(w.fuzzed, secret)
			p, err = w.enter(s)
		}
		if err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
		defer p.drop()
		names := strings.NewReplacer("$BOB", w.bob.JID.String(), "$ID", p.id)
		text := names.Replace(string(data))
		if p.wrap != nil {
			text = p.wrap(text)
		}
		_ = p.say(text) // the server may have hung up
		p.hangUp()
		if got, err := p.rest(); err != nil {
			t.Errorf("%s: the connection does not end: %v after %q", s.name, err, tail(got))
		}
		w.wellFormed(p)
		if _, err := w.exchange(); err != nil {
			t.Fatal(err)
		}
		if line := w.log.seen(); line != "" {
			t.Fatalf("%s: %s", s.name, line)
		}
		if n := runtime.NumGoroutine(); n > base+goroutineSlack {
			t.Fatalf("%d goroutines, %d before", n, base)
		}
	})
	w.TB = f
	w.unharmed()
}

func (w *world) enter(s protocolState) (*peer, error) {
	p, err := dialPeer(w.Door(cmp.Or(s.door, "c2s")))
	if err != nil {
		return nil, err
	}
	_ = p.tcp.SetDeadline(time.Now().Add(patience))
	q, err := s.enter(w, p)
	if err != nil || q != p {
		p.drop()
	}
	return q, err
}
