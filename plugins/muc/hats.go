package muc

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/parser/stanza/form"
	"parley/plugins/disco"
	"parley/storage"
)

// nsHats is that of XEP-0317: titles that a room's admins give to people, beside
// role and affiliation. Commands do it (hatcommands.go).
const nsHats = "urn:xmpp:hats:0"

// Bounds of hats.
const (
	maxHats      = 100    // of one room
	maxWorn      = 20     // of one person in one room
	maxWearers   = 10_000 // people with hats in one room
	maxHatTitle  = 256    // bytes
	maxHatURI    = 1024   // bytes
	fullHue      = 360    // degrees (XEP-0392 §5.2)
	maxHueLength = 20     // bytes
)

// hats are a room's, and who wears them.
type hats struct {
	all  []hat // by URI
	worn map[jid.JID][]string
}

type hat struct{ uri, title, hue string }

var (
	putHat = storage.Stmt{
		Name: "muc.hat", SQL: `INSERT INTO muc_hat (room, uri, title, hue) VALUES ($1, $2, $3, $4) ON CONFLICT (room, uri) DO UPDATE SET title = excluded.title, hue = excluded.hue`,
		Idempotent: true,
	}
	dropHat     = storage.Stmt{Name: "muc.hat.drop", SQL: `DELETE FROM muc_hat WHERE room = $1 AND uri = $2`, Idempotent: true}
	dropHats    = storage.Stmt{Name: "muc.hats.drop", SQL: `DELETE FROM muc_hat WHERE room = $1`, Idempotent: true}
	putWorn     = storage.Stmt{Name: "muc.hat.wear", SQL: `INSERT INTO muc_hat_worn (room, jid, uri) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`, Idempotent: true}
	dropWornOne = storage.Stmt{Name: "muc.hat.unwear", SQL: `DELETE FROM muc_hat_worn WHERE room = $1 AND jid = $2 AND uri = $3`, Idempotent: true}
	dropWornHat = storage.Stmt{Name: "muc.hat.lost", SQL: `DELETE FROM muc_hat_worn WHERE room = $1 AND uri = $2`, Idempotent: true}
	dropWornBy  = storage.Stmt{Name: "muc.hats.unwear", SQL: `DELETE FROM muc_hat_worn WHERE room = $1 AND jid = $2`, Idempotent: true}
	dropWorn    = storage.Stmt{Name: "muc.hats.lost", SQL: `DELETE FROM muc_hat_worn WHERE room = $1`, Idempotent: true}
)

const (
	sqlHats = `SELECT uri, title, hue FROM muc_hat WHERE room = $1`
	sqlWorn = `SELECT jid, uri FROM muc_hat_worn WHERE room = $1 ORDER BY jid, uri`
)

func (r *room) fillHats(ctx context.Context) error {
	all, err := storage.All(ctx, r.s.env.DB, func(row storage.Row) (h hat, err error) {
		err = row.Scan(&h.uri, &h.title, &h.hue)
		return h, err
	}, sqlHats, r.jid.String())
	if err != nil {
		return fmt.Errorf("hats: %w", err)
	}
	r.hats = hats{all: all, worn: map[jid.JID][]string{}}
	slices.SortFunc(r.hats.all, byURI)
	_, err = storage.All(ctx, r.s.env.DB, func(row storage.Row) (struct{}, error) {
		var who, uri string
		if err := row.Scan(&who, &uri); err != nil {
			return struct{}{}, err
		}
		at, err := jid.Parse(who)
		r.hats.worn[at] = append(r.hats.worn[at], uri)
		return struct{}{}, err
	}, sqlWorn, r.jid.String())
	if err != nil {
		return fmt.Errorf("hats: %w", err)
	}
	return nil
}

func byURI(a, b hat) int { return cmp.Compare(a.uri, b.uri) }

func (h *hats) find(uri string) (int, bool) {
	return slices.BinarySearchFunc(h.all, hat{uri: uri}, byURI)
}

// of are the hats that somebody, bare, wears.
func (h *hats) of(who jid.JID) (out []hat) {
	for _, uri := range h.worn[who] {
		if i, ok := h.find(uri); ok {
			out = append(out, h.all[i])
		}
	}
	return out
}

// hatsBadge is in an occupant's presence (XEP-0317 §3.1).
func hatsBadge(r *room, o *occupant) *stanza.Element {
	worn := r.hats.of(o.bare)
	if len(worn) == 0 {
		return nil
	}
	out := stanza.El(nsHats, "hats")
	for _, h := range worn {
		out.Add(stanza.El(nsHats, "hat").With("title", h.title).With("uri", h.uri).WithOpt("hue", h.hue))
	}
	return out
}

// hatsFact is in muc#roominfo: another hash, another list (XEP-0317 §2).
func (r *room) hatsFact() (disco.Field, bool) {
	sum := sha256.New()
	for _, h := range r.hats.all {
		fmt.Fprintf(sum, "%q %q %q\n", h.uri, h.title, h.hue)
	}
	return disco.Field{Var: "hats#hash", Type: form.TextSingle, Label: "Hats hash", Values: []string{hex.EncodeToString(sum.Sum(nil)[:20])}}, len(r.hats.all) > 0
}

// makeHat makes a hat, or changes it (XEP-0317 §3.2).
func (r *room) makeHat(o *op, h hat) error {
	i, known := r.hats.find(h.uri)
	switch {
	case !known && len(r.hats.all) >= maxHats:
		return r.s.limit("hats", stanza.ResourceConstraint, "the room has too many hats; destroy one that is not needed")
	case known && r.hats.all[i] == h:
		return nil
	case known:
		r.hats.all[i] = h
	default:
		r.hats.all = slices.Insert(r.hats.all, i, h)
	}
	o.rows.Add(&putHat, r.jid.String(), h.uri, h.title, h.hue)
	r.hatsChanged(o, r.wearers(h.uri))
	return nil
}

// destroyHat takes it off everybody (XEP-0317 §3.3).
func (r *room) destroyHat(o *op, h hat) error {
	i, known := r.hats.find(h.uri)
	if !known {
		return noHat()
	}
	wearers := r.wearers(h.uri)
	r.hats.all = slices.Delete(r.hats.all, i, i+1)
	for _, who := range wearers {
		r.hats.takeOff(who, h.uri)
	}
	o.rows.Add(&dropHat, r.jid.String(), h.uri)
	o.rows.Add(&dropWornHat, r.jid.String(), h.uri)
	r.hatsChanged(o, wearers)
	return nil
}

// hatsChanged tells the occupants that the list has (XEP-0317 §3.2), and shows those
// who wear what has.
func (r *room) hatsChanged(o *op, wearers []jid.JID) {
	r.systemMessage(o, statuses(stanza.El(NSUser, "x"), statusConfiguration))
	for _, who := range wearers {
		r.showWearer(o, who)
	}
}

// assignHat is XEP-0317 §3.5.
func (r *room) assignHat(o *op, who jid.JID, uri string) error {
	worn := r.hats.worn[who]
	_, known := r.hats.find(uri)
	switch {
	case !known:
		return noHat()
	case slices.Contains(worn, uri):
		return nil
	case len(worn) >= maxWorn, len(worn) == 0 && len(r.hats.worn) >= maxWearers:
		return r.s.limit("hats", stanza.ResourceConstraint, "too many hats; take one off first")
	}
	r.hats.worn[who] = append(slices.Clip(worn), uri)
	slices.Sort(r.hats.worn[who])
	o.rows.Add(&putWorn, r.jid.String(), who.String(), uri)
	r.showWearer(o, who)
	return nil
}

// unassignHat is XEP-0317 §3.6.
func (r *room) unassignHat(o *op, who jid.JID, uri string) error {
	if !slices.Contains(r.hats.worn[who], uri) {
		return stanza.NewError(stanza.ItemNotFound, "nobody of that address wears this hat")
	}
	r.hats.takeOff(who, uri)
	o.rows.Add(&dropWornOne, r.jid.String(), who.String(), uri)
	r.showWearer(o, who)
	return nil
}

func (h *hats) takeOff(who jid.JID, uri string) {
	left := slices.DeleteFunc(h.worn[who], func(s string) bool { return s == uri })
	if h.worn[who] = left; len(left) == 0 {
		delete(h.worn, who)
	}
}

// wearers are those who wear a hat.
func (r *room) wearers(uri string) (out []jid.JID) {
	for who, worn := range r.hats.worn {
		if slices.Contains(worn, uri) {
			out = append(out, who)
		}
	}
	slices.SortFunc(out, byName)
	return out
}

// showWearer sends the presence of somebody's occupants anew.
func (r *room) showWearer(o *op, who jid.JID) {
	for _, x := range r.nicks {
		if x.bare == who {
			x.changed()
			r.show(o, x.face(), told{})
		}
	}
}

// forgetHats takes the hats off somebody whose account is gone.
func (r *room) forgetHats(o *op, who jid.JID) {
	if _, wears := r.hats.worn[who]; wears {
		delete(r.hats.worn, who)
		o.rows.Add(&dropWornBy, r.jid.String(), who.String())
	}
}

func noHat() error { return stanza.NewError(stanza.ItemNotFound, "the room has no such hat") }
