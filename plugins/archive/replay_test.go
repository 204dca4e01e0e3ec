package archive_test

import (
	"context"
	"fmt"
	"testing"

	"parley/plugins/plugintest"
	"parley/storage"
	"parley/storage/storagetest"
)

// TestReliability31ReplayOutlivesTheDatabase: a client that comes while the database
// does not answer gets what waits as soon as it does, before anything newer.
func TestReliability31ReplayOutlivesTheDatabase(t *testing.T) {
	storagetest.EachConfig(t, func(t *testing.T, c storage.Config) {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		h := plugintest.Start(t, plugintest.Options{Plugins: house(), Storage: func() storage.Config { return c }})
		romeo, juliet := login(ctx, t, h, "romeo", "a"), login(ctx, t, h, "juliet", "b")
		say := func(id string) {
			t.Helper()
			if err := romeo.Send(fmt.Sprintf("<message to='juliet@localhost' type='chat' id='%s'><body>b</body></message>", id)); err != nil {
				t.Fatal(err)
			}
			sync(ctx, t, romeo)
		}
		rename := func(from, to string) {
			t.Helper()
			if _, err := h.DB().Exec(ctx, "ALTER TABLE "+from+" RENAME TO "+to); err != nil {
				t.Fatal(err)
			}
		}
		say("old")
		rename("archive_pending", "archive_away")
		if err := juliet.Send("<presence/>"); err != nil {
			t.Fatal(err)
		}
		sync(ctx, t, juliet)
		rename("archive_away", "archive_pending")
		say("new")
		for _, want := range []string{"old", "new"} {
			el, err := juliet.Next(ctx)
			for err == nil && el.Name.Local != "message" {
				el, err = juliet.Next(ctx)
			}
			if err != nil || el.Get("id") != want {
				t.Fatalf("%v, want the message %q: %v", el, want, err)
			}
		}
	})
}
