package inbox

import (
	"context"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins/message/kinds"
	"parley/processor"
)

// Waiting fires when a message that people want to know of, words or a call
// (XEP-0353 §5), is durable and no device of an account takes it now: none is
// there, or the streams of all are broken and may be resumed. It fires again when
// the last device that should have taken a message ends without having done so.
// Functions must not wait for the network: nothing of the message goes out before
// they have returned.
var Waiting = processor.NewHook[*Wait]("inbox-waiting")

// Wait is a message that waits for an account.
type Wait struct {
	Account      jid.JID // bare
	Conversation jid.JID // as in the inbox
	From         jid.JID
	Stanza       *stanza.Stanza // not to be kept
	Kind         kinds.Kind
	Mentioned    bool
	Default      When // what holds where the account has set nothing
	Notify       Notify
}

// Muted reports whether a client of an identity of service discovery is not to
// tell of it (XEP-0492); empty: any client.
func (w *Wait) Muted(category, typ string) bool {
	switch w.Notify.For(category, typ, w.Default) {
	case Never:
		return true
	case OnMention:
		return !w.Mentioned
	}
	return false
}

// incoming tells, after the commit, that a message waits.
func (p *part) incoming(ctx context.Context, f *processor.Flow) (processor.Verdict, error) {
	if f.Kind != stanza.Message || f.Pending == 0 || p.taken(f) {
		return processor.Continue, nil
	}
	w, ok := p.wait(ctx, f)
	if !ok {
		return processor.Continue, nil
	}
	f.Settled(func(stored bool) {
		if stored {
			p.tell(ctx, w)
		}
	})
	return processor.Continue, nil
}

// undelivered is for what a session had not taken when it ended.
func (p *part) undelivered(ctx context.Context, f *processor.Flow) (processor.Verdict, error) {
	if f.Kind != stanza.Message || f.Pending == 0 || p.taken(f) {
		return processor.Continue, nil
	}
	if w, ok := p.wait(ctx, f); ok {
		p.tell(ctx, w)
	}
	return processor.Continue, nil
}

func (p *part) tell(ctx context.Context, w *Wait) {
	p.metrics.waiting.Inc()
	if _, err := processor.Fire(ctx, p.reg, Waiting, w); err != nil {
		p.env.Log.Warn("nobody is woken for a message", "account", w.Account.String(), "err", err)
	}
}

// taken reports whether a device gets the message at once.
func (p *part) taken(f *processor.Flow) bool {
	return p.awake(f.Account, f.To)
}

// awake reports whether a session with a stream gets what is sent to an address of
// the account (RFC 6121 §8.5).
func (p *part) awake(account, to jid.JID) bool {
	for _, e := range p.env.Sessions.Account(account) {
		if !e.Hibernated && !e.Paused && (e.Receives() || e.JID == to) {
			return true
		}
	}
	return false
}

// wait describes a message; false: nobody wants to know of it.
func (p *part) wait(ctx context.Context, f *processor.Flow) (*Wait, bool) {
	k := kinds.Of(f.Stanza)
	if !k.Says() && !k.Has(kinds.Call) || f.From.Bare() == f.Account {
		return nil, false
	}
	peer, ok := conversation(k, f.From)
	if !ok && !k.Has(kinds.Invite) {
		return nil, false
	}
	n, err := p.NotifyOf(ctx, f.Account, peer.Bare())
	if err != nil { // better woken once too often
		p.env.Log.Warn("notification settings not known", "account", f.Account.String(), "err", err)
	}
	m := mentionsIn(f.Stanza)
	return &Wait{
		Account: f.Account, Conversation: peer, From: f.From, Stanza: f.Stanza, Kind: k,
		Mentioned: m.name(f.Account, jid.JID{}, ""), Default: Always, Notify: n,
	}, true
}
