package externals

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"parley/plugins"
	"parley/plugins/admin"
	"parley/stream"
	"parley/stream/component"
)

// Errors that have a status of their own.
var (
	errUnknown    = errors.New("no such component is installed")
	errExists     = errors.New("is installed or configured already")
	errRolledBack = errors.New("the version before is back: the new one did not become healthy")
	errNodes      = errors.New("several nodes: run the component yourself, and give it an entry in the configuration")
	errRoom       = errors.New("too many components are installed")
	errNoDoor     = errors.New("there is no address where it could connect to this process: set servers.streamer.components.component.address")
)

// kept is what is written down of an installed component.
type kept struct {
	Version string `json:"version"`
	Secret  string `json:"secret"`
}

const keptFile = "installed.json"

// supervisor has the components of this node.
type supervisor struct {
	env     plugins.Env
	cfg     Config
	doors   doors
	asker   *asker
	control plugins.Control

	ctx    context.Context //nolint:containedctx // of the component's life
	cancel context.CancelFunc
	tasks  sync.WaitGroup
	change sync.Mutex // one is installed or removed at a time

	mu  sync.Mutex
	all map[string]*runner
}

var (
	_ admin.Component  = (*supervisor)(nil)
	_ admin.Controller = (*supervisor)(nil)
)

func newSupervisor(env plugins.Env, c plugins.Config) (plugins.Component, error) {
	s := &supervisor{env: env, cfg: *defaults(), all: map[string]*runner{}}
	if err := c.Decode(&s.cfg); err != nil {
		return nil, err
	}
	d, err := plugins.Need[*component.Directory](env, "component")
	if err != nil {
		return nil, err
	}
	s.doors = d
	s.asker, err = plugins.Need[*asker](env, Name)
	return s, err
}

// Control implements admin.Controller.
func (s *supervisor) Control(c plugins.Control) { s.control = c }

// Start implements plugins.Component: what is installed begins.
func (s *supervisor) Start(context.Context) error {
	s.ctx, s.cancel = context.WithCancel(context.Background())
	names, err := os.ReadDir(s.root())
	if err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("installed components: %w", err)
	}
	for _, d := range names {
		if err := s.resume(d.Name()); err != nil && !errors.Is(err, os.ErrNotExist) {
			s.env.Log.Error("component not started", "component", d.Name(), "err", err)
		}
	}
	return nil
}

// Stop implements plugins.Component: processes end with the server.
func (s *supervisor) Stop(context.Context) error {
	s.cancel()
	s.tasks.Wait()
	return nil
}

func (s *supervisor) root() string           { return filepath.Join(s.env.DataDir, "components") }
func (s *supervisor) dir(name string) string { return filepath.Join(s.root(), name) }

// after is closed when d has gone by.
func (s *supervisor) after(d time.Duration) <-chan struct{} {
	c := make(chan struct{})
	s.env.Clock.AfterFunc(d, func() { close(c) })
	return c
}

// resume begins with what is installed.
func (s *supervisor) resume(name string) error {
	raw, err := os.ReadFile(filepath.Join(s.dir(name), keptFile))
	if err != nil {
		return fmt.Errorf("installed component: %w", err)
	}
	var k kept
	if err := json.Unmarshal(raw, &k); err != nil || !versions.MatchString(k.Version) {
		return fmt.Errorf("installed component: %s is damaged: %w", keptFile, errors.Join(err, errManifest))
	}
	m, err := readManifest(filepath.Join(s.dir(name), k.Version))
	if err != nil {
		return err
	}
	s.begin(m, k)
	return nil
}

func (s *supervisor) begin(m *Manifest, k kept) {
	ctx, stop := context.WithCancel(s.ctx)
	r := &runner{
		s: s, m: m, kept: k, stop: stop, orders: make(chan order), done: make(chan struct{}),
		log:    &logfile{path: filepath.Join(s.dir(m.Name), "log"), max: int64(s.cfg.LogSize)},
		status: Status{Name: m.Name, Domain: m.Domain, Version: m.Version, Node: s.env.Node, State: Waiting, Since: s.env.Clock.Now(), Limit: s.cfg.Restarts},
	}
	s.mu.Lock()
	s.all[m.Name] = r
	s.mu.Unlock()
	s.tasks.Go(func() { r.run(ctx) })
}

// keep writes down what counts after a restart.
func (s *supervisor) keep(name string, k kept) error {
	raw, err := json.Marshal(k)
	if err != nil {
		return fmt.Errorf("installed component: %w", err)
	}
	path := filepath.Join(s.dir(name), keptFile)
	if err := os.WriteFile(path+".new", raw, 0o600); err != nil {
		return fmt.Errorf("installed component: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("installed component: %w", err)
	}
	return nil
}

// section is where components have their entries.
const section = "component"

func entryKey(domain string) string { return fmt.Sprintf("components.%q", domain) }

// entry is a component's entry in the configuration, as YAML (JSON is).
type entry struct {
	SecretFile string `json:"secret_file"` // a secret is not set at run time
	Name       string `json:"name,omitempty"`
	component.Grants
}

// grant sets a component's entry on every node.
func (s *supervisor) grant(ctx context.Context, m *Manifest, secret string) error {
	file := filepath.Join(s.dir(m.Name), "secret")
	if err := os.WriteFile(file, []byte(secret), 0o600); err != nil {
		return fmt.Errorf("secret of %s: %w", m.Domain, err)
	}
	text, err := json.Marshal(entry{file, m.Title, m.Grants})
	if err != nil {
		return fmt.Errorf("entry of %s: %w", m.Domain, err)
	}
	_, err = s.control.Reconfigure(ctx, Name, stream.Name, section, map[string]string{entryKey(m.Domain): string(text)})
	return err
}

func (s *supervisor) find(name string) (*runner, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.all[name]
	if !ok {
		return nil, fmt.Errorf("%s: %w", name, errUnknown)
	}
	return r, nil
}

// list is all of this node, by name.
func (s *supervisor) list() []Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Status, 0, len(s.all))
	for _, r := range s.all {
		out = append(out, r.now())
	}
	slices.SortFunc(out, func(a, b Status) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// copyIn copies the folder of a manifest to where its version lives.
func (s *supervisor) copyIn(from string) (*Manifest, error) {
	m, err := readManifest(from)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(s.dir(m.Name), 0o700); err != nil {
		return nil, fmt.Errorf("%w: %w", errFiles, err)
	}
	return m, copyTree(from, filepath.Join(s.dir(m.Name), m.Version), s.cfg.Files, int64(s.cfg.Size))
}

// install makes a component of a folder, and starts it.
func (s *supervisor) install(ctx context.Context, from string) (Status, error) {
	s.change.Lock()
	defer s.change.Unlock()
	m, err := readManifest(from)
	if err != nil {
		return Status{}, err
	}
	_, err = s.find(m.Name)
	switch {
	case s.env.Notices != nil: // the others could not read its secret
		return Status{}, errNodes
	case s.doors.Door() == "":
		return Status{}, errNoDoor
	case err == nil:
		return Status{}, fmt.Errorf("%s %w", m.Name, errExists)
	case s.doors.Known(m.Domain) || s.env.Local(m.Domain):
		return Status{}, fmt.Errorf("%s %w", m.Domain, errExists)
	case len(s.list()) >= s.cfg.Components:
		return Status{}, errRoom
	}
	if m, err = s.copyIn(from); err != nil {
		return Status{}, err
	}
	k := kept{Version: m.Version, Secret: rand.Text() + rand.Text()}
	// The entry comes last and goes first: one whose secret has no file keeps the
	// server from starting.
	if err = s.keep(m.Name, k); err == nil {
		err = s.grant(ctx, m, k.Secret)
	}
	if err != nil {
		return Status{}, errors.Join(err, os.RemoveAll(s.dir(m.Name)))
	}
	s.begin(m, k)
	r, err := s.find(m.Name)
	if err != nil {
		return Status{}, err
	}
	return r.now(), nil
}

// upgrade goes on with the version that is in a folder.
func (s *supervisor) upgrade(ctx context.Context, from string) (Status, error) {
	s.change.Lock()
	defer s.change.Unlock()
	m, err := readManifest(from)
	if err != nil {
		return Status{}, err
	}
	r, err := s.find(m.Name)
	if err != nil {
		return Status{}, err
	}
	old := r.now()
	switch {
	case old.Domain != m.Domain:
		return Status{}, fmt.Errorf("%w: domain: %s serves %s; install another component for %s", errManifest, m.Name, old.Domain, m.Domain)
	case old.Version == m.Version:
		return Status{}, fmt.Errorf("version %s %w", m.Version, errExists)
	}
	to := filepath.Join(s.dir(m.Name), m.Version)
	if err = os.RemoveAll(to); err != nil {
		return Status{}, fmt.Errorf("%w: %w", errFiles, err)
	}
	if m, err = s.copyIn(from); err != nil {
		return Status{}, err
	}
	gone := filepath.Join(s.dir(m.Name), old.Version)
	if err = r.order(ctx, func(ctx context.Context) error { return r.upgrade(ctx, m) }); err != nil {
		gone = to
	}
	return r.now(), errors.Join(err, os.RemoveAll(gone))
}

// order lets the runner do something, and waits for it.
func (r *runner) order(ctx context.Context, do func(context.Context) error) error {
	o := order{do, make(chan error, 1)}
	select {
	case r.orders <- o:
	case <-r.done:
		return errUnknown
	case <-ctx.Done():
		return ctx.Err()
	}
	select { // what has begun is done to its end
	case err := <-o.reply:
		return err
	case <-r.done:
		return errUnknown
	}
}

// remove ends a component and forgets it: its files, its log, its entry.
func (s *supervisor) remove(ctx context.Context, name string) error {
	s.change.Lock()
	defer s.change.Unlock()
	r, err := s.find(name)
	if err != nil {
		return err
	}
	r.stop()
	<-r.done
	domain := r.now().Domain
	s.mu.Lock()
	delete(s.all, name)
	s.mu.Unlock()
	if _, err = s.control.Unset(ctx, Name, fmt.Sprintf("servers.%s.components.%s.%s", stream.Name, section, entryKey(domain))); err != nil {
		return fmt.Errorf("%s has ended; its entry and its files stay: %w", name, err)
	}
	if err = os.RemoveAll(s.dir(name)); err != nil {
		return fmt.Errorf("%w: %w", errFiles, err)
	}
	return nil
}
