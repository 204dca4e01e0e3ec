package stream

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"parley/router/channel"
)

// closedRoad takes nothing.
type closedRoad struct{}

func (closedRoad) Send(context.Context, []*channel.Envelope) error { return errors.New("closed") }

// TestRule58AcksAreToldUntilTheyArrive: a client that is being brought what it
// missed gets more when its acknowledgement has arrived, so one that the house
// could not take is told again, as long as there is a session to tell it.
func TestRule58AcksAreToldUntilTheyArrive(t *testing.T) {
	h := newHouse(t, nil)
	stays, _ := h.bound(t, "a")
	ends, _ := h.bound(t, "b")
	open := h.links.Out
	h.links.Out = func(string) channel.MessageChannel { return closedRoad{} }
	h.acks.add(stays.session.ref, 1)
	h.acks.add(ends.session.ref, 2)
	ends.session.end(t.Context())
	h.passAcks()
	h.acks.add(stays.session.ref, 3)
	h.passAcks()
	h.links.Out = open
	h.passAcks()
	h.passAcks() // once is enough
	told := h.sent(channel.Acked)
	if len(told) != 1 || told[0].Session != stays.session.ref {
		t.Fatalf("told: %v", told)
	}
	want(t, fmt.Sprint(told[0].Rows), "[1 3]")
}
