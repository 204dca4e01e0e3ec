package owner_test

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"parley/parser"
	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins"
	"parley/plugins/accounts"
	"parley/plugins/plugintest"
	"parley/processor"
	"parley/router"
	"parley/router/sessions"
	"parley/storage"
	"parley/storage/storagetest"
	"parley/stream"
)

const (
	counted = 8 // counters
	people  = 6 // who count
	// answerWithin is how long somebody waits before asking another node.
	answerWithin = 15 * time.Second
	// recovered ends a test in which counting does not go on.
	recovered = 2 * time.Minute
)

func house(s *services) []plugins.Plugin {
	return []plugins.Plugin{router.Plugin, processor.Plugin, parser.Plugin, stream.Plugin, accounts.Plugin, counterPlugin(s)}
}

const fewIterations = "servers: {streamer: {rate: {bytes: 0, stanzas: 0}, components: {accounts: {iterations: 4096}}}}"

// cluster is a house of three nodes whose ways to Postgres can be frozen.
type cluster struct {
	*testing.T
	house *plugintest.House
	owns  *services

	mu      sync.Mutex
	proxies [3]*storagetest.Proxy
	next    int // node that is started next
}

func newCluster(t *testing.T) *cluster {
	c := &cluster{T: t, owns: newServices()}
	database := storagetest.Postgres(t)
	c.house = plugintest.Start(t, plugintest.Options{
		Plugins: house(c.owns), Nodes: len(c.proxies), Config: fewIterations,
		Storage: func() storage.Config {
			mine := database
			p := storagetest.Behind(t, &mine)
			c.mu.Lock()
			defer c.mu.Unlock()
			c.proxies[c.next%len(c.proxies)] = p
			c.next++
			return mine
		},
	})
	return c
}

func (c *cluster) proxy(i int) *storagetest.Proxy {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.proxies[i]
}

func (c *cluster) must(what string, f func(context.Context) error) {
	c.Helper()
	ctx, cancel := context.WithTimeout(c.Context(), recovered)
	defer cancel()
	if err := f(ctx); err != nil {
		c.Fatalf("%s: %v", what, err)
	}
}

func (c *cluster) start(i int) {
	c.Helper()
	c.mu.Lock()
	c.next = i
	c.mu.Unlock()
	c.must("start", c.house.Node(i).Start)
}

// book is what was acknowledged.
type book struct {
	mu    sync.Mutex
	acked map[string]map[string]int64 // by counter and operation: the number it got
	since [counted]atomic.Int64       // acknowledged operations that began after the last mark
	mark  atomic.Int64
	tries atomic.Int64  // that were not acknowledged
	news  chan struct{} // something was counted
}

// note writes down an operation that began at the mark.
func (b *book) note(k int, op string, n, mark int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	key := keyOf(k)
	if b.acked[key] == nil {
		b.acked[key] = map[string]int64{}
	}
	b.acked[key][op] = n
	if mark == b.mark.Load() {
		b.since[k].Add(1)
	}
	select {
	case b.news <- struct{}{}:
	default:
	}
}

// again waits until every counter has counted something that began after now: it
// has an owner.
func (c *cluster) again(b *book, after string) {
	c.Helper()
	b.mu.Lock()
	b.mark.Add(1)
	for k := range b.since {
		b.since[k].Store(0)
	}
	b.mu.Unlock()
	limit := time.After(recovered)
	for k := range b.since {
		for b.since[k].Load() < 3 {
			select {
			case <-b.news:
			case <-limit:
				c.Fatalf("%s: %s has no owner", after, keyOf(k))
			}
		}
	}
}

func nodeName(i int) string { return fmt.Sprintf("node%d", i+1) }

// ownerOf is the node that owns a counter, by the database.
func (c *cluster) ownerOf(k int) (node int) {
	c.Helper()
	var name string
	if err := c.house.DB().QueryRow(c.Context(), `SELECT node FROM cluster_owner WHERE key = $1`, keyOf(k)).Scan(&name); err != nil {
		c.Fatal(err)
	}
	for node = range c.proxies {
		if nodeName(node) == name {
			return node
		}
	}
	c.Fatalf("%s is owned by %q", keyOf(k), name)
	return 0
}

func keyOf(k int) string { return fmt.Sprintf("k%d@%s", k, domainCounter) }

// person counts until stop is closed, each operation until it is acknowledged, on
// whatever node there is.
func (c *cluster) person(i int, b *book, stop <-chan struct{}) {
	var at *plugintest.Client
	defer func() {
		if at != nil {
			at.Close()
		}
	}()
	node := i
	for n := 0; ; n++ {
		k, op, mark := (i+n)%counted, fmt.Sprintf("p%d-%d", i, n), b.mark.Load()
		for try := 0; ; try++ {
			select {
			case <-stop:
				return
			default:
			}
			got, err := c.count(&at, &node, i, keyOf(k), op, fmt.Sprintf("%s-%d", op, try))
			if err == nil {
				b.note(k, op, got, mark)
				break
			}
			b.tries.Add(1)
		}
	}
}

// count asks once; who gets no answer goes to the next node.
func (c *cluster) count(at **plugintest.Client, node *int, person int, key, op, id string) (int64, error) {
	ctx, cancel := context.WithTimeout(c.Context(), answerWithin)
	defer cancel()
	n, err := func() (int64, error) {
		if *at == nil {
			var err error
			if *at, err = c.house.Node(*node%3).Dial(ctx, fmt.Sprintf("person%d", person), id); err != nil {
				*at = nil
				return 0, err
			}
		}
		if err := (*at).Send(fmt.Sprintf("<iq type='set' id='%s' to='%s'><add xmlns='%s' op='%s'/></iq>", id, key, nsCounter, op)); err != nil {
			return 0, err
		}
		for {
			el, err := (*at).Next(ctx)
			if err != nil {
				return 0, err
			}
			if el.Get("id") != id {
				continue
			}
			if el.Get("from") != key {
				return 0, fmt.Errorf("an answer from %q", el.Get("from"))
			}
			added := el.Child(nsCounter, "added")
			if added == nil {
				return -1, fmt.Errorf("refused: %s", el.Bytes(""))
			}
			return strconv.ParseInt(added.Get("n"), 10, 64)
		}
	}()
	if err != nil && n == 0 {
		if *at != nil {
			(*at).Close()
			*at = nil
		}
		*node++
	}
	return n, err
}

// Whatever happens to the nodes, what is counted was counted by one owner after the
// other: nothing that was acknowledged is lost, nothing counts twice, no two nodes
// write under one epoch, and every counter has an owner again.
func TestReliabilityOneOwnerThroughFaults(t *testing.T) {
	c := newCluster(t)
	defer c.must("stop", c.house.Stop) // before what stands between it and its database
	for i := range people {
		c.must("account", func(ctx context.Context) error {
			return c.house.Account(ctx, fmt.Sprintf("person%d", i), plugintest.Password)
		})
	}
	b := &book{acked: map[string]map[string]int64{}, news: make(chan struct{}, 1)}
	stop := make(chan struct{})
	var counting sync.WaitGroup
	for i := range people {
		counting.Go(func() { c.person(i, b, stop) })
	}
	end := sync.OnceFunc(func() { close(stop); counting.Wait() })
	defer end()
	c.again(b, "at the start")

	victim := c.ownerOf(0)
	c.must("kill", c.house.Node(victim).Kill)
	c.again(b, "after a node was killed")
	c.start(victim)
	c.again(b, "after it has come back")

	victim = c.ownerOf(0)
	frozen := c.proxy(victim)
	frozen.Freeze() // what it has asked the database for hangs
	select {
	case <-c.house.Node(victim).Host().Fatal():
	case <-time.After(recovered):
		t.Fatal("a node without its database does not fence itself")
	}
	c.again(b, "after a node was fenced")
	frozen.Thaw()                                                                                      // and arrives after others have become the owners
	c.must("stop", func(ctx context.Context) error { _ = c.house.Node(victim).Stop(ctx); return nil }) // its lease is lost
	c.start(victim)
	c.again(b, "after it has come back")

	victim = c.ownerOf(0)
	c.must("drain", c.owns.of(nodeName(victim)).Drain)
	c.again(b, "after a node was drained")
	for k := range counted {
		if c.ownerOf(k) == victim {
			t.Errorf("%s is owned by a node that drains", keyOf(k))
		}
	}
	c.must("stop", c.house.Node(victim).Stop)
	c.again(b, "after it was stopped")
	c.start(victim)
	c.again(b, "after it has come back")
	end()
	c.audit(b)
}

// audit holds what was acknowledged against what is written.
func (c *cluster) audit(b *book) {
	c.Helper()
	type row struct {
		key, op, node string
		n, epoch      int64
	}
	rows, err := storage.All(c.Context(), c.house.DB(), func(r storage.Row) (x row, err error) {
		return x, r.Scan(&x.key, &x.op, &x.n, &x.epoch, &x.node)
	}, `SELECT key, op, n, epoch, node FROM counted ORDER BY key, n`)
	if err != nil {
		c.Fatal(err)
	}
	writers, given, last := map[string]map[int64]string{}, map[string]map[string]int64{}, map[string]row{}
	for _, x := range rows {
		if writers[x.key] == nil {
			writers[x.key], given[x.key] = map[int64]string{}, map[string]int64{}
		}
		before := last[x.key]
		if x.n != before.n+1 {
			c.Errorf("%s: %d comes after %d", x.key, x.n, before.n)
		}
		if x.epoch < before.epoch {
			c.Errorf("%s: %d was written under epoch %d after %d", x.key, x.n, x.epoch, before.epoch)
		}
		if by, ok := writers[x.key][x.epoch]; ok && by != x.node {
			c.Errorf("%s: %s and %s wrote under epoch %d", x.key, by, x.node, x.epoch)
		}
		if _, twice := given[x.key][x.op]; twice {
			c.Errorf("%s: %s counts twice", x.key, x.op)
		}
		writers[x.key][x.epoch], given[x.key][x.op], last[x.key] = x.node, x.n, x
	}
	if n := len(writers[keyOf(0)]); n < 4 { // each fault has hit its owner
		c.Errorf("%s has had %d owners", keyOf(0), n)
	}
	acked, epochs := 0, 0
	for k := range counted {
		key := keyOf(k)
		epochs += len(writers[key])
		for op, n := range b.acked[key] {
			acked++
			if given[key][op] != n {
				c.Errorf("%s: %s was told %d, and is %d", key, op, n, given[key][op])
			}
		}
	}
	c.Logf("%d rows, %d acknowledged, %d tries without an acknowledgement, %d epochs, %d stale writes refused", len(rows), acked, b.tries.Load(), epochs, c.owns.stale.Load())
}

// Wherever somebody is connected: what is sent for a key is answered once, in the
// order of its sending, and what its owner refuses is refused.
func TestRuleStanzasReachTheOwnerOfTheirKey(t *testing.T) {
	c := newCluster(t)
	defer c.must("stop", c.house.Stop)
	for i := range c.proxies {
		user := fmt.Sprintf("person%d", i)
		c.must("account", func(ctx context.Context) error { return c.house.Account(ctx, user, plugintest.Password) })
		c.must("count", func(ctx context.Context) error {
			at, err := c.house.Node(i).Dial(ctx, user, "x")
			if err != nil {
				return err
			}
			defer at.Close()
			for k := range counted {
				if err := talk(ctx, at, i, keyOf(k)); err != nil {
					return err
				}
			}
			// What the house says for a session that has ended says which one that was.
			gone := &sessions.Entry{Ref: sessions.Ref{JID: jid.MustParse(user + "@localhost/x")}, State: sessions.State{BoundAt: time.UnixMicro(int64(i + 1))}}
			for k := range counted {
				c.owns.desk(fmt.Sprintf("node%d", i+1)).SubmitFor(ctx, gone, stanza.Make(stanza.Presence, stanza.TypeUnavailable, gone.JID, jid.MustParse(keyOf(k)), ""))
				if e := <-c.owns.ends; e.user != user || !e.bound.Equal(gone.BoundAt) {
					t.Errorf("the end of %s came as %+v", user, e)
				}
			}
			return nil
		})
	}
	owners := map[int]bool{}
	for k := range counted {
		owners[c.ownerOf(k)] = true
	}
	if len(owners) < 2 {
		t.Errorf("%d nodes own %d keys", len(owners), counted)
	}
}

// talk counts without waiting for answers, and asks for what is refused; each of
// those before has counted as often.
func talk(ctx context.Context, at *plugintest.Client, before int, key string) error {
	const times = 20
	for n := range times {
		if err := at.Send(fmt.Sprintf("<iq type='set' id='%d' to='%s'><add xmlns='%s' op='%d-%d'/></iq>", n, key, nsCounter, before, n)); err != nil {
			return err
		}
	}
	if err := at.Send(fmt.Sprintf("<iq type='get' id='refused' to='%s'><add xmlns='%s'/></iq><message id='message' to='%s'><body>x</body></message>", key, nsCounter, key)); err != nil {
		return err
	}
	for n := range times {
		el, err := at.Next(ctx)
		if err != nil {
			return err
		}
		added := el.Child(nsCounter, "added")
		if added == nil || el.Get("id") != strconv.Itoa(n) || added.Get("n") != strconv.Itoa(before*times+n+1) {
			return fmt.Errorf("answer %d: %s", n, el.Bytes(""))
		}
	}
	for _, id := range []string{"refused", "message"} {
		el, err := at.Next(ctx)
		if err != nil {
			return err
		}
		why := stanza.ParseError(el.Child(stanza.NSClient, "error"))
		if el.Get("id") != id || el.Get("from") != key || why == nil || why.Condition != stanza.FeatureNotImplemented {
			return fmt.Errorf("answer to %s: %s", id, el.Bytes(""))
		}
	}
	return nil
}

// A house that is alone serves the same component, on SQLite and without a row of
// an owner.
func TestOneNodeOwnsEverything(t *testing.T) {
	owns := newServices()
	h := plugintest.Start(t, plugintest.Options{Plugins: house(owns), Config: fewIterations})
	c := &cluster{T: t, house: h, owns: owns}
	c.must("account", func(ctx context.Context) error {
		return h.Account(ctx, "person0", plugintest.Password)
	})
	var at *plugintest.Client
	node := 0
	for want := int64(1); want < 4; want++ {
		n, err := c.count(&at, &node, 0, keyOf(0), fmt.Sprint("op", want), fmt.Sprint("id", want))
		if err != nil || n != want {
			t.Fatalf("%d, %v", n, err)
		}
	}
	at.Close()
}
