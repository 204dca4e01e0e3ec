package plugintest_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"parley/parser"
	"parley/parser/jid"
	"parley/plugins"
	"parley/plugins/plugintest"
	"parley/processor"
	"parley/router"
	"parley/stream"
	"parley/stream/sasl"
)

// memory is the smallest accounts plugin: keys in memory.
type memory struct {
	mu   sync.Mutex
	keys map[string]map[sasl.Hash]sasl.Keys
}

func (m *memory) Create(_ context.Context, at jid.JID, password string) error {
	keys := map[sasl.Hash]sasl.Keys{}
	for _, h := range []sasl.Hash{sasl.SHA1, sasl.SHA256} {
		k, err := sasl.Derive(password, sasl.NewSalt(), sasl.MinIterations, h)
		if err != nil {
			return err
		}
		keys[h] = k
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.keys[at.Local()] = keys
	return nil
}

func (m *memory) Keys(_ context.Context, user string, h sasl.Hash) (sasl.Keys, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if h == sasl.AnyHash {
		h = sasl.SHA256
	}
	k, ok := m.keys[user][h]
	if !ok {
		return sasl.Keys{}, sasl.ErrUnknownUser
	}
	return k, nil
}

func (m *memory) SASL(domain string) (*sasl.Server, error) {
	return sasl.New(sasl.Config{
		Domain: domain, Credentials: m, Secret: make([]byte, 32), Iterations: sasl.MinIterations, Loopback: true,
		Pool: sasl.NewPool(2, 8), Verified: sasl.NewVerified(16), Clock: time.Now,
		Username: func(s string) (string, error) { j, err := jid.New(s, domain, ""); return j.Local(), err },
		Authzid: func(s string) (string, string, error) {
			j, err := jid.Parse(s)
			return j.Local(), j.Domain(), err
		},
	})
}
func (m *memory) Throttle() *sasl.Throttle { return nil }
func (m *memory) Issue(context.Context, jid.JID, string, string) (sasl.Token, error) {
	return sasl.Token{}, sasl.ErrTemporary
}
func (m *memory) Revoke(context.Context, jid.JID, string) error { return nil }
func (m *memory) Start(context.Context) error                   { return nil }
func (m *memory) Stop(context.Context) error                    { return nil }
func (m *memory) Register(r *stream.Registrar)                  { r.Credentials(m) }

func stages() []plugins.Plugin {
	accounts := plugins.Plugin{
		Name: "accounts", Doc: "Accounts in memory.",
		Contract: func(plugins.Env) (any, error) { return &memory{keys: map[string]map[sasl.Hash]sasl.Keys{}}, nil },
		Components: []plugins.Maker{{Server: stream.Name, New: func(env plugins.Env, _ plugins.Config) (plugins.Component, error) {
			return plugins.Need[*memory](env, "accounts")
		}}},
	}
	return []plugins.Plugin{router.Plugin, processor.Plugin, parser.Plugin, stream.Plugin, accounts}
}

// The thin thread: two clients, one message, all four stages; as one goroutine,
// through queues, and with every envelope as bytes between the stages.
func TestThinThread(t *testing.T) {
	workers := "servers: {parser: {deployment: {workers: 2}}, processor: {deployment: {workers: 2}}, router: {deployment: {workers: 2}}, streamer: {deployment: {workers: 2}}}"
	for name, o := range map[string]plugintest.Options{
		"inline": {},
		"queues": {Config: workers},
		"seam":   {Seam: true},
		"both":   {Seam: true, Config: workers},
	} {
		t.Run(name, func(t *testing.T) {
			o.Plugins = stages()
			plugintest.Run(t, o, "testdata/*.txtar")
		})
	}
}
