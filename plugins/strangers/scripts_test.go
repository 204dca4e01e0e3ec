package strangers_test

import (
	"context"
	"testing"
	"time"

	"parley/plugins"
	"parley/plugins/archive"
	"parley/plugins/blocking"
	"parley/plugins/commands"
	"parley/plugins/muc"
	"parley/plugins/plugintest"
	"parley/plugins/plugintest/federation"
	"parley/plugins/plugintest/script"
	"parley/plugins/strangers"
	"parley/storage"
	"parley/storage/storagetest"
)

func house() []plugins.Plugin {
	return plugintest.Basics(archive.Plugin, blocking.Plugin, commands.Plugin, muc.Plugin, strangers.Plugin)
}

func TestScripts(t *testing.T) {
	storagetest.EachConfig(t, func(t *testing.T, c storage.Config) {
		plugintest.Run(t, plugintest.Options{Plugins: house(), Storage: func() storage.Config { return c }}, "testdata/*.txtar")
	})
}

// What strangers have used, and whom an account knows, all nodes know.
func TestScriptsOnNodes(t *testing.T) {
	c := storagetest.Postgres(t)
	h := plugintest.Start(t, plugintest.Options{Plugins: house(), Nodes: 3, Storage: func() storage.Config { return c }})
	script.Test(t, &script.Runner{Target: plugintest.Spread{House: h}}, "testdata/*.txtar")
}

// Strangers of other servers are strangers like any others, until they are answered.
func TestFederated(t *testing.T) {
	w := federation.New(t)
	one := w.House("one.test", federation.Options{Config: "servers: {processor: {components: {strangers: {messages: {policy: limit, per_stranger: 1}}}}}"})
	two := w.House("two.test", federation.Options{})
	romeo, juliet := login(t, one, "romeo"), login(t, two, "juliet")
	juliet.Say("<message type='chat' to='romeo@one.test'><body>one</body></message>")
	romeo.Hears("the first message", federation.Body("one"))
	if got := juliet.Refuses("romeo@one.test"); got != "policy-violation" {
		t.Errorf("the second one: %q", got)
	}
	if got := juliet.Refuses("nobody@one.test"); got != "service-unavailable" {
		t.Errorf("nobody: %q", got)
	}
	romeo.Say("<message type='chat' to='juliet@two.test'><body>answer</body></message>")
	juliet.Hears("the answer", federation.Body("answer"))
	for _, text := range []string{"two", "three", "four"} {
		juliet.Say("<message type='chat' to='romeo@one.test'><body>%s</body></message>", text)
		romeo.Hears("a known person", federation.Body(text))
	}
}

func login(t *testing.T, h *federation.House, user string) *federation.Person {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c, err := h.Login(ctx, user, "r")
	if err != nil {
		t.Fatal(err)
	}
	return federation.NewPerson(t, c).Online()
}
