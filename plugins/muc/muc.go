// Package muc has the rooms (XEP-0045).
//
// Each domain that is served has a service, conference.<domain>, with rooms of
// its own. What is addressed to one comes here from whatever node
// (processor.Owned), and is done where the room is owned.
//
//	stanza → the service itself     service.go: any node
//	       → a room                 room.go: loaded from the database, locked
//	         presence               enter.go leave.go nick.go
//	         message                post.go subject.go private.go invite.go voice.go
//	         IQ                     admin.go configure.go register.go disco.go, iq.go to occupants
//
// A room is what its rows say. Whatever happens in it gets its place under the
// room's lock, changes what is in memory, and collects rows and stanzas (op).
// Operations are committed in groups: what comes while a commit is under way
// goes into the next one; then their stanzas go out in the order of the places
// (line.go). When a commit fails, the room in memory is worth nothing and is read
// again. So there is one order for all, nothing is seen that is not stored, and a
// new owner, after kill -9, goes on without anybody entering again.
//
// Read on: room.go, line.go, then what you look for.
package muc

import (
	"context"
	"embed"
	"fmt"
	"sync/atomic"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/parser/stanza/form"
	"parley/plugins"
	"parley/plugins/archive"
	"parley/plugins/blocking"
	"parley/plugins/config"
	"parley/plugins/disco"
	"parley/processor"
	"parley/router"
)

// Name is the plugin's name, for Requires.
const Name = "muc"

// Namespaces of XEP-0045 §16.1.
const (
	NS      = "http://jabber.org/protocol/muc"
	NSUser  = NS + "#user"
	NSAdmin = NS + "#admin"
	NSOwner = NS + "#owner"
)

//go:embed sql
var migrations embed.FS

// Plugin provides the rooms.
var Plugin = plugins.Plugin{
	Name:     Name,
	Doc:      "Chat rooms.",
	Requires: []string{archive.Name, blocking.Name, "disco"},
	Components: []plugins.Maker{
		{Server: processor.Name, Defaults: defaults(), New: newService},
		{Server: router.Name, Name: "muc-returns", New: newReturns},
	},
	Migrations: migrations,
	Contract:   func(plugins.Env) (any, error) { return &Hosts{}, nil },
}

// Hosts is the contract: the domains with rooms.
type Hosts struct {
	now atomic.Pointer[plugins.Services]
}

// Serves reports whether the domain is one of them.
func (h *Hosts) Serves(domain string) bool {
	now := h.now.Load()
	if now == nil {
		return false
	}
	_, ok := now.Of(domain)
	return ok
}

// Creation says who may make rooms.
type Creation string

// The values of create.
const (
	ByAnybody Creation = "anybody" // also those of other servers
	ByLocals  Creation = "local"
	ByAdmins  Creation = "admins"
	ByNobody  Creation = "nobody"
)

// Config is the component's section.
type Config struct {
	HostPrefix string   `yaml:"host_prefix" reload:"restart" doc:"The services are at <host_prefix>.<domain>, for each domain."`
	Name       string   `yaml:"name" doc:"Name of the services, as people see it in service browsers."`
	Create     Creation `yaml:"create" enum:"anybody,local,admins,nobody" doc:"Who may make rooms: anybody, accounts of this server, those in admins, nobody."`
	Admins     []string `yaml:"admins" max:"100" doc:"Accounts, bare, that own every room and may always make some."`
	Defaults   Defaults `yaml:"defaults" doc:"What a room is that nobody has configured."`

	RoomsPerUser    int         `yaml:"max_rooms_per_user" min:"1" doc:"Rooms that one account may have made at the same time."`
	MaxOccupants    int         `yaml:"max_occupants" min:"2" max:"100000" doc:"Occupants of one room; owners and admins get in all the same, up to a tenth more."`
	MaxAffiliations int         `yaml:"max_affiliations" min:"10" max:"100000" doc:"Affiliations that one room remembers: owners, admins, members and outcasts."`
	MaxNick         config.Size `yaml:"max_nick" min:"8" max:"1023" doc:"Longest nickname."`
	MaxSubject      config.Size `yaml:"max_subject" min:"64" doc:"Largest change of subject."`
	MaxDescription  config.Size `yaml:"max_description" min:"64" doc:"Longest description of a room."`
	MaxPresence     config.Size `yaml:"max_presence" min:"1KiB" doc:"Largest presence that is shown to a room."`
	MaxMessage      config.Size `yaml:"max_message" min:"1KiB" doc:"Largest message that a room takes."`
	MaxAvatar       config.Size `yaml:"max_avatar" min:"1KiB" max:"16MiB" doc:"Largest vCard of a room, its picture included. A stanza's limit bounds it, too."`
	History         int         `yaml:"history" min:"0" unit:"messages" doc:"Messages shown to those who enter, unless the room's owners decide otherwise."`
	MaxHistory      int         `yaml:"max_history" min:"0" max:"500" unit:"messages" doc:"Most messages shown to those who enter. So many of each room that is in use are kept in memory."`

	Messages  Rate `yaml:"messages" doc:"Messages of one occupant."`
	Presences Rate `yaml:"presences" doc:"Changes of presence and nickname of one occupant."`
	Entries   Rate `yaml:"entries" doc:"Entries of one account into one room."`

	Queue int           `yaml:"queue" min:"100" doc:"Stanzas that may wait for one room; more are refused."`
	Rooms int           `yaml:"rooms_in_memory" min:"10" doc:"Rooms that a node has in memory. Those that nobody uses go first."`
	Idle  time.Duration `yaml:"idle" min:"1s" doc:"How long a room stays in memory that nobody uses."`
	Grace time.Duration `yaml:"grace" min:"1s" doc:"How long an occupant keeps its place when its session is gone without a word, so that it may come back: its node has died, or the server was restarted."`
	Large int           `yaml:"large_room" min:"0" doc:"Who enters a room that has so many occupants already is shown to moderators alone, and sees moderators and those who were there before it was so large; what it writes reaches everybody. 0: every room shows everybody to everybody, whose cost grows with the square of their number."`
}

// Defaults are what a room is that nobody has configured.
type Defaults struct {
	Persistent  bool  `yaml:"persistent" doc:"It stays when everybody has left it."`
	Public      bool  `yaml:"public" doc:"Everybody may find it."`
	MembersOnly bool  `yaml:"members_only" doc:"Only members may enter."`
	Moderated   bool  `yaml:"moderated" doc:"Only those with voice may write."`
	Whois       Whois `yaml:"whois" enum:"moderators,anyone" doc:"Who may see the occupants' addresses."`
}

// Rate is a limit over time.
type Rate struct {
	Every time.Duration `yaml:"every" min:"0s" doc:"One in so much time, on average. 0: no limit."`
	Burst int           `yaml:"burst" min:"1" doc:"So many at once."`
}

func defaults() *Config {
	return &Config{
		HostPrefix: "conference", Name: "Rooms", Create: ByLocals,
		Defaults:     Defaults{Public: true, Whois: Moderators},
		RoomsPerUser: 100, MaxOccupants: 5000, MaxAffiliations: 10_000,
		MaxNick: 128, MaxSubject: 4 << 10, MaxDescription: 4 << 10, MaxPresence: 8 << 10, MaxMessage: 64 << 10, MaxAvatar: 256 << 10,
		History: 20, MaxHistory: 100,
		Messages:  Rate{50 * time.Millisecond, 100},
		Presences: Rate{200 * time.Millisecond, 50},
		Entries:   Rate{time.Second, 20},
		Queue:     10_000, Rooms: 10_000, Idle: 5 * time.Minute, Grace: time.Minute,
	}
}

// service works in the processor: all rooms of all domains, as far as this node
// owns them.
type service struct {
	env    plugins.Env
	cfg    Config
	hosts  plugins.Services
	store  *store
	at     *Hosts
	lists  blocks
	reg    *processor.Registrar
	rooms  *memory
	kept   *archive.Archive
	people *pseudonyms
	admins map[jid.JID]bool
	m      *metrics
	form   form.Table[roomForm]
	iqs    map[stanza.Name]iqHandler
	checks []func(*room, *posting) error            // of messages; none is called when one refuses
	badges []func(*room, *occupant) *stanza.Element // what presence has besides; nil: nothing
	extra  extraService
	tidy   tidy
	chores *chores
	begun  atomic.Bool // Register is done: rooms can say something
	// errands are what rooms do that no stanza asks for.
	errands map[string]func(ctx context.Context, r *room, arg string) error
}

// blocks is what is asked of the block lists.
type blocks interface {
	List(ctx context.Context, owner jid.JID) ([]jid.JID, error)
	Blocked(ctx context.Context, owner, other jid.JID) (bool, error)
}

var _ processor.Component = (*service)(nil)

func newService(env plugins.Env, c plugins.Config) (plugins.Component, error) {
	s := &service{env: env, tidy: tidy{bell: make(chan struct{}, 1)}, cfg: *defaults(), admins: map[jid.JID]bool{}}
	if err := c.Decode(&s.cfg); err != nil {
		return nil, err
	}
	var err error
	if s.hosts, err = env.Domains.Services(s.cfg.HostPrefix); err != nil {
		return nil, err
	}
	for _, a := range s.cfg.Admins {
		at, err := jid.Parse(a)
		if err != nil || at.IsFull() {
			return nil, fmt.Errorf("admins: %q is no bare address", a)
		}
		s.admins[at] = true
	}
	if s.lists, err = plugins.Need[blocks](env, blocking.Name); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	if s.kept, err = plugins.Need[*archive.Archive](env, archive.Name); err != nil {
		return nil, err
	}
	if s.people, err = newPseudonyms(ctx, env.DB); err != nil {
		return nil, err
	}
	s.store = &store{env.DB}
	s.rooms = newMemory(s)
	if s.m, err = newMetrics(env.Metrics, s.rooms); err != nil {
		return nil, err
	}
	s.form, s.iqs = roomTable(&s.cfg), s.iqTable()
	s.checks, s.badges, s.extra = append(s.checks, slowly), append(s.badges, hatsBadge), newExtraService()
	s.chores, s.errands = newChores(s), errandTable()
	env.Owners.Handle(topic, s.sent)
	env.OnForget(plugins.Missed, s.missed)
	at, err := plugins.Need[*Hosts](env, Name)
	if err != nil {
		return nil, err
	}
	s.at = at
	at.now.Store(&s.hosts)
	return s, nil
}

// startLimit bounds what is read at start.
const startLimit = 30 * time.Second

// Start implements plugins.Component.
func (s *service) Start(ctx context.Context) error {
	s.tidy.start(context.WithoutCancel(ctx), s)
	return nil
}

// Stop implements plugins.Component.
func (s *service) Stop(context.Context) error {
	s.tidy.stop()
	s.chores.end()
	s.at.now.CompareAndSwap(&s.hosts, nil) // nobody takes what is sent there: senders are told
	return nil
}

// Register implements processor.Component.
func (s *service) Register(r *processor.Registrar) {
	s.reg = r
	r.Owned(processor.Owned{Key: s.key, Handle: s.handle, Presence: s.presence, Failed: s.failed})
	r.Noted(s.noted)
	processor.On(r, disco.Items, processor.Normal, s.listed)
	processor.On(r, processor.Bound, processor.Late, s.came)
	processor.On(r, processor.Resumed, processor.Late, s.resumed)
	processor.On(r, processor.Unbound, processor.Late, s.ended)
	processor.On(r, processor.Undelivered, processor.Early, s.undelivered)
	processor.On(r, processor.AccountRemoved, processor.Normal, s.accountRemoved)
	s.begun.Store(true)
}

// key says which room a stanza is for (processor.Owned).
func (s *service) key(st *stanza.Stanza) (string, bool) {
	if _, ours := s.hosts.Of(st.To.Domain()); !ours {
		return "", false
	}
	if st.To.Local() == "" || st.To.IsBare() && isQuery(st) {
		return "", true
	}
	return st.To.Bare().String(), true
}
