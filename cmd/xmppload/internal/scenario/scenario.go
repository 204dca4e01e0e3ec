//go:build linux

// Package scenario is what xmppload does to a server: log in, idle, chat,
// tell contacts, store for somebody who is away, page through archives, talk
// in rooms. Everything that is sent carries a number, and what came is
// compared with it.
package scenario

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"parley/cmd/xmppload/internal/count"
	"parley/cmd/xmppload/internal/proc"
	"parley/cmd/xmppload/internal/wire"
)

// Server is a server under test.
type Server struct {
	Name  string
	Login wire.Login
	PIDs  []int  // with everything they start
	Parts []Part // what each of several processes uses, beside the sum
	// Place is where the n-th session connects to; nil: Login.Addr.
	Place    func(n int) string
	Rooms    string // the domain of its rooms
	Register string // how accounts come to be: 0077, command …, none
	Collect  string // a command after which memory that is not in use has been given back; empty: waiting has to do

	delivered map[string]bool // runs whose messages have all come: any of them is one too many now

	made atomic.Int64 // accounts 0 to made-1 are there
	mu   sync.Mutex
}

// Part is a process of a server that has several.
type Part struct {
	Name string
	PID  int
}

// Metric is one figure of a run.
type Metric struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
}

// Result is what one run has shown.
type Result struct {
	Metrics []Metric     `json:"metrics"`
	Faults  count.Faults `json:"faults"`
}

func (r *Result) add(name, unit string, v float64) {
	r.Metrics = append(r.Metrics, Metric{name, v, unit})
}

// Common is what every scenario can be told.
type Common struct {
	Parallel int           // logins under way
	Patience time.Duration // without anything coming, until the rest counts as lost
	Settle   time.Duration // between login and measuring
}

// Password is every account's.
const Password = "correct horse battery staple"

// User is the name of the n-th account.
func User(n int) string { return fmt.Sprintf("load%d", n) }

// Accounts sees to it that accounts 0 to n-1 exist.
func (s *Server) Accounts(ctx context.Context, n, parallel int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	from := int(s.made.Load())
	if s.Register == "none" || from >= n {
		return nil
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for i := from; i < n; i++ {
		g.Go(func() error { return s.register(ctx, i) })
	}
	if err := g.Wait(); err != nil {
		return fmt.Errorf("accounts: %w", err)
	}
	s.made.Store(int64(n))
	return nil
}

func (s *Server) register(ctx context.Context, i int) error {
	if line, ok := strings.CutPrefix(s.Register, "command "); ok {
		line = strings.NewReplacer("{user}", User(i), "{domain}", s.Login.Domain, "{password}", Password).Replace(line)
		if out, err := exec.CommandContext(ctx, "sh", "-c", line).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", line, err, out)
		}
		return nil
	}
	return s.Login.Register(ctx, i, User(i), Password)
}

// fleet are sessions on one loop.
type fleet struct {
	loop *wire.Loop
	all  []*wire.Session
	err  error // a session that ended by itself
}

func newFleet() (*fleet, error) {
	loop, err := wire.NewLoop()
	if err != nil {
		return nil, err
	}
	return &fleet{loop: loop}, nil
}

// bring logs accounts first to first+n-1 in; available false: they stay silent.
func (s *Server) bring(ctx context.Context, c Common, first, n int, available bool) (*fleet, error) {
	if err := s.Accounts(ctx, first+n, c.Parallel); err != nil {
		return nil, err
	}
	f, err := newFleet()
	if err != nil {
		return nil, err
	}
	if err := s.grow(ctx, c, f, first, n, available, User); err != nil {
		f.close()
		return nil, err
	}
	return f, nil
}

// grow logs in until the fleet has n sessions; the i-th is account first+i.
func (s *Server) grow(ctx context.Context, c Common, f *fleet, first, n int, available bool, name func(int) string) error {
	from := len(f.all)
	if n <= from {
		return nil
	}
	f.all = append(f.all, make([]*wire.Session, n-from)...)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(c.Parallel)
	var mu sync.Mutex
	for i := from; i < n; i++ {
		g.Go(func() error {
			login := s.Login
			if s.Place != nil {
				login.Addr = s.Place(first + i)
			}
			x, err := login.Login(ctx, first+i, name(first+i), Password)
			if err == nil && available {
				err = x.Available("")
			}
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			x.Gone = f.gone(x)
			if err := f.loop.Adopt(x); err != nil {
				return err
			}
			f.all[i] = x
			return nil
		})
	}
	return g.Wait()
}

func (f *fleet) gone(x *wire.Session) func(error) {
	return func(err error) {
		if f.err == nil && err != nil {
			f.err = fmt.Errorf("%s was disconnected: %w", x.JID, err)
		}
	}
}

// close ends every session with a stream's proper end, as far as that goes
// without waiting.
func (f *fleet) close() {
	for _, x := range f.all {
		if x != nil {
			x.Gone = nil
			x.SendString("</stream:stream>")
		}
	}
	_ = f.loop.Run(func() bool { return true }, 0)
	f.loop.Close()
}

// run turns the loop until done; what is missing then is the books' business,
// a session that broke is an error.
func (f *fleet) run(done func() bool, patience time.Duration) error {
	err := f.loop.Run(func() bool { return f.err != nil || done() }, patience)
	if f.err != nil {
		return f.err
	}
	return err
}

// quiet turns the loop for a while, so that what logins have caused is over.
func (f *fleet) quiet(d time.Duration) error {
	end := time.Now().Add(d)
	return f.run(func() bool { return !time.Now().Before(end) }, d+time.Minute)
}

// meter is a server's use of the machine between two moments.
type meter struct {
	all   *clock // nil: nobody knows its processes
	parts []part
	at    time.Time
}

// part is a clock with a name.
type part struct {
	name string
	*clock
}

// clock is what a group of processes has used since a moment.
type clock struct {
	group *proc.Group
	from  time.Duration
}

func newClock(pids ...int) (*clock, error) {
	g := proc.NewGroup(pids...)
	use, err := g.Read()
	return &clock{g, use.CPU}, err
}

// used is in seconds.
func (c *clock) used() (float64, error) {
	use, err := c.group.Read()
	return (use.CPU - c.from).Seconds(), err
}

func (s *Server) meter() (m *meter, err error) {
	m = &meter{}
	if len(s.PIDs) > 0 {
		if m.all, err = newClock(s.PIDs...); err != nil {
			return nil, err
		}
	}
	for _, p := range s.Parts {
		c, err := newClock(p.PID)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.Name, err)
		}
		m.parts = append(m.parts, part{p.Name, c})
	}
	m.at = time.Now()
	return m, nil
}

// stop adds CPU per units, of each part as well, and the rate.
func (m *meter) stop(r *Result, units, per int, what string) error {
	wall := time.Since(m.at)
	name := fmt.Sprintf("CPU per %s %s", thousands(per), what)
	each := float64(per) / float64(units)
	if m.all != nil {
		cpu, err := m.all.used()
		if err != nil {
			return err
		}
		r.add(name, "s", cpu*each)
		r.add("cores", "", cpu/wall.Seconds())
	}
	for _, p := range m.parts {
		cpu, err := p.used()
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		r.add(PartOf(name, p.name), "s", cpu*each)
	}
	r.add("rate", what+"/s", float64(units)/wall.Seconds())
	return nil
}

// PartOf names the figure of one part.
func PartOf(metric, part string) string { return metric + ", " + part }

func thousands(n int) string {
	if n >= 1000 && n%1000 == 0 {
		return thousands(n/1000) + ",000"
	}
	return fmt.Sprint(n)
}
