package archive_test

import (
	"context"
	"fmt"
	"testing"

	"parley/plugins/plugintest"
	"parley/storage"
	"parley/storage/storagetest"
)

// TestQuotaCountsWhatIsStored: messages that are refused cost an archive at its
// quota none of its rows.
func TestQuotaCountsWhatIsStored(t *testing.T) {
	storagetest.EachConfig(t, func(t *testing.T, c storage.Config) {
		const quota = 20
		ctx, cancel := context.WithTimeout(context.Background(), limit/4)
		defer cancel()
		h := plugintest.Start(t, plugintest.Options{
			Plugins: house(), Storage: func() storage.Config { return c },
			Config: fmt.Sprintf("servers: {processor: {components: {archive: {quota: %d}}}}", quota),
		})
		if err := h.Account(ctx, "juliet", plugintest.Password); err != nil {
			t.Fatal(err)
		}
		romeo := login(ctx, t, h, "romeo", "a")
		say := func(to string, n int) {
			t.Helper()
			for i := range n {
				if err := romeo.Send(fmt.Sprintf("<message to='%s@localhost' type='chat' id='m%d'><body>b</body></message>", to, i)); err != nil {
					t.Fatal(err)
				}
			}
			sync(ctx, t, romeo)
		}
		rows := func() (n int, first int64) {
			t.Helper()
			if err := h.DB().QueryRow(ctx, `SELECT COUNT(*), COALESCE(MIN(a.id), 0) FROM archive a JOIN archive_owner o ON o.id = a.owner WHERE o.jid = $1`, "romeo@localhost").Scan(&n, &first); err != nil {
				t.Fatal(err)
			}
			return n, first
		}
		say("juliet", quota)
		n, first := rows()
		if n != quota {
			t.Fatalf("%d rows of %d messages", n, quota)
		}
		say("nobody", 3*quota)
		say("juliet", 1)
		for oldest := first; oldest == first; { // it is being removed
			n, oldest = rows()
			if ctx.Err() != nil {
				t.Fatalf("%d rows stay", n)
			}
		}
		if n != quota {
			t.Errorf("%d rows are left of a quota of %d", n, quota)
		}
	})
}
