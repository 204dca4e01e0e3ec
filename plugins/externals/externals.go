// Package externals runs external components (XEP-0114) as processes of this
// server: installed, supervised, upgraded and removed while it runs.
//
//	install  → files are copied below the data directory, a secret is made, the
//	           component's entry is set at run time on every node, the process starts
//	watch    → it has ended, has no stream, answers no ping: it is started again, later each time
//	upgrade  → the old one ends in order, the new one has to become healthy, or the old one is back
//
// The files and the secret are on this machine: a house of several nodes installs
// none.
//
// Read on: manifest.go, runner.go (the life of one), process.go, routes.go.
package externals

import (
	"context"
	"sync/atomic"
	"time"

	"parley/plugins"
	"parley/plugins/admin"
	"parley/plugins/config"
	"parley/processor"
	"parley/stream/component"
)

// Name is the plugin's name.
const Name = "externals"

// Plugin provides the supervisor, which is driven through the administration, and
// in the processor what pings components.
var Plugin = plugins.Plugin{
	Name:     Name,
	Doc:      "Runs external components as processes of their own.",
	Requires: []string{admin.Name, "component"},
	Components: []plugins.Maker{
		{Server: admin.Name, Defaults: defaults(), New: newSupervisor},
		{Server: processor.Name, Name: "externals-ping", New: newPinger},
	},
	Contract: func(plugins.Env) (any, error) { return &asker{}, nil },
}

// Config is the supervisor's section.
type Config struct {
	Backoff    time.Duration `yaml:"backoff" min:"10ms" doc:"How long a component that has ended is left alone before it is started again; twice as long each time."`
	MaxBackoff time.Duration `yaml:"max_backoff" min:"10ms" doc:"The longest that becomes."`
	Restarts   int           `yaml:"max_restarts" min:"1" max:"1000" doc:"Starts in a row after which a component that does not stay is given up until parley component restart."`
	Stable     time.Duration `yaml:"stable" min:"1s" doc:"How long a component has to be healthy for its starts not to be counted any more."`
	Start      time.Duration `yaml:"start_within" min:"1s" doc:"How long a component may take to connect and answer."`
	Grace      time.Duration `yaml:"grace" min:"100ms" max:"30s" doc:"How long a component may take to end before it is killed."`
	LogSize    config.Size   `yaml:"log_size" min:"4096" doc:"Size of a component's log at which it is begun anew; the one before is kept."`
	Files      int           `yaml:"max_files" min:"1" doc:"Files of one version of a component."`
	Size       config.Size   `yaml:"max_size" min:"4096" doc:"Size of one version of a component."`
	Components int           `yaml:"max_components" min:"1" max:"1000" doc:"Components that can be installed."`
}

func defaults() *Config {
	return &Config{
		Backoff: time.Second, MaxBackoff: 2 * time.Minute, Restarts: 10, Stable: time.Minute,
		Start: 20 * time.Second, Grace: 5 * time.Second, LogSize: 1 << 20, Files: 10_000, Size: 512 << 20, Components: 50,
	}
}

// asker pings components, while there is a processor in this process.
type asker struct {
	reg atomic.Pointer[processor.Registrar]
}

// pinger lends the asker the processor.
type pinger struct{ asker *asker }

var _ processor.Component = pinger{}

func newPinger(env plugins.Env, _ plugins.Config) (plugins.Component, error) {
	a, err := plugins.Need[*asker](env, Name)
	return pinger{a}, err
}

// Start implements plugins.Component.
func (pinger) Start(context.Context) error { return nil }

// Stop implements plugins.Component.
func (p pinger) Stop(context.Context) error {
	p.asker.reg.Store(nil)
	return nil
}

// Register implements processor.Component.
func (p pinger) Register(r *processor.Registrar) { p.asker.reg.Store(r) }

// doors is what is used of the component feature.
type doors interface {
	Known(domain string) bool
	Here(domain string) bool
	Door() string
}

var _ doors = (*component.Directory)(nil)
