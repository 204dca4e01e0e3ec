package archive

import (
	"context"
	"fmt"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins/message/kinds"
	"parley/processor"
)

// outgoing archives what a local client sends, on its own side.
func (p *part) outgoing(ctx context.Context, f *processor.Flow) (processor.Verdict, error) {
	if f.Kind != stanza.Message {
		return processor.Continue, nil
	}
	own := f.Session.JID.Bare()
	p.clean(f, own)
	k := kinds.Of(f.Stanza)
	if p.cfg.Store != All || f.To.Bare() == own || !k.Lasting() || k.Has(kinds.NoPermanentStore) {
		return processor.Continue, nil // to itself: archived once, when it arrives (XEP-0313 §6.1.1)
	}
	o, err := p.owners.get(ctx, own)
	if err != nil {
		return processor.Stop, err
	}
	if keep, err := p.keeps(ctx, o, f.To); err != nil || !keep {
		return processor.Continue, err
	}
	e, err := p.identify(ctx, o, f.To, f)
	if err != nil {
		return processor.Stop, err
	}
	if e.standing == fresh {
		p.keep(o, &e, f.To, f)
		p.metrics.stored.WithLabelValues("sent").Inc()
	}
	f.Mark(p.stanzaID(o, e.id))
	return processor.Continue, nil
}

// incoming archives what a local account is sent, and has it wait until a
// device takes it.
func (p *part) incoming(ctx context.Context, f *processor.Flow) (processor.Verdict, error) {
	if f.Kind != stanza.Message {
		return processor.Continue, nil
	}
	p.clean(f, f.Account)
	k := kinds.Of(f.Stanza)
	refused := f.Fails != nil && !f.Keep                     // XEP-0313 §6.1: what is rejected is not archived
	spared := f.Fails == nil && p.cfg.Store == Undeliverable // somebody takes it now
	if !k.Lasting() || refused || spared {
		return processor.Continue, nil
	}
	o, err := p.owners.get(ctx, f.Account)
	if err != nil {
		return processor.Stop, err
	}
	e, err := p.identify(ctx, o, f.From, f)
	if err != nil {
		return processor.Stop, err
	}
	if e.standing == fresh {
		if p.full(ctx, o) { // RFC 6121 §8.5.2.2.1, XEP-0160 §2 step 3
			p.metrics.full.Inc()
			return processor.Stop, stanza.NewError(stanza.ServiceUnavailable, "")
		}
		visible := p.cfg.Store == All && !k.Has(kinds.NoPermanentStore)
		if visible {
			if visible, err = p.keeps(ctx, o, f.From); err != nil {
				return processor.Stop, err
			}
		}
		if visible {
			p.keep(o, &e, f.From, f)
			f.Store(&insertPending, o.id, e.id, nil, 0)
		} else {
			p.await(o, e.id, f)
		}
		p.waits(o, &e, f)
		p.metrics.stored.WithLabelValues("received").Inc()
	}
	// What has been on its way is not sent again: somebody has it, or it is
	// pending, and then a replay has brought it or will. Here it would come
	// behind what is newer (D3).
	if e.standing == sent {
		return processor.Stop, nil
	}
	f.Pending = e.id
	f.Append(p.stanzaID(o, e.id))
	return processor.Continue, nil
}

// keep adds the row. It counts towards the quota when it is in the archive: what
// is refused in the end must not cost the oldest ones.
func (p *part) keep(o *owner, e *entry, contact jid.JID, f *processor.Flow) {
	with := contactParty(contact)
	p.put(f, o, e.id, with, forwarded(f))
	if retracts(f.Stanza) != "" {
		id, st := e.id, f.Stanza
		f.Settled(func(stored bool) {
			if stored {
				p.retracted(o, id, with.peer, st)
			}
		})
	}
	if p.cfg.Quota > 0 {
		p.fate(o, e, f).row = true
	}
}

// await adds a pending row that holds the message itself.
func (p *part) await(o *owner, id int64, f *processor.Flow) {
	body, key := p.env.AtRest.Seal(&sealedPending, forwarded(f), o.id, id)
	f.Store(&insertPending, o.id, id, body, key)
}

// forwarded is the message as it stands, ready to be put into <forwarded/>
// (XEP-0297 §3.2).
func forwarded(f *processor.Flow) []byte {
	e := f.Edits()
	e.Head = f.StampForwarded().Head
	return e.Render(nil, f.Raw)
}

// clean takes out stanza-ids in the name of an account of ours: only we give
// those (XEP-0359 §3 rule 4; security: forged stanza ids).
func (p *part) clean(f *processor.Flow, own jid.JID) {
	for _, c := range f.Children {
		if c.Name.Space == stanza.NSStanzaID && claims(f.Stanza, c, own) {
			f.Cut(c)
		}
	}
}

// keeps asks the account's preferences.
func (p *part) keeps(ctx context.Context, o *owner, contact jid.JID) (bool, error) {
	return o.prefs.keeps(contact, func(bare jid.JID) (bool, error) {
		s, err := p.rosters.Contacts(ctx, o.jid)
		if err != nil {
			return false, fmt.Errorf("archive preference: %w", err)
		}
		_, in := s.Item(bare)
		return in, nil
	})
}

// full reports whether the account can be sent nothing more: too much waits
// for it, or its archive is over its quota and cannot give.
func (p *part) full(ctx context.Context, o *owner) bool {
	if most := int64(p.cfg.MaxPending); o.pending.Load() >= most {
		if p.env.Notices == nil {
			return true
		}
		// What recipients of other nodes have taken is not counted here.
		if err := p.owners.recount(ctx, o, p.env.Clock.Now(), most); err != nil || o.pending.Load() >= most {
			return true
		}
	}
	return p.cfg.Quota > 0 && o.rows.Load() >= int64(p.cfg.Quota+p.cfg.Quota/10+quotaSlack)
}

// quotaSlack is how far an archive may be over its quota, beside a tenth,
// while the oldest rows are being removed.
const quotaSlack = 1000

// waits counts a row that will be pending. It counts before the commit, so that
// a batch does not exceed the bound, and not if there is none.
func (p *part) waits(o *owner, e *entry, f *processor.Flow) {
	o.pending.Add(1)
	p.quiet.stores(o.id)
	p.fate(o, e, f).waits = true
}
