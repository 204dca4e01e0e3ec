package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"parley/parser/stanza"
	"parley/plugins/plugintest"
)

// Who is seen, and from where: "no ghosts" (reliability row 32). A watcher, who may see
// everybody's presence, is connected to every node. In each round guests without
// stream management come to every node; some hang up while the fault lasts, some
// come then, some stay. When it is over every watcher, and a session that is new
// at each node, has to see those who are there and nobody else: the people of the
// cast, who all come back, and the guests whose connections last.

const (
	watcher    = "wat"
	host       = "gus" // the account of all guests
	ghostLimit = 15 * time.Second
	comeWithin = 5 * time.Second // something may be broken

	stays, leaves, comes = "stays", "leaves", "comes" // what a guest does when something breaks
)

// views is what is seen, node by node.
type views struct {
	world  *world
	nodes  *nodes
	ctx    context.Context // until the world ends
	coming sync.WaitGroup  // guests who try to
	rounds int

	mu     sync.Mutex
	news   chan struct{}     // closed, and replaced, with every change
	seen   []map[string]bool // of each node's watcher: full JIDs; nil: it is not connected
	guests map[*guest]bool
	right  []time.Duration // how long it took until everybody saw what is
	ghosts []string        // who was seen, not there, when there was no time left
	unseen []string        // who was there and not seen
}

// guest is somebody's session at one node.
type guest struct {
	jid    string
	leaves bool // while the fault lasts
	hang   context.CancelFunc
	over   chan struct{}
}

// newViews makes the accounts and lets the watcher see everybody; ctx ends it all.
func newViews(ctx context.Context, w *world, h *nodes) *views {
	w.t.Helper()
	v := &views{world: w, nodes: h, ctx: ctx, news: make(chan struct{}), seen: make([]map[string]bool, len(h.all)), guests: map[*guest]bool{}}
	for _, user := range []string{watcher, host} {
		if err := h.account(ctx, user); err != nil {
			w.t.Fatal(err)
		}
	}
	if err := v.subscribe(); err != nil {
		w.t.Fatalf("subscriptions of the watcher: %v", err)
	}
	for i := range h.all {
		w.tasks.Go(func() { v.watch(i) })
	}
	return v
}

// subscribe lets everybody grant the watcher's request before it makes it
// (RFC 6121 §3.4).
func (v *views) subscribe() error {
	requests := ""
	for _, user := range slices.Concat(people(), []string{host}) {
		if err := v.say(user, "<presence type='subscribed' to='"+watcher+"@localhost'/>"); err != nil {
			return err
		}
		requests += "<presence type='subscribe' to='" + user + "@localhost'/>"
	}
	return v.say(watcher, requests)
}

func people() (all []string) {
	for _, p := range cast {
		all = append(all, p.user)
	}
	return all
}

// say logs in to say something, and waits until it is dealt with.
func (v *views) say(user, what string) error {
	ctx, cancel := context.WithTimeout(v.ctx, patience)
	defer cancel()
	_, err := v.ask(ctx, 0, user, what)
	return err
}

const ping = "<iq type='get' to='localhost' id='ping'><ping xmlns='urn:xmpp:ping'/></iq>"

// ask logs in at a node, says something, and returns who is seen until that is
// dealt with.
func (v *views) ask(ctx context.Context, node int, user, what string) (map[string]bool, error) {
	in, err := v.nodes.all[node].enter(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := in.while(ctx)
	defer cancel()
	c, err := in.login(ctx, user)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if err := c.Bind(ctx, "new"); err != nil {
		return nil, err
	}
	if err := c.Send(what + ping); err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for {
		el, err := c.Next(ctx)
		if err != nil {
			return nil, err
		}
		if el.Name.Local == "iq" {
			return seen, nil
		}
		notice(seen, el)
	}
}

// notice enters what an element says about others.
func notice(seen map[string]bool, el *stanza.Element) {
	from := el.Get("from")
	user, _, _ := strings.Cut(from, "@")
	if el.Name.Local != "presence" || user == watcher {
		return
	}
	switch el.Get("type") {
	case "":
		seen[from] = true
	case stanza.TypeUnavailable:
		delete(seen, from)
	}
}

// watch looks from one node as long as the world lasts.
func (v *views) watch(node int) {
	for v.ctx.Err() == nil {
		_ = v.look(node)
		v.change(func() { v.seen[node] = nil })
		wait(v.ctx, retry)
	}
}

// look returns when the connection ends.
func (v *views) look(node int) error {
	in, err := v.nodes.all[node].enter(v.ctx)
	if err != nil {
		return err
	}
	ctx, cancel := in.while(v.ctx)
	defer cancel()
	limit, done := context.WithTimeout(ctx, comeWithin)
	defer done()
	c, err := v.come(limit, in, watcher, fmt.Sprintf("node%d", node+1))
	if err != nil {
		return err
	}
	defer c.Close()
	v.change(func() { v.seen[node] = map[string]bool{} })
	for {
		el, err := c.Next(ctx)
		if err != nil {
			return err
		}
		v.change(func() { notice(v.seen[node], el) })
	}
}

// come logs in and is available.
func (v *views) come(ctx context.Context, in door, user, resource string) (*plugintest.Client, error) {
	c, err := in.login(ctx, user)
	if err != nil {
		return nil, err
	}
	if err = c.Bind(ctx, resource); err == nil {
		err = c.Send("<presence/>")
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// change changes what mu guards and wakes who waits.
func (v *views) change(f func()) {
	v.mu.Lock()
	defer v.mu.Unlock()
	f()
	close(v.news)
	v.news = make(chan struct{})
}

// invite lets a guest come to a node; it stays until it hangs up, or the server does.
func (v *views) invite(node int, name string) error {
	limit, cancel := context.WithTimeout(v.ctx, comeWithin)
	defer cancel()
	in, err := v.nodes.all[node].enter(limit)
	if err != nil {
		return err
	}
	resource := fmt.Sprintf("round%d-node%d-%s", v.rounds, node+1, name)
	c, err := v.come(limit, in, host, resource)
	if err != nil {
		return err
	}
	ctx, hang := in.while(v.ctx)
	g := &guest{jid: host + "@localhost/" + resource, leaves: name == leaves, hang: hang, over: make(chan struct{})}
	v.change(func() { v.guests[g] = true })
	v.world.tasks.Go(func() {
		defer close(g.over)
		for {
			if _, err := c.Next(ctx); err != nil {
				break
			}
		}
		c.Close()
		hang()
		v.change(func() { delete(v.guests, g) })
	})
	return nil
}

// leave lets those go whom the function names.
func (v *views) leave(who func(*guest) bool) {
	v.mu.Lock()
	all := slices.Collect(maps.Keys(v.guests))
	v.mu.Unlock()
	for _, g := range all {
		if who(g) {
			g.hang()
			<-g.over
		}
	}
}

// begin begins a round: the guests of the last one go, and others come to every node.
func (v *views) begin() {
	v.world.t.Helper()
	v.leave(func(*guest) bool { return true })
	v.rounds++
	limit, cancel := context.WithTimeout(v.ctx, patience)
	defer cancel()
	for node := range v.nodes.all {
		for _, name := range []string{stays, leaves} {
			for err := v.invite(node, name); err != nil; err = v.invite(node, name) {
				if limit.Err() != nil {
					v.world.t.Fatalf("a guest cannot come to node %d: %v", node+1, err)
				}
				wait(limit, retry)
			}
		}
	}
}

// stir lets guests go, and others try to come, while the fault lasts.
func (v *views) stir() {
	v.leave(func(g *guest) bool { return g.leaves })
	for node, s := range v.nodes.all {
		if s.open() {
			v.coming.Go(func() { _ = v.invite(node, comes) }) // it may not be possible
		}
	}
}

// settle waits until everybody sees what is, from every node that is not dead. What
// is wrong 15 s after since stays wrong, and so after a node ends by itself meanwhile,
// because the machine does not answer it: that is a fault of its own.
func (v *views) settle(since time.Time, dead ...int) {
	v.world.t.Helper()
	v.coming.Wait()
	ctx, cancel := context.WithTimeout(v.ctx, patience)
	defer cancel()
	for {
		fell := v.nodes.fell.Load()
		limit, done := context.WithDeadline(ctx, since.Add(ghostLimit))
		ghosts, unseen, err := v.everywhere(limit, ctx, dead)
		done()
		if err == nil && len(ghosts)+len(unseen) == 0 {
			break
		}
		if v.nodes.fell.Load() != fell && ctx.Err() == nil {
			v.world.t.Log("a node has ended by itself; views are looked at anew")
			since = time.Now()
			continue
		}
		if err != nil {
			v.world.t.Error(err)
		}
		v.ghosts, v.unseen = append(v.ghosts, ghosts...), append(v.unseen, unseen...)
		break
	}
	v.right = append(v.right, time.Since(since))
}

// everywhere looks from every node that is not dead, and returns what is wrong when
// limit is over.
func (v *views) everywhere(limit, ctx context.Context, dead []int) (ghosts, unseen []string, err error) {
	look := func(where string, f func() (map[string]bool, error)) {
		g, u, e := v.await(limit, f)
		for _, jid := range g {
			ghosts = append(ghosts, where+": "+jid)
		}
		for _, jid := range u {
			unseen = append(unseen, where+": "+jid)
		}
		if e != nil {
			err = errors.Join(err, fmt.Errorf("%s does not answer: %w", where, e))
		}
	}
	for node := range v.nodes.all {
		if slices.Contains(dead, node) {
			continue
		}
		look(fmt.Sprintf("node %d", node+1), func() (map[string]bool, error) {
			v.mu.Lock()
			defer v.mu.Unlock()
			return maps.Clone(v.seen[node]), nil
		})
		look(fmt.Sprintf("node %d, to who comes now", node+1), func() (map[string]bool, error) {
			return v.ask(ctx, node, watcher, "<presence/>")
		})
	}
	return ghosts, unseen, err
}

// await looks until it sees what is, or limit is over, and returns what is wrong then.
func (v *views) await(limit context.Context, look func() (map[string]bool, error)) (ghosts, unseen []string, err error) {
	for {
		v.mu.Lock()
		news := v.news
		v.mu.Unlock()
		seen, err := look()
		ghosts, unseen := v.compare(seen)
		if err == nil && len(ghosts)+len(unseen) == 0 {
			return nil, nil, nil
		}
		select {
		case <-news:
		case <-time.After(retry): // who comes now is told nothing by itself
		case <-limit.Done():
			return ghosts, unseen, err
		}
	}
}

// compare finds who is seen and not there, and the other way round.
func (v *views) compare(seen map[string]bool) (ghosts, unseen []string) {
	there := map[string]bool{}
	for _, p := range cast {
		for _, r := range p.devices {
			if p.habit != never {
				there[p.user+"@localhost/"+r] = true
			}
		}
	}
	v.mu.Lock()
	for g := range v.guests {
		there[g.jid] = true
	}
	v.mu.Unlock()
	for jid := range seen {
		if !there[jid] {
			ghosts = append(ghosts, jid)
		}
	}
	for jid := range there {
		if !seen[jid] {
			unseen = append(unseen, jid)
		}
	}
	return ghosts, unseen
}
