package cluster

import (
	"context"
	"errors"
	"sync"
	"time"

	"parley/parser/jid"
	"parley/router/channel"
	"parley/router/channel/nats"
	"parley/router/sessions"
)

// The sessions of a node that is gone end: whom it concerns sees them go (RFC
// 6121 §4.5.2). For each session one node does that, the same one for all as far
// as they see the same, and tells the others what is done. Until they hear of
// it they know the session and keep its last state, so that when the one whose
// turn it was goes, too, the next one does it; and whoever hears nothing of it
// for a while does. Each session is told of at least once, and as a rule once.
//
// First the features of every node note the death (OnDeath). A later life of the
// node is let in when the share of this one is done: it must not go on with a
// session that is just being taken for gone.

const (
	// topicEnded is what nodes tell each other about sessions under whose end
	// has been told; the key is a batch of Unbind envelopes.
	topicEnded = "ended"
	graveBatch = 256 // sessions that are ended at a time
	graveHands = 8   // and how many of them side by side: each asks the database
	// graveWait is how long nothing may be heard of sessions that it is another
	// node's turn to end.
	graveWait = 10 * time.Second
	// graveTries is how often features may fail to note a death.
	graveTries = 10
)

// grave is a life that is over.
type grave struct {
	life  Member
	among map[string]uint64 // the lives that knew its sessions
	left  map[sessions.Ref]*sessions.Entry
	since time.Time // of the last thing that was heard of them
	noted bool      // the features know
	tries int
	ours  bool    // there may be something to do for this node
	next  *Member // the node's later life, which waits for that
}

// graves are those that are not done with. Their lock comes after Node.mu.
type graves struct {
	mu   sync.Mutex
	all  []*grave
	bell chan struct{}
}

// dig makes a grave for a life; all are the sessions that are known of it.
func (g *graves) dig(life Member, among map[string]uint64, all []*sessions.Entry, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, old := range g.all {
		if old.next != nil && old.next.Node == life.Node {
			old.next = nil
		}
	}
	fresh := &grave{life: life, among: among, left: map[sessions.Ref]*sessions.Entry{}, since: now, ours: true}
	for _, e := range all {
		if g.of(e.Ref) == nil {
			fresh.left[e.Ref] = e
		}
	}
	if len(fresh.left) > 0 { // else nobody is told anything
		g.all = append(g.all, fresh)
	}
}

// of returns where a session lies; g.mu is held.
func (g *graves) of(ref sessions.Ref) *grave {
	for _, old := range g.all {
		if _, there := old.left[ref]; there {
			return old
		}
	}
	return nil
}

// wait reports whether a life has to wait, because there is something to do
// about the one before it.
func (g *graves) wait(life Member) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, old := range g.all {
		if old.life.Node == life.Node && old.ours {
			old.next = &life
			return true
		}
	}
	return false
}

// told takes out sessions whose end has been told.
func (g *graves) told(refs []sessions.Ref, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, ref := range refs {
		if old := g.of(ref); old != nil {
			delete(old.left, ref)
			old.since = now
		}
	}
	g.close()
}

// close forgets those that are done with; g.mu is held.
func (g *graves) close() {
	kept := g.all[:0:0]
	for _, old := range g.all {
		if old.ours || len(old.left) > 0 {
			kept = append(kept, old)
		}
	}
	g.all = kept
}

// has reports whether the account has sessions of the node that are not told of.
func (g *graves) has(node string, account jid.JID) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, old := range g.all {
		if old.life.Node != node {
			continue
		}
		if !old.noted {
			return true
		}
		for ref := range old.left {
			if ref.JID.Bare() == account {
				return true
			}
		}
	}
	return false
}

func (g *graves) snapshot() []*grave {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]*grave(nil), g.all...)
}

// OnDeath lets f be called for every life of another node that is over and had
// sessions, before anybody is told that they are. An error lets it be called
// again. It is for the time before Begin.
func (n *Node) OnDeath(f func(ctx context.Context, node string, life uint64) error) {
	n.deaths = append(n.deaths, f)
}

// Life is the number of this life of the node.
func (n *Node) Life() uint64 { return n.members.Self().Incarnation }

// Buried returns when a life of the node, with life 0 the one it has, is over, and
// whom it concerns has been told of the ends of the account's sessions there.
func (n *Node) Buried(ctx context.Context, node string, life uint64, account jid.JID) error {
	first := life
	if first == 0 {
		n.mu.Lock()
		first = n.lives[node]
		n.mu.Unlock()
	}
	for {
		n.mu.Lock()
		now, changed := n.lives[node], n.changed
		n.mu.Unlock()
		if (now != first || now == 0) && !n.graves.has(node, account) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		case <-n.ctx.Done():
			return n.ctx.Err()
		}
	}
}

// undertake ends the sessions of nodes that are gone, until End.
func (n *Node) undertake() {
	for {
		for _, g := range n.graves.snapshot() {
			n.bury(g)
		}
		again := time.NewTimer(retryBehind) // for what others do not do
		select {
		case <-n.graves.bell:
		case <-again.C:
		case <-n.ctx.Done():
		}
		again.Stop()
		if n.ctx.Err() != nil {
			return
		}
	}
}

// bury does what is this node's to do about a grave.
func (n *Node) bury(g *grave) {
	if !n.Held() { // this node is one of the dead
		return
	}
	if !n.note(g) {
		return
	}
	n.graves.mu.Lock()
	silent := n.opt.Clock.Now().Sub(g.since) > graveWait
	n.graves.mu.Unlock()
	for n.ctx.Err() == nil {
		some := n.turn(g, silent, graveBatch)
		if len(some) == 0 {
			break
		}
		if err := n.end(some); err != nil {
			n.log.Error("sessions of a node that has left are not ended; trying again", "node", g.life.Node, "sessions", len(some), "err", err)
			return
		}
		n.tellEnded(some)
	}
	n.graves.mu.Lock()
	next := g.next
	g.ours, g.next = false, nil
	n.graves.close()
	n.graves.mu.Unlock()
	if next != nil {
		n.admit([]Member{*next})
	}
	n.stirred()
}

// note lets the features know of the death. False: not yet.
func (n *Node) note(g *grave) bool {
	if g.noted { // nobody else changes it
		return true
	}
	var err error
	for _, f := range n.deaths {
		err = errors.Join(err, f(n.ctx, g.life.Node, g.life.Incarnation))
	}
	g.tries++
	if err != nil {
		n.log.Error("the death of a node is not noted", "node", g.life.Node, "tries", g.tries, "err", err)
		if g.tries < graveTries {
			return false
		}
	}
	n.graves.mu.Lock()
	g.noted = true
	n.graves.mu.Unlock()
	return true
}

// turn returns sessions that it is this node's turn to end, at most that many;
// all: because nobody else does.
func (n *Node) turn(g *grave, all bool, most int) (some []*sessions.Entry) {
	var among []Member
	for _, m := range n.members.Live() {
		if g.among[m.Node] == m.Incarnation {
			among = append(among, m)
		}
	}
	v := newView(among)
	n.graves.mu.Lock()
	defer n.graves.mu.Unlock()
	for _, e := range g.left {
		owner, ok := v.owner(e.JID.Bare().String(), "processor")
		if !ok || owner.Node == n.opt.Name || all {
			if some = append(some, e); len(some) == most {
				break
			}
		}
	}
	return some
}

// end lets the processor tell whom it concerns.
func (n *Node) end(some []*sessions.Entry) error {
	share := (len(some) + graveHands - 1) / graveHands
	var (
		hands sync.WaitGroup
		errs  = make([]error, graveHands)
	)
	for i := 0; len(some) > 0; i++ {
		mine := some[:min(share, len(some))]
		some = some[len(mine):]
		hands.Go(func() {
			batch := make([]*channel.Envelope, len(mine))
			for i, e := range mine {
				st := e.State
				batch[i] = &channel.Envelope{Kind: channel.Unbind, Session: e.Ref, State: &st}
			}
			errs[i] = n.links.Processor.Send(n.ctx, batch)
		})
	}
	hands.Wait()
	return errors.Join(errs...)
}

// tellEnded tells the others what this node has told of.
func (n *Node) tellEnded(some []*sessions.Entry) {
	batch := make([]*channel.Envelope, len(some))
	refs := make([]sessions.Ref, len(some))
	for i, e := range some {
		batch[i], refs[i] = &channel.Envelope{Kind: channel.Unbind, Session: e.Ref}, e.Ref
	}
	n.graves.told(refs, n.opt.Clock.Now())
	n.stirred()
	payload := encodeNotice(topicEnded, string(channel.EncodeBatch(nil, batch)))
	for _, p := range n.others() {
		if err := n.bus.Send(n.ctx, p, portNotices, payload, nil); err != nil && !errors.Is(err, nats.ErrGone) {
			n.log.Warn("another node does not learn that sessions have ended, and may tell it again", "node", p, "sessions", len(some), "err", err)
		}
	}
}

// heardEnded is what another node tells with tellEnded.
func (n *Node) heardEnded(key string) {
	batch, err := channel.DecodeBatch([]byte(key), n.jids)
	if err != nil {
		n.log.Error("which sessions have ended is not understood", "err", err)
		return
	}
	refs := make([]sessions.Ref, 0, len(batch))
	for _, e := range batch {
		if e.Session.Node == n.opt.Name {
			continue
		}
		n.opt.Registry.Unbind(e.Session)
		refs = append(refs, e.Session)
	}
	n.graves.told(refs, n.opt.Clock.Now())
	n.stirred()
}

// stirred is stir for who does not hold mu.
func (n *Node) stirred() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.stir()
}
