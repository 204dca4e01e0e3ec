package s2s_test

import (
	"context"
	"strings"
	"testing"

	"parley/plugins/admin/client"
	"parley/plugins/plugintest/federation"
	"parley/stream"
	"parley/stream/s2s"
)

// desk asks the administration about a house's streams, until they are what is wanted.
func (h *house) desk(domain, what string, ok func([]s2s.Stream, error) bool) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), patience)
	defer cancel()
	var c *client.Client
	await(h.t, "the administration", func() (open bool) {
		var err error
		c, err = client.Open(ctx, h.DataDir())
		return err == nil
	})
	await(h.t, what, func() bool {
		all, err := (s2s.Client{Client: c}).List(ctx, domain)
		return ok(all, err)
	})
}

// An operator sees who talks to whom, what waits, and why.
func TestStreamsAreShown(t *testing.T) {
	w := federation.New(t)
	one, two := start(t, w, "one.test", federation.Options{}), start(t, w, "two.test", federation.Options{Foreign: true})
	one.desk("", "nothing", func(all []s2s.Stream, _ error) bool { return all != nil && len(all) == 0 })
	romeo, juliet := one.online("romeo"), two.online("juliet")
	romeo.Say("<message type='chat' to='%s'><body>one</body></message>", juliet.JID)
	juliet.Hears("a message", body("one"))
	juliet.Say("<message type='chat' to='%s'><body>two</body></message>", romeo.JID)
	romeo.Hears("a message", body("two"))
	one.desk("two.test", "streams that are there", func(all []s2s.Stream, _ error) bool {
		if len(all) != 2 {
			return false
		}
		out, in := all[0], all[1]
		return out.Direction == s2s.Out && out.State == s2s.Open && out.Ours == "one.test" && out.Theirs == "two.test" && out.Proof == s2s.Certificate &&
			out.TLS && out.Acknowledged && !out.Since.IsZero() && strings.HasPrefix(out.Remote, "127.0.0.1:") && out.Waiting == 0 &&
			in.Direction == s2s.In && in.State == s2s.Open && in.Proof == s2s.Dialback && in.TLS && in.Ours == "one.test" && in.Theirs == "two.test"
	})
	if got := romeo.Refuses("a@nowhere.test"); got != "remote-server-not-found" {
		t.Fatal(got)
	}
	one.desk("nowhere.test", "who is refused", func(all []s2s.Stream, _ error) bool {
		return len(all) == 1 && all[0].State == s2s.Refused && !all[0].Next.IsZero() && strings.Contains(all[0].Error, "DNS knows no server") && all[0].Waiting == 0
	})
	w.Announce("away.test", "127.0.0.1:1")
	romeo.Say("<message type='chat' to='a@away.test'><body>when you are back</body></message>")
	one.desk("away.test", "what waits", func(all []s2s.Stream, _ error) bool {
		return len(all) == 1 && all[0].State == s2s.Failing && all[0].Waiting == 1 && all[0].Bytes > 0 && all[0].Tries > 0 && strings.Contains(all[0].Error, "refused")
	})
	one.desk("", "all of it", func(all []s2s.Stream, _ error) bool { return len(all) == 4 })
	if _, err := one.Host().Control().Stop(t.Context(), "test", stream.Name, s2s.Name); err != nil {
		t.Fatal(err)
	}
	one.desk("", "that there are none", func(_ []s2s.Stream, err error) bool {
		return err != nil && strings.Contains(err.Error(), "does not run here")
	})
}
