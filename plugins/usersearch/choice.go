package usersearch

import (
	"context"

	"parley/parser/stanza/form"
	"parley/plugins/commands"
	"parley/processor"
)

// The command (XEP-0050) at the account's domain, and the FORM_TYPE of its form.
const (
	nsChoice   = "parley:usersearch:0"
	nodeChoice = nsChoice + "#found"
)

// choice is what an account says.
type choice struct{ found bool }

func choiceForm() form.Table[choice] {
	return form.Table[choice]{form.Bool("found", "Let others find me by my name", func(c *choice) *bool { return &c.found })}
}

// offer lets accounts of the domain say whether they are found.
func (s *service) offer(_ context.Context, o *commands.Offer) (processor.Verdict, error) {
	o.Add(o.Account().Domain() == o.Domain.Domain(), &commands.Command{
		Node: nodeChoice, Name: "Be found in the user directory", FormType: nsChoice,
		Steps: []commands.Step{{Form: func(ctx context.Context, e *commands.Execution) (*form.Form, error) {
			found, err := s.store.choice(ctx, e.Account(), s.cfg.Found)
			if err != nil {
				return nil, err
			}
			f := choiceForm().Form(form.Empty, nsChoice, &choice{found})
			f.Instructions = "Others find what your visiting card says: your names and your e-mail address."
			return f, nil
		}}},
		Run: func(ctx context.Context, e *commands.Execution) (*commands.Outcome, error) {
			found, err := s.store.choice(ctx, e.Account(), s.cfg.Found)
			if err != nil {
				return nil, err
			}
			c := choice{found}
			if err := choiceForm().Apply(&c, e.Last()); err != nil {
				return nil, err
			}
			if err := s.store.choose(ctx, e.Account(), c.found); err != nil {
				return nil, err
			}
			note := "You are not found in the user directory."
			if c.found {
				note = "You are found in the user directory."
			}
			return &commands.Outcome{Note: note}, nil
		},
	})
	return processor.Continue, nil
}
