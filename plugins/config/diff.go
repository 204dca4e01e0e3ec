package config

// Effect is what a reload does with a changed key.
type Effect uint8

const (
	// Live: the new value counts at once.
	Live Effect = iota + 1
	// Restart: the new value counts when the server is started again.
	Restart
	// Overridden: the file changed, but another layer (Change.By) wins.
	Overridden
)

// String is the word a reload reports.
func (e Effect) String() string {
	return [...]string{"", "applied", "needs a restart", "overridden"}[e]
}

// Change is one key that differs between two configurations.
type Change struct {
	Path      string
	Old, New  string // as Entry.Value; of an overridden key what the file says; "" also for a key that is not there
	Effect    Effect
	By        Source // where New is from; of an overridden key what wins over it
	Server    string // whose key it is, "" for the top level
	Component string // "" for the server's own keys
}

// Diff lists the keys that differ, in the order of the new tree, then those
// that are gone. Both trees must be of the same schema.
func Diff(old, new *Tree) []Change {
	var all []Change
	was, is := old.root.leaves(), new.root.leaves()
	new.root.eachSaid(func(n *node) {
		path := n.path()
		before, known := was[path]
		switch {
		case !known:
			all = append(all, change(path, nil, n))
		case !same(n.spec, before.value, n.value):
			all = append(all, change(path, before, n))
		case n.value.src.Kind > FromFile && !same(n.spec, before.base, n.base):
			c := change(path, before, n)
			c.Old, c.New, c.Effect = n.spec.shown(before.base.val), n.spec.shown(n.base.val), Overridden
			all = append(all, c)
		}
	})
	old.root.eachSaid(func(n *node) {
		if _, still := is[n.path()]; !still {
			all = append(all, change(n.path(), n, nil))
		}
	})
	return all
}

func (n *node) leaves() map[string]*node {
	all := map[string]*node{}
	n.eachSaid(func(n *node) { all[n.path()] = n })
	return all
}

// eachSaid visits the leaves that are shown.
func (n *node) eachSaid(f func(*node)) {
	n.eachLeaf(func(n *node) {
		if !n.silent() {
			f(n)
		}
	})
}

// same compares the values themselves: a secret that changed is a change,
// though both are shown as "***".
func same(s *spec, a, b setting) bool { return s.plain(a.val) == s.plain(b.val) }

func change(path string, before, after *node) Change {
	c := Change{Path: path, Effect: Restart}
	some := after
	if before != nil {
		some, c.Old = before, before.spec.shown(before.value.val)
	}
	if after != nil {
		some, c.New, c.By = after, after.spec.shown(after.value.val), after.value.src
	}
	if some.spec.live {
		c.Effect = Live
	}
	at := some.segments()
	if len(at) > 2 && at[0] == "servers" {
		c.Server = at[1]
	}
	if len(at) > 4 && c.Server != "" && at[2] == "components" {
		c.Component = at[3]
	}
	return c
}
