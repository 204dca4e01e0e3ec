package abuse

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"parley/parser/stanza"
	"parley/plugins"
	"parley/plugins/all"
	"parley/plugins/plugintest"
)

// patience ends a test whose server says nothing; no test waits for it.
const patience = 60 * time.Second

// cheap makes logins cheap, and guessing as fast as it can be.
const cheap = "accounts: {iterations: 4096, throttle: {free: 1000000, spray: 1000000, base: 1ms, max: 1ms}}"

// unlimited lets everybody send as fast as it can.
const unlimited = "rate: {stanzas: 0, bytes: 0}"

// configured is a configuration of lines for the streamer and the processor.
func configured(streamer, processor []string) string {
	return "servers:\n  streamer:\n    " + strings.Join(streamer, "\n    ") + "\n    components:\n      " + cheap +
		"\n  processor:\n    " + strings.Join(append([]string{"max_resources: 1000"}, processor...), "\n    ") + "\n"
}

// world is a house with two bystanders in it.
type world struct {
	testing.TB
	*plugintest.House
	log    *panics
	ctx    context.Context
	alice  *plugintest.Client
	bob    *plugintest.Client
	rounds atomic.Int64 // ids that are used up
	fuzzed string       // whose sessions FuzzConnection uses
}

// start starts a house with every plugin and more, configured with config.
func start(t testing.TB, config string, more ...plugins.Plugin) *world {
	t.Helper()
	return startWith(t, plugintest.Options{Config: config, Plugins: append(all.Plugins(), more...)})
}

func startWith(t testing.TB, o plugintest.Options) *world {
	t.Helper()
	w := &world{TB: t, log: &panics{}, ctx: context.Background()}
	if o.Plugins == nil {
		o.Plugins = all.Plugins()
	}
	o.Log = w.log
	w.House = plugintest.Start(t, o)
	w.alice, w.bob = w.login("alice", "bystander"), w.login("bob", "bystander")
	w.say(w.bob, "<presence/>")
	return w
}

// login returns a client with a session.
func (w *world) login(user, resource string) *plugintest.Client {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.ctx, patience)
	defer cancel()
	c, err := w.Login(ctx, user, resource)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(c.Close)
	return c
}

// account makes an account with a password.
func (w *world) account(user, password string) {
	w.Helper()
	if err := w.Account(w.ctx, user, password); err != nil {
		w.Fatal(err)
	}
}

// next returns what the client gets next and f accepts, and skips the rest.
func (w *world) next(c *plugintest.Client, f func(*stanza.Element) bool) *stanza.Element {
	w.Helper()
	el, err := w.tryNext(c, f)
	if err != nil {
		w.Fatalf("%s: %v", c.JID, err)
	}
	return el
}

func (w *world) tryNext(c *plugintest.Client, f func(*stanza.Element) bool) (*stanza.Element, error) {
	ctx, cancel := context.WithTimeout(w.ctx, patience)
	defer cancel()
	for {
		el, err := c.Next(ctx)
		if err != nil || f(el) {
			return el, err
		}
	}
}

// withID accepts the stanza with the id.
func withID(id string) func(*stanza.Element) bool {
	return func(el *stanza.Element) bool { return el.Get("id") == id }
}

// fresh is an id that was not used before.
func (w *world) fresh(prefix string) string {
	return prefix + "-" + strconv.FormatInt(w.rounds.Add(1), 10)
}

// until returns everything that came before the answer to a ping that the
// client sends now: proof that nothing else came.
func (w *world) until(c *plugintest.Client) (before []*stanza.Element) {
	w.Helper()
	id := w.fresh("until")
	w.say(c, "<iq type='get' id='"+id+"'><ping xmlns='urn:xmpp:ping'/></iq>")
	w.next(c, func(el *stanza.Element) bool {
		if el.Get("id") == id {
			return true
		}
		before = append(before, el)
		return false
	})
	return before
}

func (w *world) say(c *plugintest.Client, format string, args ...any) {
	w.Helper()
	if len(args) > 0 {
		format = fmt.Sprintf(format, args...)
	}
	if err := c.Send(format); err != nil {
		w.Fatalf("%s: %v", c.JID, err)
	}
}

// exchange lets alice write to bob once and returns how long it took.
func (w *world) exchange() (time.Duration, error) {
	id := w.fresh("round")
	begin := time.Now()
	err := w.alice.Send("<message type='chat' id='" + id + "' to='" + w.bob.JID.String() + "'><body>still here</body></message>")
	if err != nil {
		return 0, fmt.Errorf("alice was disconnected: %w", err)
	}
	if _, err = w.tryNext(w.bob, withID(id)); err != nil {
		return 0, fmt.Errorf("bob does not hear alice: %w", err)
	}
	took := time.Since(begin)
	return took, w.bob.Send(" ") // he is there (RFC 6120 §4.6.1)
}

// Bounds of what bystanders notice. They are wide: what they tell apart is a
// house that goes on from one that stands still.
const (
	calmRounds = 60
	slower     = 60               // times the median of before
	floor      = time.Millisecond // before, at least
)

// during runs attack and asserts that the bystanders go on meanwhile, at a
// pace that is within reason, and that the heap does not grow by more than
// megabytes.
func (w *world) during(megabytes int, attack func()) {
	w.Helper()
	w.calm(megabytes, attack)
	w.unharmed()
}

// calm is during for attacks that make handlers panic.
func (w *world) calm(megabytes int, attack func()) {
	w.Helper()
	before := w.pace(calmRounds, nil)
	heap := settledHeap()
	done := make(chan struct{})
	var bystanders []time.Duration
	var peak uint64
	var work sync.WaitGroup
	work.Go(func() { bystanders, peak = w.watch(done) })
	func() {
		defer work.Wait()
		defer close(done)
		attack()
	}()
	calm, now := max(median(before), floor), median(bystanders)
	w.Logf("bystanders: median %v before, %v in %d rounds during; heap %d kB, at most %d kB more", median(before), now, len(bystanders), heap>>10, grown(heap, peak)>>10)
	if now > slower*calm {
		w.Errorf("bystanders: %v before, %v during the attack", calm, now)
	}
	if more := grown(heap, peak); more > uint64(megabytes)<<20 {
		w.Errorf("the heap grew by %d MB, allowed are %d", more>>20, megabytes)
	}
}

// watch exchanges messages until done, a few at least.
func (w *world) watch(done <-chan struct{}) (took []time.Duration, peak uint64) {
	for n := 0; ; n++ {
		select {
		case <-done:
			if n >= calmRounds/4 {
				return took, max(peak, settledHeap())
			}
		default:
		}
		d, err := w.exchange()
		if err != nil {
			w.Error(err)
			return took, peak
		}
		took = append(took, d)
		if n%50 == 49 {
			peak = max(peak, settledHeap())
		}
	}
}

func (w *world) pace(n int, took []time.Duration) []time.Duration {
	w.Helper()
	for range n {
		d, err := w.exchange()
		if err != nil {
			w.Fatal(err)
		}
		took = append(took, d)
	}
	return took
}

// unharmed asserts that the bystanders still talk and that nothing panicked.
func (w *world) unharmed() {
	w.Helper()
	if _, err := w.exchange(); err != nil {
		w.Error(err)
	}
	if p := w.log.seen(); p != "" {
		w.Errorf("a handler panicked: %s", p)
	}
	if n := w.metric("parley_handler_panics_total"); n != 0 {
		w.Errorf("%v handlers panicked", n)
	}
}

func median(d []time.Duration) time.Duration {
	if len(d) == 0 {
		return 0
	}
	d = slices.Clone(d)
	slices.Sort(d)
	return d[len(d)/2]
}

// settledHeap is what is in use after a collection.
func settledHeap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // what pools held goes with the second
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func grown(before, after uint64) uint64 { return max(before, after) - before }

// metric is the sum of a metric over its labels, as operators read it.
func (w *world) metric(name string) (sum float64) {
	w.Helper()
	resp, err := http.Get("http://" + w.Door("http") + "/metrics")
	if err != nil {
		w.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		w.Fatal(err)
	}
	found := false
	for line := range strings.Lines(string(text)) {
		rest, ok := strings.CutPrefix(line, name)
		if !ok || rest[0] != ' ' && rest[0] != '{' {
			continue
		}
		v, err := strconv.ParseFloat(strings.TrimSpace(rest[strings.LastIndex(rest, " "):]), 64)
		if err != nil {
			w.Fatal(err)
		}
		sum, found = sum+v, true
	}
	if !found && !strings.Contains(string(text), "# HELP ") {
		w.Fatalf("no metrics: %s", text)
	}
	return sum
}

// panics is a log that remembers panics, and counts refused connections.
type panics struct {
	mu      sync.Mutex
	line    string
	refused int
	accepts int // warnings that a door cannot accept
}

func (p *panics) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case bytes.Contains(b, []byte("panicked")):
		p.line = string(b)
	case bytes.Contains(b, []byte("too many connections")):
		p.refused++
	case bytes.Contains(b, []byte("accept failed")):
		p.accepts++
	}
	return len(b), nil
}

func (p *panics) seen() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.line
}

// turnedAway is how many connections the server refused.
func (p *panics) turnedAway() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.refused
}
