package blocklists

import (
	"context"
	"errors"

	"parley/parser/stanza"
	"parley/plugins/pubsub"
	"parley/processor"
)

const nsEvent = "http://jabber.org/protocol/pubsub#event"

// notified takes what a list's service says of it (XEP-0060 §7.1.2, §7.2.2, §8.5, §8.4).
func (p *part) notified(ctx context.Context, f *processor.Flow) (processor.Verdict, error) {
	if f.Kind != stanza.Message || f.Type == stanza.TypeError {
		return processor.Continue, nil
	}
	event := f.Child(nsEvent, "event")
	if event == nil {
		return processor.Continue, nil
	}
	mine := false
	for what := range event.Elements() {
		src := source{f.From, what.Get("node")}.String()
		if _, wanted := p.wanted[src]; !wanted {
			continue
		}
		mine = true
		if what.Name.Local != "items" { // purged, deleted, configured
			p.again(ctx, src)
			continue
		}
		var all []change
		for item := range what.Elements() {
			if e, ok := parseEntry(item); ok {
				all = append(all, change{e, item.Name.Local == "item"})
			}
		}
		p.changed(ctx, src, all)
	}
	if mine {
		return processor.Stop, nil
	}
	return processor.Continue, nil
}

// changed takes changes. What cannot be taken now comes with the whole list.
func (p *part) changed(ctx context.Context, src string, all []change) {
	err := p.lists.change(ctx, src, all, p.cfg.MaxItems)
	switch {
	case errors.Is(err, errFull):
		p.env.Log.Warn("block list is full", "list", src, "max_items", p.cfg.MaxItems)
	case err != nil:
		p.env.Log.Error("change of a block list not taken", "list", src, "err", err)
		p.again(ctx, src)
	}
}

// again lets the list be fetched: by the node that does that, soon.
func (p *part) again(ctx context.Context, src string) {
	if err := p.lists.store.due(ctx, src); err != nil {
		p.env.Log.Error("block list not fetched", "list", src, "err", err)
	}
	select {
	case p.hurry <- struct{}{}:
	default:
	}
}

// ofNode is the list that a node of a service of ours is; "": none. What such a service
// says to its own domain is told by hooks.
func (p *part) ofNode(at pubsub.Address) string {
	src := source{at.Service, at.Node}.String()
	if _, wanted := p.wanted[src]; !wanted {
		return ""
	}
	return src
}

func (p *part) published(ctx context.Context, x *pubsub.Publication) (processor.Verdict, error) {
	if src := p.ofNode(x.Node.Address); src != "" {
		var all []change
		for _, item := range x.Items {
			if h, ok := parseHash(item.ID); ok {
				all = append(all, change{entry{h, reasonOf(item.Payload)}, true})
			}
		}
		p.changed(ctx, src, all)
	}
	return processor.Continue, nil
}

func (p *part) retracted(ctx context.Context, x *pubsub.Retraction) (processor.Verdict, error) {
	if src := p.ofNode(x.Node.Address); src != "" {
		var all []change
		for _, id := range x.IDs {
			if h, ok := parseHash(id); ok {
				all = append(all, change{entry{hash: h}, false})
			}
		}
		p.changed(ctx, src, all)
		if x.All || len(x.IDs) == 0 {
			p.again(ctx, src)
		}
	}
	return processor.Continue, nil
}
