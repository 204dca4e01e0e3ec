package resumption_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"parley/parser/stanza"
	"parley/plugins/plugintest"
	"parley/storage"
	"parley/storage/storagetest"
)

// journal is a log that several nodes write.
type journal struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.all.Write(p)
}

// errors are the lines of a node at the level ERROR.
func (j *journal) errors(node string) (out []string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for line := range strings.Lines(j.all.String()) {
		if strings.Contains(line, "level=ERROR") && strings.Contains(line, "node="+node+" ") {
			out = append(out, line)
		}
	}
	return out
}

// chatty sends one message after the other until its stream ends, and returns how
// many those are, and how the stream has ended.
func chatty(ctx context.Context, c *client, sent chan<- int) (n int, why *stanza.Element) {
	over := make(chan struct{})
	go func() {
		defer close(over)
		for {
			el, err := c.Next(ctx)
			if err != nil {
				return
			}
			if el.Name.Local == "error" && el.Name.Space == stanza.NSStream {
				why = el
			}
		}
	}()
	pace := time.NewTicker(5 * time.Millisecond)
	defer pace.Stop()
	for {
		select {
		case <-over:
			return n, why
		case <-pace.C:
		}
		if c.Send(fmt.Sprintf("<message to='ann@localhost' type='chat' id='c%d'><body>%d</body></message><r xmlns='urn:xmpp:sm:3'/>", n+1, n+1)) == nil {
			n++
		}
		select {
		case sent <- n:
		default:
		}
	}
}

// TestReliability32ACoreComesBackUnderItsName, killed or stopped, before its front
// has seen that it was gone or right after: clients are told system-shutdown, as
// when it does not come back, and resume; nothing that they had sent is lost, and
// who binds meanwhile is not left with a stream that never goes on.
func TestReliability32ACoreComesBackUnderItsName(t *testing.T) {
	for name, down := range map[string]func(context.Context, *plugintest.House) error{
		"killed":  func(_ context.Context, h *plugintest.House) error { h.CrashNode(1); return nil },
		"stopped": func(ctx context.Context, h *plugintest.House) error { return h.EndNode(ctx, 1) },
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), limit)
			defer cancel()
			c := storagetest.Postgres(t)
			log := &journal{}
			h := plugintest.Start(t, plugintest.Options{Plugins: house(), Fronts: 1, Cores: 1, Mortal: true, Log: log, Storage: func() storage.Config { return c }})
			for _, user := range []string{"romeo", "juliet", "ann"} {
				if err := h.Account(ctx, user, password); err != nil {
					t.Fatal(err)
				}
			}
			romeo, id := at(ctx, t, h, 0, "romeo")
			type end struct {
				n   int
				why *stanza.Element
			}
			ended, sent := make(chan end, 1), make(chan int)
			go func() {
				n, why := chatty(ctx, romeo, sent)
				ended <- end{n, why}
			}()
			<-sent
			if err := down(ctx, h); err != nil {
				t.Fatal(err)
			}
			var others sync.WaitGroup
			others.Go(func() { newcomers(ctx, t, h) })
			if err := h.BeginNode(ctx, 1); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = h.EndNode(context.Background(), 1) }) // as long as it has its wires
			var e end
			select {
			case e = <-ended:
			case <-ctx.Done():
				log.mu.Lock()
				defer log.mu.Unlock()
				t.Fatalf("the stream does not end:\n%s", log.all.String())
			}
			if e.why == nil || e.why.Child(stanza.NSStreams, "system-shutdown") == nil {
				t.Errorf("told %v", e.why)
			}
			back, el := again(ctx, t, h, 0, "romeo", id, romeo.in)
			if el.Name.Local != "resumed" {
				t.Fatalf("%s", el.Bytes(""))
			}
			var h1 int
			if _, err := fmt.Sscan(el.Get("h"), &h1); err != nil || h1 < 1 || h1 > e.n+1 {
				t.Fatalf("h=%s of %d: %v", el.Get("h"), e.n+1, err)
			}
			for i := h1; i <= e.n; i++ { // the first one was sent before
				if err := back.Send(fmt.Sprintf("<message to='ann@localhost' type='chat' id='c%d'><body>%d</body></message>", i, i)); err != nil {
					t.Fatal(err)
				}
			}
			for a := back.say("<r xmlns='urn:xmpp:sm:3'/>", "a"); a.Get("h") != fmt.Sprint(e.n+1); a = back.await("a") {
			}
			others.Wait()
			ann, err := plugintest.Dial(ctx, h.DoorOf(0, "c2s"), h.Domain(), "ann", password, "a")
			if err != nil {
				t.Fatal(err)
			}
			got := &client{Client: ann, t: t, ctx: ctx}
			if err := ann.Send("<presence/>"); err != nil {
				t.Fatal(err)
			}
			for i := 1; i <= e.n; { // the first one has no id
				switch id := got.await("message").Get("id"); id {
				case "":
				case fmt.Sprintf("c%d", i):
					i++
				default:
					t.Fatalf("%s where c%d should be", id, i)
				}
			}
			if list := log.errors("node1"); len(list) > 0 {
				t.Errorf("the front complains:\n%s", strings.Join(list, ""))
			}
		})
	}
}

// newcomers log in one after the other until one is bound. Whoever is not is told
// that the stream has ended.
func newcomers(ctx context.Context, t *testing.T, h *plugintest.House) {
	for ctx.Err() == nil {
		conn, err := plugintest.Connect(ctx, h.DoorOf(0, "c2s"), h.Domain(), "juliet", password)
		if err != nil {
			t.Error(err)
			return
		}
		if conn.Send("<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>") != nil {
			continue
		}
		el, err := conn.Next(ctx)
		switch {
		case err != nil && (errors.Is(err, net.ErrClosed) || ctx.Err() == nil):
		case err != nil:
			t.Error(err)
		case el.Name.Local == "iq" && el.Get("type") == "result":
			conn.Close()
			return
		case el.Name.Local != "error" || el.Child(stanza.NSStreams, "system-shutdown") == nil:
			t.Errorf("who binds is told %s", el.Bytes(""))
			return
		}
		conn.Close()
	}
}
