package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"parley/parser/stanza"
	"parley/plugins/all"
	"parley/plugins/plugintest"
	"parley/storage"
	"parley/storage/storagetest"
)

// rolling is three nodes in this process. Whoever connects gets the next one that
// has a door.
type rolling struct {
	*plugintest.House
	next atomic.Uint64
	mu   sync.Mutex
	made map[string]bool
}

const rollingNodes = 3

func newRolling(t *testing.T) *rolling {
	t.Helper()
	pg := storagetest.Postgres(t)
	return &rolling{made: map[string]bool{}, House: plugintest.Start(t, plugintest.Options{
		Plugins: all.Plugins(), Nodes: rollingNodes, Storage: func() storage.Config { return pg },
		Config: `
servers:
  streamer:
    timeouts: {drain: 3s}
    rate: {bytes: 0, stanzas: 0}
    components: {accounts: {iterations: 4096}}
  processor:
    components:
      archive: {max_pending: 1000000}
      muc: {messages: {every: 0s}, presences: {every: 0s}, entries: {every: 0s}}
`,
	})}
}

func (r *rolling) start() error { return nil }

func (r *rolling) account(ctx context.Context, user string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.made[user] {
		return nil
	}
	r.made[user] = true
	return r.Account(ctx, user, password)
}

func (r *rolling) enter(ctx context.Context) (door, error) {
	for ctx.Err() == nil {
		if at := r.DoorOf(int(r.next.Add(1)%rollingNodes), "c2s"); at != "" {
			return door{func(ctx context.Context) (net.Conn, error) { return dialTCP(ctx, at) }, nil}, nil
		}
		wait(ctx, retry/10)
	}
	return door{}, context.Cause(ctx)
}

func (r *rolling) refused() []string { return nil }

// subscribe makes who a contact that sees the other's presence.
func (r *rolling) subscribe(ctx context.Context, t *testing.T, who, other string) {
	t.Helper()
	for _, user := range []string{who, other} {
		if err := r.account(ctx, user); err != nil {
			t.Fatal(err)
		}
	}
	addr := r.DoorOf(0, "c2s")
	login := func(user string) *plugintest.Client {
		c, err := plugintest.Dial(ctx, addr, "localhost", user, password, "setup")
		if err == nil {
			err = c.Send("<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq><presence/>")
		}
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	await := func(c *plugintest.Client, typ string) {
		for {
			el, err := c.Next(ctx)
			if err != nil {
				t.Fatalf("presence %s: %v", typ, err)
			}
			if el.Name.Local == "presence" && el.Get("type") == typ {
				return
			}
		}
	}
	a, b := login(who), login(other)
	for _, step := range []struct {
		from    *plugintest.Client
		to, typ string
		at      *plugintest.Client
	}{{a, other, "subscribe", b}, {b, who, "subscribed", a}} {
		if err := step.from.Send(fmt.Sprintf("<presence to='%s@localhost' type='%s'/>", step.to, step.typ)); err != nil {
			t.Fatal(err)
		}
		await(step.at, step.typ)
	}
	a.Close()
	b.Close()
	for r.left() > 0 { // what is bound beside another session of its account begins anew later
		if wait(ctx, retry/10); ctx.Err() != nil {
			t.Fatal("sessions of the preparation do not end")
		}
	}
}

// left is how many sessions the nodes see, all together.
func (r *rolling) left() (n int) {
	for i := range rollingNodes {
		for _, node := range r.HostOf(i).Control().Cluster().Nodes {
			n += node.Sessions
		}
	}
	return n
}

// onlooker is a contact that looks who goes.
type onlooker struct {
	mu   sync.Mutex
	here map[string]bool
	gone []string
	all  chan struct{} // closed when everybody it looks for is here
}

func (w *onlooker) see(el *stanza.Element) {
	user, resource, _ := strings.Cut(el.Get("from"), "@localhost/")
	if resource == "setup" {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	switch el.Get("type") {
	case "":
		w.here[user] = true
		if w.here["ann"] && w.here["dot"] && w.all != nil {
			close(w.all)
			w.all = nil
		}
	case "unavailable":
		if w.here[user] {
			w.gone = append(w.gone, el.Get("from"))
		}
	}
}

// TestReliabilityRollingRestart: one node after the other is drained, or just
// stopped, and started again, while people chat. Nothing is lost; whoever has one
// device resumes every time, what such people send each other is in order and comes
// again, if it does, with its stanza-id (D2), and contacts do not notice.
func TestReliabilityRollingRestart(t *testing.T) {
	for _, how := range []struct {
		name  string
		drain bool
	}{{"drained", true}, {"stopped", false}} {
		t.Run(how.name, func(t *testing.T) { rollingRestart(t, how.drain) })
	}
}

func rollingRestart(t *testing.T, drain bool) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	defer cancel()
	h := newRolling(t)
	h.subscribe(ctx, t, "obs", "ann")
	h.subscribe(ctx, t, "obs", "dot")
	w := newWorld(t, h, uint64(time.Now().UnixNano()))

	looking, stop := context.WithCancel(ctx)
	defer stop()
	everybody := make(chan struct{})
	look := &onlooker{here: map[string]bool{}, all: everybody}
	obs := &device{world: w, habit: always, client: client{user: "obs", resource: "eyes", book: w.book, sees: look.see}}
	var tasks sync.WaitGroup
	tasks.Go(func() { obs.live(looking) })
	select {
	case <-everybody:
	case <-ctx.Done():
		t.Fatal("contacts do not come")
	}
	for i := range rollingNodes {
		name := fmt.Sprintf("node%d", i+1)
		if drain {
			h.drained(ctx, t, i, name)
		}
		m := w.book.now()
		if err := errors.Join(h.EndNode(ctx, i), h.BeginNode(ctx, i)); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		w.progress("chat after the restart of "+name, m, len(cast)*20)
	}
	stop()
	tasks.Wait()
	look.mu.Lock()
	if len(look.gone) > 0 {
		t.Errorf("a contact saw %v go", look.gone)
	}
	look.mu.Unlock()
	w.book.mu.Lock()
	for _, d := range []string{"ann/phone", "dot/phone", "obs/eyes"} { // the account's only device
		if n := w.book.begun[d]; n != 1 {
			t.Errorf("%s began %d sessions", d, n)
		}
	}
	w.book.mu.Unlock()
	v := w.settle()
	t.Logf("sent %d, acked %d, refused %d, sessions resumed %d, duplicates %d; in the room %d missed, %d reordered, %d repeated", v.sent, v.acked, v.refused, w.book.resumptions(), v.duplicates, len(v.missed), len(v.astray), v.repeated)
	v.excuseAnew(t)
	if v.bad() || v.refused > 0 {
		t.Errorf("lost %s; reordered %s; wrong %s; late %d; refused %d; in the room missed %s, reordered %s", some(v.lost), some(v.reordered), some(v.wrong), v.late, v.refused, some(v.missed), some(v.astray))
	}
}

// excuseAnew takes out of the verdict in which order devices got messages whose
// sender or who themselves have begun anew meanwhile, because their account has
// several devices or they had forgotten their session (docs/cluster.md): a sender
// then says again what it has no acknowledgement for. Archives are in order.
func (v *verdict) excuseAnew(t *testing.T) {
	n := len(v.reordered) + v.late
	v.late = 0
	v.reordered = slices.DeleteFunc(v.reordered, func(s string) bool {
		where, what, _ := strings.Cut(s, ": ")
		from, _, _ := strings.Cut(what, "-")
		lasting := func(user string) bool { return user == "ann" || user == "dot" }
		user, _, device := strings.Cut(where, "/")
		return device && !(lasting(user) && lasting(from))
	})
	if n -= len(v.reordered); n > 0 {
		t.Logf("%d messages came late to devices, of or to people who had begun anew", n)
	}
}

// drained drains a node slowly enough that people talk meanwhile, and waits until
// nobody is left.
func (r *rolling) drained(ctx context.Context, t *testing.T, i int, name string) {
	t.Helper()
	control := r.HostOf(i).Control()
	if err := control.Drain(ctx, name, 10); err != nil {
		t.Fatal(err)
	}
	for {
		left := -1
		for _, n := range control.Cluster().Nodes {
			if n.Node == name && n.Draining {
				left = n.Sessions
			}
		}
		if left == 0 {
			return
		}
		if wait(ctx, retry); ctx.Err() != nil {
			t.Fatalf("%s: %d sessions are left", name, left)
		}
	}
}
