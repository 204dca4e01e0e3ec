package inbox

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/storage"
)

// NSNotify is the namespace of notification settings (XEP-0492 §2.1).
const NSNotify = "urn:xmpp:notification-settings:1"

// When says which messages of a conversation are to be notified.
type When string

// The settings (XEP-0492 §2.1).
const (
	Always    When = "always"
	OnMention When = "on-mention"
	Never     When = "never"
)

// Rule is a setting for the clients of an identity (XEP-0492 §2.2).
type Rule struct {
	When     When
	Category string // of service discovery; "": for all
	Type     string // within the category; "": for all
}

// Notify are an account's settings for a conversation. nil: it has none.
type Notify []Rule

// Bounds of what an account can set.
const (
	maxRules    = 20
	maxIdentity = 64 // bytes of a category or type
	maxSettings = 2000
)

// ErrTooMany: the account has settings for too many conversations.
var ErrTooMany = errors.New("too many notification settings")

// ParseNotify reads <notify/> as it stands in a bookmark or a roster item
// (XEP-0492 §2); of settings for the same identity the first one counts. Errors
// are *stanza.Error. <advanced/> is for clients.
func ParseNotify(el *stanza.Element) (Notify, error) {
	bad := func(why string) (Notify, error) { return nil, stanza.NewError(stanza.BadRequest, why) }
	if el.Name != (stanza.Name{Space: NSNotify, Local: "notify"}) {
		return bad("not a notification setting")
	}
	var n Notify
	for c := range el.Elements() {
		r := Rule{When(c.Name.Local), c.Get("identity-category"), c.Get("identity-type")}
		switch {
		case c.Name.Space != NSNotify, r.When != Always && r.When != OnMention && r.When != Never:
			continue // of a later version
		case r.Category == "" && r.Type != "": // §2.2
			return bad("identity-type without identity-category")
		case len(r.Category) > maxIdentity, len(r.Type) > maxIdentity, strings.ContainsAny(r.Category+r.Type, " /\n"):
			return bad("no identity of service discovery")
		case len(n) == maxRules:
			return bad("too many settings for one conversation")
		}
		n = append(n, r)
	}
	return n, nil
}

// For is the setting for a client of an identity, the most specific one (XEP-0492
// §3); otherwise is what holds where nothing is set.
func (n Notify) For(category, typ string, otherwise When) When {
	best, found := otherwise, -1
	for _, r := range n {
		weight := 0
		switch {
		case r.Category == "":
		case r.Category != category:
			continue
		case r.Type == "":
			weight = 1
		case r.Type != typ:
			continue
		default:
			weight = 2
		}
		if weight > found {
			best, found = r.When, weight
		}
	}
	return best
}

// text is how settings are stored: a line for each.
func (n Notify) text() string {
	var b strings.Builder
	for _, r := range n {
		fmt.Fprintf(&b, "%s %s/%s\n", r.When, r.Category, r.Type)
	}
	return b.String()
}

// storedNotify reads what text has written.
func storedNotify(s string) (n Notify) {
	for line := range strings.Lines(s) {
		when, identity, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		category, typ, _ := strings.Cut(identity, "/")
		n = append(n, Rule{When(when), category, typ})
	}
	return n
}

const (
	sqlPutNotify   = `INSERT INTO inbox_notify (owner, peer, rules) VALUES ($1, $2, $3) ON CONFLICT (owner, peer) DO UPDATE SET rules = excluded.rules`
	sqlDropNotify  = `DELETE FROM inbox_notify WHERE owner = $1 AND peer = $2`
	sqlDropAll     = `DELETE FROM inbox_notify WHERE owner = $1`
	sqlNotifyCount = `SELECT COUNT(*) FROM inbox_notify WHERE owner = $1`
	sqlNotifyAbout = `SELECT owner, rules FROM inbox_notify WHERE peer = $1`
	sqlNotifyPeers = `SELECT peer FROM inbox_notify WHERE owner = $1`
)

// SetNotify keeps what an account has set for a conversation (both bare); nil
// takes it back. The error wraps ErrTooMany when it has too many.
func (b *Inbox) SetNotify(ctx context.Context, account, conversation jid.JID, n Notify) error {
	owner, peer := account.String(), conversation.String()
	err := b.env.DB.Tx(ctx, func(tx storage.Tx) error {
		if len(n) == 0 {
			_, err := tx.Exec(ctx, sqlDropNotify, owner, peer)
			return err
		}
		if _, err := tx.Exec(ctx, sqlPutNotify, owner, peer, n.text()); err != nil {
			return err
		}
		var all int
		if err := tx.QueryRow(ctx, sqlNotifyCount, owner).Scan(&all); err != nil {
			return err
		}
		if all > maxSettings {
			return ErrTooMany
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("notification settings: %w", err)
	}
	b.changed(ctx, conversation)
	return nil
}

// unsetAll takes back what an account has set for all conversations.
func (b *Inbox) unsetAll(ctx context.Context, account jid.JID) error {
	peers, err := b.peersOf(ctx, account)
	if err != nil {
		return err
	}
	if _, err := b.env.DB.Exec(ctx, sqlDropAll, account.String()); err != nil {
		return fmt.Errorf("notification settings: %w", err)
	}
	for _, peer := range peers {
		b.changed(ctx, peer)
	}
	return nil
}

// NotifyOf is what an account has set for a conversation, both bare; nil: nothing.
func (b *Inbox) NotifyOf(ctx context.Context, account, conversation jid.JID) (Notify, error) {
	all, err := b.notifyAbout(ctx, conversation)
	return all[account], err
}

// notifyAbout is what accounts have set for a conversation.
func (b *Inbox) notifyAbout(ctx context.Context, conversation jid.JID) (map[jid.JID]Notify, error) {
	return b.settings.Load(ctx, conversation, func(ctx context.Context, conversation jid.JID) (map[jid.JID]Notify, error) {
		type set struct{ owner, rules string }
		all, err := storage.All(ctx, b.env.DB, func(r storage.Row) (s set, err error) {
			err = r.Scan(&s.owner, &s.rules)
			return s, err
		}, sqlNotifyAbout, conversation.String())
		if err != nil {
			return nil, fmt.Errorf("notification settings: %w", err)
		}
		found := make(map[jid.JID]Notify, len(all))
		for _, s := range all {
			if owner, err := jid.Parse(s.owner); err == nil {
				found[owner] = storedNotify(s.rules)
			}
		}
		return found, nil
	})
}

// peersOf are the conversations for which an account has set something.
func (b *Inbox) peersOf(ctx context.Context, account jid.JID) ([]jid.JID, error) {
	all, err := storage.All(ctx, b.env.DB, func(r storage.Row) (peer jid.JID, err error) {
		var s string
		if err = r.Scan(&s); err == nil {
			peer, err = jid.Parse(s)
		}
		return peer, err
	}, sqlNotifyPeers, account.String())
	if err != nil {
		return nil, fmt.Errorf("notification settings: %w", err)
	}
	return all, nil
}

// changed forgets on every node what is remembered of a conversation's settings.
func (b *Inbox) changed(ctx context.Context, conversation jid.JID) {
	b.settings.Drop(conversation)
	b.env.Forget(ctx, topicNotify, conversation.String())
}
