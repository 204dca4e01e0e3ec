package commands

import (
	"context"

	"parley/parser/stanza"
	"parley/parser/stanza/command"
	"parley/parser/stanza/form"
	"parley/processor"
	"parley/router/sessions"
)

// command is XEP-0050 §2.4.
func (c *component) command(ctx context.Context, q *processor.IQ) (*stanza.Element, error) {
	if q.Session == nil || q.Session.Kind != sessions.Client {
		return nil, forbidden()
	}
	if !q.Set() {
		return nil, stanza.NewError(stanza.BadRequest, "commands are of type set")
	}
	req, err := command.Read(q.Query)
	if err != nil {
		return nil, err
	}
	a := Asker{Session: q.Session, Domain: q.Owner, Lang: q.Query.Lang()}
	if a.Lang == "" {
		a.Lang = q.Lang
	}
	list, err := c.offers(ctx, a)
	if err != nil {
		return nil, err
	}
	o, ok := find(list, req.Node)
	switch {
	case !ok:
		return nil, stanza.NewError(stanza.ItemNotFound, "there is no such command")
	case !o.may: // also when it was begun while they might
		return nil, forbidden()
	case req.Session == "":
		return c.begin(ctx, o.Command, a, req)
	}
	return c.resume(ctx, o.Command, a, req)
}

// begin runs a command without steps, or asks the first one.
func (c *component) begin(ctx context.Context, cmd *Command, a Asker, req command.Request) (*stanza.Element, error) {
	s := &session{id: newID(), ref: a.Session.Ref, node: cmd.Node, domain: a.Domain, exec: Execution{Asker: a}}
	switch req.Action {
	case command.Cancel:
		return command.Answer(cmd.Node, s.id, command.Canceled), nil
	case command.Prev:
		return nil, command.Bad("bad-action")
	}
	if len(cmd.Steps) == 0 {
		return c.finish(ctx, cmd, s)
	}
	out, err := c.ask(ctx, cmd, s)
	if err != nil {
		return nil, err
	}
	return out, c.table.put(s)
}

// resume goes on with a session. Whoever is at it has it alone.
func (c *component) resume(ctx context.Context, cmd *Command, a Asker, req command.Request) (*stanza.Element, error) {
	s, err := c.table.take(req.Session, a, cmd.Node)
	if err != nil {
		return nil, err
	}
	s.exec.Session, s.exec.Domain = a.Session, a.Domain
	out, over, err := c.step(ctx, cmd, s, req)
	if over && err == nil {
		return out, nil
	}
	if full := c.table.put(s); err == nil {
		err = full
	}
	return out, err
}

// step does what is asked for; over: the session ends.
func (c *component) step(ctx context.Context, cmd *Command, s *session, req command.Request) (out *stanza.Element, over bool, err error) {
	at := len(s.exec.Answers)
	last := at == len(cmd.Steps)-1
	switch {
	case req.Action == command.Cancel:
		return command.Answer(cmd.Node, s.id, command.Canceled), true, nil
	case req.Action == command.Prev && at > 0:
		s.exec.Answers = s.exec.Answers[:at-1]
		out, err = c.ask(ctx, cmd, s)
		return out, false, err
	case req.Action == command.Prev, req.Action == command.Next && last, req.Action == command.Complete && !last:
		return nil, false, command.Bad("bad-action")
	case req.Form == nil:
		return nil, false, command.Bad("bad-payload")
	}
	f, err := form.Submitted(req.Form, cmd.FormType)
	if err != nil {
		return nil, false, err
	}
	if f.Kind == form.Cancel {
		return command.Answer(cmd.Node, s.id, command.Canceled), true, nil
	}
	if check := cmd.Steps[at].Check; check != nil {
		if err := check(ctx, &s.exec, f); err != nil {
			return nil, false, err
		}
	}
	s.exec.Answers = append(s.exec.Answers, f)
	if !last {
		if out, err = c.ask(ctx, cmd, s); err != nil {
			s.exec.Answers = s.exec.Answers[:at]
		}
		return out, false, err
	}
	if out, err = c.finish(ctx, cmd, s); err != nil { // they may answer otherwise
		s.exec.Answers = s.exec.Answers[:at]
	}
	return out, true, err
}

// ask shows the form of the step that the session has reached.
func (c *component) ask(ctx context.Context, cmd *Command, s *session) (*stanza.Element, error) {
	at := len(s.exec.Answers)
	f, err := cmd.Steps[at].Form(ctx, &s.exec)
	if err != nil {
		return nil, err
	}
	f.Kind, f.Type = form.Empty, cmd.FormType
	if f.Title == "" {
		f.Title = cmd.Name
	}
	allowed := []string{command.Next}
	if at == len(cmd.Steps)-1 {
		allowed[0] = command.Complete
	}
	if at > 0 {
		allowed = append(allowed, command.Prev)
	}
	return command.Answer(cmd.Node, s.id, command.Executing).Add(command.Actions(allowed...), f.Element()), nil
}

// finish runs the command.
func (c *component) finish(ctx context.Context, cmd *Command, s *session) (*stanza.Element, error) {
	o, err := cmd.Run(ctx, &s.exec)
	if err != nil {
		return nil, err
	}
	out := command.Answer(cmd.Node, s.id, command.Completed)
	if o == nil {
		return out, nil
	}
	if o.Note != "" {
		out.Add(command.Note("info", o.Note))
	}
	return out.Add(o.Payload...), nil
}
