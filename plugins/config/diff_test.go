package config

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func lines(changes []Change) string {
	var b strings.Builder
	for _, c := range changes {
		fmt.Fprintf(&b, "%s: %q -> %q %s", c.Path, c.Old, c.New, c.Effect)
		if c.Effect == Overridden {
			fmt.Fprintf(&b, " by %s", c.By)
		}
		if c.Server != "" {
			fmt.Fprintf(&b, " [%s/%s]", c.Server, c.Component)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func expect(t *testing.T, got []Change, want string) {
	t.Helper()
	if text := lines(got); text != strings.TrimLeft(want, "\n") {
		t.Errorf("got\n%swant%s", text, want)
	}
}

const rosterPath = "servers.processor.components.roster"

func TestDiff(t *testing.T) {
	env := Inputs{Environ: []string{"PARLEY_LOG_FORMAT=text"}}
	old := mustParse(t, good+"storage: {dsn: one}\n", env)
	expect(t, Diff(old, old), "")
	changed := strings.NewReplacer("debug", "warn, format: json", "5000", "6000", "idle: 1d", "cache: 2MiB", ":5223", ":5224", "10MB}", "1}").Replace(good)
	changed = strings.Replace(changed, "  processor:\n", "        \n      new: {address: :9}\n    deployment: {workers: 2}\n  processor:\n    enabled: false\n", 1)
	next := mustParse(t, changed+"storage: {dsn: two}\n", env)
	expect(t, Diff(old, next), `
log.level: "debug" -> "warn" applied
log.format: "text" -> "json" overridden by environment PARLEY_LOG_FORMAT
storage.dsn: "***" -> "***" needs a restart
servers.streamer.deployment.workers: "0" -> "2" needs a restart [streamer/]
servers.streamer.listeners.tls.address: ":5223" -> ":5224" needs a restart [streamer/]
servers.streamer.listeners.new.address: "" -> ":9" needs a restart [streamer/]
servers.streamer.listeners.new.tls: "" -> "start" needs a restart [streamer/]
servers.streamer.listeners.new.allow: "" -> "[]" needs a restart [streamer/]
servers.processor.enabled: "true" -> "false" needs a restart [processor/]
servers.processor.components.roster.max_items: "5000" -> "6000" applied [processor/roster]
servers.processor.components.roster.idle: "1d" -> "5m" applied [processor/roster]
servers.processor.components.roster.cache: "1MiB" -> "2MiB" needs a restart [processor/roster]
`)
	if back := Diff(next, old); len(back) != 12 {
		t.Errorf("and back:\n%s", lines(back))
	}
}

func TestOverlay(t *testing.T) {
	at := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	file := mustParse(t, good, Inputs{})
	one, added, err := file.Set(rosterPath, "{max_items: 7, cache: 1GiB}", "admin", at)
	if err != nil || len(added) != 2 || added[0] != (Setting{rosterPath + ".max_items", "7", 1, "admin", at}) || added[1].Value != "1GiB" {
		t.Fatal(added, err)
	}
	expect(t, Diff(file, one), `
servers.processor.components.roster.max_items: "5000" -> "7" applied [processor/roster]
servers.processor.components.roster.cache: "1MiB" -> "1GiB" needs a restart [processor/roster]
`)
	two, _, err := one.Set("domains", "x.example, y.example", "admin", at)
	if err != nil {
		t.Fatal(err)
	}
	three, added, err := two.Set("servers.streamer.listeners.tls", "false", "admin", at)
	if err != nil || len(added) != 1 {
		t.Fatal(added, err)
	}
	four, added, err := three.Set("servers.streamer.listeners.extra.address", ":7", "admin", at)
	if err != nil || len(added) != 1 || four.Overlay().Version != 4 || len(four.Overlay().Settings) != 5 {
		t.Fatal(added, err, four.Overlay())
	}

	// A restart: the same file, the overlay from the database.
	again := mustParse(t, good, Inputs{Overlay: four.Overlay()})
	expect(t, Diff(four, again), "")
	s, err := Get[streamConfig](again, "servers.streamer")
	if _, has := s.Listeners["tls"]; err != nil || has || s.Listeners["extra"].TLS != "start" || s.Listeners["extra"].Address != ":7" {
		t.Errorf("%+v %v", s, err)
	}

	// A reload: the file changed under the overlay.
	reloaded := mustParse(t, strings.Replace(good, "5000", "6000", 1), Inputs{Overlay: four.Overlay()})
	expect(t, Diff(four, reloaded), `
servers.processor.components.roster.max_items: "5000" -> "6000" overridden by overlay v1 (admin, 2026-01-31T12:00:00Z) [processor/roster]
`)

	five, gone, err := reloaded.Unset(rosterPath)
	if err != nil || len(gone) != 2 || five.Overlay().Version != 5 || len(five.Overlay().Settings) != 3 {
		t.Fatal(gone, err)
	}
	if n, _ := Get[int](five, rosterPath+".max_items"); n != 6000 {
		t.Error(n)
	}
	none, _, err := five.Unset("")
	if err != nil || len(none.Overlay().Settings) != 0 {
		t.Fatal(err)
	}
	expect(t, Diff(mustParse(t, strings.Replace(good, "5000", "6000", 1), Inputs{}), none), "")
	if _, _, err := none.Unset("data"); err == nil {
		t.Error("unset of what is not set")
	}
}

func TestOverlayRefuses(t *testing.T) {
	tree := mustParse(t, good, Inputs{})
	for _, c := range []struct{ path, value, want string }{
		{rosterPath + ".max_item", "1", `there is no key servers.processor.components.roster.max_item; did you mean "max_items"?`},
		{rosterPath + ".max_items", "0", "must be at least 1"},
		{rosterPath, "{idle: 2h, cache: 0}", "a long idle time needs a cache"},
		{rosterPath, "{", ""},
		{rosterPath, "{}", "this sets no key"},
		{rosterPath, "{nothing: 1}", `unknown key "nothing"`},
		{"storage.dsn", "hunter2", "storage.dsn is a secret and cannot be set at run time (use storage.dsn_file or PARLEY_STORAGE_DSN)"},
		{"storage", "{driver: sqlite}", "storage.driver cannot be set at run time"},
		{"storage.dsn_file", "", "storage.dsn_file cannot be set at run time"},
		{"servers.streamer.listeners.new.tls", "direct", "servers.streamer.listeners.new.address: must be given"},
		{`hosts."`, "1", "quote"},
	} {
		_, _, err := tree.Set(c.path, c.value, "admin", time.Time{})
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s = %s: %v, want %s", c.path, c.value, err, c.want)
		}
	}
	stale := mustParse(t, good, Inputs{Overlay: Overlay{1, []Setting{{"servers.processor.components.gone.x", "1", 1, "admin", time.Time{}}}}})
	if len(stale.Ignored()) != 1 {
		t.Error(stale.Ignored())
	}
	expect(t, Diff(tree, stale), "")
}
