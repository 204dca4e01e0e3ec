package commands_test

import (
	"context"
	"testing"

	"parley/parser/stanza"
	"parley/parser/stanza/form"
	"parley/plugins"
	"parley/plugins/commands"
	"parley/plugins/plugintest"
	"parley/processor"
)

func house() []plugins.Plugin {
	return plugintest.Basics(commands.Plugin, feature)
}

// TestScripts: the scripts in testdata/stages need the feature below, the others
// run everywhere.
func TestScripts(t *testing.T) {
	h := plugintest.Options{Plugins: house()}
	plugintest.Run(t, h, "testdata/*.txtar")
	plugintest.Run(t, h, "testdata/stages/*.txtar")
}

// feature offers a command of two steps, one without, and one for nobody.
var feature = plugins.Plugin{
	Name: "garden", Doc: "Commands for tests.", Requires: []string{commands.Name},
	Components: []plugins.Maker{{Server: processor.Name, New: func(plugins.Env, plugins.Config) (plugins.Component, error) { return garden{}, nil }}},
}

type garden struct{}

func (garden) Start(context.Context) error { return nil }
func (garden) Stop(context.Context) error  { return nil }
func (garden) Register(r *processor.Registrar) {
	processor.On(r, commands.Offered, processor.Normal, func(_ context.Context, o *commands.Offer) (processor.Verdict, error) {
		o.Add(true, plant(), &commands.Command{Node: "look", Name: "Look", Run: func(context.Context, *commands.Execution) (*commands.Outcome, error) {
			return &commands.Outcome{Note: "roses"}, nil
		}})
		o.Add(false, &commands.Command{Node: "burn", Name: "Burn", Run: nil})
		return processor.Continue, nil
	})
}

const formType = "urn:parley:test:garden"

func plant() *commands.Command {
	ask := func(name string) func(context.Context, *commands.Execution) (*form.Form, error) {
		return func(_ context.Context, e *commands.Execution) (*form.Form, error) {
			f := &form.Form{}
			if len(e.Answers) > 0 {
				f.Instructions = "for " + e.Last().Value("what")
			}
			return f.Add(form.TextSingle, name, name), nil
		}
	}
	return &commands.Command{
		Node: "plant", Name: "Plant", FormType: formType,
		Steps: []commands.Step{
			{Form: ask("what"), Check: func(_ context.Context, _ *commands.Execution, f *form.Form) error {
				if f.Value("what") == "" {
					return stanza.NewError(stanza.NotAcceptable, "what?")
				}
				return nil
			}},
			{Form: ask("where")},
		},
		Run: func(_ context.Context, e *commands.Execution) (*commands.Outcome, error) {
			if e.Last().Value("where") == "moon" {
				return nil, stanza.NewError(stanza.NotAllowed, "too far")
			}
			return &commands.Outcome{Note: e.Answers[0].Value("what") + " in the " + e.Last().Value("where")}, nil
		},
	}
}
