package usersearch

import (
	"context"
	"fmt"
	"unicode/utf8"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/parser/stanza/form"
	"parley/parser/stanza/rsm"
)

const (
	maxTerms     = 8 // words that somebody may look for at once
	instructions = "Fill in one or more fields. Names are found by how their words begin, e-mail addresses as a whole."
)

// emptySearch is XEP-0055 §2.1, with the form of §3.
func emptySearch() *stanza.Element {
	out := stanza.El(NS, "query").Add(stanza.El(NS, "instructions").AddText(instructions))
	for _, b := range fields() {
		out.Add(stanza.El(NS, b.Var))
	}
	f := fields().Form(form.Empty, NS, &entry{})
	f.Title, f.Instructions = "User directory", instructions
	return out.Add(f.Element())
}

// search is XEP-0055 §2.1 and §3.
func (s *service) search(ctx context.Context, by jid.JID, domain string, q *stanza.Element) (*stanza.Element, error) {
	wanted, x, err := inquiry(q)
	if err != nil {
		return nil, err
	}
	if wanted == nil { // the form was canceled
		return nil, nil
	}
	terms, err := wanted.terms()
	if err != nil {
		return nil, err
	}
	page, err := rsm.Parse(q)
	if err != nil {
		return nil, err
	}
	if err := s.count(ctx, by); err != nil {
		return nil, err
	}
	found, err := s.page(ctx, by, domain, terms, page)
	if err != nil {
		return nil, err
	}
	out := stanza.El(NS, "query")
	switch {
	case len(found) == 0: // XEP-0055 §2.1: it is empty
		return out, nil
	case x:
		out.Add(asForm(found))
	default:
		for _, e := range found {
			out.Add(e.item())
		}
	}
	if page != nil {
		out.Add(rsm.Page{First: found[0].account.String(), Last: found[len(found)-1].account.String(), Index: -1, Count: -1}.Element())
	}
	return out, nil
}

// inquiry reads what somebody looks for; x: it came as a form. nil: nothing.
func inquiry(q *stanza.Element) (wanted *entry, x bool, err error) {
	wanted = &entry{}
	if el := form.In(q); el != nil {
		f, err := form.Submitted(el, NS)
		switch {
		case err != nil:
			return nil, true, err
		case f.Kind == form.Cancel:
			return nil, true, nil
		}
		return wanted, true, fields().Apply(wanted, f)
	}
	for _, b := range fields() {
		if el := q.Child(NS, b.Var); el != nil {
			if reason := b.Set(wanted, []string{el.Text()}); reason != "" {
				return nil, false, stanza.NewError(stanza.NotAcceptable, b.Var+": "+reason)
			}
		}
	}
	return wanted, false, nil
}

// terms are what has to be in the fields.
func (e *entry) terms() (out []term, err error) {
	for i, b := range fields() {
		value := e.values()[i]
		if b.Var == email {
			for _, w := range whole(value) {
				out = append(out, term{b.Var, w, w})
			}
			continue
		}
		for _, w := range split(value) {
			if utf8.RuneCountInString(w) < 2 && len(w) < 3 { // one Chinese character says much, a letter nothing
				return nil, stanza.NewError(stanza.NotAcceptable, b.Var+": two letters of a word, or more")
			}
			out = append(out, term{b.Var, w, w + string(utf8.MaxRune)})
		}
	}
	switch {
	case len(out) == 0:
		return nil, stanza.NewError(stanza.NotAcceptable, "fill in one field at least")
	case len(out) > maxTerms:
		return nil, stanza.NewError(stanza.NotAcceptable, fmt.Sprintf("at most %d words", maxTerms))
	}
	return out, nil
}

// item is an account as XEP-0055 §2.1 shows it.
func (e *entry) item() *stanza.Element {
	out := stanza.El(NS, "item").With("jid", e.account.String())
	for i, b := range fields() {
		out.Add(stanza.El(NS, b.Var).AddText(e.values()[i]))
	}
	return out
}

// asForm is XEP-0055 §3.
func asForm(found []entry) *stanza.Element {
	columns := []form.Field{{Var: "jid", Type: form.JIDSingle, Label: "Address"}}
	for _, b := range fields() {
		columns = append(columns, b.Field)
	}
	var rows [][]string
	for _, e := range found {
		rows = append(rows, append([]string{e.account.String()}, e.values()...))
	}
	return form.Rows(NS, "", columns, rows)
}
