package disco

import (
	"context"
	"strings"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins"
	"parley/plugins/presence"
	"parley/processor"
	"parley/router/sessions"
)

// NSCaps is the namespace of XEP-0115.
const NSCaps = "http://jabber.org/protocol/caps"

// Hash names capabilities: a verification string and the algorithm that made
// it, by its IANA name (XEP-0115 §4). The zero value names none.
type Hash struct{ Algorithm, Ver string }

// IsZero reports whether it names nothing.
func (h Hash) IsZero() bool { return h == Hash{} }

// Bounds of the cache.
const (
	maxCacheBytes = 16 << 20 // of verified capabilities
	maxRemotes    = 100_000  // full JIDs elsewhere whose hash is known
	maxWanted     = 10_000   // hashes that other nodes have been asked for
)

// Caps is what is known of clients' capabilities. It is the plugin's contract.
type Caps struct {
	env      plugins.Env
	sessions *sessions.Registry
	verified *otter.Cache[Hash, []string]
	remotes  *otter.Cache[jid.JID, Hash]
	wanted   *otter.Cache[Hash, time.Time] // when another node was asked for it
	server   atomic.Pointer[disco]         // who answers for the server now
}

func newCaps(env plugins.Env) *Caps {
	c := &Caps{
		env: env, sessions: env.Sessions,
		verified: otter.Must(&otter.Options[Hash, []string]{MaximumWeight: maxCacheBytes, Weigher: weigh}),
		remotes:  otter.Must(&otter.Options[jid.JID, Hash]{MaximumSize: maxRemotes}),
		wanted:   otter.Must(&otter.Options[Hash, time.Time]{MaximumSize: maxWanted}),
	}
	env.OnForget(topicVerified, c.learn)
	env.OnForget(topicWanted, c.repeat)
	env.OnAnswer(callVer, c.answerVer)
	return c
}

// topicVerified is what nodes tell each other about what they have verified:
// algorithm, hash and features, with NUL between.
const topicVerified = "caps"

// teach lets the other nodes know, so that they need not ask their clients.
func (c *Caps) teach(ctx context.Context, h Hash, features []string) {
	if c.env.Notices != nil {
		ctx, cancel := context.WithTimeout(ctx, teachLimit)
		defer cancel()
		c.env.Forget(ctx, topicVerified, strings.Join(append([]string{h.Algorithm, h.Ver}, features...), "\x00"))
	}
}

// teachLimit is how long a client's answer waits for nodes that are slow to
// learn; they ask their clients then.
const teachLimit = 250 * time.Millisecond

func (c *Caps) learn(told string) {
	parts := strings.Split(told, "\x00")
	if len(parts) < 2 {
		return
	}
	c.verified.Set(Hash{parts[0], parts[1]}, parts[2:])
}

// topicWanted is what a node asks another one for: algorithm and hash, with NUL
// between. It answers by teaching.
const topicWanted = "caps-wanted"

// wantedAgain is how long a node that could not teach a hash is not asked for it
// again: when it gets to know, it teaches of itself.
const wantedAgain = time.Minute

// repeat teaches once more what this node knows.
func (c *Caps) repeat(key string) {
	algorithm, v, _ := strings.Cut(key, "\x00")
	h := Hash{algorithm, v}
	if features, ok := c.Features(h); ok {
		c.teach(context.Background(), h, features)
	}
}

// FeaturesOf is Features of what a session's last presence named. A node that has
// begun later than it was verified asks the one that has the session.
func (c *Caps) FeaturesOf(ctx context.Context, e *sessions.Entry) ([]string, bool) {
	h := HashOf(e)
	if h.IsZero() {
		return nil, false
	}
	features, ok := c.Features(h)
	if ok || c.env.Notices == nil || e.Node == c.env.Node {
		return features, ok
	}
	now := c.env.Clock.Now()
	if at, asked := c.wanted.GetIfPresent(h); asked && now.Sub(at).Abs() < wantedAgain {
		return nil, false
	}
	c.wanted.Set(h, now)
	ctx, cancel := context.WithTimeout(ctx, teachLimit)
	defer cancel()
	if err := c.env.Notices.Ask(ctx, e.Node, topicWanted, h.Algorithm+"\x00"+h.Ver); err != nil {
		c.env.Log.Warn("another node does not say what a client can do", "node", e.Node, "jid", e.JID.String(), "err", err)
	}
	return c.Features(h)
}

// weigh is about the bytes an entry takes.
func weigh(h Hash, features []string) uint32 {
	n := 128 + len(h.Algorithm) + len(h.Ver)
	for _, f := range features {
		n += len(f) + 16
	}
	return uint32(min(n, 1<<30)) //nolint:gosec // bounded right here
}

// Features returns what a client of this hash can do, sorted; false when that
// has not been verified (yet). Beside features the list holds the other parts
// the hash was made of, identities and fields of forms. The slice must not be
// changed. XEP-0115 §5.4.
func (c *Caps) Features(h Hash) ([]string, bool) { return c.verified.GetIfPresent(h) }

// Announced returns the hash that an entity's last presence named: a local
// client, or a full JID elsewhere whose presence came to an account here.
func (c *Caps) Announced(full jid.JID) (Hash, bool) {
	if e, ok := c.sessions.Find(full); ok {
		h := HashOf(e)
		return h, !h.IsZero()
	}
	return c.remotes.GetIfPresent(full)
}

// HashOf returns the hash that the session's last presence named.
func HashOf(e *sessions.Entry) Hash {
	_, v, ok := strings.Cut(e.CapsNode, "#")
	if !ok || e.CapsHash == "" {
		return Hash{}
	}
	return Hash{e.CapsHash, v}
}

// announcement is a <c/> (XEP-0115 §4).
type announcement struct {
	node string
	hash Hash
}

// Longest parts of a <c/> that are looked at.
const (
	maxNodeBytes = 512
	maxVerBytes  = 128 // a sha-512 in base64 has 88
)

// announcedBy reads the <c/> of a presence. One without a hash attribute is of
// the legacy format and is ignored (XEP-0115 §5.4 step 1), as is one with an
// algorithm that cannot be verified.
func announcedBy(st *stanza.Stanza) (a announcement) {
	el := st.Child(NSCaps, "c")
	if el == nil {
		return a
	}
	node, h := el.Get("node"), Hash{el.Get("hash"), el.Get("ver")}
	if len(node) > maxNodeBytes || len(h.Ver) > maxVerBytes || h.Ver == "" || strings.Contains(node, "#") {
		return a
	}
	if _, ok := algorithms[h.Algorithm]; !ok {
		return a
	}
	return announcement{node, h}
}

// String is the node to ask about (XEP-0115 §6.2).
func (a announcement) String() string { return a.node + "#" + a.hash.Ver }

// announced is a local client's presence with capabilities that were others
// before (XEP-0115 §6.1).
func (d *disco) announced(_ context.Context, t *presence.Transition) (processor.Verdict, error) {
	if !t.Session.Available || HashOf(t.Session) == HashOf(&sessions.Entry{State: t.Before}) {
		return processor.Continue, nil
	}
	if a := announcedBy(t.Stanza); !a.hash.IsZero() {
		d.asker.want(waiter{from: t.Session.JID.Host(), at: t.Session.JID, ref: t.Session.Ref, what: a})
	}
	return processor.Continue, nil
}

// nsMUCUser marks presence of occupants, who are none of the account's
// contacts (XEP-0045 §7.2).
const nsMUCUser = "http://jabber.org/protocol/muc#user"

// remote notes what contacts elsewhere announce.
func (d *disco) remote(_ context.Context, f *processor.Flow) (processor.Verdict, error) {
	if f.Kind != stanza.Presence || f.Session != nil || !f.From.IsFull() || d.env.Local(f.From.Domain()) {
		return processor.Continue, nil
	}
	switch {
	case f.Type == stanza.TypeUnavailable:
		d.caps.remotes.Invalidate(f.From)
	case f.Type == "" && !f.Has(nsMUCUser, "x"):
		a := announcedBy(f.Stanza)
		if old, _ := d.caps.remotes.GetIfPresent(f.From); a.hash == old || a.hash.IsZero() {
			break
		}
		d.caps.remotes.Set(f.From, a.hash)
		d.asker.want(waiter{from: f.Account, at: f.From, what: a})
	}
	return processor.Continue, nil
}
