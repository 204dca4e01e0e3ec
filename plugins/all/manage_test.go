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
	m.followed(m.control(2).StopPlugin(ctx, "romeo", "vcard"))
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
	m.expect("vcard", frame.Installed, nodes...)
	m.expect("version", frame.Installed, nodes...)

	m.followed(m.control(2).Start(ctx, "juliet", "processor", "ping"))
	m.followed(m.control(1).Unset(ctx, "juliet", ""))
	m.expect("ping", frame.Running, nodes...)
	m.expect("vcard", frame.Running, nodes...)
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

// A node that cannot follow is named, keeps what it has, and keeps nobody from
// following; it follows by itself when it can.
func TestNodeThatCannotFollowIsNamed(t *testing.T) {
	ctx, m := manage(t, 3)
	m.refuse("node2", "bad")
	a, err := m.set(ctx, 0, "word", "bad")
	if err != nil || len(a.Behind) != 1 || a.Behind[0].Node != "node2" || !strings.Contains(a.Behind[0].Why, "not that word") {
		t.Fatalf("%+v, %v", a, err)
	}
	if one, two, three := m.at("node1"), m.at("node2"), m.at("node3"); one != "bad" || two != "first" || three != "bad" {
		t.Errorf("the nodes say %s, %s, %s", one, two, three)
	}
	if s := m.status(1, "obstinate"); s.Phase != frame.Running || !strings.Contains(s.Error, "not that word") {
		t.Errorf("it shows %+v", s)
	}
	told, err := m.control(2).ConfigNodes(ctx)
	if err != nil || len(told) != 3 || !strings.Contains(told[1].Error, "not that word") || told[0].Error+told[2].Error != "" {
		t.Errorf("a third node hears %+v (%v)", told, err)
	}
	if got := gauge(t, m.DoorOf(1, "http"), "parley_config_behind"); got != "1" {
		t.Errorf("it counts %s components", got)
	}

	m.refuse("node2", "") // whatever was missing there is mended
	eventually(ctx, t, "it follows", func() bool { return m.at("node2") == "bad" && m.status(1, "obstinate").Error == "" })

	m.refuse("node2", "worse")
	if a, err := m.set(ctx, 1, "word", "worse"); err == nil || a.Version != 0 {
		t.Errorf("what does not work where it is made was taken: %+v", a)
	}
	if one, two := m.at("node1"), m.at("node2"); one != "bad" || two != "bad" {
		t.Errorf("the nodes say %s, %s after that was refused", one, two)
	}
	if s := m.status(1, "obstinate"); s.Phase != frame.Running || s.Error != "" {
		t.Errorf("it shows %+v", s)
	}
}

// A node whose file does not go with what was set is named; it stays with what
// it has, and cannot change anything, until that is mended.
func TestNodeThatRefusesIsNamed(t *testing.T) {
	ctx, m := manage(t, 2, func(o *plugintest.Options) {
		o.Node = func(i int) string {
			if i == 0 {
				return ""
			}
			return "servers: {processor: {components: {obstinate: {max: 6}}}}"
		}
	})
	a, err := m.set(ctx, 0, "word", "very long")
	if err != nil || len(a.Behind) != 1 || a.Behind[0].Node != "node2" || !strings.Contains(a.Behind[0].Why, "too long") {
		t.Fatalf("%+v, %v", a, err)
	}
	if one, two := m.at("node1"), m.at("node2"); one != "very long" || two != "first" {
		t.Errorf("the nodes say %s, %s", one, two)
	}
	if _, err := m.control(1).Stop(ctx, "juliet", "processor", "ping"); err == nil || !strings.Contains(err.Error(), "too long") {
		t.Errorf("it made a version on one that it cannot take: %v", err)
	}
	m.followed(m.set(ctx, 0, "word", "short"))
	if two := m.at("node2"); two != "short" {
		t.Errorf("it says %s", two)
	}
	m.followed(m.control(1).Stop(ctx, "juliet", "processor", "ping"))
}

// A node that does not answer is named, and follows when it is back.
func TestNodeThatDoesNotAnswerIsNamed(t *testing.T) {
	ctx, m := manage(t, 2)
	hold := make(chan struct{})
	m.mu.Lock()
	m.hold["node2"] = hold
	m.mu.Unlock()
	a, err := m.set(ctx, 0, "word", "second")
	close(hold)
	if err != nil || len(a.Behind) != 1 || a.Behind[0].Node != "node2" || !strings.Contains(a.Behind[0].Why, "has not answered") {
		t.Errorf("%+v, %v", a, err)
	}
	eventually(ctx, t, "it follows", func() bool { return m.at("node2") == "second" })
}

// A key that each node has for itself is set on that node alone, and is so after
// its restart.
func TestOwnKeys(t *testing.T) {
	ctx, m := manage(t, 2)
	m.followed(m.set(ctx, 0, "place", "@verona"))
	m.followed(m.set(ctx, 1, "place", "@mantua"))
	m.followed(m.set(ctx, 1, "word", "second"))
	check := func() {
		t.Helper()
		if one, two := m.at("node1"), m.at("node2"); one != "second@verona" || two != "second@mantua" {
			t.Errorf("the nodes say %s and %s", one, two)
		}
	}
	check()
	log, err := m.control(0).ConfigLog(ctx, 10)
	if err != nil || len(log) != 3 || log[0].Own || !log[1].Own || log[1].Node != "node2" || !log[2].Own {
		t.Errorf("the log says %+v (%v)", log, err)
	}
	if err := m.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	check()
	m.followed(m.control(0).Unset(ctx, "juliet", obstinatePath+".place"))
	if one, two := m.at("node1"), m.at("node2"); one != "second" || two != "second@mantua" {
		t.Errorf("after one is taken back the nodes say %s and %s", one, two)
	}
}

// One node alone, on SQLite: what was said of a component stays so after a
// restart, until it is taken back.
func TestStoppedStaysStopped(t *testing.T) {
	ctx, m := manage(t, 1)
	if _, err := m.control(0).Stop(ctx, "juliet", "processor", "ping"); err != nil {
		t.Fatal(err)
	}
	if _, err := m.control(0).Uninstall(ctx, "juliet", "processor", "version"); err != nil {
		t.Fatal(err)
	}
	if _, err := m.set(ctx, 0, "place", "@verona"); err != nil {
		t.Fatal(err)
	}
	if err := m.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	m.expect("ping", frame.Installed, 0)
	m.expect("version", frame.Absent, 0)
	if got := m.at("test"); got != "first@verona" {
		t.Errorf("it says %s", got)
	}
	nodes, err := m.control(0).ConfigNodes(ctx)
	if err != nil || len(nodes) != 1 || nodes[0].Version != 3 || nodes[0].Node != "test" {
		t.Errorf("%+v (%v)", nodes, err)
	}
	a, err := m.control(0).Unset(ctx, "juliet", "servers.processor.components.ping")
	if err != nil || !slices.Equal(a.Keys, []string{"servers.processor.components.ping"}) {
		t.Errorf("%+v (%v)", a, err)
	}
	if _, err := m.control(0).Reconfigure(ctx, "juliet", "processor", "version", map[string]string{"enabled": "true"}); err != nil {
		t.Fatal(err) // says last whether it is at work
	}
	m.expect("ping", frame.Running, 0)
	m.expect("version", frame.Running, 0)
}
