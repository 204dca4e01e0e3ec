package muc

import (
	"context"

	"parley/plugins"
	"parley/router"
)

// returns works in the router: what cannot be delivered comes back to the room that
// has sent it.
type returns struct{ at *Hosts }

var _ router.Component = (*returns)(nil)

func newReturns(env plugins.Env, _ plugins.Config) (plugins.Component, error) {
	at, err := plugins.Need[*Hosts](env, Name)
	return &returns{at}, err
}

// Start implements plugins.Component.
func (*returns) Start(context.Context) error { return nil }

// Stop implements plugins.Component.
func (*returns) Stop(context.Context) error { return nil }

// Register implements router.Component.
func (b *returns) Register(r *router.Registrar) { r.Returns(b.at.Serves) }
