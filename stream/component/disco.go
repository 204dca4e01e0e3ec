package component

import (
	"context"
	"slices"
	"strings"

	"parley/plugins"
	"parley/plugins/disco"
	"parley/processor"
)

// services lists the connected components among the server's items, where
// clients look for gateways and rooms (XEP-0030 §4.1).
type services struct{ directory *Directory }

var _ processor.Component = (*services)(nil)

func newServices(env plugins.Env, _ plugins.Config) (plugins.Component, error) {
	d, err := plugins.Need[*Directory](env, "component")
	if err != nil {
		return nil, err
	}
	return &services{d}, nil
}

// Register implements processor.Component.
func (s *services) Register(r *processor.Registrar) {
	processor.On(r, disco.Items, processor.Normal, s.list)
}

func (s *services) list(_ context.Context, a *disco.ItemsAnswer) (processor.Verdict, error) {
	if !a.Server() || a.Node != "" {
		return processor.Continue, nil
	}
	items := s.directory.Connected()
	slices.SortFunc(items, func(x, y Item) int { return strings.Compare(x.JID.String(), y.JID.String()) })
	for _, i := range items {
		a.Items = append(a.Items, disco.Item{JID: i.JID, Name: i.Name})
	}
	return processor.Continue, nil
}

// Start implements plugins.Component.
func (s *services) Start(context.Context) error { return nil }

// Stop implements plugins.Component.
func (s *services) Stop(context.Context) error { return nil }
