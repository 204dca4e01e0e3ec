package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"parley/plugins/plugintest"
	"parley/storage"
	"parley/storage/storagetest"
)

// till reads until a stanza says so.
func till(t *testing.T, c *plugintest.Client, part string) {
	t.Helper()
	for {
		el, err := c.Next(t.Context())
		if err != nil {
			t.Fatalf("%s: %v", part, err)
		}
		if strings.Contains(string(el.Bytes("")), part) {
			return
		}
	}
}

func say(t *testing.T, c *plugintest.Client, text string) {
	t.Helper()
	if err := c.Send(text); err != nil {
		t.Fatal(err)
	}
}

func login(t *testing.T, h *plugintest.House, user string) *plugintest.Client {
	t.Helper()
	c, err := h.Login(t.Context(), user, "r")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// houseOn runs a house on a database.
func houseOn(t *testing.T, c storage.Config) *plugintest.House {
	t.Helper()
	return plugintest.Start(t, plugintest.Options{Plugins: everything(), Storage: func() storage.Config { return c }})
}

// What clients made on SQLite they find on Postgres.
func TestMigrate(t *testing.T) {
	to := storagetest.Postgres(t)
	data := t.TempDir()
	h := houseOn(t, storage.Config{Driver: "sqlite", Path: filepath.Join(data, "parley.db")})
	if _, _, err := parley(t, "", "migrate", "--data", data, "--to", to.DSN); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Fatalf("while it runs: %v", err)
	}
	juliet := login(t, h, "juliet")
	login(t, h, "romeo").Close()
	say(t, juliet, `<iq type='set' id='r1'><query xmlns='jabber:iq:roster'><item jid='romeo@localhost' name='Röméo'><group>Verona</group></item></query></iq>`)
	till(t, juliet, "id='r1'")
	for i := range 20 {
		say(t, juliet, fmt.Sprintf(`<message to='romeo@localhost' type='chat' id='m%d'><body>wherefore %d</body></message>`, i, i))
	}
	say(t, juliet, `<iq type='get' id='p1' to='localhost'><ping xmlns='urn:xmpp:ping'/></iq>`)
	till(t, juliet, "id='p1'")
	juliet.Close()
	if err := h.Stop(context.Background()); err != nil {
		t.Fatal(err)
	}
	file := write(t, "dsn", to.DSN+"\n")
	out := must(t, "migrate", "--data", data, "--to-file", file)
	contains(t, out, "archive_pending", "driver: postgres", "dsn_file: "+file)
	if _, _, err := parley(t, "", "migrate", "--data", data, "--to", to.DSN); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Fatalf("a second time: %v", err)
	}

	h = houseOn(t, to)
	if n := number(t, h.DB(), `SELECT count(*) FROM archive`); n != 40 {
		t.Errorf("%d rows in the archives", n)
	}
	juliet = login(t, h, "juliet")
	say(t, juliet, `<iq type='get' id='r2'><query xmlns='jabber:iq:roster'/></iq>`)
	till(t, juliet, "Röméo")
	say(t, juliet, `<iq type='set' id='q1'><query xmlns='urn:xmpp:mam:2'/></iq>`)
	till(t, juliet, "wherefore 19")
	romeo := login(t, h, "romeo") // it all waited for him
	say(t, romeo, `<presence/>`)
	for i := range 20 {
		till(t, romeo, fmt.Sprintf("wherefore %d<", i))
	}
	// New owners get new numbers.
	login(t, h, "nurse")
	say(t, juliet, `<message to='nurse@localhost' type='chat'><body>o honey nurse</body></message>`)
	say(t, juliet, `<iq type='get' id='p2' to='localhost'><ping xmlns='urn:xmpp:ping'/></iq>`)
	till(t, juliet, "id='p2'")
	if n := number(t, h.DB(), `SELECT count(*) FROM archive`); n != 42 {
		t.Errorf("%d rows in the archives", n)
	}
}

func TestMigrateNeedsADatabase(t *testing.T) {
	data := t.TempDir()
	if _, _, err := parley(t, "", "migrate", "--data", data, "--to", "postgres://x@127.0.0.1:1/x"); err == nil || !strings.Contains(err.Error(), "no database") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(filepath.Join(data, "parley.db")); err == nil {
		t.Error("made one")
	}
}
