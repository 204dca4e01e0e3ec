package stream

import (
	"context"
	"strings"
	"unicode"
	"unicode/utf8"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/stream/sasl"
)

// Limits of what a client says about itself (XEP-0388 §2.3).
const (
	MaxClientID = 128 // bytes; a UUID has 36
	maxAgent    = 100 // runes of each text
)

// sasl2Request is what <authenticate/> asks for besides (XEP-0388 §2.3). None
// of it is looked at before the client is authenticated.
type sasl2Request struct {
	clientID string // <user-agent id=''/>
	software string // for people, as the next one
	device   string
	resume   *stanza.Element // XEP-0198 §9.2
	bind     *stanza.Element // XEP-0386
	fast     fastRequest     // XEP-0484
}

func sasl2Feature() Feature {
	el := func(local string) stanza.Name { return stanza.Name{Space: stanza.NSSASL2, Local: local} }
	return Feature{In: Secured, Order: orderSASL2, Advertise: advertiseSASL2, Elements: map[stanza.Name]ElementHandler{
		el("authenticate"): sasl2Authenticate,
		el("response"):     sasl2Response,
		el("abort"):        sasl2Abort,
	}}
}

// advertiseSASL2 is XEP-0388 §2.1, with what may be asked for inline.
func advertiseSASL2(c *Conn) *stanza.Element {
	offer := c.saslSession().Offer
	if len(offer.Mechanisms) == 0 {
		return nil
	}
	el := stanza.El(stanza.NSSASL2, "authentication")
	for _, m := range offer.Mechanisms {
		el.Add(stanza.El(stanza.NSSASL2, "mechanism").AddText(m))
	}
	inline := stanza.El(stanza.NSSASL2, "inline").
		Add(stanza.El(stanza.NSSM, "sm"), advertiseBind2(c.srv.table.Load()))
	if len(offer.Tokens) > 0 { // XEP-0484 §3.1
		fast := stanza.El(stanza.NSFAST, "fast")
		for _, m := range offer.Tokens {
			fast.Add(stanza.El(stanza.NSFAST, "mechanism").AddText(m))
		}
		inline.Add(fast)
	}
	return el.Add(inline)
}

// duringSASL2 ends a stream on which anything but the exchange is going on
// (XEP-0388 §2.4).
func (c *Conn) duringSASL2(n stanza.Name) error {
	if c.auth == nil || c.auth.sasl2 == nil || n.Space == stanza.NSSASL2 && (n.Local == "response" || n.Local == "abort") {
		return nil
	}
	return &stanza.StreamError{Condition: stanza.StreamPolicyViolation, Text: "authentication is in progress"}
}

func sasl2Authenticate(ctx context.Context, c *Conn, el *stanza.Element) error {
	req := &sasl2Request{}
	c.auth = &authentication{sasl2: req}
	ses := c.saslSession()
	if err := req.parse(el, ses.Offer); err != nil {
		return c.authFailed(ctx, "", err)
	}
	var response []byte // nil: none came. An empty element is an empty response (§2.2)
	if r := el.Child(stanza.NSSASL2, "initial-response"); r != nil {
		var err error
		if response, err = sasl.DecodeResponse(r.Text(), false); err != nil {
			return c.authFailed(ctx, "", err)
		}
	}
	if req.fast.present {
		ses.Fast = &sasl.Fast{ClientID: req.clientID, Count: req.fast.count}
	}
	server := c.mechanisms()
	if server == nil {
		return c.authFailed(ctx, "", &sasl.Failure{Condition: sasl.TemporaryAuthFailure})
	}
	x, err := server.Start(el.Get("mechanism"), ses)
	if err != nil {
		return c.authFailed(ctx, "", err)
	}
	c.auth.exchange = x
	return c.authStep(ctx, response)
}

// parse takes down what the request asks for; it is malformed-request when it
// goes beyond the limits.
func (r *sasl2Request) parse(el *stanza.Element, offer sasl.Offer) error {
	if ua := el.Child(stanza.NSSASL2, "user-agent"); ua != nil {
		r.clientID = ua.Get("id")
		if len(r.clientID) > MaxClientID || !utf8.ValidString(r.clientID) {
			return &sasl.Failure{Condition: sasl.MalformedRequest, Text: "user-agent id is too long"}
		}
		r.software, r.device = agentPart(ua, "software"), agentPart(ua, "device")
	}
	r.resume = el.Child(stanza.NSSM, "resume")
	r.bind = el.Child(stanza.NSBind2, "bind")
	return r.fast.parse(el, offer)
}

// agentPart is what people know the client by.
func agentPart(ua *stanza.Element, local string) string {
	if el := ua.Child(stanza.NSSASL2, local); el != nil {
		return printable(el.Text(), maxAgent)
	}
	return ""
}

// printable keeps what can be shown in a line, at most n runes.
func printable(s string, n int) string {
	var b strings.Builder
	for _, r := range s {
		if n == 0 {
			break
		}
		if unicode.IsPrint(r) {
			b.WriteRune(r)
			n--
		}
	}
	return strings.TrimSpace(b.String())
}

func sasl2Response(ctx context.Context, c *Conn, el *stanza.Element) error {
	if c.auth == nil || c.auth.sasl2 == nil || c.auth.exchange == nil {
		c.auth = &authentication{sasl2: &sasl2Request{}}
		return c.authFailed(ctx, "", &sasl.Failure{Condition: sasl.MalformedRequest})
	}
	response, err := sasl.DecodeResponse(el.Text(), false)
	if err != nil {
		return c.authFailed(ctx, c.auth.exchange.Account(), err)
	}
	return c.authStep(ctx, response)
}

func sasl2Abort(ctx context.Context, c *Conn, _ *stanza.Element) error {
	if c.auth == nil || c.auth.sasl2 == nil {
		c.auth = &authentication{sasl2: &sasl2Request{}}
	}
	return c.authFailed(ctx, "", &sasl.Failure{Condition: sasl.Aborted})
}

// mayAct checks the stream's 'from' against who logs in (XEP-0388 §2.3).
func (r *sasl2Request) mayAct(claimed, account jid.JID) bool {
	return r == nil || claimed.IsZero() || claimed.Bare() == account
}

// sasl2Success does what was asked for inline, in the order of the texts:
// resumption, else binding (XEP-0198 §9.2, XEP-0386 §3.2), then the token. The
// stream goes on without a restart (XEP-0388 §2.6.1).
func (c *Conn) sasl2Success(ctx context.Context, req *sasl2Request, r sasl.Result) error {
	c.device = req.clientID
	c.srv.loggedIn(Login{c.account, req.clientID, req.software, req.device, r.Token == nil, c.srv.env.Clock.Now()})
	var results []*stanza.Element
	if req.resume != nil {
		answer, err := c.resume(ctx, req.resume)
		if err != nil {
			return err
		}
		results = append(results, answer)
	}
	resumed := c.phase == Established
	if !resumed && req.bind != nil {
		results = append(results, c.bind2(ctx, req.bind))
	}
	if token := c.fastToken(ctx, req, r); token != nil {
		results = append(results, token)
	}
	success := stanza.El(stanza.NSSASL2, "success")
	if r.Data != nil {
		data := stanza.El(stanza.NSSASL2, "additional-data")
		if len(r.Data) > 0 { // "=" is classic SASL's (§2.2)
			data.AddText(encodeData(r.Data))
		}
		success.Add(data)
	}
	self := c.account
	if c.phase == Established {
		self = c.session.ref.JID
	}
	success.Add(stanza.El(stanza.NSSASL2, "authorization-identifier").AddText(self.String()))
	c.Send(success.Add(results...))
	if !resumed { // a resumed stream goes on at once (XEP-0198 §9.2)
		c.SendFeatures()
	}
	return nil
}
