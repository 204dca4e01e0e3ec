package muc

import (
	"context"

	"parley/parser/stanza"
	adhoc "parley/parser/stanza/command"
	"parley/parser/stanza/form"
)

// command is one that a room knows. Commands to rooms have one step at most, so that no
// session is kept: what a client fills in says everything (plugins/commands has those of
// the server).
type command struct {
	node, name string
	may        func(*room, actor) error
	form       func(*room) *form.Form // to be filled in; nil: nothing
	run        func(*room, *op, *form.Form) error
	result     func(*room) *stanza.Element // of one that changes nothing
}

func adminsMay(_ *room, by actor) error {
	if by.Affiliation < IsAdmin {
		return stanza.NewError(stanza.Forbidden, "only admins can do that")
	}
	return nil
}

func anybodyMay(r *room, by actor) error {
	if by.nick == "" && (by.Affiliation < IsNone || r.cfg.MembersOnly && by.Affiliation < IsMember) {
		return forbidden()
	}
	return nil
}

// command executes one (XEP-0050 §3).
func (s *service) command(ctx context.Context, r *room, q *request) (*stanza.Element, error) {
	req, err := adhoc.Read(q.query)
	c := s.extra.commands[req.Node]
	switch {
	case !q.set():
		return nil, stanza.NewError(stanza.BadRequest, "commands are sets")
	case c == nil:
		return nil, stanza.NewError(stanza.ItemNotFound, "there is no such command")
	case err != nil:
		return nil, err
	case req.Action == adhoc.Prev:
		return nil, adhoc.Bad("bad-action")
	case req.Action == adhoc.Cancel:
		return commandAnswer(q, adhoc.Canceled), nil
	}
	var filled *form.Form
	if req.Form != nil && c.form != nil {
		f, err := form.Submitted(req.Form, nsHatForms)
		if err != nil {
			return nil, err
		}
		if f.Kind == form.Cancel {
			return commandAnswer(q, adhoc.Canceled), nil
		}
		filled = f
	}
	if filled == nil {
		return r.commandShown(q, c)
	}
	err = r.do(ctx, true, func(o *op) error {
		by, err := r.actorOf(q.From)
		if err != nil {
			return err
		}
		if err := c.may(r, by); err != nil {
			return err
		}
		return c.run(r, o, filled)
	})
	if err != nil {
		return nil, err
	}
	return commandAnswer(q, adhoc.Completed), nil
}

// commandShown is a command's form, or the result of one without.
func (r *room) commandShown(q *request, c *command) (*stanza.Element, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	by, err := r.actorOf(q.From)
	if err != nil {
		return nil, err
	}
	if err := c.may(r, by); err != nil {
		return nil, err
	}
	if c.form == nil {
		return commandAnswer(q, adhoc.Completed).Add(c.result(r)), nil
	}
	return commandAnswer(q, adhoc.Executing).Add(adhoc.Actions(adhoc.Complete), c.form(r).Element()), nil
}

func commandAnswer(q *request, status string) *stanza.Element {
	id := q.query.Get("sessionid")
	if id == "" {
		id = newID()
	}
	return adhoc.Answer(q.query.Get("node"), id, status)
}

// commandItems are the commands that a room has (XEP-0050 §2.2).
func (s *service) commandItems(r *room) *stanza.Element {
	out := stanza.El(stanza.NSDiscoItem, "query").With("node", adhoc.NS)
	for _, c := range s.extra.list {
		out.Add(stanza.El(stanza.NSDiscoItem, "item").With("jid", r.jid.String()).With("node", c.node).With("name", c.name))
	}
	return out
}

// commandInfo is about the list, or one of them (XEP-0050 §2.3); nil: it is about
// something else.
func (s *service) commandInfo(node string) *stanza.Element {
	out := stanza.El(stanza.NSDiscoInfo, "query").With("node", node)
	identity := func(typ, name string) *stanza.Element {
		return stanza.El(stanza.NSDiscoInfo, "identity").With("category", "automation").With("type", typ).With("name", name)
	}
	feature := func(ns string) *stanza.Element { return stanza.El(stanza.NSDiscoInfo, "feature").With("var", ns) }
	if node == adhoc.NS {
		return out.Add(identity("command-list", "Commands"), feature(adhoc.NS))
	}
	if c := s.extra.commands[node]; c != nil {
		return out.Add(identity("command-node", c.name), feature(adhoc.NS), feature(stanza.NSDataForms))
	}
	return nil
}
