package inbox

import (
	"context"
	"errors"
	"slices"
	"strconv"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/parser/stanza/form"
	"parley/parser/stanza/rsm"
	"parley/plugins/message/kinds"
	"parley/processor"
	"parley/router/channel"
)

// request is what <inbox/> asks for (XEP-0430 §3.1).
type request struct {
	unread   bool   // conversations with something unread alone
	messages bool   // and what was said last in each
	id       string // of the request: the results name it
	page     *rsm.Request
}

// parse reads <inbox/>. Errors are *stanza.Error.
func parse(el *stanza.Element) (r request, err error) {
	r.messages = true
	for name, to := range map[string]*bool{"unread-only": &r.unread, "messages": &r.messages} {
		if !el.Has(name) {
			continue
		}
		on, ok := form.ParseFlag(el.Get(name))
		if !ok {
			return r, stanza.NewError(stanza.BadRequest, name+" is true or false")
		}
		*to = on
	}
	r.page, err = rsm.Parse(el)
	return r, err
}

// query answers XEP-0430 §3.1.
func (p *part) query(ctx context.Context, q *processor.IQ) (*stanza.Element, error) {
	fin, err := p.answer(ctx, q)
	var refusal *stanza.Error
	switch {
	case err == nil:
		p.metrics.queries.WithLabelValues("ok").Inc()
	case errors.As(err, &refusal):
		p.metrics.queries.WithLabelValues("refused").Inc()
	default:
		p.metrics.queries.WithLabelValues("failed").Inc()
	}
	return fin, err
}

func (p *part) answer(ctx context.Context, q *processor.IQ) (*stanza.Element, error) {
	switch {
	case !q.Own(): // one answer for accounts that exist and that do not (RFC 6121 §8.1)
		return nil, stanza.NewError(stanza.Forbidden, "")
	case q.Set():
		return nil, stanza.NewError(stanza.BadRequest, "the inbox is asked for with get")
	}
	want, err := parse(q.Query)
	if err != nil {
		return nil, err
	}
	want.id = q.ID
	start := p.env.Clock.Now()
	defer func() { p.metrics.seconds.Observe(p.env.Clock.Now().Sub(start).Seconds()) }()
	limited, cancel := context.WithTimeout(ctx, p.cfg.Timeout)
	defer cancel()
	list, err := p.list(limited, q.Owner)
	if err == nil {
		return p.show(limited, q, want, list)
	}
	if errors.Is(limited.Err(), context.DeadlineExceeded) { // what was counted until now is kept
		err = stanza.NewError(stanza.ResourceConstraint, "the inbox is being counted: ask again")
	}
	return nil, err
}

// entry is a conversation as it is shown.
type entry struct {
	peer     jid.JID
	archive  jid.JID // whose ids they are
	last     int64
	said     int64
	unread   int
	mentions int // among them
}

// list is the whole inbox, in order of last activity, the newest first.
func (p *part) list(ctx context.Context, account jid.JID) ([]entry, error) {
	b, err := p.count(ctx, account)
	if err != nil {
		return nil, err
	}
	list := make([]entry, 0, len(b.chats))
	for _, c := range b.chats {
		if c.said != 0 {
			list = append(list, entry{peer: c.peer, archive: account, last: c.last, said: c.said, unread: c.unread})
		}
	}
	rooms, err := p.rooms(ctx, account)
	if err != nil {
		return nil, err
	}
	list = append(list, rooms...)
	slices.SortFunc(list, newestFirst)
	return list[:min(len(list), p.cfg.Chats)], nil
}

func newestFirst(a, b entry) int { return int(max(min(b.said-a.said, 1), -1)) }

// pageBytes ends a page before its time, as in the archive.
const pageBytes = 512 << 10

// show sends a page, the entries strictly before the answer.
func (p *part) show(ctx context.Context, q *processor.IQ, want request, list []entry) (*stanza.Element, error) {
	fin := totals(list)
	if want.unread {
		list = slices.DeleteFunc(list, func(e entry) bool { return e.unread == 0 })
	}
	page, err := p.cut(list, want.page)
	if err != nil {
		return nil, err
	}
	said, err := p.said(ctx, page, want)
	if err != nil {
		return nil, err
	}
	backward := want.page != nil && want.page.Backward
	if backward {
		slices.Reverse(page)
	}
	batch, bytes := make([]*channel.Envelope, 0, len(page)), 0
	for i, e := range page {
		if bytes >= pageBytes {
			page = page[:i]
			break
		}
		x := p.entry(q, e, said[e.said])
		batch = append(batch, x)
		bytes += len(x.Raw)
	}
	if backward {
		slices.Reverse(page)
		slices.Reverse(batch)
	}
	p.reg.Route(ctx, batch...)
	at := rsm.Page{Index: -1, Count: len(list)}
	if n := len(page); n > 0 {
		at.First, at.Last = p.key(page[0]), p.key(page[n-1])
	}
	return fin.Add(at.Element()), nil
}

// totals is <fin/>, of the whole inbox.
func totals(list []entry) *stanza.Element {
	chats, messages := 0, 0
	for _, e := range list {
		if e.unread > 0 {
			chats++
			messages += e.unread
		}
	}
	return stanza.El(NS, "fin").With("total", strconv.Itoa(len(list))).
		With("unread", strconv.Itoa(chats)).With("all-unread", strconv.Itoa(messages))
}

// key is where an entry stands in the list. A conversation that has moved since
// leaves its place behind, so that the next page is found all the same.
func (p *part) key(e entry) string { return p.archive.EncodeID(e.said) }

// cut is the page that was asked for (XEP-0059 §2).
func (p *part) cut(list []entry, want *rsm.Request) ([]entry, error) {
	if want == nil {
		return slices.Clone(list[:min(len(list), p.cfg.Page)]), nil
	}
	// The list falls: what is after a place is older.
	behind := func(key string) (int, error) {
		id, ok := p.archive.DecodeID(key)
		if !ok {
			return 0, stanza.NewError(stanza.ItemNotFound, "there is no such place to go on from")
		}
		i, found := slices.BinarySearchFunc(list, id, func(e entry, id int64) int { return int(max(min(id-e.said, 1), -1)) })
		if found {
			i++
		}
		return i, nil
	}
	from, to := 0, len(list)
	var err error
	if want.After != "" {
		if from, err = behind(want.After); err != nil {
			return nil, err
		}
	}
	if want.Before != "" {
		if to, err = behind(want.Before); err != nil {
			return nil, err
		}
		if to > 0 && p.key(list[to-1]) == want.Before {
			to--
		}
		to = max(to, from)
	}
	limit := p.cfg.Page
	if want.Max >= 0 {
		limit = min(want.Max, p.cfg.MaxPage)
	}
	if to-from > limit {
		if want.Backward {
			from = to - limit
		} else {
			to = from + limit
		}
	}
	return slices.Clone(list[from:to]), nil
}

// said are the latest instant messages of the entries, by their ids; none when
// they are not wanted. One that its archive has not any more is left out.
func (p *part) said(ctx context.Context, page []entry, want request) (map[int64]*stanza.Element, error) {
	if !want.messages {
		return nil, nil
	}
	ids := map[jid.JID][]int64{}
	for _, e := range page {
		ids[e.archive] = append(ids[e.archive], e.said)
	}
	found := make(map[int64]*stanza.Element, len(page))
	for owner, some := range ids {
		messages, err := p.archive.Get(ctx, owner, some)
		if err != nil {
			return nil, err
		}
		for _, m := range messages {
			found[m.ID] = p.archive.Result(want.id, m.ID, withoutAddresses(m.Stanza))
		}
	}
	return found, nil
}

// withoutAddresses is a message without what a room's archive says of its sender:
// whether the account may still see that is asked where it may ask (XEP-0313
// §6.1.2).
func withoutAddresses(st *stanza.Stanza) []byte {
	e := st.StampForwarded()
	for _, c := range st.Children {
		if st.Type == stanza.TypeGroupchat && c.Name.Space == kinds.NSMUCUser {
			e.Cut = append(e.Cut, c.Span)
		}
	}
	return e.Render(nil, st.Raw)
}

// entry is one conversation of a page (XEP-0430 §3.1). It takes the road of the
// answer that follows, so that it arrives before it.
func (p *part) entry(q *processor.IQ, e entry, said *stanza.Element) *channel.Envelope {
	el := stanza.El(NS, "entry").With("jid", e.peer.String()).With("unread", strconv.Itoa(e.unread)).With("id", p.archive.EncodeID(e.last))
	var mentions *stanza.Element
	if e.mentions > 0 {
		mentions = stanza.El(NSMentions, "mentions").With("count", strconv.Itoa(e.mentions))
	}
	st := stanza.Make(stanza.Message, "", q.Owner, q.From, "", el, said, mentions)
	to := &stanza.Stanza{Kind: stanza.Message, From: q.To, To: q.From}
	return &channel.Envelope{Kind: channel.Route, Raw: st.Raw, Stanza: to, Replay: true, Solicited: true, Private: true}
}
