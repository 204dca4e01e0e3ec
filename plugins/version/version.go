// Package version tells what the server runs (XEP-0092).
//
// The operating system is told only when the operator wants it: it helps
// nobody but those who look for holes (XEP-0092 §5).
package version

import (
	"context"
	"runtime"

	"parley/parser/stanza"
	"parley/plugins"
	"parley/processor"
)

// NS is the namespace of XEP-0092 §2.
const NS = "jabber:iq:version"

// Plugin provides the component.
var Plugin = plugins.Plugin{
	Name:       "version",
	Doc:        "Tells name and version of the server software.",
	Components: []plugins.Maker{{Server: processor.Name, Defaults: defaults(), New: newVersion}},
}

// Config is the component's section.
type Config struct {
	Name string `yaml:"name" doc:"Name of the software, as peers get to see it."`
	Hide bool   `yaml:"hide_version" doc:"Whether the version number is left out (peers see 'hidden')."`
	OS   bool   `yaml:"show_os" doc:"Whether the operating system is told, too."`
}

func defaults() *Config { return &Config{Name: "Parley"} }

type version struct {
	cfg     Config
	version string
}

var _ processor.Component = (*version)(nil)

func newVersion(env plugins.Env, c plugins.Config) (plugins.Component, error) {
	v := &version{cfg: *defaults(), version: env.Version}
	if err := c.Decode(&v.cfg); err != nil {
		return nil, err
	}
	if v.cfg.Hide {
		v.version = "hidden"
	}
	return v, nil
}

// Start implements plugins.Component.
func (*version) Start(context.Context) error { return nil }

// Stop implements plugins.Component.
func (*version) Stop(context.Context) error { return nil }

// Register implements processor.Component.
func (v *version) Register(r *processor.Registrar) {
	r.Feature(NS) // XEP-0092 §4
	r.IQ(NS, "query", processor.Host, v.answer)
}

// answer is XEP-0092 §2: name and version are required, os is not.
func (v *version) answer(_ context.Context, q *processor.IQ) (*stanza.Element, error) {
	if q.Set() {
		return nil, stanza.NewError(stanza.BadRequest, "the version cannot be set")
	}
	el := stanza.El(NS, "query").Add(
		stanza.El(NS, "name").AddText(v.cfg.Name),
		stanza.El(NS, "version").AddText(v.version),
	)
	if v.cfg.OS {
		el.Add(stanza.El(NS, "os").AddText(runtime.GOOS))
	}
	return el, nil
}
