package muc

import (
	"context"
	"strconv"

	"parley/parser/jid"
	"parley/parser/stanza"
	adhoc "parley/parser/stanza/command"
	"parley/parser/stanza/form"
	"parley/plugins/disco"
)

// Nodes of XEP-0045 §16.4.
const (
	nodeNick    = "x-roomuser-item"
	nodeTraffic = NS + "#traffic"
)

// info is XEP-0045 §6.4. A room that waits for its configuration is there for its
// owner alone.
func (s *service) info(ctx context.Context, r *room, q *request) (*stanza.Element, error) {
	switch q.query.Get("node") {
	case "":
	case nodeNick:
		return r.reservedNick(q), nil
	case nodeTraffic: // XEP-0045 §18.1.1: nothing is discarded
		return nil, stanza.NewError(stanza.ServiceUnavailable, "")
	default:
		if el := s.commandInfo(q.query.Get("node")); el != nil {
			return el, nil
		}
		return nil, stanza.NewError(stanza.ItemNotFound, "no such node")
	}
	d, err := r.description(q.From)
	if err != nil {
		return nil, err
	}
	tell(ctx, s, Describing, d)
	return d.Element(""), nil
}

func (r *room) description(asker jid.JID) (*Description, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.state == vacant || r.state == locked && r.affiliationOf(asker.Bare()) < IsOwner {
		return nil, noRoom()
	}
	f := &disco.Facts{}
	name := r.cfg.Name
	if name == "" {
		name = r.jid.Local()
	}
	f.AddIdentity(disco.Identity{Category: "conference", Type: "text", Name: name})
	f.AddFeature(always...)
	f.AddFeature(r.cfg.features()...)
	f.AddFeature(extraFeatures...)
	f.AddFeature(r.s.kept.RoomFeatures()...)
	if r.cfg.Registration != RegisterClosed {
		f.AddFeature(nsIQReg)
	}
	f.AddForm(r.facts())
	return &Description{Room: r.jid, Asker: asker, Config: r.cfg, Facts: f}, nil
}

// features say what kind of room it is (XEP-0045 §16.3).
func (c *RoomConfig) features() []string {
	either := func(is bool, yes, no string) string {
		if is {
			return "muc_" + yes
		}
		return "muc_" + no
	}
	return []string{
		either(c.Public, "public", "hidden"),
		either(c.MembersOnly, "membersonly", "open"),
		either(c.Moderated, "moderated", "unmoderated"),
		either(c.Whois == Anyone, "nonanonymous", "semianonymous"),
		either(c.Protected, "passwordprotected", "unsecured"),
		either(c.Persistent, "persistent", "temporary"),
	}
}

// facts are muc#roominfo (XEP-0045 §16.5.4).
func (r *room) facts() disco.Form {
	const p = "muc#roominfo_"
	out := disco.Form{Type: nsRoomInfo}
	field := func(name, typ, label string, values ...string) {
		out.Fields = append(out.Fields, disco.Field{Var: name, Type: typ, Label: label, Values: values})
	}
	text := func(name, label, value string) {
		if value != "" {
			field(name, form.TextSingle, label, value)
		}
	}
	text(p+"description", "Description", r.cfg.Description)
	text(p+"lang", "Language of the discussions", r.cfg.Lang)
	text(p+"subject", "Subject", r.topic)
	field(p+"subjectmod", form.Boolean, "Participants may change the subject", form.Flag(r.cfg.Subjects))
	field(p+"occupants", form.TextSingle, "Occupants", strconv.Itoa(len(r.nicks)))
	field("muc#maxhistoryfetch", form.TextSingle, "Messages shown to those who enter", strconv.Itoa(r.cfg.MaxHistory))
	text("muc#roomconfig_pubsub", "Address of a node that belongs to the room", r.cfg.PubSub)
	if r.cfg.Whois == Anyone {
		var owners []string
		for _, at := range r.formNow().owners {
			owners = append(owners, at.String())
		}
		field(p+"contactjid", form.JIDMulti, "Owners", owners...)
	}
	out.Fields = append(out.Fields, r.extraFacts()...)
	return out
}

// reservedNick is XEP-0045 §7.12.
func (r *room) reservedNick(q *request) *stanza.Element {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := stanza.El(stanza.NSDiscoInfo, "query").With("node", nodeNick)
	if nick := r.people[q.From.Bare()].nick; nick != "" {
		out.Add(stanza.El(stanza.NSDiscoInfo, "identity").With("category", "conference").With("type", "text").With("name", nick))
	}
	return out
}

// items is XEP-0045 §6.5: who is in a room only its occupants know.
func (s *service) items(_ context.Context, r *room, q *request) (*stanza.Element, error) {
	switch q.query.Get("node") {
	case "":
	case adhoc.NS:
		return s.commandItems(r), nil
	default:
		return nil, stanza.NewError(stanza.ItemNotFound, "no such node")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	out := stanza.El(stanza.NSDiscoItem, "query")
	x := r.sessions[q.From]
	if x == nil {
		return out, nil
	}
	for _, o := range r.nicks {
		if o == x.occupant || r.sees(x.role, o.role, o.hushed) {
			out.Add(stanza.El(stanza.NSDiscoItem, "item").With("jid", o.at.String()))
		}
	}
	return out, nil
}
