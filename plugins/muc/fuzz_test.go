package muc

import (
	"testing"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/parser/stanza/form"
)

// FuzzWish: whatever an item says, it asks for one thing of somebody.
func FuzzWish(f *testing.F) {
	f.Add(`<item xmlns='http://jabber.org/protocol/muc#admin' affiliation='member' jid='a@b'/>`)
	f.Add(`<item xmlns='http://jabber.org/protocol/muc#admin' role='none' nick='x'><reason>r</reason></item>`)
	f.Fuzz(func(t *testing.T, xml string) {
		el, err := stanza.ParseElement([]byte(xml), "")
		if err != nil {
			return
		}
		w, err := readWish(el)
		switch {
		case err != nil:
		case w.byRole && w.nick == "", !w.byRole && w.nick == "" && w.at.IsZero():
			t.Errorf("%q is about nobody", xml)
		case w.at.IsFull():
			t.Errorf("%q: an affiliation of a session", xml)
		}
	})
}

// FuzzRoomConfig: what a form makes of a configuration can be stored and read again.
func FuzzRoomConfig(f *testing.F) {
	head := `<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>` + nsRoomConfig + `</value></field>`
	f.Add(head + `<field var='muc#roomconfig_maxusers'><value>none</value></field></x>`)
	f.Add(head + `<field var='muc#roomconfig_presencebroadcast'><value>moderator</value><value>visitor</value></field></x>`)
	f.Add(head + `<field var='muc#roomconfig_roomname'><value>&#x1F339;</value></field></x>`)
	cfg := defaults()
	table := roomTable(cfg)
	f.Fuzz(func(t *testing.T, xml string) {
		el, err := stanza.ParseElement([]byte(xml), "")
		if err != nil {
			return
		}
		sub, err := form.Submitted(el, nsRoomConfig)
		if err != nil {
			return
		}
		v := roomForm{RoomConfig: *cfg.initial()}
		if table.Apply(&v, sub) != nil {
			return
		}
		back, err := decodeConfig(v.encode())
		if err != nil || back.encode() != v.encode() {
			t.Errorf("%q: %v", xml, err)
		}
		if v.MaxHistory > cfg.MaxHistory || v.MaxUsers > cfg.MaxOccupants {
			t.Errorf("%q: beyond the limits: %+v", xml, v.RoomConfig)
		}
	})
}

// FuzzHistory: whatever is asked for, no more comes than the room allows.
func FuzzHistory(f *testing.F) {
	f.Add(`<x xmlns='http://jabber.org/protocol/muc'><history maxchars='100' maxstanzas='2' seconds='9' since='2026-01-01T00:00:00Z'/></x>`, 3)
	now := time.Unix(1_800_000_000, 0)
	room := &room{jid: jid.MustParse("r@muc.example")}
	f.Fuzz(func(t *testing.T, xml string, most int) {
		el, err := stanza.ParseElement([]byte(xml), "")
		if err != nil {
			return
		}
		h := history{most: 10}
		for i := range 20 {
			st := stanza.Make(stanza.Message, stanza.TypeGroupchat, room.jid, jid.JID{}, "i", stanza.El(stanza.NSClient, "body"))
			h.add(remembered{int64(i), st, now.Add(time.Duration(i-20) * time.Second)})
		}
		if got := len(h.replay(room, historyRequest(el, now), most, room.jid)); got > max(most, 0) || got > 10 {
			t.Errorf("%q: %d of %d", xml, got, most)
		}
	})
}
