package muc

import (
	"strconv"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
)

// history is what a room has been told lately: whoever enters is shown some of it
// (XEP-0045 §7.2.13). It is the leader's: what it holds is committed.
type history struct {
	most  int // messages
	bytes int
	kept  []remembered
}

type remembered struct {
	id int64          // its place
	st *stanza.Stanza // as it went out
	at time.Time
}

// maxHistoryBytes bounds what a room keeps in memory of its messages.
const maxHistoryBytes = 256 << 10

func (h *history) add(m remembered) {
	h.kept = append(h.kept, m)
	h.bytes += len(m.st.Raw)
	for len(h.kept) > h.most || h.bytes > maxHistoryBytes && len(h.kept) > 0 {
		h.bytes -= len(h.kept[0].st.Raw)
		h.kept[0] = remembered{}
		h.kept = h.kept[1:]
	}
}

// historyWish is what somebody who enters asks for (XEP-0045 §7.2.14).
type historyWish struct {
	chars, stanzas int       // negative: no limit
	since          time.Time // zero: no limit
}

func historyRequest(x *stanza.Element, now time.Time) historyWish {
	w := historyWish{chars: -1, stanzas: -1}
	if x == nil {
		return w
	}
	h := x.Child(NS, "history")
	if h == nil {
		return w
	}
	number := func(name string) int {
		n, err := strconv.ParseUint(h.Get(name), 10, 31)
		if err != nil {
			return -1
		}
		return int(n)
	}
	w.chars, w.stanzas = number("maxchars"), number("maxstanzas")
	if n := number("seconds"); n >= 0 {
		w.since = now.Add(-time.Duration(n) * time.Second)
	}
	if t, err := time.Parse(time.RFC3339, h.Get("since")); err == nil && t.After(w.since) {
		w.since = t
	}
	return w
}

// replay is the history for somebody who enters: the smallest of what it asks for and
// the room allows.
func (h *history) replay(r *room, w historyWish, most int, to jid.JID) []delivery {
	if w.stanzas >= 0 {
		most = min(most, w.stanzas)
	}
	var out []delivery
	chars := 0
	for i := len(h.kept) - 1; i >= 0 && len(out) < most; i-- {
		m := h.kept[i]
		if m.at.Before(w.since) {
			break
		}
		st := must(copied(m.st, m.st.From, stanza.TypeGroupchat, nil, r.delay(m.at)))
		if chars += len(st.Raw) + len(` to=''`) + len(to.String()); w.chars >= 0 && chars > w.chars {
			break
		}
		out = append(out, delivery{st: st, to: []jid.JID{to}})
	}
	for i, j := 0, len(out)-1; i < j; i, j = i+1, j-1 {
		out[i], out[j] = out[j], out[i]
	}
	return out
}
