package plugins

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"parley/plugins/config"
)

// How a change of what is wanted is made. Every node decides on the version
// that is the last in the database, tries the outcome on its own components,
// and commits it as the next version if there is none yet; else it goes back
// and does the same on the version of the other node. So all nodes see the same
// versions in one order, and what does not work where it is made is no version.
// Then the others are told (follow.go).

// ErrOvertaken: other nodes change the configuration all the time.
var ErrOvertaken = errors.New("other nodes keep changing the configuration: try again")

// attempts is how often a change is tried on other nodes' versions: one of those
// who try at once is always done with it.
const attempts = 100

// Applied is what a change has come to.
type Applied struct {
	Version int64    `json:"version"`          // the last of what is set at run time, with this change
	Keys    []string `json:"keys,omitempty"`   // what has changed; none: it was so already
	Behind  []Behind `json:"behind,omitempty"` // live nodes where it does not count yet
}

// Behind is a node that has not followed.
type Behind struct {
	Node string `json:"node"`
	Why  string `json:"why"`
}

func (h *Host) current() *config.Tree { return h.wanted().tree }

func (h *Host) wanted() wanted {
	h.mu.Lock()
	defer h.mu.Unlock()
	return wanted{h.tree, h.said}
}

func (h *Host) want(w wanted) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tree, h.said = w.tree, w.said
}

// change makes what decide returns the version that counts everywhere. The
// named slots do as is wanted of them even if nothing changes.
func (c control) change(ctx context.Context, by string, named []*slot, decide func(wanted) (wanted, error)) (Applied, error) {
	a, err := c.agree(ctx, by, named, decide)
	if err == nil && len(a.Keys) > 0 {
		a.Behind = c.h.tellAll(ctx, a.Version)
	}
	return a, err
}

func (c control) agree(ctx context.Context, by string, named []*slot, decide func(wanted) (wanted, error)) (Applied, error) {
	c.h.repo.change.Lock()
	defer c.h.repo.change.Unlock()
	for range attempts {
		if err := c.catchUp(ctx); err != nil {
			return Applied{}, err
		}
		now := c.h.wanted()
		next, err := decide(now)
		if err == nil {
			err = misplaces(now, next)
		}
		if err != nil {
			return Applied{}, err
		}
		w := todo(now, next)
		for _, s := range named {
			if _, there := w[s.key()]; !there {
				w[s.key()] = false
			}
		}
		log := c.signed(events(now, next), by, next)
		if len(log) == 0 {
			return Applied{Version: now.tree.Version()}, joined(c.settle(ctx, w, now))
		}
		if err := c.moveTo(ctx, w, now, next); err != nil {
			return Applied{}, err
		}
		err = c.h.overlay.commit(ctx, now, next, log)
		if err == nil {
			c.h.serve(next)
			c.report(ctx)
			return Applied{Version: next.tree.Version(), Keys: paths(log)}, nil
		}
		back := joined(c.settle(ctx, w, now))
		c.h.want(now)
		if !errors.Is(err, errOvertaken) {
			return Applied{}, errors.Join(fmt.Errorf("not saved, so not kept: %w", err), back)
		}
	}
	return Applied{}, ErrOvertaken
}

// signed says who has changed what, when and where.
func (c control) signed(log []ConfigEvent, by string, next wanted) []ConfigEvent {
	for i := range log {
		e := &log[i]
		e.At, e.By, e.Node = c.h.opt.Clock.Now(), by, c.h.opt.Node
		e.Own = c.h.overlay.of(next.tree, e.Path) != ""
	}
	return log
}

func paths(log []ConfigEvent) (out []string) {
	for _, e := range log {
		out = append(out, e.Path)
	}
	return out
}

// moveTo lets every component that has something to do follow to a version, or
// none of them.
func (c control) moveTo(ctx context.Context, w work, from, to wanted) error {
	failed := c.attempt(ctx, w, to)
	if len(failed) == 0 {
		c.note(w, nil)
		c.h.want(to)
		return nil
	}
	back := work{}
	for k, fresh := range w {
		back[k] = fresh && failed[k] == nil // what failed still has the configuration of before
	}
	return errors.Join(joined(failed), joined(c.settle(ctx, back, from)))
}

// joined says each of them once: the components of a plugin often fail for one reason.
func joined(failed map[slotKey]error) error {
	var errs []error
	for _, err := range failed {
		if !slices.ContainsFunc(errs, func(e error) bool { return e.Error() == err.Error() }) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// settle lets components do as is wanted; what requires others stops before
// them and starts after them. What fails is noted with its slot, and tried again
// when the node looks for changes the next time. Components of Servers that do
// not run on this node have nothing to do.
func (c control) settle(ctx context.Context, w work, to wanted) map[slotKey]error {
	failed := c.attempt(ctx, w, to)
	c.note(w, failed)
	return failed
}

// note keeps with its slots what has become of work.
func (c control) note(w work, failed map[slotKey]error) {
	for _, s := range c.h.repo.slots {
		if _, has := w[s.key()]; has {
			c.h.repo.note(s, failed[s.key()])
		}
	}
}

// attempt is settle for what is taken back when it fails: nothing is noted, whoever
// asked for it is told.
func (c control) attempt(ctx context.Context, w work, to wanted) map[slotKey]error {
	failed := map[slotKey]error{}
	r := c.h.repo
	for _, s := range slices.Backward(r.slots) {
		if _, has := w[s.key()]; !has || s.phase != Running || to.phase(s.key()) == Running {
			continue
		}
		err := r.needed(s)
		if err == nil {
			err = r.stop(ctx, s)
		}
		if err != nil {
			failed[s.key()] = err
		}
	}
	for _, s := range r.slots {
		fresh, has := w[s.key()]
		if !has {
			continue
		}
		if failed[s.key()] == nil {
			if err := c.raise(ctx, s, to, fresh); err != nil {
				failed[s.key()] = err
			}
		}
	}
	return failed
}

// raise does for a slot what stopping is not enough for.
func (c control) raise(ctx context.Context, s *slot, to wanted, fresh bool) error {
	r := c.h.repo
	switch phase := to.phase(s.key()); {
	case phase == Running && s.phase != Running:
		if err := r.make(s, to.tree); err != nil {
			return err
		}
		return r.start(ctx, s)
	case phase == Installed && s.phase != Installed:
		return r.make(s, to.tree)
	case phase == Absent && s.phase != Absent:
		r.set(s, func() { s.made, s.phase, s.err = nil, Absent, "" })
		return nil
	case !fresh:
		return nil
	}
	return c.apply(ctx, s, to.tree)
}

// apply lets a slot follow a configuration in the phase in which it is.
func (c control) apply(ctx context.Context, s *slot, tree *config.Tree) error {
	switch s.phase {
	case Running:
		return c.h.repo.replace(ctx, s, tree)
	case Installed:
		return c.h.repo.make(s, tree)
	}
	_, _, err := c.h.repo.build(s, tree) // validates, has no side effects
	return err
}
