package stream

import (
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
)

// errQuiet says that a socket which is watched has nothing to read now.
var errQuiet error = quiet{}

// quiet is a net.Error that is no failure, so that crypto/tls goes on reading
// after it.
type quiet struct{}

func (quiet) Error() string   { return "nothing to read" }
func (quiet) Timeout() bool   { return true }
func (quiet) Temporary() bool { return true }

// errNoPoller says that this system has none: each connection keeps its
// goroutine.
var errNoPoller = errors.New("sockets cannot be watched on this system")

// idleWorkers is how many workers of a poller stay when there is nothing to
// do. Their number grows with the turns that block (a commit, a slow client's
// own road); it is bounded by the sockets, which are bounded by the connections.
const idleWorkers = 32

// poller waits for many sockets at once, so that a silent one costs neither a
// goroutine nor its stack, and reading one that has brought something costs
// one system call. Whoever of the workers finds nothing to do asks the system
// which sockets are ready; each of those gets a turn. A turn may block: one more
// worker than there are turns under way is awake, or on its way, to go on with
// the others.
type poller struct {
	sys system

	mu      sync.Mutex
	more    sync.Cond // something is in ready, or the poller is closed
	ready   []*watch  // each watch at most once; those before next are on their turns
	next    int
	watches []*watch // by file descriptor
	polling bool     // a worker waits for the system
	idle    int      // workers that wait on more
	waking  int      // workers that were woken or started and have not arrived
	closed  bool
	gone    sync.WaitGroup
}

// watch is one socket that a poller watches.
type watch struct {
	poller *poller
	fd     int
	number int32  // tells the sockets apart that had the same descriptor
	turn   func() // reads until there is nothing; one at a time
	state  atomic.Uint32
	hup    atomic.Bool                   // the peer has closed its end, or the connection is broken
	room   atomic.Pointer[chan struct{}] // told when the socket takes bytes again; nil: nobody waits
}

// The states of a watch.
const (
	resting   uint32 = iota // nothing to do
	running                 // in ready, or on its turn
	again                   // on its turn, and something came since that began
	forgotten               // gets no turn any more
)

func newPoller() (*poller, error) {
	p := &poller{}
	p.more.L = &p.mu
	if err := p.sys.open(); err != nil {
		return nil, err
	}
	p.waking = 1
	p.gone.Add(1)
	go p.work()
	return p, nil
}

// close ends the poller when the turns under way are over. Nothing may be
// watched any more.
func (p *poller) close() {
	p.mu.Lock()
	p.closed = true
	p.more.Broadcast()
	p.mu.Unlock()
	p.sys.close()
	p.gone.Wait()
}

// begin lets w's turn run, now and whenever its socket has something to read,
// until forget. The descriptor stays the caller's.
func (w *watch) begin() error {
	p := w.poller
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.watches) <= w.fd {
		p.watches = append(p.watches, nil)
	}
	w.number = p.sys.next()
	if err := p.sys.add(w.fd, w.number); err != nil {
		return err
	}
	p.watches[w.fd] = w
	w.state.Store(running)
	p.put(w)
	return nil
}

// forget ends the watching; the descriptor may be closed after it. It belongs
// to the turn.
func (w *watch) forget() {
	w.state.Store(forgotten)
	p := w.poller
	p.mu.Lock()
	p.watches[w.fd] = nil
	p.mu.Unlock()
	p.sys.remove(w.fd)
}

// wake gives the watch a turn.
func (w *watch) wake() {
	p := w.poller
	p.mu.Lock()
	p.notify(w)
	p.mu.Unlock()
}

// notify gives w a turn, or another one when it is on its turn; p.mu is held.
func (p *poller) notify(w *watch) {
	for {
		switch s := w.state.Load(); s {
		case resting:
			if w.state.CompareAndSwap(s, running) {
				p.put(w)
				return
			}
		case running:
			if w.state.CompareAndSwap(s, again) {
				return
			}
		default:
			return
		}
	}
}

// put makes w the next but those before it; p.mu is held.
func (p *poller) put(w *watch) {
	p.ready = append(p.ready, w)
	p.backUp()
}

// take returns the next one; there is one. p.mu is held.
func (p *poller) take() *watch {
	w := p.ready[p.next]
	p.ready[p.next] = nil
	if p.next++; p.next == len(p.ready) {
		p.ready, p.next = p.ready[:0], 0
	}
	return w
}

// backUp sees to it that somebody goes on when the worker that has the lock
// blocks; p.mu is held.
func (p *poller) backUp() {
	switch {
	case p.waking > 0, p.polling && p.next == len(p.ready):
	case p.idle > 0:
		p.idle--
		p.waking++
		p.more.Signal()
	default:
		p.waking++
		p.gone.Add(1)
		go p.work()
	}
}

// work is one worker.
func (p *poller) work() {
	defer p.gone.Done()
	p.mu.Lock()
	p.waking--
	for {
		switch {
		case p.next < len(p.ready):
			w := p.take()
			p.backUp()
			p.mu.Unlock()
			w.run()
			p.mu.Lock()
		case p.closed:
			p.mu.Unlock()
			return
		case !p.polling:
			p.poll()
		case p.idle >= idleWorkers:
			p.mu.Unlock()
			return
		default:
			p.idle++
			p.more.Wait()
			p.waking = max(p.waking-1, 0) // nobody was promised when the poller closes
		}
	}
}

// poll asks the system, and waits when nothing is ready; p.mu is held.
func (p *poller) poll() {
	p.polling = true
	p.mu.Unlock()
	runtime.Gosched() // sockets are not all there is
	events := p.sys.wait()
	p.mu.Lock()
	p.polling = false
	for _, e := range events {
		w := p.watches[e.fd]
		if w == nil || w.number != e.number {
			continue // the descriptor has another owner by now
		}
		if e.hup {
			w.hup.Store(true)
		}
		if e.write {
			w.writable()
		}
		if e.read || e.hup {
			p.notify(w)
		}
	}
}

// run is the watch's turn, until nothing has come meanwhile.
func (w *watch) run() {
	for {
		w.turn()
		if w.state.CompareAndSwap(running, resting) || !w.state.CompareAndSwap(again, running) {
			return
		}
	}
}

// writable tells who waits for the socket to take bytes.
func (w *watch) writable() {
	if room := w.room.Load(); room != nil {
		select {
		case *room <- struct{}{}:
		default:
		}
	}
}

// waitsForRoom returns what is told when the socket takes bytes again.
func (w *watch) waitsForRoom() <-chan struct{} {
	if w.room.Load() == nil {
		room := make(chan struct{}, 1)
		w.room.CompareAndSwap(nil, &room)
	}
	return *w.room.Load()
}
