package stream

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins"
)

// nearly is what the pace of n seconds' worth may fall short of them.
const nearly = 2 * time.Second

func took(f func()) time.Duration {
	start := time.Now()
	f()
	return time.Since(start)
}

// read lets a stream send n stanzas, one read each.
func read(t *testing.T, l *limiter, n int) {
	t.Helper()
	for range n {
		if err := l.wait(context.Background(), 0, 1); err != nil {
			t.Fatal(err)
		}
	}
}

// One read may be larger than what may come at once; it waits its time all the
// same.
func TestRateOfLargeReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p paces
		l := p.limiter(Rate{Bytes: 1000, Burst: 1}, plugins.SystemClock{}, jid.JID{}, netip.Prefix{})
		d := took(func() {
			for range 10 {
				if err := l.wait(context.Background(), readSize, 0); err != nil {
					t.Fatal(err)
				}
			}
		})
		if least := 10*readSize/1000*time.Second - nearly; d < least {
			t.Errorf("%d bytes at 1000 a second took %s", 10*readSize, d)
		}
	})
}

// Streams of one account, and streams from one address, share what they may
// send; strangers do not notice.
func TestReliability04SharedPaces(t *testing.T) {
	mallory, bob := jid.MustParse("mallory@localhost"), jid.MustParse("bob@localhost")
	here, there := netip.MustParsePrefix("192.0.2.1/32"), netip.MustParsePrefix("192.0.2.2/32")
	r := Rate{Stanzas: 10, Burst: 1, Account: 2, Address: 3}
	for _, c := range []struct {
		name    string
		parties []party // of the streams, which each send for 10 seconds on their own
		least   time.Duration
	}{
		{"one stream", []party{{mallory, here}}, 10 * time.Second},
		{"an account", []party{{mallory, here}, {mallory, there}, {mallory, there}, {mallory, here}}, 20 * time.Second},
		{"an address", []party{{mallory, here}, {mallory, here}, {bob, here}, {bob, here}, {jid.MustParse("carol@localhost"), here}, {jid.MustParse("dave@localhost"), here}}, 20 * time.Second},
		{"strangers", []party{{mallory, here}, {bob, there}}, 10 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var p paces
				d := took(func() {
					ended := make(chan struct{})
					for _, s := range c.parties {
						go func() {
							l := p.limiter(r, plugins.SystemClock{}, s.account, s.origin)
							read(t, l, 100)
							l.end()
							ended <- struct{}{}
						}()
					}
					for range c.parties {
						<-ended
					}
				})
				if d < c.least-nearly || d > c.least {
					t.Errorf("took %s, expected about %s", d, c.least)
				}
				synctest.Wait()
				time.Sleep(2 * nearly)
				p.mu.Lock()
				defer p.mu.Unlock()
				if len(p.all) != 0 {
					t.Errorf("%d paces are kept for ever", len(p.all))
				}
			})
		})
	}
}

// Who comes back at once has no new allowance.
func TestReliability04NoNewAllowance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p paces
		d := took(func() {
			for range 20 {
				l := p.limiter(Rate{Stanzas: 10, Burst: 1, Account: 1}, plugins.SystemClock{}, jid.MustParse("mallory@localhost"), netip.Prefix{})
				read(t, l, 10)
				l.end()
			}
		})
		if d < 20*time.Second-nearly {
			t.Errorf("200 stanzas at 10 a second took %s", d)
		}
	})
}

// Who is not content with being slowed down is disconnected; who rests is not.
func TestReliability04Patience(t *testing.T) {
	r := Rate{Stanzas: 10, Burst: 1, Patience: 20 * time.Second}
	synctest.Test(t, func(t *testing.T) {
		var p paces
		rests := p.limiter(r, plugins.SystemClock{}, jid.MustParse("bob@localhost"), netip.Prefix{})
		for range 10 {
			read(t, rests, 100)
			time.Sleep(2 * breather)
		}
		var err error
		d := took(func() {
			floods := p.limiter(r, plugins.SystemClock{}, jid.MustParse("mallory@localhost"), netip.Prefix{})
			for err == nil {
				err = floods.wait(context.Background(), 0, 1)
			}
		})
		var se *stanza.StreamError
		if !errors.As(err, &se) || se.Condition != stanza.StreamPolicyViolation {
			t.Errorf("got %v", err)
		}
		if d < r.Patience || d > r.Patience+nearly {
			t.Errorf("disconnected after %s", d)
		}
	})
}
