package upload

import (
	"context"
	"fmt"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"parley/parser/stanza"
	"parley/parser/stanza/rsm"
	"parley/plugins/upload/picture"
	"parley/storage"
)

// What an account has uploaded. XEP-0363 ends with the upload; an account needs to
// see what fills its quota, and to take back what it has sent:
//
//	get <files/>          its files, the oldest first, paged by XEP-0059
//	get <file url=''/>    one of them, with its measures and thumbnail if it is a picture
//	set <delete url=''/>  takes it away
//
// A file is described by XEP-0446, its thumbnail by XEP-0264.
const (
	nsMetadata   = "urn:xmpp:file:metadata:0" // XEP-0446 §4
	nsThumbnails = "urn:xmpp:thumbs:1"        // XEP-0264 §4
)

// albumPage is how many files are listed at a time.
const albumPage = 50

// files lists what the asker has uploaded.
func (s *service) files(ctx context.Context, st *stanza.Stanza, q *stanza.Element) (*stanza.Element, error) {
	if st.Type != stanza.TypeGet {
		return nil, stanza.NewError(stanza.BadRequest, "files are asked for with type get")
	}
	page, err := rsm.Parse(q)
	if err != nil {
		return nil, err
	}
	some, err := s.store.album(ctx, st.From.Bare().String(), s.env.Clock.Now(), page, page.Limit(albumPage))
	if err != nil {
		return nil, err
	}
	base, out := s.at(st.To), stanza.El(NSFiles, "files")
	p := rsm.Page{Index: -1, Count: -1}
	for i, f := range some {
		out.Add(s.item(base, f, nil))
		if p.Last = strconv.FormatInt(f.ID, 10); i == 0 {
			p.First = p.Last
		}
	}
	return out.Add(p.Element()), nil
}

// file tells more of one file.
func (s *service) file(ctx context.Context, st *stanza.Stanza, q *stanza.Element) (*stanza.Element, error) {
	if st.Type != stanza.TypeGet {
		return nil, stanza.NewError(stanza.BadRequest, "files are asked for with type get")
	}
	f, err := s.own(ctx, st, q)
	if err != nil {
		return nil, err
	}
	var info *picture.Info
	if f.shown && picture.Known(f.Type) {
		if info, err = s.look(ctx, f); err != nil {
			return nil, err
		}
	}
	return s.item(s.at(st.To), f, info), nil
}

// delete takes one away.
func (s *service) delete(ctx context.Context, st *stanza.Stanza, q *stanza.Element) (*stanza.Element, error) {
	if st.Type != stanza.TypeSet {
		return nil, stanza.NewError(stanza.BadRequest, "files are deleted with type set")
	}
	f, err := s.own(ctx, st, q)
	if err != nil {
		return nil, err
	}
	_, err = s.Remove(ctx, f.Owner, f.ID)
	return nil, err
}

// own is the asker's file at the address that a request names.
func (s *service) own(ctx context.Context, st *stanza.Stanza, q *stanza.Element) (*File, error) {
	none := stanza.NewError(stanza.ItemNotFound, "you have no such file")
	u, err := url.Parse(q.Get("url"))
	if err != nil {
		return nil, none
	}
	_, rest, _ := strings.Cut(u.Path, root)
	text, _, _ := strings.Cut(rest, "/")
	t, ok := parseToken(text)
	if !ok {
		return nil, none
	}
	f, err := s.store.find(ctx, t)
	switch {
	case err != nil:
		return nil, err
	case f == nil || f.state != stateStored || f.Owner != st.From.Bare().String() || f.over(s.env.Clock.Now()):
		return nil, none
	}
	return f, nil
}

// look reads the header of a picture; nil: it is none.
func (s *service) look(ctx context.Context, f *File) (*picture.Info, error) {
	c, err := s.store.content(ctx, f.blob)
	if err != nil || c == nil || c.missing {
		return nil, err
	}
	r, err := s.open(ctx, c, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }()
	info, err := picture.Measure(r)
	if err != nil {
		return nil, nil //nolint:nilerr // then it is a file like others
	}
	return &info, nil
}

// item describes a file.
func (s *service) item(base string, f *File, info *picture.Info) *stanza.Element {
	text := func(name, value string) *stanza.Element { return stanza.El(nsMetadata, name).AddText(value) }
	link := base + f.path()
	about := stanza.El(nsMetadata, "file").Add(text("name", f.Name), text("size", strconv.FormatInt(f.Size, 10)),
		text("date", f.Uploaded().UTC().Format(time.RFC3339)))
	if f.Type != "" {
		about.Add(text("media-type", f.Type))
	}
	if info != nil {
		about.Add(text("width", strconv.Itoa(info.Width)), text("height", strconv.Itoa(info.Height)))
		if w, h, ok := info.Small(); ok {
			about.Add(stanza.El(nsThumbnails, "thumbnail").With("uri", link+"?"+thumbnailKey).With("width", strconv.Itoa(w)).With("height", strconv.Itoa(h)))
		}
	}
	out := stanza.El(NSFiles, "file").With("url", link).With("purpose", f.Purpose)
	if !f.ends.IsZero() {
		out.With("expires", f.ends.UTC().Format(time.RFC3339))
	}
	return out.Add(about)
}

const (
	sqlAlbum     = `SELECT ` + sqlColumns + ` FROM upload_file WHERE owner = $1 AND state = $2 AND (ends = 0 OR ends > $3) AND id > $4 AND id < $5 ORDER BY id LIMIT $6`
	sqlAlbumLast = `SELECT ` + sqlColumns + ` FROM upload_file WHERE owner = $1 AND state = $2 AND (ends = 0 OR ends > $3) AND id > $4 AND id < $5 ORDER BY id DESC LIMIT $6`
)

// album reads a page of an account's files.
func (s *store) album(ctx context.Context, owner string, now time.Time, page *rsm.Request, limit int) ([]*File, error) {
	after, before, text := int64(math.MinInt64), int64(math.MaxInt64), sqlAlbum
	if page != nil {
		for key, at := range map[string]*int64{page.After: &after, page.Before: &before} {
			if key == "" {
				continue
			}
			n, err := strconv.ParseInt(key, 10, 64)
			if err != nil {
				return nil, stanza.NewError(stanza.ItemNotFound, "there is no such place to go on from")
			}
			*at = n
		}
		if page.Backward {
			text = sqlAlbumLast
		}
	}
	all, err := storage.All(ctx, s.env.DB, s.scan, text, owner, stateStored, micros(now), after, before, limit)
	if err != nil {
		return nil, fmt.Errorf("files of %s: %w", owner, err)
	}
	if text == sqlAlbumLast {
		slices.Reverse(all)
	}
	return all, nil
}
