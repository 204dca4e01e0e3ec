package attachments

import (
	"slices"
	"strconv"
	"strings"

	"parley/parser/stanza"
)

// Bounds of what is counted. Reactions beyond them are kept and shown, but are in
// no summary.
const (
	maxReactions = 32  // of one person, distinct
	maxReaction  = 64  // bytes: an emoji has at most about forty
	maxDistinct  = 256 // in one summary
)

// tally is a summary as numbers.
type tally struct {
	noticed   int
	reactions []reaction // in the order in which they came up
}

type reaction struct {
	text  string
	count int
}

// count is pubsub.Sum's: somebody's attachments have become others (XEP-0470
// §4.7.3, §4.8.2).
func count(sum, was, is *stanza.Element) *stanza.Element {
	t := parse(sum)
	t.add(was, -1)
	t.add(is, 1)
	return t.element()
}

// parse reads a summary that element has made; nil: nothing is attached.
func parse(sum *stanza.Element) (t tally) {
	if sum == nil {
		return t
	}
	if el := sum.Child(NSSummary, "noticed"); el != nil {
		t.noticed, _ = strconv.Atoi(el.Get("count"))
	}
	if el := sum.Child(NSSummary, "reactions"); el != nil {
		for r := range el.Elements() {
			n := 1
			if r.Has("count") {
				n, _ = strconv.Atoi(r.Get("count"))
			}
			t.reactions = append(t.reactions, reaction{r.Text(), n})
		}
	}
	return t
}

// add counts one person's attachments, or takes them off.
func (t *tally) add(attachments *stanza.Element, by int) {
	if attachments == nil {
		return
	}
	if attachments.Child(NS, "noticed") != nil {
		t.noticed = max(t.noticed+by, 0)
	}
	for _, text := range reactions(attachments) {
		i := slices.IndexFunc(t.reactions, func(r reaction) bool { return r.text == text })
		switch {
		case i >= 0:
			t.reactions[i].count += by
		case by > 0 && len(t.reactions) < maxDistinct:
			t.reactions = append(t.reactions, reaction{text, by})
		}
	}
}

// reactions are one person's, each once (XEP-0470 §4.8.2).
func reactions(attachments *stanza.Element) (out []string) {
	el := attachments.Child(NS, "reactions")
	if el == nil {
		return nil
	}
	for r := range el.Elements() {
		text := strings.TrimSpace(r.Text())
		switch {
		case r.Name != (stanza.Name{Space: NS, Local: "reaction"}), text == "", len(text) > maxReaction, slices.Contains(out, text):
			continue
		case len(out) == maxReactions:
			return out
		}
		out = append(out, text)
	}
	return out
}

// element is the summary; nil: nothing is attached.
func (t *tally) element() *stanza.Element {
	out := stanza.El(NSSummary, "summary")
	if t.noticed > 0 {
		out.Add(stanza.El(NSSummary, "noticed").With("count", strconv.Itoa(t.noticed)))
	}
	all := stanza.El(NSSummary, "reactions")
	for _, r := range t.reactions {
		if r.count <= 0 {
			continue
		}
		el := stanza.El(NSSummary, "reaction").AddText(r.text)
		if r.count > 1 {
			el.With("count", strconv.Itoa(r.count))
		}
		all.Add(el)
	}
	if all.Count() > 0 {
		out.Add(all)
	}
	if out.Count() == 0 {
		return nil
	}
	return out
}
