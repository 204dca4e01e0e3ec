package disco

import (
	"context"

	"parley/parser/jid"
)

// subscriptions is what disco asks of the roster.
type subscriptions interface {
	// Watches reports whether the contact gets the owner's presence.
	Watches(ctx context.Context, owner, contact jid.JID) (bool, error)
}

// mayWatch reports whether the contact is subscribed to the owner's presence.
func (d *disco) mayWatch(ctx context.Context, owner, contact jid.JID) (bool, error) {
	if d.roster == nil {
		return false, nil
	}
	return d.roster.Watches(ctx, owner, contact)
}
