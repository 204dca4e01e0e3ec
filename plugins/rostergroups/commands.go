package rostergroups

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"slices"
	"strings"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/parser/stanza/form"
	"parley/plugins/admin"
	"parley/plugins/commands"
	"parley/processor"
)

// Nodes of the commands (XEP-0050), which are the FORM_TYPE of their forms, too.
const (
	nodeAdd    = "urn:parley:rostergroups#add"
	nodeEdit   = "urn:parley:rostergroups#edit"
	nodeRemove = "urn:parley:rostergroups#remove"
)

// offer lets administrators of a domain manage its groups.
func (p *part) offer(ctx context.Context, o *commands.Offer) (processor.Verdict, error) {
	is, err := p.roles.Administers(ctx, o.Account(), o.Domain)
	if err != nil {
		return processor.Continue, err
	}
	o.Add(is, p.list...)
	return processor.Continue, nil
}

func (p *part) commands() []*commands.Command {
	return []*commands.Command{
		{Node: nodeAdd, Name: "Add a roster group", FormType: nodeAdd, Steps: []commands.Step{{Form: addForm}}, Run: p.add},
		{Node: nodeEdit, Name: "Edit a roster group", FormType: nodeEdit, Steps: []commands.Step{{Form: p.chooseForm}, {Form: p.editForm}}, Run: p.edit},
		{Node: nodeRemove, Name: "Remove a roster group", FormType: nodeRemove, Steps: []commands.Step{{Form: p.chooseForm}}, Run: p.remove},
	}
}

func addForm(context.Context, *commands.Execution) (*form.Form, error) {
	f := &form.Form{Instructions: "Its members have each other in their rosters, in a group of this name.", Fields: []form.Field{
		{Var: "name", Type: form.TextSingle, Label: "Name", Required: true},
	}}
	return f.Add(form.Boolean, "everyone", "Every account of the domain is a member", form.Flag(false)).
		Add(form.JIDMulti, "members", "Members, one a line").
		Add(form.Boolean, "everybody", "Every account of the domain sees the members", form.Flag(false)), nil
}

// chooseForm asks which group.
func (p *part) chooseForm(_ context.Context, e *commands.Execution) (*form.Form, error) {
	f := form.Field{Var: "group", Type: form.ListSingle, Label: "Group", Required: true}
	for _, g := range p.groups.list(e.Domain.Domain()) {
		f.Options = append(f.Options, form.Option{Value: g.Name, Label: g.Name})
	}
	return &form.Form{Fields: []form.Field{f}}, nil
}

// editForm shows the members that are of the domain. Others are not its administrator's.
func (p *part) editForm(_ context.Context, e *commands.Execution) (*form.Form, error) {
	g, err := p.chosen(e)
	if err != nil {
		return nil, err
	}
	f := &form.Form{}
	f.Add(form.Hidden, "shown", "", shown(g))
	if !g.everyone {
		f.Add(form.JIDMulti, "members", "Members, one a line", ownMembers(g)...)
	}
	return f.Add(form.Boolean, "everybody", "Every account of the domain sees the members", form.Flag(g.everybody)), nil
}

// shown tells what a form shows of a group from what it showed before.
func shown(g *group) string {
	sum := sha256.Sum256([]byte(strings.Join(append(ownMembers(g), form.Flag(g.everybody)), "\n")))
	return hex.EncodeToString(sum[:8])
}

// chosen is the group that the first form names.
func (p *part) chosen(e *commands.Execution) (*group, error) {
	if g := p.groups.now().find(e.Domain.Domain(), e.Answers[0].Value("group")); g != nil {
		return g, nil
	}
	return nil, stanza.NewError(stanza.ItemNotFound, "group: there is none of that name")
}

// ownMembers are the members of the group's own domain, in the order of addresses.
func ownMembers(g *group) (out []string) {
	for j := range g.members {
		if j.Domain() == g.domain {
			out = append(out, j.String())
		}
	}
	slices.Sort(out)
	return out
}

func (p *part) add(ctx context.Context, e *commands.Execution) (*commands.Outcome, error) {
	o := Order{Do: doAdd, Group: Group{Domain: e.Domain.Domain(), Name: e.Last().Value("name")}}
	var err error
	if o.Group.Everyone, err = flag(e.Last(), "everyone", false); err != nil {
		return nil, err
	}
	if o.Group.Everybody, err = flag(e.Last(), "everybody", false); err != nil {
		return nil, err
	}
	all, _, err := addresses(e)
	if err != nil {
		return nil, err
	}
	for _, j := range all {
		o.Add = append(o.Add, Member{JID: j})
	}
	return nil, p.run(ctx, e, o)
}

func (p *part) edit(ctx context.Context, e *commands.Execution) (*commands.Outcome, error) {
	g, err := p.chosen(e)
	if err != nil {
		return nil, err
	}
	if was := e.Last().Value("shown"); was != "" && was != shown(g) { // else who was added meanwhile would be taken out
		return nil, stanza.NewError(stanza.Conflict, "the group has changed since the form was shown; begin again")
	}
	o := Order{Group: Group{Domain: g.domain, Name: g.name, Everyone: g.everyone}}
	if o.Group.Everybody, err = flag(e.Last(), "everybody", g.everybody); err != nil {
		return nil, err
	}
	if want, given, err := addresses(e); err != nil {
		return nil, err
	} else if given && !g.everyone {
		o.Do = doMembers
		have := ownMembers(g)
		for _, j := range want {
			if !slices.Contains(have, j) {
				o.Add = append(o.Add, Member{JID: j})
			}
		}
		for _, j := range have {
			if !slices.Contains(want, j) {
				o.Remove = append(o.Remove, j)
			}
		}
		if err := p.run(ctx, e, o); err != nil {
			return nil, err
		}
	}
	if o.Group.Everybody == g.everybody {
		return nil, nil
	}
	return nil, p.run(ctx, e, Order{Do: doSet, Group: o.Group})
}

func (p *part) remove(ctx context.Context, e *commands.Execution) (*commands.Outcome, error) {
	g, err := p.chosen(e)
	if err != nil {
		return nil, err
	}
	return nil, p.run(ctx, e, Order{Do: doRemove, Group: Group{Domain: g.domain, Name: g.name}})
}

// addresses are the members that a form names, all of them of the domain.
func addresses(e *commands.Execution) (out []string, given bool, err error) {
	f, given := e.Last().Field("members")
	if !given {
		return nil, false, nil
	}
	for _, v := range f.Values {
		j, err := jid.Parse(v)
		if err != nil || !j.IsBare() || j.Local() == "" || j.Domain() != e.Domain.Domain() {
			return nil, true, stanza.NewError(stanza.NotAcceptable, "members: "+v+" is no account of this domain")
		}
		if !slices.Contains(out, j.String()) {
			out = append(out, j.String())
		}
	}
	return out, true, nil
}

func flag(f *form.Form, name string, otherwise bool) (bool, error) {
	v := f.Value(name)
	if v == "" {
		return otherwise, nil
	}
	on, ok := form.ParseFlag(v)
	if !ok {
		return false, stanza.NewError(stanza.NotAcceptable, name+": 0 or 1")
	}
	return on, nil
}

// run gives an order, and says what is wrong with it in the words of XEP-0133 §5.
func (p *part) run(ctx context.Context, e *commands.Execution, o Order) error {
	_, err := p.groups.Run(ctx, o)
	var wrong *admin.Problem
	if errors.As(err, &wrong) {
		condition := stanza.NotAcceptable
		switch wrong.Status {
		case http.StatusNotFound:
			condition = stanza.ItemNotFound
		case http.StatusConflict:
			condition = stanza.Conflict
		}
		return stanza.NewError(condition, wrong.Detail)
	}
	if err == nil {
		p.env.Log.Info("an administrator has changed a roster group", "by", e.Account().String(), "do", o.Do, "domain", o.Group.Domain, "group", o.Group.Name)
	}
	return err
}
