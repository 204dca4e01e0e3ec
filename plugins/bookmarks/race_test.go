package bookmarks_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"parley/parser/stanza"
	"parley/plugins/plugintest"
)

// ask sends a request and returns its answer.
func ask(ctx context.Context, c *plugintest.Client, typ, id, payload string) (*stanza.Element, error) {
	if err := c.Send(fmt.Sprintf("<iq type='%s' id='%s'>%s</iq>", typ, id, payload)); err != nil {
		return nil, err
	}
	for {
		el, err := c.Next(ctx)
		if err != nil {
			return nil, err
		}
		if el.Name.Local == "iq" && el.Get("id") == id {
			if el.Get("type") != "result" {
				return nil, fmt.Errorf("%s", el.Bytes(""))
			}
			return el, nil
		}
	}
}

// Several devices publish at once: the copy for older clients has everything in the
// end (XEP-0402 §5.3.1).
func TestDevicesAtOnce(t *testing.T) {
	const devices, each = 4, 10
	house := plugintest.Start(t, plugintest.Options{Plugins: house()})
	ctx := t.Context()
	var work sync.WaitGroup
	errs := make(chan error, devices)
	for d := range devices {
		c, err := house.Login(ctx, "romeo", fmt.Sprint("device", d))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		work.Go(func() {
			for i := range each {
				item := fmt.Sprintf("<pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='urn:xmpp:bookmarks:1'><item id='room%d-%d@rooms.example'><conference xmlns='urn:xmpp:bookmarks:1'/></item></publish></pubsub>", d, i)
				if _, err := ask(ctx, c, "set", fmt.Sprint("p", i), item); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	work.Wait()
	close(errs)
	for err := range errs {
		t.Fatal(err)
	}
	var rooms int
	err := house.DB().QueryRow(ctx, `SELECT length(payload) - length(replace(payload, '@rooms.example', '@rooms.exampl')) FROM pubsub_item i JOIN pubsub_node n ON n.id = i.node WHERE n.name = 'storage:bookmarks' AND n.service LIKE 'romeo@%'`).Scan(&rooms)
	if err != nil || rooms != devices*each {
		t.Errorf("the copy has %d rooms, %v; want %d", rooms, err, devices*each)
	}
	c, err := house.Login(ctx, "romeo", "old")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	el, err := ask(ctx, c, "get", "g", "<query xmlns='jabber:iq:private'><storage xmlns='storage:bookmarks'/></query>")
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(el.Bytes("")), "@rooms.example"); n != devices*each {
		t.Errorf("an older client sees %d rooms, want %d", n, devices*each)
	}
}
