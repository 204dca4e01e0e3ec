package archive

import (
	"context"
	"fmt"
	"testing"
	"time"

	"parley/parser/stanza"
	"parley/storage"
	"parley/storage/storagetest"
)

// insertWord is what the index would cost in the message's own commit.
var insertWord = storage.Stmt{Name: "bench.word", SQL: `INSERT INTO archive_word (owner, word, id) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`, Idempotent: true}

// BenchmarkIndex is what a stored row costs: in its commit of 50, as it is; with its
// words in that commit, as it is not; and behind it, when the index comes.
func BenchmarkIndex(b *testing.B) {
	text := "But soft, what light through yonder window breaks? It is the east, and Juliet is the sun. No. 我们今天去"
	for name, config := range map[string]func(testing.TB) storage.Config{"sqlite": storagetest.SQLite, "postgres": storagetest.Postgres} {
		fill := func(b *testing.B, f *fixture, words bool) {
			o, err := f.owners.get(context.Background(), juliet)
			if err != nil {
				b.Fatal(err)
			}
			for i := 0; i < b.N; {
				var w storage.WriteSet
				for range 50 {
					f.clock.pass(time.Millisecond)
					raw := fmt.Appendf(nil, "<message xmlns='jabber:client' from='%s/a' to='%s' type='chat' id='m%d'><body>%s</body></message>", romeo, juliet, i, text[:60+i%30])
					id := f.ids.Next()
					with := contactParty(romeo)
					c := &callers{store: w.Add}
					f.put(c, o, id, with, raw)
					c.settled(true)
					if words {
						st, err := stanza.Parse(raw, stanza.NSClient, nil)
						if err != nil {
							b.Fatal(err)
						}
						for _, t := range terms(st, with.peer, true) {
							w.Add(&insertWord, o.id, t, id)
						}
					}
					i++
				}
				if err := f.env.DB.Commit(context.Background(), &w); err != nil {
					b.Fatal(err)
				}
			}
		}
		house := func(b *testing.B) *fixture {
			return newFixture(b, storagetest.Open(b, config(b)), *defaults())
		}
		b.Run(name+"/row", func(b *testing.B) {
			f := house(b)
			b.ResetTimer()
			fill(b, f, false)
		})
		b.Run(name+"/row-with-words", func(b *testing.B) {
			f := house(b)
			b.ResetTimer()
			fill(b, f, true)
		})
		b.Run(name+"/words-behind", func(b *testing.B) {
			f := house(b)
			fill(b, f, false)
			f.clock.pass(2 * commitLimit)
			b.ResetTimer()
			if err := f.indexAll(context.Background()); err != nil {
				b.Fatal(err)
			}
		})
	}
}
