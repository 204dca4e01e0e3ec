package clients

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"parley/parser/jid"
	"parley/plugins"
	"parley/router/sessions"
	"parley/storage"
	"parley/storage/storagetest"
	"parley/stream"
)

// keys is what a test says of an account.
type keys struct {
	since  time.Time
	tokens map[string]bool
}

func (k keys) PasswordSince(context.Context, jid.JID) (time.Time, error) { return k.since, nil }
func (k keys) TokenHolders(context.Context, jid.JID) (map[string]bool, error) {
	return k.tokens, nil
}
func (keys) RevokeTokens(context.Context, jid.JID, string) error { return nil }

// TestHolders: who is away and knows the password, or has a token, still has access
// (XEP-0494 §3.1), also when nothing is known of its logins; who has neither has not.
func TestHolders(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db storage.DB) {
		if err := db.Migrate(t.Context(), Name, migrations); err != nil {
			t.Fatal(err)
		}
		now := time.Now()
		env := plugins.Env{DB: db, Log: slog.New(slog.DiscardHandler), Clock: plugins.SystemClock{}, Sessions: sessions.NewRegistry()}
		ann := jid.MustParse("ann@localhost")
		p := &component{env: env, log: newLog(env), accounts: keys{now.Add(-time.Hour), map[string]bool{"token": true, "forgotten": true}}}
		for _, in := range []stream.Login{
			{Account: ann, Agent: "password", Software: "Script", Device: "Desk", Password: true, At: now.Add(-time.Minute)},
			{Account: ann, Agent: "old password", Password: true, At: now.Add(-2 * time.Hour)},
			{Account: ann, Agent: "token", Password: true, At: now.Add(-3 * time.Hour)},
		} {
			p.log.note(in)
		}
		all, err := p.holders(t.Context(), ann)
		if err != nil {
			t.Fatal(err)
		}
		type seen struct{ password, tokens bool }
		got := map[string]seen{}
		for i := range all {
			got[all[i].agent] = seen{all[i].password, all[i].tokens}
		}
		want := map[string]seen{"password": {true, false}, "token": {false, true}, "forgotten": {false, true}}
		if len(got) != len(want) || got["password"] != want["password"] || got["token"] != want["token"] || got["forgotten"] != want["forgotten"] {
			t.Errorf("%+v", got)
		}
		el := all[0].element()
		ua := el.Child(NS, "user-agent")
		if el.Get("connected") != "false" || ua == nil || ua.Child(NS, "software").Text() != "Script" || ua.Child(NS, "device").Text() != "Desk" {
			t.Errorf("%s", el.Bytes(""))
		}
	})
}
