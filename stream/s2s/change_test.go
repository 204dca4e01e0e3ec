package s2s_test

import (
	"fmt"
	"os"
	"testing"

	"parley/parser/stanza"
	"parley/plugins/plugintest"
	"parley/plugins/plugintest/federation"
	"parley/storage"
	"parley/storage/storagetest"
	"parley/stream"
)

// What is configured changes under load: who is denied from now on is refused, doors
// move, and streams that are there go on.
func TestReconfigure(t *testing.T) {
	w := federation.New(t)
	one, two := start(t, w, "one.test", federation.Options{}), start(t, w, "two.test", federation.Options{Config: "servers: {streamer: {components: {s2s: {queue: {patience: 1s}}}}}"})
	romeo, juliet := one.online("romeo"), two.online("juliet")
	juliet.Say("<message to='romeo@one.test'><body>first</body></message>")
	romeo.Hears("a message", body("first"))
	romeo.Say("<message to='juliet@two.test'><body>before</body></message>")
	juliet.Hears("a message", body("before"))
	set := func(key, value string) {
		t.Helper()
		if _, err := one.Host().Control().Reconfigure(t.Context(), "test", stream.Name, "s2s", map[string]string{key: value}); err != nil {
			t.Fatal(err)
		}
	}
	set("deny", "[enemy.test]")
	if got := romeo.Refuses("a@enemy.test"); got != "not-allowed" {
		t.Error(got)
	}
	was := one.Door("s2s")
	set("address", "localhost:0")
	srv, _ := one.Host().Server(stream.Name)
	if now := srv.(*stream.Server).Addresses()["s2s"]; now == was || now == "" {
		t.Errorf("listens on %q", now)
	}
	romeo.Say("<message to='juliet@two.test'><body>after</body></message>")
	juliet.Hears("a message", body("after"))
	// Streams that are there end, when their domains may not talk any more.
	set("deny", "[two.test]")
	if got := romeo.Refuses("juliet@two.test"); got != "not-allowed" {
		t.Error(got)
	}
	if got := juliet.Refuses("romeo@one.test"); got != "remote-server-timeout" {
		t.Error(got)
	}
	set("deny", "[]")
	romeo.Say("<message to='juliet@two.test'><body>again</body></message>")
	juliet.Hears("a message", body("again"))
	if _, err := one.Host().Control().Stop(t.Context(), "test", stream.Name, "s2s"); err != nil {
		t.Fatal(err)
	}
	if got := romeo.Refuses("juliet@two.test"); got != "remote-server-not-found" {
		t.Errorf("without the component: %s", got)
	}
}

// Every stage with queues of its own: what a server says keeps its order.
func TestQueues(t *testing.T) {
	w := federation.New(t)
	const workers = "servers: {parser: {deployment: {workers: 2}}, processor: {deployment: {workers: 4}}, router: {deployment: {workers: 2}}, streamer: {deployment: {workers: 2}}}"
	one, two := start(t, w, "one.test", federation.Options{Config: workers}), start(t, w, "two.test", federation.Options{Config: workers})
	romeo, juliet := one.online("romeo"), two.online("juliet")
	const n = 200
	for i := range n {
		romeo.Say("<message type='chat' to='juliet@two.test'><body>%d</body></message>", i)
	}
	for i := range n {
		if m := juliet.Hears("a message", func(el *stanza.Element) bool { return el.Name.Local == "message" }); !body(fmt.Sprint(i))(m) {
			t.Fatalf("%d is %s", i, m.Bytes(""))
		}
	}
}

// A certificate that is replaced counts for the next stream, without a restart
// (reliability row 36).
func TestReliability36Replaced(t *testing.T) {
	w := federation.New(t)
	one := start(t, w, "one.test", federation.Options{Config: "servers: {streamer: {components: {s2s: {policy: {proof: certificate}}}}}"})
	two := start(t, w, "two.test", federation.Options{Foreign: true})
	romeo, juliet := one.online("romeo"), two.online("juliet")
	if got := romeo.Refuses("juliet@two.test"); got != "remote-server-timeout" {
		t.Fatal(got)
	}
	fresh, err := w.CA.Issue(t.TempDir(), federation.Leaf{Names: []string{"two.test"}})
	if err != nil {
		t.Fatal(err)
	}
	for from, to := range map[string]string{fresh.Key: two.Files.Key, fresh.Certificate: two.Files.Certificate} {
		text, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	await(t, "the new certificate", func() bool { return two.log.has("certificate reloaded") })
	juliet.Say("<message to='romeo@one.test'><body>now</body></message>")
	romeo.Hears("a message", body("now"))
}

// One node answers for the key that another has sent, and what comes to one node
// reaches the client of another.
func TestNodes(t *testing.T) {
	c := storagetest.Postgres(t)
	w := federation.New(t)
	one := start(t, w, "one.test", federation.Options{Nodes: 2, Foreign: true, Storage: func() storage.Config { return c }})
	two := start(t, w, "two.test", federation.Options{})
	if err := one.Account(t.Context(), "romeo", plugintest.Password); err != nil {
		t.Fatal(err)
	}
	conn, err := plugintest.Dial(t.Context(), one.DoorOf(1, "c2s"), "one.test", "romeo", plugintest.Password, "r") // DNS knows the other node
	if err != nil {
		t.Fatal(err)
	}
	romeo, juliet := federation.NewPerson(t, conn).Online(), two.online("juliet")
	romeo.Say("<message type='chat' to='juliet@two.test'><body>from the second node</body></message>")
	juliet.Hears("a message", body("from the second node"))
	juliet.Say("<message type='chat' to='%s'><body>through the first</body></message>", romeo.JID)
	romeo.Hears("an answer", body("through the first"))
	if !two.log.has("stream of another server", "from=one.test", "by=dialback") {
		t.Error("not by dialback")
	}
}

// A domain that nobody can find has no doors, and says so.
func TestLocalhost(t *testing.T) {
	w := federation.New(t)
	l := &logs{}
	h := w.House("localhost", federation.Options{Log: l, Hidden: true})
	if at := h.Door("s2s"); at != "" {
		t.Errorf("listens on %s", at)
	}
	if !l.has("no other server is talked to") {
		t.Error("it does not say so")
	}
}
