package pubsub

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"parley/parser/jid"
	"parley/plugins"
	"parley/storage/cache"
)

const (
	// shelfBytes and nodeBytes bound what is remembered of accounts' own services
	// and of nodes of the common ones, in bytes, about.
	shelfBytes = 64 << 20
	nodeBytes  = 32 << 20
	// cachedFor is how long what another node has changed may go unnoticed, when
	// its notice is lost.
	cachedFor  = time.Minute
	topicShelf = "pubsub"
	topicNode  = "pubsub-node"
)

// directory knows nodes: configuration and affiliations, which say who may do
// what, so that a change is done when every node of the cluster has forgotten
// what was. Of an account's own service it knows all, of others single ones, and
// those that derive from nodes of either.
type directory struct {
	env     plugins.Env
	store   *store
	shelves *cache.Cache[jid.JID, *shelf]
	single  *cache.Cache[Address, *Node] // nil: there is none
}

// shelf are the nodes of one account's service.
type shelf struct {
	byName map[string]*Node
	sorted []*Node
}

func newDirectory(env plugins.Env, s *store) (*directory, error) {
	d := &directory{env: env, store: s}
	o := plugins.CachedAccounts[*shelf](env, topicShelf, cachedFor)
	o.Size, o.Weigh = shelfBytes, func(_ jid.JID, s *shelf) uint32 {
		w := uint32(128)
		for _, n := range s.sorted {
			w += n.weight()
		}
		return w
	}
	var err error
	if d.shelves, err = cache.New(o); err != nil {
		return nil, err
	}
	one := cache.Options[Address, *Node]{
		Size: nodeBytes, Weigh: func(a Address, n *Node) uint32 { return uint32(128+2*len(a.Node)) + n.weight() }, //nolint:gosec // names are short
		Topic: topicNode, Peers: o.Peers, TTL: o.TTL, Now: o.Now, Parse: parseKey,
	}
	d.single, err = cache.New(one)
	return d, err
}

// weight is about the bytes that a node takes.
func (n *Node) weight() uint32 {
	if n == nil {
		return 0
	}
	s := &n.Settings
	return uint32(1024 + len(n.Node) + len(s.Title) + len(s.Description) + 64*(len(s.Groups)+len(s.Extra)) + 128*len(n.Affiliations)) //nolint:gosec // bounded by the limits
}

// key is how a node is told of to others.
func (a Address) key() string { return a.Service.String() + "\x00" + a.Node }

func parseKey(s string) (Address, bool) {
	service, node, ok := strings.Cut(s, "\x00")
	if !ok {
		return Address{}, false
	}
	j, err := jid.Parse(service)
	return Address{j, node}, err == nil
}

// node returns nil when there is none.
func (d *directory) node(ctx context.Context, at Address) (*Node, error) {
	if at.PEP() {
		s, err := d.shelf(ctx, at.Service)
		if err != nil {
			return nil, err
		}
		if n := s.byName[at.Node]; n != nil {
			return n, nil
		}
	}
	for try := 0; ; try++ {
		n, err := d.one(ctx, at)
		if err != nil || n == nil || n.Base == "" {
			return n, err
		}
		// It has gone with its base, which does not say so of each.
		base, err := d.node(ctx, Address{n.Service, n.Base})
		switch {
		case err != nil:
			return nil, err
		case base != nil && (base.id == n.baseID || try > 0): // after one look at the database it is the base that is old
			return n, nil
		}
		d.single.Drop(at)
		if base == nil {
			return nil, nil
		}
	}
}

// one returns a node that is known by itself.
func (d *directory) one(ctx context.Context, at Address) (*Node, error) {
	return d.single.Load(ctx, at, func(ctx context.Context, at Address) (*Node, error) {
		found, err := d.store.nodes(ctx, at.Service, at.Node, true)
		if err != nil || len(found) == 0 {
			return nil, err
		}
		return found[0], nil
	})
}

func (d *directory) shelf(ctx context.Context, account jid.JID) (*shelf, error) {
	return d.shelves.Load(ctx, account, func(ctx context.Context, account jid.JID) (*shelf, error) {
		found, err := d.store.nodes(ctx, account, "", false)
		if err != nil {
			return nil, err
		}
		s := &shelf{byName: make(map[string]*Node, len(found)), sorted: found}
		for _, n := range found {
			s.byName[n.Node] = n
		}
		slices.SortFunc(s.sorted, func(a, b *Node) int { return cmp.Compare(a.Node, b.Node) })
		return s, nil
	})
}

// nodes returns those of an account's own service, sorted by name.
func (d *directory) nodes(ctx context.Context, account jid.JID) ([]*Node, error) {
	s, err := d.shelf(ctx, account)
	if err != nil {
		return nil, err
	}
	return s.sorted, nil
}

// changed lets everybody forget a node; it returns when all have.
func (d *directory) changed(ctx context.Context, at Address) {
	if at.PEP() {
		d.shelves.Drop(at.Service)
		d.env.Forget(ctx, topicShelf, at.Service.String())
	}
	d.single.Drop(at)
	d.env.Forget(ctx, topicNode, at.key())
}

// with is the node with other settings or affiliations.
func (n *Node) withAffiliations(change map[jid.JID]Affiliation) *Node {
	next := *n
	next.Affiliations = maps.Clone(n.Affiliations)
	for j, a := range change {
		if a == None {
			delete(next.Affiliations, j)
		} else {
			next.Affiliations[j] = a
		}
	}
	return &next
}

func (n *Node) withSettings(s Settings) *Node {
	next := *n
	next.Settings = s
	return &next
}
