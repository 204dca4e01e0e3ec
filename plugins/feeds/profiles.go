package feeds

import (
	"strings"

	"parley/parser/stanza"
	"parley/plugins/pubsub"
)

// The types.
const (
	typeBase      = "urn:xmpp:pubsub-social-feed:1"
	typeMicroblog = "urn:xmpp:microblog:0"
	typeComments  = "urn:xmpp:microblog:0:comments"
	typeGallery   = "urn:xmpp:pubsub-social-feed:gallery:1"
	typeStories   = "urn:xmpp:pubsub-social-feed:stories:0"

	nsAtom = "http://www.w3.org/2005/Atom"
	// day is how long stories last (XEP-0501 §4.1.1), in seconds.
	day = 86400
)

// profiles are XEP-0472 §5 and those that build on it.
func profiles() []pubsub.Profile {
	return []pubsub.Profile{
		{Type: typeBase, Set: base, Must: rules(), Check: post},
		// XEP-0277 lets the number of items be "some reasonable value".
		{Type: typeMicroblog, Node: typeMicroblog, Only: true, Set: base, Must: rules()[:1], Check: blog},
		{Type: typeComments, Node: typeComments + "/", Set: discussion, Must: rules()[:1], Check: blog},
		{Type: typeGallery, Set: base, Must: rules(), Check: picture},
		{Type: typeStories, Node: typeStories, Only: true, Set: stories, Must: rules(), Check: story},
	}
}

// base is XEP-0472 §5.1.1: posts are large, so clients are told of them and ask.
func base(s *pubsub.Settings) {
	s.NotifyRetract, s.MaxItems, s.Persist = true, pubsub.Max, true
	s.Last, s.Payloads = pubsub.Never, false
}

// discussion is XEP-0277 §4.2. The publisher is told with each comment, for the
// check of its author (§9.1).
func discussion(s *pubsub.Settings) {
	s.NotifyRetract, s.MaxItems, s.Last = true, pubsub.Max, pubsub.Never
	s.Access, s.Publish, s.ItemRepl = pubsub.Open, pubsub.Anybody, pubsub.ReplyPublisher
}

// stories is XEP-0501 §4.1.1.
func stories(s *pubsub.Settings) {
	base(s)
	s.Access, s.ItemExpire = pubsub.Presence, day
}

// rules are the MUSTs of XEP-0472 §5.1.1.
func rules() []pubsub.Rule {
	return []pubsub.Rule{
		{Field: "pubsub#notify_retract", Want: "true", OK: func(s *pubsub.Settings) bool { return s.NotifyRetract }},
		{Field: "pubsub#max_items", Want: "max", OK: func(s *pubsub.Settings) bool { return s.MaxItems == pubsub.Max }},
		{Field: "pubsub#persist_items", Want: "true", OK: func(s *pubsub.Settings) bool { return s.Persist }},
	}
}

// blog takes posts, and what the feed says of itself (XEP-0277 §5).
func blog(it *pubsub.Item) error {
	if it.Payload != nil && it.Payload.Name == (stanza.Name{Space: nsAtom, Local: "feed"}) {
		return nil
	}
	return post(it)
}

// post is XEP-0472 §4.2, with what RFC 4287 §4.1.2 demands of an entry. It may do
// without an author where the item has a publisher.
func post(it *pubsub.Item) error {
	e := it.Payload
	if e == nil || e.Name != (stanza.Name{Space: nsAtom, Local: "entry"}) {
		return pubsub.InvalidPayload("posts are entries of Atom")
	}
	for _, local := range []string{"id", "title", "updated"} {
		if e.Child(nsAtom, local) == nil {
			return pubsub.InvalidPayload("an entry of Atom has an id, a title and a date of its last update")
		}
	}
	return nil
}

// picture is XEP-0472 §5.3.
func picture(it *pubsub.Item) error {
	if err := post(it); err != nil {
		return err
	}
	for _, el := range enclosures(it.Payload) {
		if strings.HasPrefix(el.Get("type"), "image/") {
			return nil
		}
	}
	return pubsub.InvalidPayload("what is published in a gallery has a picture: a link with rel enclosure, of type image/…")
}

// story is XEP-0501 §4.1.
func story(it *pubsub.Item) error {
	if err := post(it); err != nil {
		return err
	}
	if len(enclosures(it.Payload)) != 1 {
		return pubsub.InvalidPayload("a story has one attached medium: a link with rel enclosure")
	}
	return nil
}

// enclosures are the media of an entry (RFC 4287 §4.2.7.2).
func enclosures(entry *stanza.Element) (out []*stanza.Element) {
	for el := range entry.Elements() {
		if el.Name == (stanza.Name{Space: nsAtom, Local: "link"}) && el.Get("rel") == "enclosure" && el.Get("href") != "" {
			out = append(out, el)
		}
	}
	return out
}
