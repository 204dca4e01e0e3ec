package pubsub

import (
	"context"
	"strings"

	"parley/parser/stanza"
	"parley/processor"
)

// Profile is what nodes of one pubsub#type are like (XEP-0472 §5): how they
// begin, what of that is not to be changed, what may be published.
type Profile struct {
	Type string
	Node string // PEP: the well-known node, or with a / at its end all that begin so; "": any node
	Only bool   // the type is for that node alone
	// Set says how a node begins, before its creator's wishes.
	Set func(*Settings)
	// Must are rules for as long as the node has the type; who wishes otherwise hears
	// not-acceptable.
	Must []Rule
	// Check refuses what is not to be published; nil: anything is.
	Check func(*Item) error
}

// Rule is a demand on a node's settings.
type Rule struct {
	Field, Want string // for people: pubsub#max_items, "max"
	OK          func(*Settings) bool
}

// wellKnown reports whether the node has the type by its name.
func (p *Profile) wellKnown(at Address) bool {
	switch {
	case p.Node == "" || p.Only && !at.PEP():
		return false
	case strings.HasSuffix(p.Node, "/"):
		return strings.HasPrefix(at.Node, p.Node)
	}
	return at.PEP() && at.Node == p.Node
}

// Profiles registers them with a component.
func Profiles(r *processor.Registrar, all ...Profile) {
	byType := map[string]*Profile{}
	for i := range all {
		byType[all[i].Type] = &all[i]
	}
	processor.On(r, Defaults, processor.Normal, func(_ context.Context, d *Default) (processor.Verdict, error) {
		for i := range all {
			if p := &all[i]; d.Type == p.Type || d.Type == "" && p.wellKnown(d.Address) {
				p.Set(d.Settings)
				d.Settings.Type = p.Type
				break
			}
		}
		return processor.Continue, nil
	})
	processor.On(r, Settling, processor.Late, func(_ context.Context, e *Settlement) (processor.Verdict, error) {
		p := byType[e.Settings.Type]
		if p == nil {
			return processor.Continue, nil
		}
		if p.Only && !p.wellKnown(e.Address) {
			return processor.Continue, stanza.NewError(stanza.NotAcceptable, "pubsub#type: "+p.Type+" is for accounts' own nodes of that name")
		}
		for _, m := range p.Must {
			if !m.OK(e.Settings) {
				return processor.Continue, stanza.NewError(stanza.NotAcceptable, m.Field+": has to be "+m.Want+" for nodes of type "+p.Type)
			}
		}
		return processor.Continue, nil
	})
	processor.On(r, Publishing, processor.Normal, func(_ context.Context, p *Publication) (processor.Verdict, error) {
		of := byType[p.Node.Settings.Type]
		if of == nil || of.Check == nil {
			return processor.Continue, nil
		}
		for _, it := range p.Items {
			if err := of.Check(it); err != nil {
				return processor.Continue, err
			}
		}
		return processor.Continue, nil
	})
}

// InvalidPayload refuses an item (XEP-0060 §7.1.3.6).
func InvalidPayload(text string) error { return failure(stanza.BadRequest, "invalid-payload", text) }
