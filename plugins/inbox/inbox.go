// Package inbox tells an account's devices which conversations it has, how many
// messages of each are unread, and what was said last, so that a phone need not
// fetch the archive first.
//
// Specs: XEP-0430 (the inbox), XEP-0333 (displayed markers), XEP-0490 (displayed
// state of the account's own devices), XEP-0492 (notification settings), XEP-0059
// (pages).
//
// Nothing is written when a message is sent: the inbox is what the archive says,
// counted when it is asked for (count.go).
//
//	query    what came into the archive since the last query is read, oldest first,
//	         and added to what was counted then; what may still have older rows
//	         committed before it is counted but not kept
//	read     a mark per conversation (mark.go), for what the archive does not tell
//	         itself: markers are messages in it
//	rooms    who belongs to a room has it in its inbox, in it or not (rooms.go): the
//	         count is over the room's own archive (tail.go), mentions are rows
//	waits    a message that no device takes is told to whoever wakes devices, once
//	         it is durable (waiting.go), with what the account wants to hear of
//	         (notify.go)
//
// An account that never asks costs nothing, and one that asks pays for what is new.
package inbox

import (
	"context"
	"embed"
	"fmt"
	"time"

	"github.com/maypok86/otter/v2"
	"github.com/prometheus/client_golang/prometheus"

	"parley/parser/jid"
	"parley/plugins"
	"parley/plugins/archive"
	"parley/plugins/displayed"
	"parley/plugins/muc"
	"parley/plugins/pubsub"
	"parley/processor"
	"parley/storage"
	"parley/storage/cache"
)

//go:embed sql
var migrations embed.FS

// Names and namespaces.
const (
	Name = "inbox"
	NS   = "urn:xmpp:inbox:1"
	// NSMentions is the namespace of <mentions count=''/>, beside an entry: how many
	// of the unread messages of a room name the account. XEP-0430 has no word for it.
	NSMentions = "parley:inbox:0"
)

// Plugin provides the component and the contract *Inbox.
var Plugin = plugins.Plugin{
	Name:       Name,
	Doc:        "A list of conversations with what is unread and what was said last, for devices that come back.",
	Requires:   []string{archive.Name, muc.Name, pubsub.Name, displayed.Name, "bookmarks"},
	Components: []plugins.Maker{{Server: processor.Name, Defaults: defaults(), New: newPart}},
	Migrations: migrations,
	Contract:   newInbox,
}

// Config is the component's section.
type Config struct {
	Page    int           `yaml:"page" min:"1" max:"500" unit:"conversations" doc:"Size of a page when the client names none."`
	MaxPage int           `yaml:"max_page" min:"1" max:"500" unit:"conversations" doc:"Largest page."`
	Chats   int           `yaml:"max_conversations" min:"1" max:"10000" unit:"conversations" doc:"Conversations that one account's inbox has; the ones that are silent for longest are left out."`
	Window  int           `yaml:"window" min:"1" max:"1000000" unit:"messages" doc:"How many of the newest messages in an account's archive are counted when it asks for the first time."`
	Timeout time.Duration `yaml:"timeout" min:"10ms" doc:"How long one query may take."`
}

func defaults() *Config {
	return &Config{Page: 50, MaxPage: 200, Chats: 1000, Window: 20_000, Timeout: 2 * time.Second}
}

// Inbox is the contract: what the components of one Host, and the features that
// require it, share.
type Inbox struct {
	env      plugins.Env
	archive  *archive.Archive
	settings *cache.Cache[jid.JID, map[jid.JID]Notify] // of a conversation's address, by account
	tails    *tails
}

// cachedSettings is how many conversations' settings are kept in memory.
const cachedSettings = 20_000

// topicNotify is what nodes tell each other of changed settings under.
const topicNotify = "inbox-notify"

// settingsTTL is how late another node's change is seen when word of it is lost.
const settingsTTL = 5 * time.Minute

func newInbox(env plugins.Env) (any, error) {
	a, err := plugins.Need[*archive.Archive](env, archive.Name)
	if err != nil {
		return nil, err
	}
	o := plugins.CachedAccounts[map[jid.JID]Notify](env, topicNotify, settingsTTL)
	o.Size = cachedSettings
	b := &Inbox{env: env, archive: a}
	if b.settings, err = cache.New(o); err != nil {
		return nil, err
	}
	if b.tails, err = newTails(a); err != nil {
		return nil, err
	}
	env.OnForget(topicRooms, func(key string) {
		if room, err := jid.Parse(key); err == nil {
			b.tails.drop(room)
		}
	})
	return b, nil
}

// part works in the processor.
type part struct {
	*Inbox
	cfg     Config
	reg     *processor.Registrar
	metrics *metrics
	known   *otter.Cache[jid.JID, *muc.Member] // of a room, the first of those whose rows are there: another list, another first
}

var _ processor.Component = (*part)(nil)

func newPart(env plugins.Env, c plugins.Config) (plugins.Component, error) {
	p := &part{cfg: *defaults()}
	if err := c.Decode(&p.cfg); err != nil {
		return nil, err
	}
	var err error
	if p.Inbox, err = plugins.Need[*Inbox](env, Name); err != nil {
		return nil, err
	}
	if p.known, err = otter.New(&otter.Options[jid.JID, *muc.Member]{MaximumSize: cachedRooms}); err != nil {
		return nil, fmt.Errorf("inbox: %w", err)
	}
	p.metrics, err = newMetrics(env.Metrics)
	return p, err
}

// Start implements plugins.Component.
func (*part) Start(context.Context) error { return nil }

// Stop implements plugins.Component.
func (*part) Stop(context.Context) error { return nil }

// Register implements processor.Component.
func (p *part) Register(r *processor.Registrar) {
	p.reg = r
	processor.On(r, processor.Outgoing, processor.Late, p.outgoing)
	processor.On(r, processor.Incoming, processor.Last, p.incoming)
	processor.On(r, processor.Undelivered, processor.Early, p.undelivered)
	processor.On(r, processor.AccountRemoved, processor.Normal, func(ctx context.Context, account jid.JID) (processor.Verdict, error) {
		return processor.Continue, p.forget(ctx, account)
	})
	processor.On(r, muc.Posting, processor.Late, p.posting)
	processor.On(r, muc.Posted, processor.Normal, p.posted)
	processor.On(r, muc.Affiliated, processor.Normal, p.affiliated)
	processor.On(r, muc.Destroyed, processor.Normal, p.destroyed)
	processor.On(r, displayed.Displayed, processor.Normal, p.shown)
	processor.On(r, pubsub.Published, processor.Normal, p.bookmarked)
	processor.On(r, pubsub.Retracted, processor.Normal, p.forgotten)
	processor.On(r, pubsub.Deleted, processor.Normal, p.deleted)
	if p.archive.Keeps() {
		r.AccountFeature(NS) // XEP-0430 §2.1
		r.IQ(NS, "inbox", processor.Self|processor.Account, p.query)
	}
}

// forget drops everything of an account.
func (b *Inbox) forget(ctx context.Context, account jid.JID) error {
	peers, err := b.peersOf(ctx, account)
	if err != nil {
		return err
	}
	err = b.env.DB.Tx(ctx, func(tx storage.Tx) error {
		for _, sql := range sqlForget {
			if _, err := tx.Exec(ctx, sql, account.String()); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("forget inbox: %w", err)
	}
	for _, peer := range peers {
		b.changed(ctx, peer)
	}
	return nil
}

type metrics struct {
	queries *prometheus.CounterVec
	counted prometheus.Counter
	seconds prometheus.Histogram
	waiting prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		queries: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "parley_inbox_queries_total", Help: "Inbox queries, by outcome: ok, refused, failed."}, []string{"outcome"}),
		counted: prometheus.NewCounter(prometheus.CounterOpts{Name: "parley_inbox_counted_total", Help: "Archived messages that were read to count what is unread."}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "parley_inbox_query_seconds", Help: "Time to answer one query.", Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2}}),
		waiting: prometheus.NewCounter(prometheus.CounterOpts{Name: "parley_inbox_waiting_total", Help: "Messages that no device of their recipient took."}),
	}
	for _, c := range []prometheus.Collector{m.queries, m.counted, m.seconds, m.waiting} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("inbox metrics: %w", err)
		}
	}
	return m, nil
}
