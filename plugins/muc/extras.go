package muc

import (
	"context"

	"parley/parser/jid"
	adhoc "parley/parser/stanza/command"
	"parley/plugins/disco"
)

// extras is what a room has beyond XEP-0045; with its mu, but for what fill reads.
// Each has a file of its own: hats.go avatar.go slow.go versions.go tokens.go.
type extras struct {
	hats   hats
	avatar []string // hashes of its pictures (XEP-0486 §3.3)
	pace   pace
	past   departures
	tokens map[string]*token
}

// extraFeatures are announced by each room, and by the service.
var extraFeatures = []string{
	nsConference, nsModerate, nsHats, adhoc.NS, nsVCard, nsVersions, nsTokens,
}

// nsConference is that of direct invitations: they go from one account to another, and
// are none of the room's business (XEP-0249 §2).
const nsConference = "jabber:x:conference"

func noExtras() extras {
	return extras{hats: hats{worn: map[jid.JID][]string{}}, past: departures{since: map[jid.JID]departure{}}, tokens: map[string]*token{}}
}

// extraService is what the service has for them.
type extraService struct {
	list     []command
	commands map[string]*command
	searches chan struct{} // those that run
}

func newExtraService() extraService {
	e := extraService{list: hatCommands(), commands: map[string]*command{}, searches: make(chan struct{}, maxSearches)}
	for i := range e.list {
		e.commands[e.list[i].node] = &e.list[i]
	}
	return e
}

// forgetExtras removes what they keep of somebody whose account is gone.
func (r *room) forgetExtras(o *op, who jid.JID) {
	r.forgetHats(o, who)
	r.forgetTokens(o, who)
	r.forgetDeparture(o, who)
}

// fillExtras reads them.
func (r *room) fillExtras(ctx context.Context) error {
	for _, read := range []func(context.Context) error{r.fillHats, r.fillAvatar, r.fillDepartures, r.fillTokens} {
		if err := read(ctx); err != nil {
			return err
		}
	}
	return nil
}

// dropExtras removes what they have stored.
func (r *room) dropExtras(o *op) {
	at := r.jid.String()
	o.rows.Add(&dropHats, at)
	o.rows.Add(&dropWorn, at)
	o.rows.Add(&dropAvatar, at)
	o.rows.Add(&dropDepartures, at)
	o.rows.Add(&dropTokens, at)
}

// extraFacts are what they add to muc#roominfo.
func (r *room) extraFacts() (out []disco.Field) {
	out = append(out, r.slowFact())
	if f, ok := r.hatsFact(); ok {
		out = append(out, f)
	}
	if f, ok := r.avatarFact(); ok {
		out = append(out, f)
	}
	return out
}
