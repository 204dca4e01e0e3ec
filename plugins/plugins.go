// Package plugins is the frame of the house. It knows nothing of XMPP.
//
// A Host runs Servers; each defines one main flow (a stage of the pipeline).
// Components do the work inside a Server. A Plugin provides at most one Server
// and any number of Components, as a struct literal. The Repository is the
// only one that sees both sides: it installs, starts, reconfigures, stops and
// uninstalls components while the Servers go on.
package plugins

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"parley/parser/jid"
	"parley/router/channel"
	"parley/router/cluster"
	"parley/router/cluster/owner"
	"parley/router/sessions"
	"parley/storage"
	"parley/storage/atrest"
	"parley/storage/blob"
	"parley/storage/cache"
)

// Component does work inside one Server. Start may open what it needs and must
// not wait for other components; Stop returns when its goroutines have ended.
// A component that was stopped is never started again: a new one is made.
type Component interface {
	Start(context.Context) error
	Stop(context.Context) error
}

// Reconfigurer is a component that can take a new configuration in place. An
// error leaves the old one in force.
type Reconfigurer interface {
	Reconfigure(context.Context, Config) error
}

// Server defines one main flow and nothing else.
type Server interface {
	// Serve runs the flow until ctx is done, drains it and returns. It can be
	// called again afterwards.
	Serve(ctx context.Context) error
	// Attach puts a component to work under a name, in one step with taking
	// away the one that had the name before; it returns when nothing runs in
	// that one any more. The error says what the component lacks.
	Attach(name string, c Component) (detach func(context.Context) error, err error)
}

// Config is a component's section of the configuration.
type Config interface {
	// Decode fills into, a pointer to a struct that already holds the
	// defaults. Errors carry file, line and a caret.
	Decode(into any) error
}

// Maker makes one component for one Server.
type Maker struct {
	Server   string // the Server's name
	Name     string // the component's; the plugin's name when empty
	Off      bool   // not started unless the configuration says enabled: true
	Defaults any    // pointer to the configuration struct with its defaults; nil: no keys
	// New decodes and validates; it has no side effects.
	New func(Env, Config) (Component, error)
}

// ServerMaker makes a plugin's Server.
type ServerMaker struct {
	Name     string
	Defaults any
	New      func(Env, Config, Links) (Server, error)
}

// Links are a Server's ways in and out.
type Links struct {
	In      channel.DataReceiver
	Out     func(server string) channel.MessageChannel
	Control Control // for the administration Server only; others leave it alone
}

// Plugin provides at most one Server and any number of Components.
type Plugin struct {
	Name       string
	Doc        string   // one line: what people get from it
	Requires   []string // plugins that must be there, started before, stopped after
	Components []Maker
	Serve      *ServerMaker
	Migrations fs.FS          // sqlite/*.sql and postgres/*.sql
	Sealed     []atrest.Table // what of its tables is encrypted with Env.AtRest
	// Reached is how far the plugin's ids have come in a database, in unix
	// microseconds; nil, and 0: it knows nothing.
	Reached func(context.Context, storage.Querier) (int64, error)
	// Restored makes the plugin's part of an old database one that can go on
	// (reliability row 40): ids go on after reached, which is later than
	// everything that was ever given out, and what was used up or revoked since
	// must not come back to life. The tables are up to date.
	Restored func(ctx context.Context, tx storage.Tx, reached int64) error
	// Contract makes what the plugin's components share and what plugins that
	// require it may use: one value per Host, made after the migrations.
	Contract func(Env) (any, error)
}

// Clock is the house's time. Timers stop when their stop function is called;
// it reports whether that prevented the call.
type Clock interface {
	Now() time.Time
	AfterFunc(d time.Duration, f func()) (stop func() bool)
}

// Env is what a plugin may use of the house; nothing else without a reason.
type Env struct {
	Node      string                // this process's name in Refs
	Slot      int                   // and its number among storage.NodeSlots, for ids; negative: it is alone
	Domains   *Domains              // those that are served here now
	DataDir   string                // where files of this installation live
	Version   string                // of the program, for people and peers
	Log       *slog.Logger          // carries the component's name
	Clock     Clock                 //
	DB        storage.DB            //
	AtRest    *atrest.Vault         // encrypts what people write, when that is configured
	Files     blob.Store            // keeps files where every node finds them; nil: there is no such place (storage.files)
	Metrics   prometheus.Registerer // what is registered here goes with the component
	Sessions  *sessions.Registry    // the node's replica of who is bound where
	Notices   Notices               // reaches the features of other nodes; nil: this one is alone
	Halves    Halves                // reaches the rest of the house, of which this process may have one half; nil: it is alone
	Owners    *owner.Service        // lets one node at a time do what is to be done for a key
	Halt      func(again bool)      // ends the process in order, for an administrator; again: whoever supervises it shall start it once more
	contracts map[string]any
}

// Halves join the two parts of a feature when one is on a front (streamer,
// parser) and the other on its core (processor, router). What concerns a session
// and has its place among its stanzas is a channel.Note; this is for the rest.
type Halves interface {
	// Front reports whether this process has no processor: a core has it.
	Front() bool
	// HasCore reports whether the front has a core.
	HasCore() bool
	// Attached lets f be called, on a goroutine of its own, whenever the front
	// has got another core. It is for Contract and New.
	Attached(f func())
	// CallCore asks what a function given to Answer answers; it waits for a core.
	CallCore(ctx context.Context, name string, payload []byte) ([]byte, error)
	// Answer lets f answer calls of fronts, whose node from is. Several may run
	// at once. It is for Contract.
	Answer(name string, f func(ctx context.Context, from string, payload []byte) ([]byte, error))
}

// Front reports whether this process has no processor: a core has it.
func (e Env) Front() bool { return e.Halves != nil && e.Halves.Front() }

// OnAnswer lets f answer fronts. It is for Contract.
func (e Env) OnAnswer(name string, f func(ctx context.Context, from string, payload []byte) ([]byte, error)) {
	if e.Halves != nil && !e.Halves.Front() {
		e.Halves.Answer(name, f)
	}
}

// Notices let features forget, on every node, what they remember of something
// that has changed on one.
type Notices interface {
	// On lets f be called with every key that another node tells of under the
	// topic. It is for Contract and New.
	On(topic string, f func(key string))
	// Tell returns when every other live node's functions have returned; the
	// error names one that does not answer.
	Tell(ctx context.Context, topic, key string) error
	// Ask is Tell for what takes its time, so that what is told meanwhile does
	// not wait for it, and for one node alone; "": for every other one.
	Ask(ctx context.Context, node, topic, key string) error
	// OnDeath lets f be called for every life of another node that is over and
	// had sessions, before anybody is told that they are. An error lets it be
	// called again. It is for Contract and New.
	OnDeath(f func(ctx context.Context, node string, life uint64) error)
	// Buried returns when a life of the node, or with life 0 the one it has, is
	// over, and whom it concerns has been told of the ends of the account's
	// sessions there.
	Buried(ctx context.Context, node string, life uint64, account jid.JID) error
	// Life is the number of this process, larger than that of every earlier one.
	Life() uint64
	// Owns reports whether what one node has to do for the key is this one's.
	Owns(key string) bool
	// Alive reports whether a node counts as alive.
	Alive(node string) bool
	// LifeOf is the number of a node's process that counts as alive; 0: none does.
	LifeOf(node string) uint64
	// Held reports whether this node counts as alive: when it does not, another
	// one may have begun anything in its place.
	Held() bool
}

// Missed is the topic under which a feature hears that something may not have
// reached the sessions of an account ("": of any), so that it looks again.
const Missed = cluster.TopicMissed

// Held reports whether this node may still handle anything.
func (e Env) Held() bool { return e.Notices == nil || e.Notices.Held() }

// Owns reports whether what one node of a cluster has to do for the key is this
// one's. It is a hint: for a moment two nodes may think so, or none.
func (e Env) Owns(key string) bool { return e.Notices == nil || e.Notices.Owns(key) }

// OnForget lets f be called with every key that another node tells to forget
// under the topic. It is for Contract and New.
func (e Env) OnForget(topic string, f func(key string)) {
	if e.Notices != nil {
		e.Notices.On(topic, f)
	}
}

// Forget returns when every other live node has forgotten what it remembers of
// the key. One that does not answer in time is logged: it may go on with what
// it remembers until it is taken for dead.
func (e Env) Forget(ctx context.Context, topic, key string) {
	if e.Notices == nil {
		return
	}
	if err := e.Notices.Tell(ctx, topic, key); err != nil {
		e.Log.Error("another node may go on with what is no longer so", "topic", topic, "key", key, "err", err)
	}
}

// CachedAccounts are the options, but for its size, of a cache of something that
// each account has: what other nodes change of it, told under the topic, is
// forgotten, and after ttl at the latest.
func CachedAccounts[V any](env Env, topic string, ttl time.Duration) cache.Options[jid.JID, V] {
	if env.Notices == nil {
		ttl = 0 // nobody else changes it
	}
	return cache.Options[jid.JID, V]{
		Topic: topic, Peers: env.Notices, TTL: ttl, Now: env.Clock.Now,
		Parse: func(s string) (jid.JID, bool) {
			j, err := jid.Parse(s)
			return j, err == nil
		},
	}
}

// Local reports whether the domain is one of ours.
func (e Env) Local(domain string) bool { return e.Domains.Has(domain) }

// Need returns the contract of a plugin, which the caller must list in
// Requires (its own needs no listing). It is called inside New only.
func Need[T any](env Env, plugin string) (T, error) {
	c, ok := env.contracts[plugin]
	if !ok {
		var zero T
		return zero, fmt.Errorf("plugin %s is not there: is it in Requires?", plugin)
	}
	t, ok := c.(T)
	if !ok {
		return t, fmt.Errorf("contract of %s is %T", plugin, c)
	}
	return t, nil
}

// Control is what the administration may do to a running Host. What it does to
// components is so on every node of their Server, now and after a restart; by
// is who does it. Servers are those of this node alone: it is one process that
// is relieved of a stage, and its restart brings it back.
type Control interface {
	Components() []Status
	Install(ctx context.Context, by, server, name string) (Applied, error)
	Start(ctx context.Context, by, server, name string) (Applied, error)
	Stop(ctx context.Context, by, server, name string) (Applied, error)
	// Reconfigure sets keys of the component's section (values as YAML text);
	// they become part of the overlay in the database.
	Reconfigure(ctx context.Context, by, server, name string, set map[string]string) (Applied, error)
	// Unset takes back what was set at run time for a key or a component and
	// what is below it ("": everything).
	Unset(ctx context.Context, by, path string) (Applied, error)
	Uninstall(ctx context.Context, by, server, name string) (Applied, error)
	Servers() []ServerStatus
	StartServer(ctx context.Context, name string) error
	StopServer(ctx context.Context, name string) error
	StartPlugin(ctx context.Context, by, name string) (Applied, error)
	StopPlugin(ctx context.Context, by, name string) (Applied, error)
	// Cluster tells of the nodes as this one sees them.
	Cluster() Cluster
	// Drain lets a node send its clients to the others, pace of them a second. It
	// returns when that has begun; Cluster tells how it goes on. Errors wrap
	// ErrNode and ErrAlone.
	Drain(ctx context.Context, node string, pace float64) error
	// Undrain takes it back; who has gone has gone.
	Undrain(ctx context.Context, node string) error
	Config() []ConfigEntry
	// ConfigVersion is the version of what is set at run time that counts here.
	ConfigVersion() int64
	// ConfigLog is what was changed last, the newest first.
	ConfigLog(ctx context.Context, limit int) ([]ConfigEvent, error)
	// ConfigNodes tells which version counts on which node.
	ConfigNodes(ctx context.Context) ([]ConfigNode, error)
	// Reload reads this node's file again.
	Reload(ctx context.Context) ([]ConfigChange, error)
	// AddDomain lets a domain be served on every node, RemoveDomain not any more: its
	// sessions end, its accounts stay in the database. ErrDomain: it cannot be.
	AddDomain(ctx context.Context, by, domain string) (Applied, error)
	RemoveDomain(ctx context.Context, by, domain string) (Applied, error)
	// Keys tells which keys the database is encrypted with.
	Keys(ctx context.Context) (atrest.Status, error)
	// RetireKey returns nil when a key can be taken out of the keys file.
	RetireKey(ctx context.Context, id int64) error
}

// Phase is where a component is in its life.
type Phase string

// The phases.
const (
	Absent    Phase = "absent"    // compiled in, not installed
	Installed Phase = "installed" // made and validated, not at work
	Running   Phase = "running"
	Failed    Phase = "failed"
)

// Status describes one component.
type Status struct {
	Server string    `json:"server"`
	Name   string    `json:"name"`
	Plugin string    `json:"plugin"`
	Doc    string    `json:"doc"`
	Phase  Phase     `json:"phase"`
	Since  time.Time `json:"since"`
	Error  string    `json:"error,omitempty"`
}

// ServerStatus describes one Server.
type ServerStatus struct {
	Name       string `json:"name"`
	Running    bool   `json:"running"`
	Deployment string `json:"deployment"`
	Workers    int    `json:"workers"`
	Error      string `json:"error,omitempty"`
}

// ConfigEntry is one key with its value in force and where that came from.
type ConfigEntry struct {
	Path   string `json:"path"`
	Value  string `json:"value"` // secrets are masked
	Source string `json:"source"`
}

// ConfigChange is what a reload did to one key.
type ConfigChange struct {
	Path    string `json:"path"`
	Old     string `json:"old"`
	New     string `json:"new"`
	Outcome string `json:"outcome"` // applied, overridden, restart
	Detail  string `json:"detail,omitempty"`
}
