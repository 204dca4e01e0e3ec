package roster

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"
	"strconv"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/processor"
)

// Shared gives accounts contacts that they have not made themselves: an administrator
// has. What everybody reads of a roster has them in it.
type Shared interface {
	// Generation is another number, and never 0, whenever Of may give anybody something
	// else than before.
	Generation() uint64
	// Of returns what is shared with an account, in the order of the contacts'
	// addresses, none twice. It does not wait; the result must not be changed.
	Of(owner jid.JID) []Grant
}

// Grant is a contact that is shared with an account. The owner's own item adds to it.
type Grant struct {
	Contact jid.JID  // bare
	Name    string   // unless the owner has another one; may be empty
	Groups  []string // besides the owner's own
	// State is Both, To, or From. From alone: the contact gets the account's presence,
	// and is no item of the roster.
	State State
}

// shown reports whether the contact is in the roster.
func (g Grant) shown() bool { return g.State.To() }

func grantAt(g Grant, contact jid.JID) int { return byAddress(g.Contact, contact) }

// errShared refuses to end what is an administrator's.
var errShared = stanza.NewError(stanza.NotAllowed, "an administrator shares this contact with you: it stays in the roster, and so does its subscription")

// shares holds a Shared for an atomic pointer.
type shares struct{ Shared }

// unknown, behind a version, makes it one that nobody can come back with.
const unknown = "+0"

// Share sets who gives accounts further contacts; nil: nobody does any more. It tells
// nobody: clients see the difference when they ask for their rosters again. For those
// that are there no version that they are told from now on is one to go on from. A node
// that begins has none: those of others were told where they are.
func (r *Rosters) Share(s Shared) {
	if len(r.env.Sessions.On(r.env.Node)) > 0 {
		r.untold.Store(true)
	}
	if s == nil {
		r.shared.Store(nil)
		return
	}
	r.shared.Store(&shares{s})
}

// told is the version that a push has: nobody is to go on from it who does not know what
// is shared besides.
func (r *Rosters) told(ver string) string {
	if r.untold.Load() {
		return ver + unknown
	}
	return ver
}

// generation is that of what is shared; 0: nothing ever is.
func (r *Rosters) generation() uint64 {
	if s := r.shared.Load(); s != nil {
		return s.Generation()
	}
	return 0
}

// shares returns the roster with what is shared now.
func (r *Rosters) shares(s *Snapshot) *Snapshot {
	now := r.shared.Load()
	if now == nil {
		return s.sharing(nil, 0)
	}
	gen := now.Generation() // before: what is younger than its number is looked at again
	return s.sharing(now.Of(s.owner), gen)
}

// sharing returns the roster with other grants.
func (s *Snapshot) sharing(grants []Grant, gen uint64) *Snapshot {
	next := *s
	next.grants, next.gen, next.mark = grants, gen, markOf(grants)
	return next.index()
}

// markOf tells grants from others, in versions (RFC 6121 §2.6.1): the same on every
// node and after every restart. "" is that of none.
func markOf(grants []Grant) string {
	if len(grants) == 0 {
		return ""
	}
	var b []byte
	h := sha256.New()
	for _, g := range grants {
		b = append(append(b[:0], g.Contact.String()...), 0)
		b = append(append(b, g.Name...), 0, byte(g.State))
		for _, group := range g.Groups {
			b = append(append(b, group...), 0)
		}
		h.Write(append(b, 1))
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// grant returns what is shared about a contact; State None: nothing.
func (s *Snapshot) grant(contact jid.JID) Grant {
	i, ok := slices.BinarySearchFunc(s.grants, contact, grantAt)
	if !ok {
		return Grant{Contact: contact}
	}
	return s.grants[i]
}

// with is the item as its owner sees it. What it says itself comes first.
func (it Item) with(g Grant) Item {
	if it.State |= g.State; it.State.To() {
		it.State &^= out
	}
	if g.shown() && it.Name == "" {
		it.Name = g.Name
	}
	own := it.Groups
	for _, group := range g.Groups {
		if !slices.Contains(own, group) {
			it.Groups = append(slices.Clip(it.Groups), group)
		}
	}
	return it
}

// without is what a client that sets an item says itself: what it had said before, and
// what is not shared. The rest it has from here.
func (it Item) without(g Grant, own Item) Item {
	if g.shown() && it.Name == g.Name && it.Name != own.Name {
		it.Name = ""
	}
	if len(g.Groups) > 0 {
		it.Groups = slices.DeleteFunc(slices.Clone(it.Groups), func(group string) bool {
			return slices.Contains(g.Groups, group) && !slices.Contains(own.Groups, group)
		})
	}
	return it
}

// bare reports whether the item says nothing itself.
func (it Item) bare() bool {
	return it.Name == "" && len(it.Groups) == 0 && it.State == None && !it.Approved
}

// compose joins what the owner has made and what is shared, both in the order of
// addresses. unseen are those who get the owner's presence without being in the roster.
func compose(own []Item, grants []Grant) (items []Item, unseen []jid.JID) {
	items = make([]Item, 0, len(own)+len(grants))
	for len(own) > 0 || len(grants) > 0 {
		order := 0
		switch {
		case len(own) == 0:
			order = 1
		case len(grants) == 0:
			order = -1
		default:
			order = byAddress(own[0].JID, grants[0].Contact)
		}
		switch {
		case order < 0:
			items, own = append(items, own[0]), own[1:]
			continue
		case order == 0:
			items, own = append(items, own[0].with(grants[0])), own[1:]
		case grants[0].shown():
			items = append(items, Item{JID: grants[0].Contact}.with(grants[0]))
		default:
			unseen = append(unseen, grants[0].Contact)
		}
		grants = grants[1:]
	}
	return items, unseen
}

// seen is what clients are told of an item of the owner's that has changed.
func (s *Snapshot) seen(own Item) Item {
	it, here := s.Item(own.JID)
	it.removed, it.ver = !here, own.ver
	return it
}

// at is the 'ver' attribute of the roster after one of its owner's changes.
func (s *Snapshot) at(ver int64) string {
	v := strconv.FormatInt(ver, 10)
	if s.mark == "" {
		return v
	}
	return v + "-" + s.mark
}

// Shift is an account that may have other shared contacts than before.
type Shift struct {
	Owner  jid.JID
	Before []Grant // of each contact that is concerned; State None: it was not shared
}

// Reshared fires when presence has to follow what is shared.
var Reshared = processor.NewHook[*Resharing]("roster-reshared")

// Resharing is the event of Reshared: contacts that get the owner's presence from now
// on, or get it no more.
type Resharing struct {
	Owner          jid.JID
	Opened, Closed []jid.JID
}

// Reshare tells the sessions of accounts, all of them, what is shared otherwise than
// before; it is so already, on every node. Who cannot be told keeps nobody else from it:
// the errors are all there were.
func (r *Rosters) Reshare(ctx context.Context, reg *processor.Registrar, all []Shift) error {
	var errs []error
	var opened, closed []*Resharing
	for _, sh := range all {
		s, err := r.Contacts(ctx, sh.Owner)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		open, shut := &Resharing{Owner: sh.Owner}, &Resharing{Owner: sh.Owner}
		for _, g := range sh.Before {
			own, _ := s.own(g.Contact)
			switch before, after := own.State|g.State, s.State(g.Contact); {
			case !before.From() && after.From():
				open.Opened = append(open.Opened, g.Contact)
			case before.From() && !after.From():
				shut.Closed = append(shut.Closed, g.Contact)
			}
		}
		opened, closed = append(opened, open), append(closed, shut)
	}
	fire := func(list []*Resharing) {
		for _, x := range list {
			if _, err := processor.Fire(ctx, reg, Reshared, x); err != nil {
				errs = append(errs, err)
			}
		}
	}
	fire(closed) // while they still know each other
	for _, sh := range all {
		if err := r.reshare(ctx, reg, sh); err != nil {
			errs = append(errs, err)
		}
	}
	fire(opened)
	return errors.Join(errs...)
}

// reshare pushes what is otherwise than before. Only the last push has a version that a
// client can come back with: the one before may be all that it got.
func (r *Rosters) reshare(ctx context.Context, to Router, sh Shift) error {
	s, leave, err := r.turn(ctx, sh.Owner)
	if err != nil {
		return err
	}
	defer leave()
	var news []Item
	for _, g := range sh.Before {
		own, had := s.own(g.Contact)
		was, now := own.with(g), s.seen(own)
		if had = had || g.shown(); had == now.removed || had && !was.same(now) {
			news = append(news, now)
		}
	}
	for i, it := range news {
		ver := r.told(s.Version())
		if left := len(news) - 1 - i; left > 0 {
			ver = s.at(s.ver) + "+" + strconv.Itoa(left)
		}
		r.push(ctx, to, sh.Owner, it, ver, true)
	}
	return nil
}

// same reports whether clients see the same.
func (it Item) same(as Item) bool {
	return it.Name == as.Name && it.State == as.State && it.Approved == as.Approved && slices.Equal(it.Groups, as.Groups)
}

// turn is the roster as it is now. Until leave is called, nobody tells of a later one.
func (r *Rosters) turn(ctx context.Context, owner jid.JID) (s *Snapshot, leave func(), err error) {
	defer r.lock(owner)()
	if s, err = r.current(ctx, owner); err != nil {
		return nil, nil, err
	}
	return s, r.take(&r.telling, owner), nil
}
