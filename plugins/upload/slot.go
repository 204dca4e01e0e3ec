package upload

import (
	"context"
	"errors"
	"fmt"
	"mime"
	"strconv"
	"strings"
	"time"

	"parley/parser/stanza"
	"parley/storage"
	"parley/storage/blob"
)

// request gives a slot (XEP-0363 §4).
func (s *service) request(ctx context.Context, st *stanza.Stanza, q *stanza.Element) (*stanza.Element, error) {
	out, err := s.slot(ctx, st, q)
	var refused *stanza.Error
	switch {
	case err == nil:
		s.m.slots.WithLabelValues("given").Inc()
	case errors.As(err, &refused):
		s.m.slots.WithLabelValues(string(refused.Condition)).Inc()
	default:
		s.m.slots.WithLabelValues("failed").Inc()
	}
	return out, err
}

func (s *service) slot(ctx context.Context, st *stanza.Stanza, q *stanza.Element) (*stanza.Element, error) {
	if st.Type != stanza.TypeGet {
		return nil, stanza.NewError(stanza.BadRequest, "slots are asked for with type get")
	}
	base := s.at(st.To)
	switch {
	case !s.env.Local(st.From.Domain()) || st.From.Local() == "":
		return nil, stanza.NewError(stanza.Forbidden, "only accounts of this server may upload files")
	case base == "":
		return nil, stanza.NewError(stanza.ServiceUnavailable, "there is no place for files")
	}
	now := s.env.Clock.Now()
	f, err := s.wanted(q, now)
	if err != nil {
		return nil, err
	}
	f.Owner = st.From.Bare().String()
	bucket := f.purpose.of(&s.cfg)
	if r, ok := s.env.Files.(blob.Roomy); ok {
		if err := r.Room(f.Size); err != nil { // reliability row 30
			s.env.Log.Error("slot refused", "err", err)
			return nil, wait("there is no room for files at the moment", now.Add(fullWait))
		}
	}
	f.ID, f.token = s.ids.Next(), newToken()
	f.ends = now.Add(s.cfg.Lifetime)
	switch err := s.store.reserve(ctx, &f.File, limits{now: now, quota: int64(bucket.Quota), slots: s.cfg.MaxSlots}); {
	case errors.Is(err, storage.ErrConflict):
		return nil, wait("try again", now)
	case err != nil:
		return nil, err
	}
	link := base + f.path()
	return stanza.El(NS, "slot").Add(
		stanza.El(NS, "put").With("url", link+"?"+putKey+"="+s.proof(f.token)),
		stanza.El(NS, "get").With("url", link),
	), nil
}

// fullWait is when to try again while there is no room.
const fullWait = 10 * time.Minute

// wish is a request that was read.
type wish struct {
	File
	purpose purpose
}

// wanted reads a request.
func (s *service) wanted(q *stanza.Element, now time.Time) (*wish, error) {
	name, ok := cleanName(q.Get("filename"))
	if !ok {
		return nil, stanza.NewError(stanza.BadRequest, "filename is missing")
	}
	size, err := strconv.ParseInt(q.Get("size"), 10, 64)
	if err != nil || size <= 0 { // XEP-0363 §12: positiveInteger
		return nil, stanza.NewError(stanza.BadRequest, "size is a number of bytes, and not 0")
	}
	typ, ok := cleanType(q.Get("content-type"))
	if !ok {
		return nil, stanza.NewError(stanza.BadRequest, "content-type is not one")
	}
	p, until, err := purposeOf(q, now)
	if err != nil {
		return nil, err
	}
	switch most := int64(p.of(&s.cfg).MaxSize); {
	case most == 0:
		return nil, stanza.NewError(stanza.FeatureNotImplemented, "files for this purpose are not taken")
	case size > most:
		return nil, tooLarge(most)
	}
	keep := p.of(&s.cfg).Keep
	return &wish{File{Name: name, Size: size, Type: typ, Purpose: p.name, until: until, keep: keep}, p}, nil
}

// tooLarge is XEP-0363 §6.
func tooLarge(most int64) *stanza.Error {
	text := strconv.FormatInt(most, 10)
	e := stanza.NewError(stanza.NotAcceptable, "File too large. The maximum file size is "+text+" bytes")
	e.App = stanza.El(NS, "file-too-large").Add(stanza.El(NS, "max-file-size").AddText(text))
	return e
}

// wait is XEP-0363 §6: it may work later. A zero time does not say when.
func wait(text string, at time.Time) *stanza.Error {
	e := stanza.NewError(stanza.ResourceConstraint, text)
	if !at.IsZero() {
		e.App = stanza.El(NS, "retry").With("stamp", at.UTC().Add(time.Second).Format("2006-01-02T15:04:05Z")) // XEP-0082 §3.2
	}
	return e
}

// maxName bounds a file's name, in bytes: those of most file systems end at 255.
const maxName = 200

// cleanName is what is kept of a name that somebody gives: its last part, without
// what no name needs. The ending stays (XEP-0363 §4). False: nothing is left.
func cleanName(name string) (string, bool) {
	name = name[strings.LastIndexAny(name, `/\`)+1:]
	name = strings.TrimSpace(strings.Map(func(r rune) rune {
		switch {
		case r < ' ', r == 0x7f, r >= 0x80 && r < 0xa0:
			return -1
		case r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x2069, r == 0x200e, r == 0x200f: // hides what an ending is
			return -1
		}
		return r
	}, name))
	if len(name) > maxName {
		ending := ""
		if i := strings.LastIndexByte(name, '.'); i > 0 && len(name)-i <= 16 {
			ending = name[i:]
		}
		name = strings.ToValidUTF8(name[:maxName-len(ending)], "") + ending
	}
	return name, strings.Trim(name, ".") != ""
}

// maxType bounds a media type.
const maxType = 127

// cleanType is the media type of a Content-Type, without parameters: "" when
// nobody says; false when it is none.
func cleanType(s string) (string, bool) {
	if s == "" {
		return "", true
	}
	typ, _, err := mime.ParseMediaType(s)
	if err != nil && !errors.Is(err, mime.ErrInvalidMediaParameter) || len(typ) > maxType || !strings.Contains(typ, "/") {
		return "", false
	}
	return typ, true
}

// limits are what an account may have of a purpose.
type limits struct {
	now   time.Time
	quota int64
	slots int
}

// tooMany is the answer when an account has as many open slots as it may.
func tooMany(n int, next time.Time) error {
	return wait(fmt.Sprintf("%d files are waiting to be uploaded; use those slots or wait until they expire", n), next)
}

// overQuota is the answer when an account has no room left.
func overQuota(used, quota int64, next time.Time) error {
	return wait(fmt.Sprintf("Quota reached: %d of %d bytes are used. Delete files, or wait until some expire", used, quota), next)
}
