package muc

import (
	"context"
	"crypto/sha1" //nolint:gosec // XEP-0153 §4.1 says so; it keeps nothing secret
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"parley/parser/stanza"
	"parley/parser/stanza/form"
	"parley/plugins/disco"
	"parley/storage"
)

// A room's picture is in its vCard, which its owners write and everybody reads that
// may know of the room (XEP-0486).

var (
	putAvatar = storage.Stmt{
		Name: "muc.card", SQL: `INSERT INTO muc_card (room, card, hashes) VALUES ($1, $2, $3) ON CONFLICT (room) DO UPDATE SET card = excluded.card, hashes = excluded.hashes`,
		Idempotent: true,
	}
	dropAvatar = storage.Stmt{Name: "muc.card.drop", SQL: `DELETE FROM muc_card WHERE room = $1`, Idempotent: true}
)

const (
	sqlCard   = `SELECT card FROM muc_card WHERE room = $1`
	sqlHashes = `SELECT hashes FROM muc_card WHERE room = $1`
)

// maxPhotos is how many pictures a room's vCard has at most: one in several formats
// (XEP-0486 §5.1).
const maxPhotos = 8

func (r *room) fillAvatar(ctx context.Context) error {
	var hashes string
	err := r.s.env.DB.QueryRow(ctx, sqlHashes, r.jid.String()).Scan(&hashes)
	switch {
	case errors.Is(err, storage.ErrNoRows):
		return nil
	case err != nil:
		return fmt.Errorf("vCard of a room: %w", err)
	}
	r.avatar = strings.Fields(hashes)
	return nil
}

// card reads or writes a room's vCard (XEP-0486 §3.2, §3.4).
func (s *service) card(ctx context.Context, r *room, q *request) (*stanza.Element, error) {
	if !q.set() {
		return r.readCard(ctx, q)
	}
	raw := q.query.Bytes("")
	if len(raw) > int(s.cfg.MaxAvatar) {
		return nil, s.limit("avatar", stanza.PolicyViolation, "the picture is too large; make it smaller")
	}
	hashes, err := hashesOf(q.query)
	if err != nil {
		return nil, err
	}
	return nil, r.do(ctx, true, func(o *op) error {
		if err := r.mayOwn(q.From); err != nil {
			return err
		}
		if r.avatar = hashes; q.query.Count() == 0 {
			o.rows.Add(&dropAvatar, r.jid.String())
		} else {
			o.rows.Add(&putAvatar, r.jid.String(), raw, strings.Join(hashes, " "))
		}
		r.systemMessage(o, statuses(stanza.El(NSUser, "x"), statusConfiguration))
		return nil
	})
}

func (r *room) readCard(ctx context.Context, q *request) (*stanza.Element, error) {
	if _, err := r.description(q.From); err != nil { // a room that may not be known of
		return nil, err
	}
	var raw []byte
	err := r.s.env.DB.QueryRow(ctx, sqlCard, r.jid.String()).Scan(&raw)
	switch {
	case errors.Is(err, storage.ErrNoRows):
		return nil, stanza.NewError(stanza.ItemNotFound, "the room has no vCard")
	case err != nil:
		return nil, fmt.Errorf("vCard of a room: %w", err)
	}
	el, err := stanza.ParseElement(raw, "")
	if err != nil {
		return nil, fmt.Errorf("stored vCard of a room: %w", err)
	}
	return el, nil
}

// hashesOf are the hashes of a vCard's pictures.
func hashesOf(card *stanza.Element) (out []string, err error) {
	for el := range card.Elements() {
		if el.Name != (stanza.Name{Space: nsVCard, Local: "PHOTO"}) {
			continue
		}
		data := el.Child(nsVCard, "BINVAL")
		if data == nil { // it is somewhere else (XEP-0054 §5)
			continue
		}
		picture, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(data.Text()), ""))
		if err != nil {
			return nil, stanza.NewError(stanza.BadRequest, "the picture is not in base64")
		}
		sum := sha1.Sum(picture) //nolint:gosec // see the import
		if out = append(out, hex.EncodeToString(sum[:])); len(out) > maxPhotos {
			return nil, stanza.NewError(stanza.PolicyViolation, "too many pictures")
		}
	}
	return out, nil
}

// avatarFact is in muc#roominfo (XEP-0486 §3.3).
func (r *room) avatarFact() (disco.Field, bool) {
	return disco.Field{Var: "muc#roominfo_avatarhash", Type: form.TextMulti, Label: "Hashes of the room's picture", Values: r.avatar}, len(r.avatar) > 0
}
