package pubsub

import (
	"errors"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/parser/stanza/form"
	"parley/parser/stanza/rsm"
)

// Applied is the form that a submitted one leads to.
func Applied(f *form.Form) (*form.Form, error) {
	t := fields(&defaults().Limits)
	s := defaultSettings(true)
	if err := apply(t, &s, f); err != nil {
		return nil, err
	}
	text, err := s.encode()
	if err != nil {
		return nil, err
	}
	var stored Settings
	if err := stored.decode(text, false); err != nil {
		return nil, err
	}
	if !stored.equal(s) {
		return nil, errors.New("it is not stored as it is")
	}
	return t.Form(form.Result, FormConfig, &stored), nil
}

// Read reads everything that a request can hold.
func Read(pubsub *stanza.Element) error {
	c := &component{cfg: *defaults(), PubSub: &PubSub{}}
	r := &request{Stanza: &stanza.Stanza{From: jid.MustParse("romeo@localhost/x")}, pubsub: pubsub, what: pubsub.First()}
	find(r)
	if r.what == nil {
		return nil
	}
	_, err := c.entries(r.what)
	q, _, err2 := c.query(r)
	if err2 == nil && (q.Limit < 0 || q.Limit > c.cfg.Page || q.Newest < 0 || len(q.IDs) > c.cfg.Page) {
		return errors.New("a page without bounds")
	}
	_, _, err3 := c.delta(r.what, "affiliation", "affiliation")
	_, err4 := subscriber(r, errForbidden())
	_, err5 := rsm.Parse(pubsub)
	for _, err := range []error{err, err2, err3, err4, err5} {
		var se *stanza.Error
		if err != nil && !errors.As(err, &se) {
			return err
		}
	}
	return nil
}
