package pubsub_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/fstest"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/parser/stanza/form"
	"parley/plugins"
	"parley/plugins/accounts"
	"parley/plugins/plugintest"
	"parley/plugins/plugintest/script"
	"parley/plugins/pubsub"
	"parley/processor"
	"parley/storage"
)

const known = "urn:example:known"

// feature builds on pubsub as features do.
type feature struct {
	ps  *pubsub.PubSub
	mu  sync.Mutex
	log []string
}

func (f *feature) note(what string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.log = append(f.log, what)
}

func (f *feature) take() (out []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out, f.log = f.log, nil
	return out
}

func (*feature) Start(context.Context) error { return nil }
func (*feature) Stop(context.Context) error  { return nil }

var (
	insert = &storage.Stmt{Name: "feature.insert", SQL: `INSERT INTO feature_row (id) VALUES ($1)`}
	never  = &storage.Stmt{Name: "feature.never", SQL: `UPDATE feature_row SET id = id WHERE id = $1`, Must: true}
)

func (f *feature) Register(r *processor.Registrar) {
	processor.On(r, pubsub.Defaults, processor.Normal, func(_ context.Context, d *pubsub.Default) (processor.Verdict, error) {
		if d.Node == known {
			d.Settings.Access, d.Settings.MaxItems, d.Settings.Last = pubsub.Whitelist, pubsub.Max, pubsub.Never
		}
		return processor.Continue, nil
	})
	processor.On(r, pubsub.Fields, processor.Normal, func(_ context.Context, d *pubsub.Form) (processor.Verdict, error) {
		d.Table = append(d.Table, pubsub.Extra("urn:example:parent", "What the node belongs to", 10))
		return processor.Continue, nil
	})
	processor.On(r, pubsub.Publishing, processor.Normal, func(_ context.Context, p *pubsub.Publication) (processor.Verdict, error) {
		for _, it := range p.Items {
			switch it.ID {
			case "bad":
				return processor.Stop, stanza.NewError(stanza.NotAcceptable, "no")
			case "stale":
				p.Store(never, "nothing")
			case "shout":
				it.Payload = stanza.El(it.Payload.Name.Space, it.Payload.Name.Local).AddText("LOUD")
			}
			p.Store(insert, it.ID)
		}
		return processor.Continue, nil
	})
	processor.On(r, pubsub.Retracting, processor.Normal, func(_ context.Context, p *pubsub.Retraction) (processor.Verdict, error) {
		for _, id := range p.IDs {
			if id == "kept" {
				return processor.Stop, stanza.NewError(stanza.NotAllowed, "")
			}
		}
		return processor.Continue, nil
	})
	processor.On(r, pubsub.Published, processor.Normal, func(_ context.Context, p *pubsub.Publication) (processor.Verdict, error) {
		for _, it := range p.Items {
			f.note("published " + it.ID)
		}
		return processor.Continue, nil
	})
	processor.On(r, pubsub.Retracted, processor.Normal, func(_ context.Context, p *pubsub.Retraction) (processor.Verdict, error) {
		for _, id := range p.IDs {
			f.note("retracted " + id)
		}
		return processor.Continue, nil
	})
	processor.On(r, pubsub.Deleted, processor.Normal, func(_ context.Context, d *pubsub.Deletion) (processor.Verdict, error) {
		f.note("deleted " + d.Node.Node)
		return processor.Continue, nil
	})
	processor.On(r, pubsub.Configured, processor.Normal, func(_ context.Context, d *pubsub.Configuration) (processor.Verdict, error) {
		f.note("configured " + d.Node.Node)
		return processor.Continue, errors.New("costs nobody anything")
	})
	processor.On(r, pubsub.Joined, processor.Normal, func(_ context.Context, d *pubsub.Joining) (processor.Verdict, error) {
		f.note("joined " + string(d.Subscription.State))
		return processor.Continue, nil
	})
	processor.On(r, pubsub.Retrieving, processor.Normal, func(_ context.Context, d *pubsub.Retrieval) (processor.Verdict, error) {
		if d.Request.Child("urn:example:only", "one") != nil {
			d.Query.Newest = 1
		}
		return processor.Continue, nil
	})
}

func featureTable() fstest.MapFS {
	text := &fstest.MapFile{Data: []byte("-- +goose Up\nCREATE TABLE feature_row (id text NOT NULL);\n-- +goose Down\nDROP TABLE feature_row;\n")}
	return fstest.MapFS{"sqlite/0001_feature.sql": text, "postgres/0001_feature.sql": text}
}

// A feature sets what its nodes are like, refuses, changes and adds to what is
// published, hears of what has happened, and publishes itself.
func TestFeatures(t *testing.T) {
	f := &feature{}
	house := plugintest.Start(t, plugintest.Options{Plugins: append(house(), plugins.Plugin{
		Name: "feature", Requires: []string{pubsub.Name}, Migrations: featureTable(),
		Components: []plugins.Maker{{Server: processor.Name, New: func(env plugins.Env, _ plugins.Config) (plugins.Component, error) {
			var err error
			f.ps, err = plugins.Need[*pubsub.PubSub](env, pubsub.Name)
			return f, err
		}}},
	})})
	script.Test(t, &script.Runner{Target: house}, "testdata/hooks/*.txtar")
	log := f.take()
	want := []string{
		"configured " + known, "published a", "published shout", "configured " + known, "joined subscribed", "retracted a", "joined none", "deleted " + known,
	}
	if !slices.Equal(log, want) {
		t.Errorf("%q, want %q", log, want)
	}
	var rows int
	if err := house.DB().QueryRow(t.Context(), `SELECT count(*) FROM feature_row WHERE id IN ('a', 'shout', 'stale', 'bad')`).Scan(&rows); err != nil || rows != 2 {
		t.Errorf("%d rows, %v: what is refused leaves none", rows, err)
	}
	t.Run("contract", func(t *testing.T) { contract(t, f) })
}

// contract is what the house does in somebody's name.
func contract(t *testing.T, f *feature) {
	ctx, owner := t.Context(), jid.MustParse("somebody@localhost")
	at := pubsub.Address{Service: owner, Node: known}
	payload := stanza.El("urn:example", "a")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Error(err)
		}
	}
	if it, err := f.ps.Item(ctx, at, "1"); it != nil || err != nil {
		t.Errorf("%v, %v of a node that is not there", it, err)
	}
	must(f.ps.Retract(ctx, at, owner, "1"))
	must(f.ps.Delete(ctx, at, owner))
	ids, err := f.ps.Publish(ctx, at, owner, func(s *pubsub.Settings) { s.Title = "T" }, pubsub.Entry{ID: "1", Payload: payload}, pubsub.Entry{Payload: payload})
	must(err)
	if len(ids) != 2 || ids[0] != "1" || ids[1] == "" {
		t.Errorf("ids %q", ids)
	}
	n, err := f.ps.Node(ctx, at)
	must(err)
	if n == nil || n.Settings.Access != pubsub.Whitelist || n.Settings.Title != "T" || n.Affiliation(owner) != pubsub.Owner {
		t.Fatalf("%+v", n)
	}
	last, err := f.ps.Last(ctx, at)
	must(err)
	if last == nil || last.ID != ids[1] {
		t.Errorf("last %+v", last)
	}
	var se *stanza.Error
	if err := f.ps.May(ctx, n, jid.MustParse("other@localhost")); !errors.As(err, &se) || se.Condition != stanza.NotAllowed {
		t.Errorf("others may: %v", err)
	}
	must(f.ps.May(ctx, n, owner))
	must(f.ps.Configure(ctx, at, owner, func(s *pubsub.Settings) { s.Access = pubsub.Open }))
	must(f.ps.Retract(ctx, at, owner, "1", "none"))
	nodes, err := f.ps.Nodes(ctx, owner)
	must(err)
	page, err := f.ps.Items(ctx, at, pubsub.Query{})
	must(err)
	if len(nodes) != 1 || nodes[0].Settings.Access != pubsub.Open || len(page.Items) != 1 {
		t.Errorf("%d nodes, %d items", len(nodes), len(page.Items))
	}
	if err := f.ps.Create(ctx, at, owner, nil); !errors.As(err, &se) || se.Condition != stanza.Conflict {
		t.Errorf("made twice: %v", err)
	}
	if _, err := f.ps.Publish(ctx, at, owner, nil, pubsub.Entry{ID: "bad", Payload: payload}); !errors.As(err, &se) || se.Condition != stanza.NotAcceptable {
		t.Errorf("hooks do not count for the house: %v", err)
	}
	must(f.ps.Delete(ctx, at, owner))
	if n, err := f.ps.Node(ctx, at); n != nil || err != nil {
		t.Errorf("%v, %v after it was deleted", n, err)
	}
}

// What an account has is gone with it, and an account of the same name begins with
// nothing.
func TestAccountRemoved(t *testing.T) {
	var all *accounts.Accounts
	f := &feature{}
	plugintest.Start(t, plugintest.Options{Plugins: append(house(), plugins.Plugin{
		Name: "feature", Requires: []string{pubsub.Name, "accounts"}, Migrations: featureTable(),
		Components: []plugins.Maker{{Server: processor.Name, New: func(env plugins.Env, _ plugins.Config) (plugins.Component, error) {
			var err error
			if all, err = plugins.Need[*accounts.Accounts](env, "accounts"); err == nil {
				f.ps, err = plugins.Need[*pubsub.PubSub](env, pubsub.Name)
			}
			return f, err
		}}},
	})})
	ctx, who := t.Context(), jid.MustParse("somebody@localhost")
	if err := all.Create(ctx, who, "secret-of-somebody"); err != nil {
		t.Fatal(err)
	}
	if _, err := f.ps.Publish(ctx, pubsub.Address{Service: who, Node: "n"}, who, nil, pubsub.Entry{Payload: stanza.El("urn:example", "a")}); err != nil {
		t.Fatal(err)
	}
	if err := all.Delete(ctx, who); err != nil {
		t.Fatal(err)
	}
	if nodes, err := f.ps.Nodes(ctx, who); err != nil || len(nodes) != 0 {
		t.Errorf("%d nodes are left, %v", len(nodes), err)
	}
}

// What a form says is applied whole or refused, and shown as it was taken.
func FuzzSettings(f *testing.F) {
	f.Add(`<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>` + pubsub.FormConfig + `</value></field><field var='pubsub#max_items'><value>max</value></field></x>`)
	f.Add(`<x xmlns='jabber:x:data'><field var='pubsub#access_model'><value>roster</value></field><field var='pubsub#roster_groups_allowed'><value>a</value><value>b</value></field></x>`)
	f.Add(`<x xmlns='jabber:x:data'><field var='pubsub#item_expire'><value>0</value></field><field var='pubsub#contact'><value>a@b/c</value></field></x>`)
	f.Fuzz(func(t *testing.T, text string) {
		x, err := stanza.ParseElement([]byte(text), "")
		if err != nil || x == nil {
			return
		}
		read, err := form.Parse(x)
		if err != nil {
			return
		}
		shown, err := pubsub.Applied(read)
		if err != nil {
			var se *stanza.Error
			if !errors.As(err, &se) {
				t.Fatalf("%v is no answer", err)
			}
			return
		}
		again, err := pubsub.Applied(shown)
		if err != nil || string(again.Element().Bytes("")) != string(shown.Element().Bytes("")) {
			t.Fatalf("what was shown is not taken: %v\n%s", err, shown.Element().Bytes(""))
		}
	})
}

// What a request holds is read within bounds, and what is wrong with it is an
// answer.
func FuzzRequest(f *testing.F) {
	for _, text := range []string{
		`<pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='n'><item id='a'><x xmlns='y'/></item></publish></pubsub>`,
		`<pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='n' max_items='3'><item id='a'/></items><set xmlns='http://jabber.org/protocol/rsm'><max>7</max><before>x</before></set><order xmlns='urn:xmpp:order-by:1' by='creation' desc='1'/></pubsub>`,
		`<pubsub xmlns='http://jabber.org/protocol/pubsub#owner'><affiliations node='n'><affiliation jid='a@b' affiliation='owner'/></affiliations></pubsub>`,
		`<pubsub xmlns='http://jabber.org/protocol/pubsub'><subscribe node='n' jid='romeo@localhost/y'/></pubsub>`,
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		el, err := stanza.ParseElement([]byte(text), "")
		if err != nil || el == nil {
			return
		}
		if err := pubsub.Read(el); err != nil {
			t.Fatal(err)
		}
	})
}

// What several devices publish at once is told in the order in which it is kept: who
// follows a node ends with what is there.
func TestToldInTheOrderOfWriting(t *testing.T) {
	const devices, each = 6, 40
	house := plugintest.Start(t, plugintest.Options{Plugins: house()})
	ctx := t.Context()
	ask := func(c *plugintest.Client, payload string) {
		t.Helper()
		if err := c.Send("<iq type='set' id='q' to='pubsub.localhost'><pubsub xmlns='http://jabber.org/protocol/pubsub'>" + payload + "</pubsub></iq>"); err != nil {
			t.Error(err)
			return
		}
		for {
			el, err := c.Next(ctx)
			if err != nil {
				t.Error(err)
				return
			}
			if el.Get("id") == "q" {
				if el.Get("type") != "result" {
					t.Errorf("%s", el.Bytes(""))
				}
				return
			}
		}
	}
	login := func(user, device string) *plugintest.Client {
		t.Helper()
		c, err := house.Login(ctx, user, device)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		return c
	}
	juliet := login("juliet", "a")
	if err := juliet.Send("<presence/>"); err != nil {
		t.Fatal(err)
	}
	owner := login("romeo", "owner")
	ask(owner, "<create node='n'/>")
	ask(juliet, "<subscribe node='n' jid='juliet@localhost'/>")
	var work sync.WaitGroup
	for d := range devices {
		c := login("romeo", fmt.Sprint("device", d))
		work.Go(func() {
			for i := range each {
				ask(c, fmt.Sprintf("<publish node='n'><item id='%d-%d'><a xmlns='urn:example'/></item></publish>", d, i))
			}
		})
	}
	var told []string
	for len(told) < devices*each {
		el, err := juliet.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		ev := el.Child(pubsub.NSEvent, "event")
		if ev == nil {
			continue
		}
		for it := range ev.Child(pubsub.NSEvent, "items").Elements() {
			told = append(told, it.Get("id"))
		}
	}
	work.Wait()
	kept, err := storage.All(ctx, house.DB(), func(r storage.Row) (id string, err error) { err = r.Scan(&id); return id, err }, `SELECT i.id FROM pubsub_item i JOIN pubsub_node n ON n.id = i.node WHERE n.name = 'n' ORDER BY i.seq`)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(told, kept) {
		at := 0
		for at < len(kept) && told[at] == kept[at] {
			at++
		}
		t.Errorf("of %d items the order differs from place %d on", len(kept), at)
	}
}
