package plugins

import (
	"time"

	"parley/router/cluster"
	"parley/router/sessions"
)

// What a Host tells of the cluster.

// Cluster is the nodes as one of them sees them.
type Cluster struct {
	Node  string       `json:"node"`  // which one
	Alone bool         `json:"alone"` // it is not one of several (cluster.nats.urls)
	Held  bool         `json:"held"`  // it counts as alive; false: it is fenced, and ends
	Nodes []NodeStatus `json:"nodes"` // those that are alive, by name
}

// NodeStatus is one of them.
type NodeStatus struct {
	Node        string    `json:"node"`
	Number      int       `json:"number"`      // its own in ids
	Incarnation uint64    `json:"incarnation"` // larger for every later life
	Since       time.Time `json:"since"`
	Version     string    `json:"version"`
	Servers     []string  `json:"servers"`
	Draining    bool      `json:"draining"`
	Sessions    int       `json:"sessions"` // whose sockets are there
	Away        int       `json:"away"`     // of them, those without a connection
	Lanes       []Lane    `json:"lanes"`    // what is on the way there; none to oneself
}

// Lane is a pipe to a node.
type Lane struct {
	Port     string  `json:"port"`
	InFlight uint64  `json:"in_flight"` // payloads that are not acknowledged
	Window   int     `json:"window"`    // how many may be
	Oldest   float64 `json:"oldest"`    // age of the oldest of them, in seconds
	Retries  uint64  `json:"retries"`   // payloads that were sent once more
	Stalled  bool    `json:"stalled"`   // nothing is acknowledged, so nothing more is taken
}

// Cluster implements Control.
func (c control) Cluster() Cluster {
	h := c.h
	here := Cluster{Node: h.opt.Node, Alone: h.node == nil, Held: h.node == nil || h.node.Held()}
	for _, m := range h.members() {
		n := NodeStatus{
			Node: m.Node, Number: m.Number, Incarnation: m.Incarnation, Since: m.Since, Version: m.Version,
			Servers: m.Servers, Draining: m.Draining, Lanes: []Lane{},
		}
		if h.node != nil {
			for _, l := range h.node.Lanes(m.Node) {
				n.Lanes = append(n.Lanes, Lane{Port: l.Port, InFlight: l.InFlight, Window: l.Window.Frames, Oldest: l.Oldest.Seconds(), Retries: l.Retries, Stalled: l.Stalled})
			}
		}
		here.Nodes = append(here.Nodes, n)
	}
	h.sessions.Each(func(e *sessions.Entry) bool {
		for i := range here.Nodes {
			if n := &here.Nodes[i]; h.socketAt(n, e) {
				n.Sessions++
				if e.Hibernated {
					n.Away++
				}
			}
		}
		return true
	})
	return here
}

// socketAt reports whether the session's socket is, or was, at the node: a front's
// sessions are its core's in everything else.
func (h *Host) socketAt(n *NodeStatus, e *sessions.Entry) bool {
	if h.node == nil {
		return n.Node == e.Node
	}
	return n.Number == sessions.SlotOf(e.Conn)
}

// members are the live nodes, or the one that is alone.
func (h *Host) members() []cluster.Member {
	if h.node != nil {
		return h.node.Members().Live()
	}
	self := cluster.Member{Node: h.opt.Node, Version: h.opt.Version, Since: h.since}
	for _, r := range h.servers {
		self.Servers = append(self.Servers, r.name)
	}
	return []cluster.Member{self}
}
