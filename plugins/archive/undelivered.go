package archive

import (
	"context"
	"slices"
	"time"

	"parley/parser/stanza"
	"parley/plugins/message/kinds"
	"parley/processor"
	"parley/router/channel"
	"parley/router/sessions"
)

// undelivered deals with a message that a session had not acknowledged when it
// ended (XEP-0198 §5).
func (p *part) undelivered(ctx context.Context, f *processor.Flow) (processor.Verdict, error) {
	if f.Kind != stanza.Message {
		return processor.Continue, nil
	}
	k := kinds.Of(f.Stanza)
	switch {
	case k.Has(kinds.Wrapped), k.Fleeting(): // a copy, an archive result, typing: nobody misses it
		return processor.Stop, nil
	case f.Pending != 0:
		return processor.Stop, p.reroute(ctx, f)
	case !k.Lasting():
		return processor.Continue, nil
	case p.cfg.Store == All: // stored, but not this session's to take: its priority was negative
		return processor.Stop, nil
	}
	return processor.Stop, p.rescue(ctx, f)
}

// reroute lets a message that was for the dead session alone reach the other
// devices now; it stays pending until one of them has it. What was addressed
// to the account they have all been sent already.
func (p *part) reroute(ctx context.Context, f *processor.Flow) error {
	if f.To.IsBare() || !p.someone(f) {
		return nil
	}
	o, err := p.owners.get(ctx, f.Account)
	if err != nil {
		return err
	}
	if p.acks.has(o, f.Pending) {
		return nil
	}
	still, err := p.stillPending(ctx, o, f.Pending)
	if err != nil || !still {
		return err
	}
	p.toAccount(f, timeOf(f.Pending))
	return nil
}

func (p *part) stillPending(ctx context.Context, o *owner, id int64) (bool, error) {
	var n int
	err := p.env.DB.QueryRow(ctx, `SELECT COUNT(*) FROM archive_pending WHERE owner = $1 AND id = $2`, o.id, id).Scan(&n)
	return n > 0, err
}

// rescue is for a house that stores only what it cannot deliver: now it
// cannot.
func (p *part) rescue(ctx context.Context, f *processor.Flow) error {
	since := p.env.Clock.Now()
	if f.Since != 0 {
		since = time.UnixMicro(f.Since)
	}
	if p.someone(f) {
		if f.To.IsFull() {
			p.toAccount(f, since)
		}
		return nil
	}
	o, err := p.owners.get(ctx, f.Account)
	if err != nil {
		return err
	}
	if p.full(ctx, o) {
		p.metrics.full.Inc()
		return stanza.NewError(stanza.ServiceUnavailable, "")
	}
	e := entry{id: p.ids.take(f)}
	p.await(o, e.id, f)
	p.waits(o, &e, f)
	return nil
}

// poisoned lets go of a row that nobody can be given: somebody else keeps it
// (reliability row 38).
func (p *part) poisoned(ctx context.Context, x *processor.Poison) (processor.Verdict, error) {
	if !x.Kept || x.Pending == 0 {
		return processor.Continue, nil
	}
	o, err := p.owners.get(ctx, x.Account)
	if err != nil {
		return processor.Continue, err
	}
	p.acks.add(o, x.Pending)
	return processor.Continue, nil
}

// someone reports whether a device of the account takes messages now.
func (p *part) someone(f *processor.Flow) bool {
	return slices.ContainsFunc(p.env.Sessions.Account(f.Account), (*sessions.Entry).Receives)
}

// toAccount routes the message as if it had been sent to the bare address
// (RFC 6121 §8.5.3.2.1), with the address it had and the time it was sent.
func (p *part) toAccount(f *processor.Flow, since time.Time) {
	st := f.Stanza.Clone()
	edits := st.Stamp()
	if !st.Has(stanza.NSDelay, "delay") {
		d := stanza.El(stanza.NSDelay, "delay").With("from", f.Account.Domain()).With("stamp", since.UTC().Format(stampLayout))
		edits.Append = d.Append(edits.Append, stanza.NSClient)
	}
	st.To = f.Account
	f.Send(&channel.Envelope{Kind: channel.Route, Raw: st.Raw, Stanza: st, Edits: edits, Pending: f.Pending, Private: true, Hops: f.Hops})
}
