package plugins

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"parley/plugins/config"
	"parley/router/channel"
	"parley/router/channel/nats/embedded"
	"parley/router/cluster"
	"parley/router/cluster/owner"
	"parley/router/sessions"
	"parley/storage"
	"parley/storage/atrest"
	"parley/storage/blob"
)

// Options make a Host.
type Options struct {
	Plugins []Plugin
	Tree    *config.Tree                 // the configuration, without the overlay
	Reload  func() (*config.Tree, error) // reads the configuration again, without the overlay
	DB      storage.DB
	Log     *slog.Logger
	Level   *slog.LevelVar // follows log.level on reload; may be nil
	Clock   Clock
	Metrics prometheus.Registerer
	Version string
	Node    string
	// Wrap, when set, stands between each sender and the channel it sends
	// into; tests put a network there.
	Wrap func(channel.MessageChannel) channel.MessageChannel
}

// Host is one per process: it runs Servers and owns what joins them.
type Host struct {
	opt      Options
	settings Settings
	sessions *sessions.Registry
	domains  *Domains
	links    map[string]*link
	servers  []*running // in the order of their start
	repo     *Repository
	fatal    chan error
	halts    chan bool // what administrators want of the process: again?
	overlay  overlayStore
	keys     *atrest.Rotation
	files    blob.Store
	node     *cluster.Node // nil: alone
	drainage drainage
	since    time.Time
	owners   *owner.Service
	mesh     *embedded.Server // what carries its envelopes, when that is in this process
	watch    sync.WaitGroup
	left     chan struct{} // closed when the node leaves the cluster
	leaving  sync.Once

	follow follower

	mu   sync.Mutex // guards tree and said
	tree *config.Tree
	said map[slotKey]said
	from *config.Tree // what the Host was made with: keys that need a restart still count as here
}

// link is the channel that leads to one Server.
type link struct {
	channel.MessageChannel
	channel.DataReceiver
	close func()
}

// running is one Server and its Serve.
type running struct {
	name       string
	plugin     string
	server     Server
	deployment Deployment

	mu   sync.Mutex
	stop context.CancelFunc
	done chan struct{} // closed when Serve has returned; nil: not running
	err  error
}

// New migrates the database and makes every Server and component that the
// configuration asks for. Nothing runs yet.
func New(ctx context.Context, o Options) (*Host, error) {
	h := &Host{opt: o, sessions: sessions.NewRegistry(), links: map[string]*link{}, fatal: make(chan error, 8), halts: make(chan bool, 1), left: make(chan struct{}), overlay: overlayStore{db: o.DB}, since: o.Clock.Now()}
	sorted, err := byRequirement(o.Plugins)
	if err != nil {
		return nil, err
	}
	if err := o.DB.Migrate(ctx, "host", overlayMigrations); err != nil {
		return nil, err
	}
	if err := o.Tree.Decode("", &h.settings); err != nil { // nothing of it can be set at run time that is needed here
		return nil, err
	}
	if h.clustered() {
		h.overlay.node = o.Node
	}
	ov, err := h.overlay.load(ctx)
	if err != nil {
		return nil, err
	}
	if h.tree, err = o.Tree.WithOverlay(ov.overlay); err != nil {
		return nil, fmt.Errorf("configuration set at run time: %w", err)
	}
	h.from, h.said = h.tree, ov.said
	for _, f := range h.tree.Ignored() {
		o.Log.Warn("setting made at run time is no longer known", "setting", f.Error())
	}
	if err := h.placed(h.tree); err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	if err := h.tree.Decode("", &h.settings); err != nil {
		return nil, err
	}
	h.domains = NewDomains(h.settings.prepared()...)
	ring, unread := h.settings.Storage.Encryption.ring()
	if h.keys, err = atrest.NewRotation(atrest.Options{DB: o.DB, Tables: sealed(sorted), Clock: o.Clock, Log: o.Log.With("component", "encryption"), Metrics: o.Metrics}); err != nil {
		return nil, err
	}
	if unread != nil {
		return nil, h.withoutKeys(ctx, unread)
	}
	if h.files, err = h.settings.openFiles(); err != nil {
		return nil, err
	}
	if err := h.enter(ctx, sorted); err != nil {
		return nil, err
	}
	if err := h.own(); err != nil {
		return nil, errors.Join(err, h.leave(ctx))
	}
	if err := h.makeServers(sorted); err != nil {
		return nil, errors.Join(err, h.leave(ctx))
	}
	h.repo = newRepository(h, sorted)
	h.hear()
	if err := errors.Join(h.count(), h.repo.prepare(ctx)); err != nil {
		return h, errors.Join(err, h.leave(ctx))
	}
	if err := h.keys.Adopt(ctx, ring, h.settings.Storage.Encryption.Enabled); err != nil {
		return h, errors.Join(err, h.leave(ctx))
	}
	return h, nil
}

// withoutKeys adds to what is wrong with the keys file which rows need it.
func (h *Host) withoutKeys(ctx context.Context, unread error) error {
	lacking := h.keys.Lacking(ctx, &atrest.Ring{})
	if lacking == nil && errors.Is(unread, fs.ErrNotExist) {
		return fmt.Errorf("%w: nothing is encrypted yet, `parley keys new` makes it", unread)
	}
	return errors.Join(unread, lacking)
}

// LackingKeys says which keys rows of a database need that are not in a ring,
// and how many rows; nil: none is lacking.
func LackingKeys(ctx context.Context, db storage.DB, all []Plugin, ring *atrest.Ring) error {
	r, err := atrest.NewRotation(atrest.Options{DB: db, Tables: sealed(all), Clock: SystemClock{}, Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry()})
	if err != nil {
		return err
	}
	return r.Lacking(ctx, ring)
}

// sealed are the tables that hold what is encrypted.
func sealed(all []Plugin) (out []atrest.Table) {
	for _, p := range all {
		out = append(out, p.Sealed...)
	}
	return out
}

// makeServers makes the channels and the Servers between them.
func (h *Host) makeServers(all []Plugin) error {
	for _, p := range all {
		if p.Serve == nil || !h.tree.ServerEnabled(p.Serve.Name) {
			continue
		}
		d, err := config.Get[Deployment](h.tree, config.ServerPath(p.Serve.Name)+"."+deploymentKey)
		if err != nil {
			return fmt.Errorf("server %s: %w", p.Serve.Name, err)
		}
		l := newLink(h.workers(p.Serve.Name, d))
		if h.opt.Wrap != nil {
			l.MessageChannel = h.opt.Wrap(l.MessageChannel)
		}
		h.links[p.Serve.Name] = l
		h.servers = append(h.servers, &running{name: p.Serve.Name, plugin: p.Name, deployment: d})
	}
	for _, r := range h.servers {
		p := all[slices.IndexFunc(all, func(p Plugin) bool { return p.Name == r.plugin })]
		env := h.env(r.name, nil)
		srv, err := p.Serve.New(env, h.tree.Section(config.ServerPath(r.name)), Links{
			In:      h.links[r.name],
			Out:     h.out,
			Control: control{h},
		})
		if err != nil {
			return fmt.Errorf("server %s: %w", r.name, err)
		}
		r.server = srv
	}
	return nil
}

func newLink(workers int) *link {
	if workers > 0 {
		q := channel.NewQueue(workers)
		return &link{q, q, q.Close}
	}
	c := channel.NewInline()
	return &link{c, c, c.Close}
}

func (h *Host) out(server string) channel.MessageChannel {
	l, here := h.links[server]
	switch {
	case h.node != nil && server == streamer && !h.node.Front():
		return h.node.Streamers(h.link(streamer))
	case here:
		return l
	case h.node != nil && h.node.Front() && (server == parser || server == processor):
		return h.node.ToCore(server)
	}
	return nowhere{server}
}

// link is the channel to a Server of this process; nil: there is none.
func (h *Host) link(server string) channel.MessageChannel {
	if l, here := h.links[server]; here {
		return l
	}
	return nil
}

// nowhere is the channel to a Server that this node does not run.
type nowhere struct{ server string }

func (n nowhere) Send(context.Context, []*channel.Envelope) error {
	return fmt.Errorf("server %s: %w", n.server, channel.ErrClosed)
}

// env is what a Server or component sees of the house.
func (h *Host) env(name string, contracts map[string]any) Env {
	return Env{
		Node: h.opt.Node, Slot: h.slot(), Notices: h.notices(), Owners: h.owners, Domains: h.domains, DataDir: h.settings.Data, Version: h.opt.Version,
		Log: h.opt.Log.With("component", name), Clock: h.opt.Clock, DB: h.opt.DB, AtRest: &h.keys.Vault, Files: h.files, Metrics: h.opt.Metrics,
		Sessions: h.sessions, Halves: h.halves(), Halt: h.halt, contracts: contracts,
	}
}

// Start runs the Servers, stages that receive before those that send, and the
// components in the order of their plugins' requirements.
func (h *Host) Start(ctx context.Context) error {
	if err := h.repo.startAll(ctx); err != nil {
		return err
	}
	h.keys.Start(ctx)
	if err := h.join(ctx); err != nil {
		return err
	}
	h.keepUp(ctx)
	for _, r := range h.servers {
		r.start(h)
	}
	h.owners.Open()
	return nil
}

// Halts delivers what Env.Halt is called for: whether the process is to begin again.
func (h *Host) Halts() <-chan bool { return h.halts }

// halt is Env.Halt. Once is enough.
func (h *Host) halt(again bool) {
	select {
	case h.halts <- again:
	default:
	}
}

// Fatal delivers the error of a Server that ended by itself.
func (h *Host) Fatal() <-chan error { return h.fatal }

// Stop drains: clients go to other nodes, if there are any; Servers end in the
// opposite order of their start, the streamer first, so that what clients have
// sent is still handled; then components stop.
func (h *Host) Stop(ctx context.Context) error {
	h.letGo()
	h.keys.Stop()
	errs := []error{h.moveOut(ctx)}
	h.leaveFronts(ctx)
	for _, r := range slices.Backward(h.servers) {
		errs = append(errs, r.halt(ctx))
		// Whoever still sends to it must not wait for a stage that never comes
		// back: what lasts is in the database.
		h.links[r.name].close()
	}
	errs = append(errs, h.repo.stopAll(ctx), h.leave(ctx))
	return errors.Join(errs...)
}

// Nodes are the live nodes of the cluster, this one among them; nil: it is
// alone.
func (h *Host) Nodes() []cluster.Member {
	if h.node == nil {
		return nil
	}
	return h.node.Members().Live()
}

// Domains are those that are served now, whatever the file says.
func (h *Host) Domains() []string { return h.domains.List() }

// Control is the Host's administration.
func (h *Host) Control() Control { return control{h} }

// Server returns a Server by name, for the wiring in cmd and for tests.
func (h *Host) Server(name string) (Server, bool) {
	r, ok := h.running(name)
	if !ok {
		return nil, false
	}
	return r.server, true
}

// Contract returns what a plugin shares, for the wiring in cmd and for tests.
func (h *Host) Contract(plugin string) (any, bool) {
	c, ok := h.repo.shared[plugin]
	return c, ok
}

func (h *Host) running(name string) (*running, bool) {
	i := slices.IndexFunc(h.servers, func(r *running) bool { return r.name == name })
	if i < 0 {
		return nil, false
	}
	return h.servers[i], true
}

func (r *running) start(h *Host) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.done != nil {
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	r.stop, r.done, r.err = stop, done, nil
	go func() {
		err := r.server.Serve(ctx)
		r.mu.Lock()
		r.err, r.done, r.stop = err, nil, nil
		r.mu.Unlock()
		close(done)
		if ctx.Err() == nil {
			h.fatal <- fmt.Errorf("%s ended: %w", r.name, errOr(err, errors.New("without being asked to")))
		}
	}()
}

func errOr(err, otherwise error) error {
	if err != nil {
		return err
	}
	return otherwise
}

// halt stops the Server and waits until it has drained.
func (r *running) halt(ctx context.Context) error {
	r.mu.Lock()
	stop, done := r.stop, r.done
	r.mu.Unlock()
	if done == nil {
		return nil
	}
	stop()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s does not end: %w", r.name, ctx.Err())
	}
}

// byRequirement sorts plugins so that each comes after those it requires;
// among equals the given order stays.
func byRequirement(all []Plugin) ([]Plugin, error) {
	byName := map[string]Plugin{}
	for _, p := range all {
		if _, twice := byName[p.Name]; twice {
			return nil, fmt.Errorf("plugin %s is there twice", p.Name)
		}
		byName[p.Name] = p
	}
	var out []Plugin
	state := map[string]int{} // 1: being placed, 2: placed
	var place func(name, by string) error
	place = func(name, by string) error {
		p, ok := byName[name]
		switch {
		case !ok:
			return fmt.Errorf("plugin %s requires %s, which is not there", by, name)
		case state[name] == 1:
			return fmt.Errorf("plugin %s requires itself, by way of %s", name, by)
		case state[name] == 2:
			return nil
		}
		state[name] = 1
		for _, r := range p.Requires {
			if err := place(r, name); err != nil {
				return err
			}
		}
		state[name] = 2
		out = append(out, p)
		return nil
	}
	for _, p := range all {
		if err := place(p.Name, ""); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// SystemClock is the machine's.
type SystemClock struct{}

// Now implements Clock.
func (SystemClock) Now() time.Time { return time.Now() }

// AfterFunc implements Clock.
func (SystemClock) AfterFunc(d time.Duration, f func()) func() bool { return time.AfterFunc(d, f).Stop }

// tracked collects a component's metrics; they are registered while it is at
// work, so that the old and the new one of a reconfiguration do not collide.
type tracked struct {
	to   prometheus.Registerer
	mu   sync.Mutex
	mine []prometheus.Collector
}

var _ prometheus.Registerer = (*tracked)(nil)

// Register implements prometheus.Registerer.
func (t *tracked) Register(c prometheus.Collector) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mine = append(t.mine, c)
	return nil
}

// MustRegister implements prometheus.Registerer.
func (t *tracked) MustRegister(cs ...prometheus.Collector) {
	for _, c := range cs {
		_ = t.Register(c)
	}
}

// Unregister implements prometheus.Registerer.
func (t *tracked) Unregister(c prometheus.Collector) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mine = slices.DeleteFunc(t.mine, func(x prometheus.Collector) bool { return x == c })
	return t.to.Unregister(c)
}

func (t *tracked) show() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var errs []error
	for _, c := range t.mine {
		errs = append(errs, t.to.Register(c))
	}
	return errors.Join(errs...)
}

func (t *tracked) hide() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range t.mine {
		t.to.Unregister(c)
	}
}
