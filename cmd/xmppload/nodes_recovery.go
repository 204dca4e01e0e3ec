//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"parley/cmd/xmppload/internal/scenario"
	"parley/cmd/xmppload/internal/wire"
	"parley/cmd/xmppload/peers"
)

// fault is one way in which a node can fail, and who is there then.
type fault struct {
	name   string
	roles  []peers.Role // in the order of their start
	victim peers.Role   // the first of them fails
	signal syscall.Signal
	stays  bool // the client's own node lives: it waits until its stream ends, and comes back there
}

func faults() []fault {
	whole := []peers.Role{peers.Whole, peers.Whole, peers.Whole}
	return []fault{
		{"one of three nodes, kill -9", whole, peers.Whole, syscall.SIGKILL, false},
		{"one of three nodes, SIGSTOP", whole, peers.Whole, syscall.SIGSTOP, false},
		{"one of two fronts, kill -9", []peers.Role{peers.Core, peers.Front, peers.Front}, peers.Front, syscall.SIGKILL, false},
		// The front takes the core that is there when it starts, and the other
		// one when that is gone; who watches is at a node that needs neither.
		{"a front's core, another is there, kill -9", []peers.Role{peers.Core, peers.Front, peers.Whole, peers.Core}, peers.Core, syscall.SIGKILL, true},
	}
}

// recovery is what a fault's rounds have shown.
type recovery struct {
	fault
	rounds []round
}

// round is one fault: times since it.
type round struct {
	told    time.Duration // a contact on another node knows that a user is gone
	session time.Duration // a client that came back has a session
	message time.Duration // it has what was sent to it meanwhile
	resumed bool          // the session is the one that it had

	late        time.Duration // since it came: a client that came when all nodes knew has a session
	lateResumed bool
}

func (n *nodes) recovery(ctx context.Context) error {
	for _, f := range faults() {
		r, err := n.recoveryFrom(ctx, f)
		if err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		n.recoveries = append(n.recoveries, r)
	}
	return nil
}

// perRound are the accounts that a round needs: each has its own, so that what
// an earlier one has left is nobody's.
const perRound = 4

func (n *nodes) recoveryFrom(ctx context.Context, f fault) (r recovery, err error) {
	r.fault = f
	rounds := max(int(float64(n.rounds)*n.scale), 1)
	if most := peers.MaxNames - len(f.roles) + 1; rounds > most {
		return r, fmt.Errorf("%d rounds need more names than a cluster has: at most %d", rounds, most)
	}
	cluster, err := n.cluster(ctx, f.roles...)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, cluster.Stop()) }()
	s := &scenario.Server{Register: "0077", Login: login(door(f.doors(cluster)[0]))}
	if err := s.Accounts(ctx, rounds*perRound, n.common.Parallel); err != nil {
		return r, err
	}
	for i := range rounds {
		one, err := n.fail(ctx, f, cluster, i)
		if err != nil {
			return r, fmt.Errorf("round %d: %w", i+1, err)
		}
		r.rounds = append(r.rounds, one)
		n.say("%s, %d of %d: told %v, session %v (resumed: %v), message %v, late %v (resumed: %v)", f.name, i+1, rounds, one.told.Round(time.Millisecond),
			one.session.Round(time.Millisecond), one.resumed, one.message.Round(time.Millisecond), one.late.Round(time.Millisecond), one.lateResumed)
		if i+1 == rounds {
			break
		}
		if _, err := cluster.Node(ctx, f.victim); err != nil { // of a new name: the old one's lease is nothing to wait for
			return r, err
		}
	}
	return r, nil
}

// doors are the nodes that clients connect to: the one whose people are hit,
// then another.
func (f fault) doors(c *peers.Cluster) []*peers.Child {
	return slices.DeleteFunc(slices.Clone(c.Nodes), func(n *peers.Child) bool { return n.Node.Role == peers.Core })
}

// hit is the node that fails.
func (f fault) hit(c *peers.Cluster) *peers.Child {
	return c.Nodes[slices.IndexFunc(c.Nodes, func(n *peers.Child) bool { return n.Node.Role == f.victim })]
}

// people are those of a round: one who goes with the node, one who comes back at
// once, one who does when the node is known to be dead, and who looks on from
// another node.
type people struct{ gone, back, late, contact *wire.Device }

func (p *people) drop() {
	for _, d := range []*wire.Device{p.gone, p.back, p.late, p.contact} {
		if d != nil {
			d.Drop()
		}
	}
}

// gather logs the people of a round in.
func gather(ctx context.Context, i int, here, there *wire.Login) (p *people, err error) {
	p = &people{}
	for k, d := range []**wire.Device{&p.gone, &p.back, &p.late, &p.contact} {
		lg := here
		if d == &p.contact {
			lg = there
		}
		if *d, err = lg.Device(ctx, scenario.User(i*perRound+k), scenario.Password); err != nil {
			p.drop()
			return nil, err
		}
	}
	if err := befriend(p.contact, p.gone); err != nil {
		p.drop()
		return nil, fmt.Errorf("subscription: %w", err)
	}
	return p, nil
}

// befriend subscribes one to another's presence and waits until it has come
// (RFC 6121 §3.1).
func befriend(who, whose *wire.Device) error {
	if err := who.Say("<presence to='" + whose.Bare + "' type='subscribe'/>"); err != nil {
		return err
	}
	if err := whose.Await(presence(who.Bare, "subscribe")); err != nil {
		return err
	}
	if err := whose.Say("<presence to='" + who.Bare + "' type='subscribed'/>"); err != nil {
		return err
	}
	return who.Await(presence(whose.JID, ""))
}

// presence is one of that sender and type.
func presence(from, kind string) func([]byte) bool {
	return func(el []byte) bool {
		return bytes.HasPrefix(el, []byte("<presence")) && string(wire.Attr(el, " from=")) == from && string(wire.Attr(el, " type=")) == kind
	}
}

// stay is how long people are there before a node fails: what a session needs
// to be resumed elsewhere is in the database within servers.processor.
// components.resumption.write_every, a second.
const stay = 1200 * time.Millisecond

// gap is how long after the first node that has noticed it all nodes know that
// one is dead.
const gap = 500 * time.Millisecond

// fail lets a node fail and waits until everybody is well again; the node has
// ended then.
func (n *nodes) fail(ctx context.Context, f fault, c *peers.Cluster, i int) (r round, err error) {
	doors, victim := f.doors(c), f.hit(c)
	here, there := login(door(doors[0])), login(door(doors[1]))
	p, err := gather(ctx, i, &here, &there)
	if err != nil {
		return r, err
	}
	defer p.drop()
	time.Sleep(stay)
	began := time.Now()
	if err := victim.Signal(f.signal); err != nil {
		return r, err
	}
	if err := p.contact.Say("<message to='" + p.back.Bare + "' type='chat' id='meanwhile'><body>meanwhile</body></message>"); err != nil {
		return r, err
	}
	var g errgroup.Group
	g.Go(func() (err error) {
		if err := p.contact.Await(presence(p.gone.JID, "unavailable")); err != nil {
			return fmt.Errorf("the contact is not told: %w", err)
		}
		r.told = time.Since(began)
		time.Sleep(gap)
		came := time.Now()
		if r.lateResumed, err = p.late.Resume(ctx, &there); err != nil {
			return fmt.Errorf("coming back late: %w", err)
		}
		r.late = time.Since(came)
		return nil
	})
	g.Go(func() (err error) {
		to := &there
		if f.stays {
			_ = p.back.Await(func([]byte) bool { return false }) // the stream's end
			to = &here
		}
		r.resumed, err = p.back.Resume(ctx, to)
		if err != nil {
			return fmt.Errorf("coming back: %w", err)
		}
		r.session = time.Since(began)
		err = p.back.Await(func(el []byte) bool {
			return bytes.HasPrefix(el, message) && string(wire.Attr(el, " id=")) == "meanwhile"
		})
		r.message = time.Since(began)
		return err
	})
	if err := g.Wait(); err != nil {
		return r, err
	}
	if f.signal == syscall.SIGSTOP {
		err = victim.Signal(syscall.SIGCONT) // it finds that its lease is over, and ends
	}
	return r, errors.Join(err, c.Lose(victim, 20*time.Second))
}

var message = []byte("<message")
