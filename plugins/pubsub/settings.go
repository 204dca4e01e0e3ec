package pubsub

import (
	"math"
	"reflect"
	"strconv"
	"strings"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/parser/stanza/form"
)

// Access says who may subscribe and retrieve (XEP-0060 §4.5).
type Access string

// The access models.
const (
	Open      Access = "open"
	Presence  Access = "presence"  // who gets the owner's presence
	Roster    Access = "roster"    // who does and is in one of Settings.Groups
	Authorize Access = "authorize" // whom an owner has let in
	Whitelist Access = "whitelist" // members
)

// Publish says who may publish.
type Publish string

// The publish models.
const (
	Publishers  Publish = "publishers"
	Subscribers Publish = "subscribers"
	Anybody     Publish = "open"
	AsBase      Publish = "" // for nodes that derive from others: as those have it
)

// SendLast says when the last item is sent.
type SendLast string

// When it is.
const (
	Never            SendLast = "never"
	OnSub            SendLast = "on_sub"
	OnSubAndPresence SendLast = "on_sub_and_presence"
)

// Full says what happens when an item too many is published.
type Full string

// What does. Retracting tells subscribers, when notify_retract is set.
const (
	RetractOldest Full = "retract-oldest"
	DiscardOldest Full = "discard-oldest"
	RejectNew     Full = "reject"
)

// Reply says who is named with an item (XEP-0060 §12.17).
type Reply string

// Who is.
const (
	ReplyOwner     Reply = "owner"
	ReplyPublisher Reply = "publisher"
	ReplyNone      Reply = "none"
)

// Type is the type of the messages that notify.
type Type string

// The types.
const (
	Headline Type = "headline"
	Normal   Type = "normal"
)

// Max is a number that says "as many as the service allows" (XEP-0060 §16.4.4).
const Max = math.MaxInt32

// Settings are a node's configuration (XEP-0060 §16.4.4).
type Settings struct {
	Title, Description string    `json:",omitempty"`
	Type, Language     string    `json:",omitempty"`
	Contact            []jid.JID `json:",omitempty"`

	Access    Access
	Groups    []string `json:",omitempty"` // of the owner's roster
	Publish   Publish
	Subscribe bool // may anybody

	Persist    bool
	MaxItems   int  // Max
	ItemExpire int  // seconds; Max: never
	MaxPayload int  // bytes; Max: what the service allows
	Full       Full //

	Deliver  bool     // notifications at all
	Payloads bool     // in them
	Message  Type     // of them
	Last     SendLast //
	ItemRepl Reply    //

	NotifyRetract, NotifyDelete, NotifyConfig, NotifySub bool

	PresenceBased bool // to available subscribers only
	PurgeOffline  bool // items of who has gone
	TempSub       bool // subscriptions end with presence

	Extra map[string][]string `json:",omitempty"` // fields of other features, see Fields
}

// DefaultSettings are those of a node of an account's own service (pep), or of a
// common one, that neither its name nor its creator says anything about.
func DefaultSettings(pep bool) Settings { return defaultSettings(pep) }

// defaultSettings are those of a node nobody has said anything about (XEP-0163
// §4.3.4, §5 for PEP).
func defaultSettings(pep bool) Settings {
	s := Settings{
		Access: Open, Publish: Publishers, Subscribe: true, Persist: true, MaxItems: Max, ItemExpire: Max, MaxPayload: Max,
		Full: RetractOldest, Deliver: true, Payloads: true, Message: Headline, Last: OnSub, ItemRepl: ReplyNone,
		NotifyRetract: true, NotifyDelete: true,
	}
	if pep {
		s.Access, s.MaxItems, s.Last = Presence, 1, OnSubAndPresence
	}
	return s
}

// clone is a copy that can be changed.
func (s Settings) clone() Settings {
	s.Contact, s.Groups = append([]jid.JID(nil), s.Contact...), append([]string(nil), s.Groups...)
	extra := s.Extra
	s.Extra = nil
	for k, v := range extra {
		s.SetExtra(k, v)
	}
	return s
}

// SetExtra sets a field of another feature; no values: it is not there.
func (s *Settings) SetExtra(name string, values []string) {
	if len(values) == 0 {
		delete(s.Extra, name)
		if len(s.Extra) == 0 {
			s.Extra = nil
		}
		return
	}
	if s.Extra == nil {
		s.Extra = map[string][]string{}
	}
	s.Extra[name] = values
}

func (s Settings) equal(o Settings) bool { return reflect.DeepEqual(s.clone(), o.clone()) }

// Bounds of what people write into a form.
const (
	maxTitle       = 512
	maxDescription = 4096
	maxGroups      = 100
	maxContacts    = 20
)

// fields is pubsub#node_config (XEP-0060 §16.4.4). What is not in it, is not
// supported: collections, XSL transformations.
func fields(l *Limits) form.Table[Settings] {
	yes := func(name, label string, at func(*Settings) *bool) form.Binding[Settings] {
		return form.Bool("pubsub#"+name, label, at)
	}
	text := func(name, label string, limit int, at func(*Settings) *string) form.Binding[Settings] {
		return form.Text("pubsub#"+name, label, limit, at)
	}
	return form.Table[Settings]{
		text("title", "A friendly name for the node", maxTitle, func(s *Settings) *string { return &s.Title }),
		text("description", "A description of the node", maxDescription, func(s *Settings) *string { return &s.Description }),
		text("type", "What the payloads are, usually their namespace", maxTitle, func(s *Settings) *string { return &s.Type }),
		text("language", "The default language of the node", 64, func(s *Settings) *string { return &s.Language }),
		form.JIDs("pubsub#contact", "Whom to contact with questions", maxContacts, func(s *Settings) *[]jid.JID { return &s.Contact }),
		nodeType(),
		form.Choice("pubsub#access_model", "Who may subscribe and retrieve items", func(s *Settings) *Access { return &s.Access },
			form.Option{Value: string(Open), Label: "Anyone"},
			form.Option{Value: string(Presence), Label: "Anyone who gets the owner's presence"},
			form.Option{Value: string(Roster), Label: "Those in the roster groups below"},
			form.Option{Value: string(Authorize), Label: "Those whose subscription was approved"},
			form.Option{Value: string(Whitelist), Label: "Members"}),
		form.Texts("pubsub#roster_groups_allowed", "The roster groups allowed to subscribe and retrieve items", maxGroups, maxTitle, func(s *Settings) *[]string { return &s.Groups }),
		form.Choice("pubsub#publish_model", "Who may publish", func(s *Settings) *Publish { return &s.Publish },
			form.Option{Value: string(Publishers), Label: "Publishers"},
			form.Option{Value: string(Subscribers), Label: "Subscribers, too"},
			form.Option{Value: string(Anybody), Label: "Anyone"}),
		yes("subscribe", "Whether to allow subscriptions", func(s *Settings) *bool { return &s.Subscribe }),
		yes("persist_items", "Whether to keep items", func(s *Settings) *bool { return &s.Persist }),
		number("max_items", "How many items are kept; max for as many as the service allows", 1, l.Items, func(s *Settings) *int { return &s.MaxItems }),
		number("item_expire", "Seconds after which an item goes; max for never", 0, maxExpire, func(s *Settings) *int { return &s.ItemExpire }),
		number("max_payload_size", "The largest payload in bytes; max for what the service allows", 1, int(l.Payload), func(s *Settings) *int { return &s.MaxPayload }),
		form.Choice("pubsub#publish_node_full", "What happens when an item too many is published", func(s *Settings) *Full { return &s.Full },
			form.Option{Value: string(RetractOldest), Label: "The oldest one is retracted"},
			form.Option{Value: string(DiscardOldest), Label: "The oldest one goes without a word"},
			form.Option{Value: string(RejectNew), Label: "The new one is refused"}),
		yes("deliver_notifications", "Whether to deliver notifications", func(s *Settings) *bool { return &s.Deliver }),
		yes("deliver_payloads", "Whether to deliver payloads with them", func(s *Settings) *bool { return &s.Payloads }),
		form.Choice("pubsub#notification_type", "The type of their messages", func(s *Settings) *Type { return &s.Message },
			form.Option{Value: string(Headline), Label: "headline"},
			form.Option{Value: string(Normal), Label: "normal"}),
		form.Choice("pubsub#send_last_published_item", "When to send the last item", func(s *Settings) *SendLast { return &s.Last },
			form.Option{Value: string(Never), Label: "Never"},
			form.Option{Value: string(OnSub), Label: "To a new subscriber"},
			form.Option{Value: string(OnSubAndPresence), Label: "To a new subscriber, and to who becomes available"}),
		form.Choice("pubsub#itemreply", "Who is named with an item", func(s *Settings) *Reply { return &s.ItemRepl },
			form.Option{Value: string(ReplyOwner), Label: "The owner of the node"},
			form.Option{Value: string(ReplyPublisher), Label: "Its publisher"},
			form.Option{Value: string(ReplyNone), Label: "Nobody"}),
		yes("notify_retract", "Whether to tell subscribers of items that are removed", func(s *Settings) *bool { return &s.NotifyRetract }),
		yes("notify_delete", "Whether to tell subscribers when the node is deleted", func(s *Settings) *bool { return &s.NotifyDelete }),
		yes("notify_config", "Whether to tell subscribers of another configuration", func(s *Settings) *bool { return &s.NotifyConfig }),
		yes("notify_sub", "Whether to tell owners of subscribers that come and go", func(s *Settings) *bool { return &s.NotifySub }),
		yes("presence_based_delivery", "Whether to deliver to available subscribers only", func(s *Settings) *bool { return &s.PresenceBased }),
		yes("purge_offline", "Whether items go when their publisher goes offline", func(s *Settings) *bool { return &s.PurgeOffline }),
		yes("tempsub", "Whether subscriptions end when subscribers become unavailable", func(s *Settings) *bool { return &s.TempSub }),
	}
}

// maxExpire is a hundred years.
const maxExpire = 100 * 365 * 24 * 3600

// nodeType is the field that says that a node is no collection (XEP-0248).
func nodeType() form.Binding[Settings] {
	return form.Binding[Settings]{
		Field: form.Field{Var: "pubsub#node_type", Type: form.ListSingle, Label: "Whether the node is a leaf", Options: []form.Option{{Value: "leaf", Label: "It is"}}},
		Get:   func(*Settings) []string { return []string{"leaf"} },
		Set:   func(*Settings, []string) string { return "" },
	}
}

// number binds a number, or "max".
func number(name, label string, low, high int, at func(*Settings) *int) form.Binding[Settings] {
	b := form.Number("pubsub#"+name, label, low, high, at)
	set := b.Set
	b.Get = func(s *Settings) []string {
		if *at(s) == Max {
			return []string{"max"}
		}
		return []string{strconv.Itoa(*at(s))}
	}
	b.Set = func(s *Settings, v []string) string {
		if strings.TrimSpace(v[0]) == "max" {
			*at(s) = Max
			return ""
		}
		if reason := set(s, v); reason != "" {
			return reason + ", or max"
		}
		return ""
	}
	return b
}

// apply sets what the form says. Errors are *stanza.Error (XEP-0060 §8.1.2,
// §8.2.5.2).
func apply(t form.Table[Settings], s *Settings, f *form.Form) error {
	if v := f.Value("pubsub#access_model"); v != "" && !known(t, "pubsub#access_model", v) {
		return failure(stanza.NotAcceptable, "unsupported-access-model", "pubsub#access_model: "+strconv.Quote(v)+" is not offered")
	}
	if err := t.Apply(s, f); err != nil {
		return err
	}
	if s.ItemExpire == 0 { // as others have it: never
		s.ItemExpire = Max
	}
	return nil
}

func known(t form.Table[Settings], name, value string) bool {
	for _, b := range t {
		for _, o := range b.Options {
			if b.Var == name && o.Value == value {
				return true
			}
		}
	}
	return false
}
