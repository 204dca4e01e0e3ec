package stream

import (
	"context"
	"slices"
	"strconv"
	"time"

	"parley/parser/stanza"
	"parley/stream/sasl"
)

// rotateBefore is how long before its end a token is replaced (XEP-0484 §3.5):
// long enough for a client that is not used every day.
const rotateBefore = 7 * 24 * time.Hour

// fastRequest is what <authenticate/> says about tokens (XEP-0484).
type fastRequest struct {
	present    bool   // <fast/>: the client logs in with a token
	count      int64  // its replay counter; 0: none
	invalidate bool   // §3.6
	mechanism  string // <request-token/>: what the new token is for; "": none is wanted
}

func (f *fastRequest) parse(el *stanza.Element, offer sasl.Offer) error {
	if fast := el.Child(stanza.NSFAST, "fast"); fast != nil {
		f.present, f.invalidate = true, xmlBool(fast.Get("invalidate"))
		if fast.Has("count") {
			n, err := strconv.ParseInt(fast.Get("count"), 10, 64)
			if err != nil || n <= 0 { // §3.4: a positive integer
				return &sasl.Failure{Condition: sasl.MalformedRequest, Text: "count is not a positive number"}
			}
			f.count = n
		}
	}
	if q := el.Child(stanza.NSFAST, "request-token"); q != nil {
		f.mechanism = q.Get("mechanism")
		if !slices.Contains(offer.Tokens, f.mechanism) { // §3.2
			return &sasl.Failure{Condition: sasl.MalformedRequest, Text: "no such token mechanism is offered"}
		}
	}
	return nil
}

// fastToken returns the <token/> that the client has asked for or is due; nil:
// none. A login does not fail because of it.
func (c *Conn) fastToken(ctx context.Context, req *sasl2Request, r sasl.Result) *stanza.Element {
	cr := c.srv.table.Load().credentials
	if cr == nil || req.clientID == "" { // §4.1: tokens belong to named clients
		return nil
	}
	mechanism := req.fast.mechanism
	used := r.Token != nil
	switch {
	case used && req.fast.invalidate:
		if err := cr.Revoke(ctx, c.account, req.clientID); err != nil {
			c.log.Error("token not revoked", "err", err)
			return nil
		}
	case used && mechanism == "" && r.Token.Expires.Sub(c.srv.env.Clock.Now()) < rotateBefore:
		mechanism = r.Mechanism
	}
	if mechanism == "" {
		return nil
	}
	token, err := cr.Issue(ctx, c.account, req.clientID, mechanism)
	if err != nil {
		c.log.Error("no token issued", "err", err)
		return nil
	}
	return stanza.El(stanza.NSFAST, "token").With("token", token.Secret).
		With("expiry", token.Expires.UTC().Format(time.RFC3339))
}
