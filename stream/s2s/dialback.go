package s2s

import (
	"cmp"
	"context"
	"errors"

	"parley/parser/stanza"
	"parley/stream"
)

// result is a key with which the other side wants to be believed to be a domain
// (XEP-0220 §2.1.1, as the receiving server). What has a certificate for the domain
// needs no key.
func (in *incoming) result(ctx context.Context, c *stream.Conn, el *stanza.Element) error {
	if el.Has("type") { // an answer, and we have asked nothing here
		return nil
	}
	from, ok := domainOf(el.Get("from"))
	to, served := domainOf(el.Get("to"))
	p := pair{from, to}
	why := in.unfit(c, p, ok, served)
	if why != nil {
		return in.answer(c, el, "error", why)
	}
	if in.has(p) {
		return in.accept(c, el, p)
	}
	if in.shows(c, from) == nil {
		if err := in.proven(ctx, c, p, Certificate); err != nil {
			return err
		}
		return in.accept(c, el, p)
	}
	if in.rules().policy(to, from).Proof == Certificate {
		return in.answer(c, el, "error", stanza.NewError(stanza.NotAuthorized, "a certificate of that domain is required"))
	}
	var valid bool
	var err error
	c.Wait(func() { valid, err = in.out.verify(ctx, pair{to, from}, cmp.Or(in.id, c.ID()), el.Text()) })
	switch {
	case err != nil:
		in.log(p, err)
		return in.answer(c, el, "error", unreached(err))
	case !valid:
		in.log(p, errors.New("the key is not valid"))
		return in.answer(c, el, "invalid", nil)
	}
	if err := in.proven(ctx, c, p, Dialback); err != nil {
		return err
	}
	return in.accept(c, el, p)
}

// accept says that a pair is proven.
func (in *incoming) accept(c *stream.Conn, el *stanza.Element, p pair) error {
	err := in.answer(c, el, "valid", nil)
	in.offer(p)
	return err
}

func (in *incoming) log(p pair, err error) {
	in.out.metrics.proofs.WithLabelValues("in", "dialback", "refused").Inc()
	in.out.env.Log.Info("another server is not who it says to be", "from", p.from, "to", p.to, "by", "dialback", "err", err)
}

// unreached is what the other side hears when its domain's server is not there to be
// asked (XEP-0220 §2.4).
func unreached(err error) *stanza.Error {
	if why := finalError(err); why != nil {
		return why
	}
	return timeout()
}

// unfit says why a pair cannot be proven here at all; nil: it may be.
func (in *incoming) unfit(c *stream.Conn, p pair, from, to bool) *stanza.Error {
	in.mu.Lock()
	many := len(in.pairs) >= in.cfg.Pairs
	in.mu.Unlock()
	switch {
	case !from:
		return stanza.NewError(stanza.JIDMalformed, "")
	case !to || !in.out.fed.serves(p.to) || !in.rules().federates(p.to):
		return stanza.NewError(stanza.ItemNotFound, "")
	case in.out.fed.serves(p.from): // nobody else speaks for us
		return stanza.NewError(stanza.NotAcceptable, "")
	case !in.rules().allowed(p.to, p.from):
		return errDenied
	case c.Fresh() && in.rules().policy(p.to, p.from).TLS == Required:
		return stanza.NewError(stanza.PolicyViolation, "start TLS first")
	case many:
		return stanza.NewError(stanza.ResourceConstraint, "this stream speaks for enough domains")
	}
	return nil
}

// answer says what came of a key. A stream that speaks for nobody then ends.
func (in *incoming) answer(c *stream.Conn, el *stanza.Element, typ string, why *stanza.Error) error {
	content := ""
	if why != nil {
		content = string(why.Element().Bytes(stanza.NSClient))
	}
	c.SendRaw(dialbackElement("result", pair{el.Get("to"), el.Get("from")}, "", typ, content))
	if typ != "valid" && !c.Bound() {
		c.Goodbye()
	}
	return nil
}

// verify answers for keys of our own (XEP-0220 §2.1.2, as the authoritative server).
func (in *incoming) verify(c *stream.Conn, el *stanza.Element) error {
	if el.Has("type") {
		return nil
	}
	to, ok := domainOf(el.Get("to"))
	from, known := domainOf(el.Get("from"))
	answered := pair{el.Get("to"), el.Get("from")}
	if !ok || !known || !in.out.fed.serves(to) || !in.rules().federates(to) {
		content := string(stanza.NewError(stanza.ItemNotFound, "").Element().Bytes(stanza.NSClient))
		c.SendRaw(dialbackElement("verify", answered, el.Get("id"), "error", content))
		return nil
	}
	typ := "invalid"
	if in.out.keys.check(from, to, el.Get("id"), el.Text()) {
		typ = "valid"
	}
	c.SendRaw(dialbackElement("verify", answered, el.Get("id"), typ, ""))
	return nil
}
