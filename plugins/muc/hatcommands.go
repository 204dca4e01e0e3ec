package muc

import (
	"slices"
	"strconv"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/parser/stanza/form"
)

// nsHatForms is the FORM_TYPE of the commands about hats (XEP-0317 §3.8).
const nsHatForms = "urn:xmpp:hats:commands"

// Fields of their forms.
const (
	hatJID   = "hats#jid"
	hatURI   = "hats#uri"
	hatTitle = "hats#title"
	hatHue   = "hats#hue"
)

// hatCommands are those of XEP-0317 §3.2 to §3.7.
func hatCommands() []command {
	return []command{
		{node: nsHatForms + ":create", name: "Create or change a hat", may: adminsMay, form: hatForm, run: createHat},
		{node: nsHatForms + ":destroy", name: "Destroy a hat", may: adminsMay, form: destroyForm, run: destroyHat},
		{node: nsHatForms + ":list", name: "List the hats", may: anybodyMay, result: listHats},
		{node: nsHatForms + ":assign", name: "Assign a hat", may: adminsMay, form: wearForm, run: wearing((*room).assignHat)},
		{node: nsHatForms + ":unassign", name: "Take a hat off", may: adminsMay, form: wearForm, run: wearing((*room).unassignHat)},
		{node: nsHatForms + ":list-assigned", name: "List who wears which hat", may: adminsMay, result: listWorn},
	}
}

func hatForm(*room) *form.Form {
	f := &form.Form{Kind: form.Empty, Type: nsHatForms, Title: "Creating a hat", Instructions: "A hat with the URI of another one takes its place."}
	f.Fields = []form.Field{
		{Var: hatTitle, Type: form.TextSingle, Label: "Title", Required: true},
		{Var: hatURI, Type: form.TextSingle, Label: "URI", Required: true},
		{Var: hatHue, Type: form.TextSingle, Label: "Hue, in degrees"},
	}
	return f
}

func destroyForm(r *room) *form.Form {
	return &form.Form{Kind: form.Empty, Type: nsHatForms, Title: "Destroying a hat", Fields: []form.Field{r.hatList()}}
}

func wearForm(r *room) *form.Form {
	return &form.Form{Kind: form.Empty, Type: nsHatForms, Title: "Assigning a hat, or taking it off", Fields: []form.Field{
		{Var: hatJID, Type: form.JIDSingle, Label: "Address", Required: true}, r.hatList(),
	}}
}

func (r *room) hatList() form.Field {
	f := form.Field{Var: hatURI, Type: form.ListSingle, Label: "Hat", Required: true}
	for _, h := range r.hats.all {
		f.Options = append(f.Options, form.Option{Value: h.uri, Label: h.title})
	}
	return f
}

func createHat(r *room, o *op, f *form.Form) error {
	h := hat{f.Value(hatURI), f.Value(hatTitle), f.Value(hatHue)}
	hue, err := strconv.ParseFloat(h.hue, 64)
	switch {
	case h.uri == "" || len(h.uri) > maxHatURI:
		return stanza.NewError(stanza.NotAcceptable, hatURI+": 1 to "+strconv.Itoa(maxHatURI)+" bytes")
	case h.title == "" || len(h.title) > maxHatTitle:
		return stanza.NewError(stanza.NotAcceptable, hatTitle+": 1 to "+strconv.Itoa(maxHatTitle)+" bytes")
	case h.hue != "" && (err != nil || !(hue >= 0 && hue <= fullHue) || len(h.hue) > maxHueLength):
		return stanza.NewError(stanza.NotAcceptable, hatHue+": a number of degrees")
	}
	return r.makeHat(o, h)
}

func destroyHat(r *room, o *op, f *form.Form) error {
	return r.destroyHat(o, hat{uri: f.Value(hatURI)})
}

// wearing reads whom a hat is given to, or taken from.
func wearing(do func(*room, *op, jid.JID, string) error) func(*room, *op, *form.Form) error {
	return func(r *room, o *op, f *form.Form) error {
		who, err := jid.Parse(f.Value(hatJID))
		if err != nil || who.Local() == "" {
			return stanza.NewError(stanza.NotAcceptable, hatJID+": whom?")
		}
		return do(r, o, who.Bare(), f.Value(hatURI))
	}
}

func listHats(r *room) *stanza.Element {
	var rows [][]string
	for _, h := range r.hats.all {
		rows = append(rows, []string{h.title, h.uri, h.hue})
	}
	return form.Rows("", "Hats", columns(hatTitle, hatURI, hatHue), rows)
}

func listWorn(r *room) *stanza.Element {
	var who []jid.JID
	for at := range r.hats.worn {
		who = append(who, at)
	}
	slices.SortFunc(who, byName)
	var rows [][]string
	worn := columns(hatJID, hatURI, hatTitle, hatHue)
	for _, at := range who {
		for _, h := range r.hats.of(at) {
			if rows = append(rows, []string{at.String(), h.uri, h.title, h.hue}); len(rows) == maxListed {
				return form.Rows("", "Who wears which hat (the first ones)", worn, rows)
			}
		}
	}
	return form.Rows("", "Who wears which hat", worn, rows)
}

func columns(vars ...string) (out []form.Field) {
	for _, v := range vars {
		out = append(out, form.Field{Var: v})
	}
	return out
}

// maxListed is how many lines a list has at most.
const maxListed = 500
