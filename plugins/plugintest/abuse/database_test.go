package abuse

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"parley/parser/stanza"
	"parley/plugins/plugintest"
	"parley/storage"
	"parley/storage/storagetest"
)

// Who writes while Postgres is frozen is told in one statement's time; nothing
// is acknowledged before that, who needs no database notices nothing, and what
// is sent again afterwards comes once.
func TestReliability31FrozenPostgres(t *testing.T) {
	c := storagetest.Postgres(t)
	c.StatementTimeout = time.Second
	proxy := storagetest.Behind(t, &c)
	w := startWith(t, plugintest.Options{Config: configured([]string{unlimited}, nil), Storage: func() storage.Config { return c }})
	mallory := w.bound("mallory", "m")
	w.must(mallory.exchange("<enable xmlns='urn:xmpp:sm:3'/>", "<enabled"))
	message := func(id string) string {
		return "<message id='" + id + "' type='chat' to='bob@localhost'><body>b</body><origin-id xmlns='urn:xmpp:sid:0' id='" + id + "'/></message>"
	}
	w.must(mallory.exchange(message("calm")+"<r xmlns='urn:xmpp:sm:3'/>", "<a xmlns='urn:xmpp:sm:3' h='1'/>"))
	w.next(w.bob, withID("calm"))
	calm := w.requests(calmRounds)

	proxy.Freeze()
	began := time.Now()
	w.must(mallory.say(message("frozen") + "<r xmlns='urn:xmpp:sm:3'/>"))
	frozen := w.requests(calmRounds)
	received := 0
	// told reads until everything up to h is done. A refusal is when the client has
	// acknowledged the error, for which it is asked.
	told := func(h int) (text string) {
		for done := fmt.Sprintf("<a xmlns='urn:xmpp:sm:3' h='%d'/>", h); ; {
			part, err := mallory.until("/>")
			w.must(err)
			text += part + "/>"
			if strings.HasSuffix(text, done) {
				return text
			}
			received += strings.Count(part, "<message ")
			if strings.HasSuffix(text, "<r xmlns='urn:xmpp:sm:3'/>") {
				w.must(mallory.say(fmt.Sprintf("<a xmlns='urn:xmpp:sm:3' h='%d'/>", received)))
			}
		}
	}
	before := told(2)
	if took := time.Since(began); took > 4*c.StatementTimeout {
		t.Errorf("the sender is told after %v, a statement may take %v", took, c.StatementTimeout)
	}
	if !strings.Contains(before, "<resource-constraint ") || !strings.Contains(before, "id='frozen'") {
		t.Errorf("acknowledged without a word: %s", before)
	}
	if was, is := max(median(calm), floor), median(frozen); is > slower*was {
		t.Errorf("who asks no database: %v before, %v meanwhile", was, is)
	}
	proxy.Thaw()
	for try := 0; ; try++ {
		id := fmt.Sprintf("again%d", try)
		w.must(mallory.say(strings.Replace(message("frozen"), "id='frozen'", "id='"+id+"'", 1) + "<r xmlns='urn:xmpp:sm:3'/>"))
		before := told(3 + try)
		if !strings.Contains(before, "type='error'") {
			break
		}
		if try == 5 {
			t.Fatalf("does not recover: %s", before)
		}
	}
	copies := 0
	for _, el := range w.until(w.bob) {
		if o := el.Child(stanza.NSStanzaID, "origin-id"); o != nil && o.Get("id") == "frozen" {
			copies++
		}
	}
	var rows int
	w.must(w.DB().QueryRow(w.ctx, `SELECT COUNT(*) FROM archive`).Scan(&rows))
	if copies != 1 || rows%2 != 0 { // each message is in both archives
		t.Errorf("%d copies, %d rows", copies, rows)
	}
	w.unharmed()
}

// requests lets alice ask bob's client n times and it answer: a road without
// a database.
func (w *world) requests(n int) (took []time.Duration) {
	w.Helper()
	for range n {
		id := w.fresh("request")
		begin := time.Now()
		w.say(w.alice, "<iq type='get' id='%s' to='%s'><query xmlns='jabber:iq:version'/></iq>", id, w.bob.JID)
		w.next(w.bob, withID(id))
		w.say(w.bob, "<iq type='result' id='%s' to='%s'/>", id, w.alice.JID)
		w.next(w.alice, withID(id))
		took = append(took, time.Since(begin))
	}
	return took
}
