package muc_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"parley/parser/stanza"
	"parley/plugins/plugintest"
	"parley/storage"
	"parley/storage/storagetest"
)

// person is a client in a test, with what the room has said to it.
type person struct {
	*plugintest.Client
	nick string

	mu   sync.Mutex
	seen []*stanza.Element
	more chan struct{} // something has come
}

// enters lets somebody into a room, and everything that comes be taken down until
// the end of the test.
func enters(ctx context.Context, t *testing.T, h *plugintest.House, node int, nick, room string) *person {
	t.Helper()
	_ = h.Account(ctx, nick, plugintest.Password) // it may be there already
	c, err := h.Node(node).Dial(ctx, nick, "a")
	if err != nil {
		t.Fatal(err)
	}
	p := &person{Client: c, nick: nick, more: make(chan struct{}, 1)}
	t.Cleanup(c.Close)
	go p.read(ctx)
	p.enter(ctx, t, room)
	return p
}

func (p *person) enter(ctx context.Context, t *testing.T, room string) {
	t.Helper()
	p.say(t, "<presence to='%s/%s'><x xmlns='http://jabber.org/protocol/muc'/></presence>", room, p.nick)
	p.await(ctx, t, "its own presence and the subject", func(el *stanza.Element) bool {
		return el.Get("from") == room && el.Child(stanza.NSClient, "subject") != nil
	})
}

func (p *person) read(ctx context.Context) {
	for {
		el, err := p.Next(ctx)
		if err != nil {
			return
		}
		p.mu.Lock()
		p.seen = append(p.seen, el)
		p.mu.Unlock()
		select {
		case p.more <- struct{}{}:
		default:
		}
	}
}

func (p *person) all() []*stanza.Element {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.seen)
}

func (p *person) say(t *testing.T, format string, args ...any) {
	t.Helper()
	if err := p.Send(fmt.Sprintf(format, args...)); err != nil {
		t.Fatal(err)
	}
}

// await waits until something that is meant has come, also before.
func (p *person) await(ctx context.Context, t *testing.T, what string, is func(*stanza.Element) bool) *stanza.Element {
	t.Helper()
	for {
		if all := p.all(); slices.ContainsFunc(all, is) {
			return all[slices.IndexFunc(all, is)]
		}
		select {
		case <-p.more:
		case <-ctx.Done():
			for _, el := range p.all() {
				t.Logf("%s has %s", p.nick, el.Bytes(stanza.NSClient))
			}
			t.Fatalf("%s never got %s", p.nick, what)
		}
	}
}

// ask waits for the answer to a request.
func (p *person) ask(ctx context.Context, t *testing.T, id, format string, args ...any) *stanza.Element {
	t.Helper()
	p.say(t, format, args...)
	return p.await(ctx, t, "the answer to "+id, func(el *stanza.Element) bool { return el.Name.Local == "iq" && el.Get("id") == id })
}

// heard are the bodies of what was said in the room, in the order they came, and
// their places.
func (p *person) heard() (bodies, ids []string) {
	for _, el := range p.all() {
		b, sid := el.Child(stanza.NSClient, "body"), el.Child(stanza.NSStanzaID, "stanza-id")
		if el.Name.Local == "message" && el.Get("type") == "groupchat" && b != nil && sid != nil && !slices.Contains(ids, sid.Get("id")) {
			bodies, ids = append(bodies, b.Text()), append(ids, sid.Get("id"))
		}
	}
	return bodies, ids
}

func (p *person) refused(id string) bool {
	return slices.ContainsFunc(p.all(), func(el *stanza.Element) bool {
		return el.Name.Local == "message" && el.Get("id") == id && el.Get("type") == "error"
	})
}

// opens makes a room.
func opens(ctx context.Context, t *testing.T, h *plugintest.House, node int, nick, room string) *person {
	t.Helper()
	p := enters(ctx, t, h, node, nick, room)
	p.ask(ctx, t, "open", "<iq type='set' id='open' to='%s'><query xmlns='http://jabber.org/protocol/muc#owner'><x xmlns='jabber:x:data' type='submit'/></query></iq>", room)
	return p
}

// TestRoomHasOneOrder: several people talk at once, on several nodes, while others
// come and go. Everybody hears the same in the same order, and the archive has it
// in that order (D3).
func TestRoomHasOneOrder(t *testing.T) {
	c := storagetest.Postgres(t)
	const people, each = 6, 25
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	h := plugintest.Start(t, plugintest.Options{Plugins: house(), Nodes: 2, Storage: func() storage.Config { return c }})
	const room = "garden@conference.localhost"
	all := []*person{opens(ctx, t, h, 0, "p0", room)}
	for i := 1; i < people; i++ {
		all = append(all, enters(ctx, t, h, i%2, fmt.Sprintf("p%d", i), room))
	}
	var work sync.WaitGroup
	for _, p := range all {
		work.Go(func() {
			for i := range each {
				_ = p.Send(fmt.Sprintf("<message to='%s' type='groupchat' id='%s-%d'><body>%s-%d</body></message>", room, p.nick, i, p.nick, i))
			}
		})
	}
	work.Go(func() { // meanwhile
		for range 5 {
			_ = all[0].Send(fmt.Sprintf("<presence to='%s/p0'><status>x</status></presence>", room))
		}
	})
	work.Wait()
	var first []string
	for _, p := range all {
		p.await(ctx, t, "everything", func(*stanza.Element) bool { bodies, _ := p.heard(); return len(bodies) == people*each })
		bodies, _ := p.heard()
		if first == nil {
			first = bodies
		}
		if !slices.Equal(first, bodies) {
			t.Fatalf("%s heard another order", p.nick)
		}
	}
	for _, p := range all { // what each has said is in the order it was said
		next := 0
		for _, b := range first {
			if b == fmt.Sprintf("%s-%d", p.nick, next) {
				next++
			}
		}
		if next != each {
			t.Errorf("%s was heard out of order: %d of %d", p.nick, next, each)
		}
	}
	late := enters(ctx, t, h, 1, "late", room)
	late.ask(ctx, t, "q", "<iq type='set' id='q' to='%s'><query xmlns='urn:xmpp:mam:2'><set xmlns='http://jabber.org/protocol/rsm'><max>250</max></set></query></iq>", room)
	var kept []string
	for _, el := range late.all() {
		if r := el.Child("urn:xmpp:mam:2", "result"); r != nil {
			kept = append(kept, r.Child(stanza.NSForward, "forwarded").Child(stanza.NSClient, "message").Child(stanza.NSClient, "body").Text())
		}
	}
	if !slices.Equal(kept, first) {
		t.Errorf("the archive has %d messages in another order", len(kept))
	}
}

// TestReliability32RoomOwnerDies: the node that owns a room dies with an occupant.
// Nobody of the others has to enter again; what they were not told was refused is
// heard by all in one order; who was on the dead node leaves.
func TestReliability32RoomOwnerDies(t *testing.T) {
	c := storagetest.Postgres(t)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	h := plugintest.Start(t, plugintest.Options{
		Plugins: house(), Nodes: 3, Mortal: true, Storage: func() storage.Config { return c },
		Config: "servers: {processor: {components: {muc: {grace: 1s}}}}",
	})
	room := ownedBy(ctx, t, h, 2)
	ann, bob, cat := opens(ctx, t, h, 0, "ann", room), enters(ctx, t, h, 1, "bob", room), enters(ctx, t, h, 2, "cat", room)
	ann.await(ctx, t, "cat", func(el *stanza.Element) bool { return el.Get("from") == room+"/cat" })
	cat.say(t, "<message to='%s' type='groupchat' id='cat-0'><body>cat-0</body></message>", room)
	for _, p := range []*person{ann, bob} {
		p.await(ctx, t, "cat's message", func(*stanza.Element) bool { b, _ := p.heard(); return slices.Contains(b, "cat-0") })
	}
	h.KillNode(2)
	said := map[string]bool{}         // by what was not refused
	for i := 0; len(said) <= 4; i++ { // an answer takes until the lease of the dead node has run out
		if i == 50 {
			t.Fatal("nobody can speak after the room's owner has died")
		}
		for _, p := range []*person{ann, bob} {
			id := fmt.Sprintf("%s-%d", p.nick, i)
			p.say(t, "<message to='%s' type='groupchat' id='%s'><body>%s</body></message><iq type='get' id='%s'><ping xmlns='urn:xmpp:ping'/></iq>", room, id, id, "p"+id)
			p.await(ctx, t, "an end of "+id, func(el *stanza.Element) bool { return el.Get("id") == "p"+id })
			if !p.refused(id) {
				said[id] = true
			}
		}
	}
	ann.await(ctx, t, "cat's end", func(el *stanza.Element) bool {
		return el.Get("from") == room+"/cat" && el.Get("type") == "unavailable"
	})
	for id := range said {
		for _, p := range []*person{ann, bob} {
			p.await(ctx, t, id, func(*stanza.Element) bool { b, _ := p.heard(); return slices.Contains(b, id) })
		}
	}
	_, a := ann.heard()
	_, b := bob.heard()
	common := slices.DeleteFunc(slices.Clone(a), func(id string) bool { return !slices.Contains(b, id) })
	b = slices.DeleteFunc(b, func(id string) bool { return !slices.Contains(a, id) })
	if !slices.Equal(common, b) {
		t.Error("ann and bob heard another order")
	}
	if got := ann.ask(ctx, t, "self", "<iq type='get' id='self' to='%s/ann'><ping xmlns='urn:xmpp:ping'/></iq>", room); got.Get("type") != "result" {
		t.Errorf("ann is not in the room any more: %s", got.Bytes(""))
	}
}

// ownedBy is a room that the node will own.
func ownedBy(ctx context.Context, t *testing.T, h *plugintest.House, node int) string {
	t.Helper()
	want := fmt.Sprintf("node%d", node+1)
	for i := range 50 {
		room := fmt.Sprintf("room%d@conference.localhost", i)
		p := enters(ctx, t, h, 0, "scout", room)
		at := ""
		if err := h.DB().QueryRow(ctx, `SELECT node FROM cluster_owner WHERE key = $1`, room).Scan(&at); err != nil {
			t.Fatal(err)
		}
		p.say(t, "<presence to='%s/scout' type='unavailable'/>", room)
		p.await(ctx, t, "its own end", func(el *stanza.Element) bool { return el.Get("type") == "unavailable" })
		p.Close()
		if at == want {
			return room
		}
	}
	t.Fatal("no room is meant for " + want)
	return ""
}
