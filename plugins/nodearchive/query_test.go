package nodearchive

import (
	"errors"
	"testing"

	"parley/parser/stanza"
)

// Whatever a query holds, it is a page within bounds or a stanza error.
func FuzzQuery(f *testing.F) {
	f.Add(`<query xmlns='urn:xmpp:mam:2'/>`)
	f.Add(`<query xmlns='urn:xmpp:mam:2'><x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>urn:xmpp:mam:2</value></field><field var='start'><value>2026-11-26T12:00:00Z</value></field><field var='ids'><value>7</value></field></x><set xmlns='http://jabber.org/protocol/rsm'><max>7</max><before/></set></query>`)
	f.Add(`<query xmlns='urn:xmpp:mam:2'><set xmlns='http://jabber.org/protocol/rsm'><max>-1</max><after>' OR 1=1</after></set></query>`)
	a := &nodeArchive{cfg: *defaults()}
	f.Fuzz(func(t *testing.T, xml string) {
		el, err := stanza.ParseElement([]byte(xml), "")
		if err != nil {
			return
		}
		q, err := a.parse(el)
		var se *stanza.Error
		switch {
		case err != nil && !errors.As(err, &se):
			t.Fatalf("%v is no stanza error", err)
		case err == nil && (q.Limit < 0 || q.Limit > a.cfg.MaxPage || len(q.Places) > maxIDs || q.After < 0 || q.Before < 0):
			t.Fatalf("%+v is without bounds", q)
		}
	})
}
