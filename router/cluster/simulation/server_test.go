package simulation

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// How a server of NATS treats a client, and the network both.
const (
	staleAfter = 5 * time.Second // a client that answers nothing is cut off: ping_interval 2s, ping_max 2
	pendingMax = 1000            // messages that wait for a client before it is a slow consumer
)

var errUnreachable = errors.New("connection refused")

// server is a NATS server and the network around it: it speaks the client
// protocol (https://docs.nats.io/reference/reference-protocols/nats-protocol) as
// far as the Bus needs it. What one connection publishes keeps its order; what
// two connections do has none.
type server struct {
	w *world

	mu    sync.Mutex // guards conns too
	down  bool
	conns []*conn
}

// dial connects a process. It never waits: the client dials with its lock held,
// and who waits for a lock stops virtual time.
func (s *server) dial(p *process) (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down || p.link.cut || p.link.held || p.over() {
		return nil, errUnreachable
	}
	p.link.dialled++
	c := &conn{server: s, process: p, name: fmt.Sprintf("%s#%d", p, p.link.dialled)}
	c.readable.L = &s.mu
	c.up.to, c.down.to = c.serve, c.arrive
	c.up.conn, c.down.conn = c, c
	s.conns = append(s.conns, c)
	c.in.WriteString(`INFO {"server_id":"S","server_name":"S","version":"2.15.0","proto":1,"headers":true,"max_payload":1048576}` + "\r\n")
	return c, nil
}

// restart breaks every connection; nobody gets one for a while.
func (s *server) restart(d time.Duration) {
	s.mu.Lock()
	s.down = true
	for _, c := range slices.Clone(s.conns) {
		c.broken()
	}
	s.mu.Unlock()
	time.AfterFunc(d, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.down = false
	})
}

// link is a process's way to the server; server.mu guards it.
type link struct {
	cut   bool    // connections break, and no new ones come
	held  bool    // bytes stand still
	holds int     // by so many
	ended []*conn // while they stood still, so the process does not know
	lossy float64 // share of what is lost on the way to the process

	dialled int
}

// cut breaks a process's connections until it is called with false.
func (s *server) cut(p *process, cut bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p.link.cut = cut
	if !cut {
		return
	}
	for _, c := range slices.Clone(s.conns) {
		if c.process == p {
			c.broken()
		}
	}
}

// hold lets a process's bytes stand still until it is called with false as often
// as with true. The server gives such a client up after a while.
func (s *server) hold(p *process, hold bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if hold {
		p.link.holds++
	} else {
		p.link.holds--
	}
	p.link.held = p.link.holds > 0
	for _, c := range slices.Clone(s.conns) {
		if c.process != p {
			continue
		}
		if !p.link.held {
			c.up.arm()
			c.down.arm()
			continue
		}
		time.AfterFunc(staleAfter, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			if p.link.held {
				c.broken()
			}
		})
	}
	if !p.link.held { // and who was given up hears of it
		for _, c := range p.link.ended {
			c.eof = true
			c.readable.Broadcast()
		}
		p.link.ended = nil
	}
}

// conn is both ends of a client's connection. server.mu guards it.
type conn struct {
	server  *server
	process *process
	name    string

	readable sync.Cond
	in       bytes.Buffer // for the client to read
	part     []byte       // of a command that the client is writing
	closed   bool         // by the client
	eof      bool         // by the server
	gone     bool         // the server knows it no more
	greeted  bool
	up, down pipe
	subs     []subscription
}

type subscription struct{ id, subject string }

// heard reports whether a subscription, in which * stands for any one part, is for
// the subject.
func heard(pattern, subject string) bool {
	want, got := strings.Split(pattern, "."), strings.Split(subject, ".")
	if len(want) != len(got) {
		return false
	}
	for i := range want {
		if want[i] != "*" && want[i] != got[i] {
			return false
		}
	}
	return true
}

// pipe is one direction: what goes in comes out in order, later.
type pipe struct {
	conn  *conn
	to    func(command)
	queue []command
	last  time.Time
	timer *time.Timer
	dices map[string]dice
}

type command struct {
	due     time.Time
	verb    string // PING, PONG, SUB, UNSUB, PUB, MSG, CLOSE
	subject string // or id
	id      string
	data    []byte
}

// push sends a command on its way.
func (p *pipe) push(c command) {
	c.due = time.Now().Add(p.latency(c))
	if c.due.Before(p.last) {
		c.due = p.last.Add(1)
	}
	p.last = c.due
	p.queue = append(p.queue, c)
	if len(p.queue) == 1 {
		p.arm()
	}
}

// latency is small, and sometimes not. Each subject has its own dice, whatever
// is sent at the same instant to others.
func (p *pipe) latency(c command) time.Duration {
	dice := p.dice(c)
	d := 100*time.Microsecond + time.Duration(dice.Int64N(int64(2*time.Millisecond)))
	if dice.IntN(50) == 0 {
		d += time.Duration(dice.Int64N(int64(60 * time.Millisecond)))
	}
	return d
}

func (p *pipe) dice(c command) dice {
	if p.dices == nil {
		p.dices = map[string]dice{}
	}
	of := p.conn.name + c.verb + c.subject
	if p.dices[of] == nil {
		p.dices[of] = p.conn.server.w.dice(of)
	}
	return p.dices[of]
}

// arm makes the pipe come back for its first command.
func (p *pipe) arm() {
	if p.timer != nil {
		p.timer.Stop()
	}
	if len(p.queue) > 0 && !p.conn.process.link.held {
		p.timer = time.AfterFunc(time.Until(p.queue[0].due), p.come)
	}
}

func (p *pipe) come() {
	s := p.conn.server
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(p.queue) > 0 && !p.conn.process.link.held && !time.Now().Before(p.queue[0].due) {
		c := p.queue[0]
		p.queue = p.queue[1:]
		p.to(c)
	}
	p.arm()
}

// serve is what the server does about a command of the client's.
func (c *conn) serve(m command) {
	if c.gone {
		return
	}
	switch m.verb {
	case "PING":
		c.down.push(command{verb: "PONG"})
	case "SUB":
		c.subs = append(c.subs, subscription{m.id, m.subject})
	case "UNSUB":
		c.subs = slices.DeleteFunc(c.subs, func(s subscription) bool { return s.id == m.id })
	case "CLOSE":
		c.forget()
	case "PUB":
		for _, other := range slices.Clone(c.server.conns) {
			if other == c { // no echo
				continue
			}
			for _, s := range other.subs {
				if heard(s.subject, m.subject) {
					other.offer(command{verb: "MSG", subject: m.subject, id: s.id, data: m.data})
				}
			}
		}
	}
}

// offer is a message for the client, which a slow one does not get.
func (c *conn) offer(m command) {
	if len(c.down.queue) >= pendingMax {
		c.server.w.note("net", "%s is a slow consumer", c.name)
		c.broken()
		return
	}
	c.down.push(m)
}

// arrive is the client's end.
func (c *conn) arrive(m command) {
	if c.closed || c.eof {
		return
	}
	switch m.verb {
	case "PONG":
		c.in.WriteString("PONG\r\n")
	case "MSG":
		if c.process.link.lossy > 0 && c.down.dice(m).Float64() < c.process.link.lossy {
			c.server.w.count("frames lost")
			return
		}
		fmt.Fprintf(&c.in, "MSG %s %s %d\r\n", m.subject, m.id, len(m.data))
		c.in.Write(m.data)
		c.in.WriteString("\r\n")
		c.server.w.count("frames")
	}
	c.readable.Broadcast()
}

// forget takes the connection out of the server.
func (c *conn) forget() {
	c.gone, c.subs = true, nil
	c.down.queue = nil
	c.server.conns = slices.DeleteFunc(c.server.conns, func(o *conn) bool { return o == c })
}

// broken ends the connection from the server's side.
func (c *conn) broken() {
	if c.gone {
		return
	}
	c.forget()
	c.up.queue = nil
	if c.process.link.held {
		c.process.link.ended = append(c.process.link.ended, c)
		return
	}
	c.eof = true
	c.readable.Broadcast()
}

// Read implements net.Conn.
func (c *conn) Read(b []byte) (int, error) {
	c.server.mu.Lock()
	defer c.server.mu.Unlock()
	for c.in.Len() == 0 && !c.closed && !c.eof {
		c.readable.Wait()
	}
	switch {
	case c.closed:
		return 0, net.ErrClosed
	case c.in.Len() == 0:
		return 0, io.EOF
	}
	return c.in.Read(b)
}

// Write implements net.Conn: it takes the client's commands apart.
func (c *conn) Write(b []byte) (int, error) {
	c.server.mu.Lock()
	defer c.server.mu.Unlock()
	if c.closed || c.eof {
		return 0, net.ErrClosed
	}
	c.part = append(c.part, b...)
	for c.command() {
	}
	return len(b), nil
}

// command takes the next one, when it is there as a whole.
func (c *conn) command() bool {
	line, rest, ok := bytes.Cut(c.part, []byte("\r\n"))
	if !ok {
		return false
	}
	f := strings.Fields(string(line))
	switch f[0] {
	case "CONNECT", "PONG":
	case "PING":
		if !c.greeted { // the end of the greeting, for which the client waits with its lock held
			c.greeted = true
			c.in.WriteString("PONG\r\n")
			c.readable.Broadcast()
			break
		}
		c.up.push(command{verb: "PING"})
	case "SUB":
		c.up.push(command{verb: "SUB", subject: f[1], id: f[len(f)-1]})
	case "UNSUB":
		c.up.push(command{verb: "UNSUB", id: f[1]})
	case "PUB":
		size, err := strconv.Atoi(f[len(f)-1])
		if err != nil {
			panic(err)
		}
		if len(rest) < size+2 {
			return false
		}
		c.up.push(command{verb: "PUB", subject: f[1], data: bytes.Clone(rest[:size])})
		rest = rest[size+2:]
	default:
		panic("a server of NATS does not know " + f[0])
	}
	c.part = append(c.part[:0], rest...)
	return true
}

// Close implements net.Conn. What was written before may still arrive.
func (c *conn) Close() error {
	c.server.mu.Lock()
	defer c.server.mu.Unlock()
	if !c.closed {
		c.closed = true
		c.up.push(command{verb: "CLOSE"})
		c.readable.Broadcast()
	}
	return nil
}

// LocalAddr implements net.Conn.
func (c *conn) LocalAddr() net.Addr { return address(c.name) }

// RemoteAddr implements net.Conn.
func (c *conn) RemoteAddr() net.Addr { return address("nats") }

// SetDeadline implements net.Conn: nothing waits for longer than it must.
func (c *conn) SetDeadline(time.Time) error { return nil }

// SetReadDeadline implements net.Conn.
func (c *conn) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline implements net.Conn.
func (c *conn) SetWriteDeadline(time.Time) error { return nil }

type address string

func (a address) Network() string { return "sim" }
func (a address) String() string  { return string(a) }
