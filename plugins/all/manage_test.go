package all_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	frame "parley/plugins"
	"parley/plugins/all"
	"parley/plugins/plugintest"
	"parley/processor"
	"parley/storage"
	"parley/storage/storagetest"
)

// obstinate is a plugin whose component refuses a word on one node.
type obstinate struct {
	mu   sync.Mutex
	word map[string]string        // by node: what is at work there
	bad  map[string]string        // by node: the word that is refused there
	hold map[string]chan struct{} // by node: a start waits until it is closed
}

type obstinateConfig struct {
	Word  string `yaml:"word" doc:"A word of the test's."`
	Place string `yaml:"place" overlay:"node" doc:"Where this node is."`
	Max   int    `yaml:"max" doc:"The longest word; 0: any."`
}

// Validate implements config.Validator.
func (c *obstinateConfig) Validate() error {
	if c.Max > 0 && len(c.Word) > c.Max {
		return errors.New("the word is too long")
	}
	return nil
}

type obstinateComponent struct {
	*obstinate
	node string
	cfg  obstinateConfig
}

func (c *obstinateComponent) Start(context.Context) error {
	c.mu.Lock()
	hold := c.hold[c.node]
	c.mu.Unlock()
	if hold != nil {
		<-hold
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cfg.Word == c.bad[c.node] {
		return errors.New("not that word")
	}
	c.word[c.node] = c.cfg.Word + c.cfg.Place
	return nil
}

func (c *obstinateComponent) Stop(context.Context) error { return nil }

func (c *obstinateComponent) Register(*processor.Registrar) {}

func (o *obstinate) plugin() frame.Plugin {
	return frame.Plugin{Name: "obstinate", Doc: "A component that refuses a word.", Components: []frame.Maker{{
		Server: "processor", Defaults: &obstinateConfig{Word: "first"},
		New: func(env frame.Env, c frame.Config) (frame.Component, error) {
			out := &obstinateComponent{obstinate: o, node: env.Node}
			return out, c.Decode(&out.cfg)
		},
	}}}
}

func (o *obstinate) at(node string) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.word[node]
}

func (o *obstinate) refuse(node, word string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.bad[node] = word
}

// managed is a house of several nodes with an obstinate plugin.
type managed struct {
	*plugintest.House
	*obstinate
	t *testing.T
}

func manage(t *testing.T, nodes int, change ...func(*plugintest.Options)) (context.Context, *managed) {
	t.Helper()
	o := &obstinate{word: map[string]string{}, bad: map[string]string{}, hold: map[string]chan struct{}{}}
	opt := plugintest.Options{Plugins: append(all.Plugins(), o.plugin()), Nodes: nodes}
	if nodes > 1 {
		c := storagetest.Postgres(t)
		opt.Storage = func() storage.Config { return c }
	}
	for _, f := range change {
		f(&opt)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx, &managed{plugintest.Start(t, opt), o, t}
}

func (m *managed) control(i int) frame.Control { return m.HostOf(i).Control() }

// followed fails when a change was not made, or does not count everywhere.
func (m *managed) followed(a frame.Applied, err error) frame.Applied {
	m.t.Helper()
	if err != nil || len(a.Behind) > 0 {
		m.t.Fatalf("%+v, %v", a, err)
	}
	return a
}

func (m *managed) set(ctx context.Context, i int, key, value string) (frame.Applied, error) {
	return m.control(i).Reconfigure(ctx, "juliet", "processor", "obstinate", map[string]string{key: value})
}

func (m *managed) status(i int, name string) frame.Status {
	m.t.Helper()
	all := m.control(i).Components()
	at := slices.IndexFunc(all, func(s frame.Status) bool { return s.Server == "processor" && s.Name == name })
	return all[at]
}

// expect fails when a component is not in a phase on all the nodes.
func (m *managed) expect(name string, phase frame.Phase, nodes ...int) {
	m.t.Helper()
	for _, i := range nodes {
		if s := m.status(i, name); s.Phase != phase {
			m.t.Errorf("node %d: %s is %s, not %s", i+1, name, s.Phase, phase)
		}
	}
}

func (m *managed) entry(i int, path string) (frame.ConfigEntry, bool) {
	all := m.control(i).Config()
	at := slices.IndexFunc(all, func(e frame.ConfigEntry) bool { return e.Path == path })
	if at < 0 {
		return frame.ConfigEntry{}, false
	}
	return all[at], true
}

// eventually waits for what a node does by itself.
func eventually(ctx context.Context, t *testing.T, what string, holds func() bool) {
	t.Helper()
	for !holds() {
		select {
		case <-ctx.Done():
			t.Fatal("it does not come to this: " + what)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// deaf is a clock by which nodes do not look for changes: they have to be told.
type deaf struct{ frame.SystemClock }

func (c deaf) AfterFunc(d time.Duration, f func()) func() bool {
	if d == frame.LookEvery {
		return func() bool { return true }
	}
	return c.SystemClock.AfterFunc(d, f)
}

const obstinatePath = "servers.processor.components.obstinate"

// What is changed on one node is so on all of them when the change is answered.
func TestNodesFollow(t *testing.T) {
	ctx, m := manage(t, 3, func(o *plugintest.Options) { o.Clock = deaf{} })
	nodes := []int{0, 1, 2}
	first := m.followed(m.set(ctx, 0, "word", "second"))
	if !slices.Equal(first.Keys, []string{obstinatePath + ".word"}) {
		t.Errorf("it has changed %v", first.Keys)
	}
	m.followed(m.control(1).Stop(ctx, "romeo", "processor", "ping"))
	m.followed(m.control(2).Uninstall(ctx, "romeo", "processor", "version"))
	m.followed(m.control(2).StopPlugin(ctx, "romeo", "lastactivity"))
	last := m.followed(m.control(0).Install(ctx, "romeo", "processor", "version"))
	for _, i := range nodes {
		if got := m.at(fmt.Sprintf("node%d", i+1)); got != "second" {
			t.Errorf("node %d says %q", i+1, got)
		}
		if e, _ := m.entry(i, obstinatePath+".word"); e.Value != "second" || !strings.Contains(e.Source, "juliet") {
			t.Errorf("node %d shows %+v", i+1, e)
		}
		if e, ok := m.entry(i, "servers.processor.components.ping"); !ok || e.Value != "installed" || !strings.Contains(e.Source, "romeo") {
			t.Errorf("node %d shows %+v of what was stopped", i+1, e)
		}
		if v := m.control(i).ConfigVersion(); v != last.Version {
			t.Errorf("node %d is at version %d of %d", i+1, v, last.Version)
		}
		if got := gauge(t, m.DoorOf(i, "http"), "parley_config_version"); got != fmt.Sprint(last.Version) {
			t.Errorf("node %d counts version %s", i+1, got)
		}
		told, err := m.control(i).ConfigNodes(ctx)
		if err != nil || len(told) != 3 {
			t.Fatal(told, err)
		}
		for _, n := range told {
			if !n.Live || n.Version != last.Version || n.Error != "" {
				t.Errorf("node %d says of another: %+v", i+1, n)
			}
		}
	}
	m.expect("ping", frame.Installed, nodes...)
	m.expect("lastactivity", frame.Installed, nodes...)
	m.expect("version", frame.Installed, nodes...)

	m.followed(m.control(2).Start(ctx, "juliet", "processor", "ping"))
	m.followed(m.control(1).Unset(ctx, "juliet", ""))
	m.expect("ping", frame.Running, nodes...)
	m.expect("lastactivity", frame.Running, nodes...)
	m.expect("version", frame.Running, nodes...)
	for _, i := range nodes {
		if got := m.at(fmt.Sprintf("node%d", i+1)); got != "first" {
			t.Errorf("node %d says %q after all was taken back", i+1, got)
		}
	}
	log, err := m.control(2).ConfigLog(ctx, 100)
	if err != nil || len(log) == 0 {
		t.Fatal(log, err)
	}
	if e := log[len(log)-1]; e.By != "juliet" || e.Node != "node1" || e.Path != obstinatePath+".word" || e.Old != "first" || e.New != "second" || e.Version != 1 {
		t.Errorf("the log begins with %+v", e)
	}
	if e := log[len(log)-2]; e.By != "romeo" || e.Node != "node2" || e.Path != "servers.processor.components.ping" || e.Old != "running" || e.New != "installed" {
		t.Errorf("the log goes on with %+v", e)
	}
}

func gauge(t *testing.T, door, name string) string {
	t.Helper()
	res, err := http.Get("http://" + door + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	for l := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(l, name+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// A node that was down applies at its start what it has missed.
func TestNodeThatWasDownFollows(t *testing.T) {
	ctx, m := manage(t, 2)
	if err := m.EndNode(ctx, 1); err != nil {
		t.Fatal(err)
	}
	m.followed(m.set(ctx, 0, "word", "second"))
	m.followed(m.control(0).Stop(ctx, "juliet", "processor", "ping"))
	m.followed(m.control(0).Uninstall(ctx, "juliet", "processor", "version"))
	told, err := m.control(0).ConfigNodes(ctx)
	if err != nil || len(told) != 2 || told[1].Live || told[1].Version != 0 {
		t.Errorf("of the node that is down it is said %+v (%v)", told, err)
	}
	if err := m.BeginNode(ctx, 1); err != nil {
		t.Fatal(err)
	}
	if got := m.at("node2"); got != "second" {
		t.Errorf("it says %q", got)
	}
	m.expect("ping", frame.Installed, 0, 1)
	m.expect("version", frame.Absent, 0, 1)
	eventually(ctx, t, "both are known to be at one version", func() bool {
		told, err := m.control(0).ConfigNodes(ctx)
		return err == nil && len(told) == 2 && told[1].Live && told[1].Version == 3
	})
	m.followed(m.control(1).Start(ctx, "juliet", "processor", "ping"))
	m.expect("ping", frame.Running, 0, 1)
}

// A node that was not told looks by itself.
func TestNodeThatWasNotToldFollows(t *testing.T) {
	ctx, m := manage(t, 2)
	err := m.DB().Tx(ctx, func(tx storage.Tx) error {
		if _, err := tx.Exec(ctx, `INSERT INTO config_version (id, version) VALUES (1, 1)`); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `INSERT INTO config_setting (path, node, value, version, set_by, set_at) VALUES ($1, '', 'second', 1, 'juliet', 1)`, obstinatePath+".word")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, node := range []string{"node1", "node2"} {
		eventually(ctx, t, node+" follows", func() bool { return m.at(node) == "second" })
	}
}

// Changes that several nodes make at once are all in, in one order everywhere.
func TestChangesAtOnce(t *testing.T) {
	const each = 8
	ctx, m := manage(t, 3)
	changes := []func(n int) (frame.Applied, error){
		func(n int) (frame.Applied, error) { return m.set(ctx, 0, "word", fmt.Sprintf("a%d", n)) },
		func(n int) (frame.Applied, error) { return m.set(ctx, 1, "word", fmt.Sprintf("b%d", n)) },
		func(n int) (frame.Applied, error) {
			if n%2 == 0 {
				return m.control(2).Stop(ctx, "romeo", "processor", "ping")
			}
			return m.control(2).Start(ctx, "romeo", "processor", "ping")
		},
	}
	var all sync.WaitGroup
	for _, change := range changes {
		all.Go(func() {
			for n := range each {
				if _, err := change(n); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	var logs []string
	for i := range 3 {
		eventually(ctx, t, "all nodes are at the last version", func() bool { return m.control(i).ConfigVersion() == 3*each })
		log, err := m.control(i).ConfigLog(ctx, 100)
		if err != nil || len(log) != 3*each {
			t.Fatalf("%d changes are in the log (%v)", len(log), err)
		}
		logs = append(logs, fmt.Sprint(log))
		for at, e := range log {
			if e.Version != int64(3*each-at) {
				t.Errorf("version %d is in place %d", e.Version, at)
			}
		}
		word := log[slices.IndexFunc(log, func(e frame.ConfigEvent) bool { return e.Path == obstinatePath+".word" })].New
		eventually(ctx, t, "the last word is at work", func() bool { return m.at(fmt.Sprintf("node%d", i+1)) == word })
	}
	if logs[0] != logs[1] || logs[1] != logs[2] {
		t.Errorf("the nodes saw different orders:\n%s", strings.Join(logs, "\n"))
	}
	m.expect("ping", frame.Running, 0, 1, 2)
}
