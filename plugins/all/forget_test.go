package all_test

import (
	"context"
	"testing"

	"parley/parser/jid"
	"parley/plugins/accounts"
	"parley/plugins/blocking"
	"parley/plugins/plugintest"
	"parley/plugins/roster"
)

// houses is a house of several nodes with what its features share.
type houses struct {
	*plugintest.House
	t   *testing.T
	ctx context.Context
}

func contract[T any](h *houses, node int, plugin string) T {
	h.t.Helper()
	c, ok := h.HostOf(node).Contract(plugin)
	if !ok {
		h.t.Fatalf("no contract of %s", plugin)
	}
	return c.(T)
}

// enter logs in at a node, or not.
func (h *houses) enter(node int, password string) error {
	c, err := plugintest.Dial(h.ctx, h.DoorOf(node, "c2s"), h.Domain(), "juliet", password, "r")
	if err == nil {
		c.Close()
	}
	return err
}

// ask sends a request from an account at a node and waits for the result.
func (h *houses) ask(node int, request string) string {
	h.t.Helper()
	c, err := plugintest.Dial(h.ctx, h.DoorOf(node, "c2s"), h.Domain(), "juliet", "old password", "r")
	if err != nil {
		h.t.Fatal(err)
	}
	defer c.Close()
	if err := c.Send(request); err != nil {
		h.t.Fatal(err)
	}
	for {
		el, err := c.Next(h.ctx)
		if err != nil {
			h.t.Fatal(err)
		}
		if el.Name.Local != "iq" || el.Get("id") != "q" {
			continue
		}
		if el.Get("type") != "result" {
			h.t.Fatalf("%s", el.Bytes(""))
		}
		if prefs := el.First(); prefs != nil {
			return prefs.Get("default")
		}
		return ""
	}
}

// What counts for security is forgotten by every live node when its change is
// answered, however it was remembered.
func TestRuleSecurityStateWaitsForEveryNode(t *testing.T) {
	ctx, m := manage(t, 3)
	h := &houses{m.House, t, ctx}
	juliet, romeo := jid.MustParse("juliet@localhost"), jid.MustParse("romeo@localhost")
	acc := func(i int) *accounts.Accounts { return contract[*accounts.Accounts](h, i, accounts.Name) }
	for _, c := range []struct {
		name   string
		change func() error
		is     func(node int) bool // the new state counts on the node; asked before, too, so that it remembers
	}{
		{"a block", func() error {
			h.ask(0, "<iq type='set' id='q'><block xmlns='urn:xmpp:blocking'><item jid='romeo@localhost'/></block></iq>")
			return nil
		}, func(i int) bool {
			is, err := contract[*blocking.Lists](h, i, blocking.Name).Blocked(ctx, juliet, romeo)
			return err == nil && is
		}},
		{"a contact", func() error {
			h.ask(1, "<iq type='set' id='q'><query xmlns='jabber:iq:roster'><item jid='romeo@localhost'/></query></iq>")
			return nil
		}, func(i int) bool {
			s, err := contract[*roster.Rosters](h, i, roster.Name).Contacts(ctx, juliet)
			return err == nil && len(s.Items()) == 1
		}},
		{"a contact removed", func() error {
			h.ask(2, "<iq type='set' id='q'><query xmlns='jabber:iq:roster'><item jid='romeo@localhost' subscription='remove'/></query></iq>")
			return nil
		}, func(i int) bool {
			s, err := contract[*roster.Rosters](h, i, roster.Name).Contacts(ctx, juliet)
			return err == nil && len(s.Items()) == 0
		}},
		{"what is archived", func() error {
			h.ask(0, "<iq type='set' id='q'><prefs xmlns='urn:xmpp:mam:2' default='never'><always/><never/></prefs></iq>")
			return nil
		}, func(i int) bool {
			return h.ask(i, "<iq type='get' id='q'><prefs xmlns='urn:xmpp:mam:2'/></iq>") == "never"
		}},
		{"a password", func() error { return acc(0).SetPassword(ctx, juliet, "new password") }, func(i int) bool {
			return h.enter(i, "old password") != nil
		}},
		{"the new password", func() error { return acc(1).SetPassword(ctx, juliet, "old password") }, func(i int) bool {
			return h.enter(i, "old password") == nil
		}},
		{"an account that is disabled", func() error { return acc(2).Disable(ctx, juliet) }, func(i int) bool {
			return h.enter(i, "old password") != nil
		}},
		{"an account that is enabled", func() error { return acc(0).Enable(ctx, juliet) }, func(i int) bool {
			return h.enter(i, "old password") == nil
		}},
		{"an account that is deleted", func() error { return acc(1).Delete(ctx, juliet) }, func(i int) bool {
			exists, err := acc(i).Exists(ctx, juliet)
			return err == nil && !exists && h.enter(i, "old password") != nil
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.name == "a block" {
				if err := acc(0).Create(ctx, juliet, "old password"); err != nil {
					t.Fatal(err)
				}
			}
			for i := range 3 {
				if c.is(i) {
					t.Fatalf("it is so on node %d before", i+1)
				}
			}
			if err := c.change(); err != nil {
				t.Fatal(err)
			}
			for i := range 3 {
				if !c.is(i) {
					t.Errorf("node %d goes on with what is no longer so", i+1)
				}
			}
		})
	}
}
