// Package nodearchive lets clients read the nodes of pubsub as archives (XEP-0442,
// XEP-0313): a query names the node.
//
// The archive of a node is the items it has. That is what XEP-0442 §3 asks for,
// "each of the items published", of which there is one for each id; so what was
// retracted or has expired is in no archive that would have to follow, and who may
// read the items may read it. An item that is published again is a new message.
package nodearchive

import (
	"context"

	"parley/parser/stanza"
	"parley/plugins"
	"parley/plugins/archive"
	"parley/plugins/config"
	"parley/plugins/pubsub"
	"parley/processor"
	"parley/router/channel"
)

// Name is the plugin's name.
const Name = "nodearchive"

// Plugin provides the component.
var Plugin = plugins.Plugin{
	Name:       Name,
	Doc:        "The archives of nodes: what was published, by time and by page.",
	Requires:   []string{archive.Name, pubsub.Name},
	Components: []plugins.Maker{{Server: processor.Name, Defaults: defaults(), New: newNodeArchive}},
}

// Config is the component's section.
type Config struct {
	Page     int         `yaml:"page" min:"1" max:"250" unit:"items" doc:"Items in a page when the client does not say how many."`
	MaxPage  int         `yaml:"max_page" min:"1" max:"250" unit:"items" doc:"Items in a page at most."`
	PageSize config.Size `yaml:"max_page_size" min:"64KiB" doc:"Payloads in a page, or of items that are asked for by their ids, together; one item always fits."`
}

func defaults() *Config { return &Config{Page: 50, MaxPage: 100, PageSize: 1 << 20} }

type nodeArchive struct {
	cfg    Config
	pubsub *pubsub.PubSub
	reg    *processor.Registrar
}

var _ processor.Component = (*nodeArchive)(nil)

func newNodeArchive(env plugins.Env, c plugins.Config) (plugins.Component, error) {
	a := &nodeArchive{cfg: *defaults()}
	if err := c.Decode(&a.cfg); err != nil {
		return nil, err
	}
	a.cfg.Page = min(a.cfg.Page, a.cfg.MaxPage)
	var err error
	a.pubsub, err = plugins.Need[*pubsub.PubSub](env, pubsub.Name)
	return a, err
}

// Start implements plugins.Component.
func (*nodeArchive) Start(context.Context) error { return nil }

// Stop implements plugins.Component.
func (*nodeArchive) Stop(context.Context) error { return nil }

// Register implements processor.Component.
func (a *nodeArchive) Register(r *processor.Registrar) {
	a.reg = r
	processor.On(r, archive.NodeAsked, processor.Normal, func(ctx context.Context, q *archive.NodeQuery) (_ processor.Verdict, err error) {
		q.Answer, err = a.asked(ctx, q.Stanza, pubsub.Address{Service: q.Owner, Node: q.Query.Get("node")}, q.Query)
		return processor.Stop, err
	})
	processor.On(r, pubsub.ServiceAsked, processor.Normal, func(ctx context.Context, q *pubsub.ServiceQuery) (_ processor.Verdict, err error) {
		if q.Query.Name != (stanza.Name{Space: archive.NS, Local: "query"}) {
			return processor.Continue, nil
		}
		q.Answer, err = a.asked(ctx, q.Stanza, pubsub.Address{Service: q.To, Node: q.Query.Get("node")}, q.Query)
		return processor.Stop, err
	})
	processor.On(r, pubsub.Describing, processor.Normal, func(_ context.Context, d *pubsub.Description) (processor.Verdict, error) {
		if d.Node == nil { // XEP-0313 §7
			d.AddFeature(archive.NS)
		}
		return processor.Continue, nil
	})
}

// asked answers XEP-0313 §4: the form to a get, a page to a set.
func (a *nodeArchive) asked(ctx context.Context, st *stanza.Stanza, at pubsub.Address, query *stanza.Element) (*stanza.Element, error) {
	if st.Type == stanza.TypeGet {
		return shape(), nil
	}
	n, err := a.pubsub.Readable(ctx, at, st.From)
	if err != nil {
		return nil, err
	}
	q, err := a.parse(query)
	if err != nil {
		return nil, err
	}
	items, complete, err := a.pubsub.Chronicle(ctx, n, q)
	if err != nil {
		return nil, err
	}
	var batch []*channel.Envelope
	for _, it := range items {
		batch = append(batch, result(st, n, it, query.Get("queryid")))
	}
	if query.Child(archive.NS, "flip-page") != nil { // §4.3.4
		for i, j := 0, len(batch)-1; i < j; i, j = i+1, j-1 {
			batch[i], batch[j] = batch[j], batch[i]
		}
	}
	a.reg.Route(ctx, batch...)
	return fin(items, complete), nil
}

const stampLayout = "2006-01-02T15:04:05.000000Z"

// result is one item (XEP-0442 §2). It takes the road of the answer that follows,
// so that it arrives before it.
func result(q *stanza.Stanza, n *pubsub.Node, it *pubsub.Item, queryID string) *channel.Envelope {
	ev := n.Event(it)
	edits := ev.StampForwarded()
	el := stanza.El(archive.NS, "result").WithOpt("queryid", queryID).With("id", place(it)).
		Add(stanza.El(stanza.NSForward, "forwarded").
			Add(stanza.El(stanza.NSDelay, "delay").With("stamp", it.At.UTC().Format(stampLayout))).
			AddRaw(edits.Render(nil, ev.Raw)))
	st := stanza.Make(stanza.Message, "", n.Service, q.From, "", el)
	to := &stanza.Stanza{Kind: stanza.Message, From: q.To, To: q.From}
	return &channel.Envelope{Kind: channel.Route, Raw: st.Raw, Stanza: to, Replay: true, Solicited: true, Private: true}
}
