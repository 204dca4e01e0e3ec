package inbox

import (
	"context"
	"errors"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins/bookmarks"
	"parley/plugins/displayed"
	"parley/plugins/pubsub"
	"parley/processor"
)

// What an account's devices publish for each other counts here, too: how far they
// have shown a conversation, and what they want to hear of a room.

// shown is XEP-0490 §4: the stanza-id is the account's, or the room's.
func (p *part) shown(ctx context.Context, m *displayed.Mark) (processor.Verdict, error) {
	if m.By != m.Account && m.By != m.Conversation.Bare() {
		return processor.Continue, nil
	}
	return processor.Continue, p.Read(ctx, m.Account, m.Conversation, m.ID)
}

// bookmarked takes the notification settings out of a bookmark's extensions (XEP-0492
// §2, XEP-0402 §3.1). What is none counts as not there: it is for clients, too.
func (p *part) bookmarked(ctx context.Context, e *pubsub.Publication) (processor.Verdict, error) {
	if !e.Node.PEP() || e.Node.Node != bookmarks.NS {
		return processor.Continue, nil
	}
	var errs []error
	for _, it := range e.Items {
		if it.Payload != nil {
			errs = append(errs, p.set(ctx, e.Node.Service, it.ID, it.Payload.Child(bookmarks.NS, "extensions")))
		}
	}
	return processor.Continue, errors.Join(errs...)
}

// forgotten takes the settings back with the bookmarks: some, or all of them.
func (p *part) forgotten(ctx context.Context, e *pubsub.Retraction) (processor.Verdict, error) {
	if !e.Node.PEP() || e.Node.Node != bookmarks.NS {
		return processor.Continue, nil
	}
	if e.All {
		return processor.Continue, p.unsetAll(ctx, e.Node.Service)
	}
	var errs []error
	for _, id := range e.IDs {
		errs = append(errs, p.set(ctx, e.Node.Service, id, nil))
	}
	return processor.Continue, errors.Join(errs...)
}

// deleted takes all settings back with the node.
func (p *part) deleted(ctx context.Context, e *pubsub.Deletion) (processor.Verdict, error) {
	if !e.Node.PEP() || e.Node.Node != bookmarks.NS {
		return processor.Continue, nil
	}
	return processor.Continue, p.unsetAll(ctx, e.Node.Service)
}

func (p *part) set(ctx context.Context, account jid.JID, room string, extensions *stanza.Element) error {
	at, err := jid.Parse(room)
	if err != nil {
		return nil // opaque to us
	}
	var n Notify
	if extensions != nil {
		if el := extensions.Child(NSNotify, "notify"); el != nil {
			n, _ = ParseNotify(el)
		}
	}
	return p.SetNotify(ctx, account, at.Bare(), n)
}
