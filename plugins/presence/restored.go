package presence

import (
	"context"

	"parley/processor"
	"parley/router/sessions"
)

// restored shows a session of before the start to contacts that have come to other
// nodes meanwhile: they were not told of it there, nor are they by its client, which
// has sent its presence long ago. Those who were there before may be shown it again.
func (c *component) restored(ctx context.Context, s *sessions.Entry) (processor.Verdict, error) {
	if c.env.Notices == nil || !s.Paused || !s.Available || !s.BoundAt.Before(c.began) {
		return processor.Continue, nil // what is taken from another node counts from now
	}
	contacts, err := c.rosters.Contacts(ctx, s.JID.Bare())
	if err != nil {
		return processor.Continue, err
	}
	came := func(to *sessions.Entry) bool { return to.Available && !to.Paused && to.Node != c.env.Node }
	c.showTo(ctx, s, contacts.Subscribers(), came, "restored")
	return processor.Continue, nil
}
