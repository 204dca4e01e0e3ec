package presence_test

import (
	"testing"

	"parley/parser/jid"
	"parley/plugins/accounts"
	"parley/plugins/plugintest"
	"parley/plugins/roster"
)

// XEP-0077 §3.2: when an account ends, so do its subscriptions, on both sides.
func TestDeletedAccountLeavesNoSubscription(t *testing.T) {
	ctx := t.Context()
	h := plugintest.Start(t, plugintest.Options{Plugins: house()})
	people := contract[*accounts.Accounts](t, h, accounts.Name)
	rosters := contract[*roster.Rosters](t, h, roster.Name)
	romeo, juliet := jid.MustParse("romeo@localhost"), jid.MustParse("juliet@localhost")
	for _, j := range []jid.JID{romeo, juliet} {
		if err := people.Create(ctx, j, "secret-of-"+j.Local()); err != nil {
			t.Fatal(err)
		}
	}
	both := []roster.Event{
		{Direction: roster.Outbound, Action: roster.Subscribed}, // pre-approved
		{Direction: roster.Outbound, Action: roster.Subscribe},
		{Direction: roster.Inbound, Action: roster.Subscribe},
		{Direction: roster.Inbound, Action: roster.Subscribed},
	}
	for _, e := range both {
		for _, pair := range [][2]jid.JID{{romeo, juliet}, {juliet, romeo}} {
			e.Owner, e.Contact = pair[0], pair[1]
			if _, err := rosters.Apply(ctx, nowhere{}, e, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	state(t, rosters, juliet, romeo, roster.Both)
	if err := people.Delete(ctx, romeo); err != nil {
		t.Fatal(err)
	}
	state(t, rosters, juliet, romeo, roster.None)
	state(t, rosters, romeo, juliet, roster.None)
}

func state(t *testing.T, r *roster.Rosters, owner, contact jid.JID, want roster.State) {
	t.Helper()
	got, err := r.Subscription(t.Context(), owner, contact)
	if err != nil {
		t.Fatal(err)
	}
	if got != want {
		t.Errorf("%s and %s: %q, want %q", owner, contact, got, want)
	}
}

func contract[T any](t *testing.T, h *plugintest.House, name string) T {
	t.Helper()
	c, _ := h.Host().Contract(name)
	v, ok := c.(T)
	if !ok {
		t.Fatalf("the contract of %s is %T", name, c)
	}
	return v
}
