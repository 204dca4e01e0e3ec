package plugins

import (
	"errors"
	"io/fs"
	"path"
	"testing"
	"testing/fstest"
	"time"

	"parley/plugins/config"
	"parley/storage"
	"parley/storage/storagetest"
)

type sample struct {
	Word  string `yaml:"word" reload:"live" doc:"Everybody's."`
	Place string `yaml:"place" reload:"live" overlay:"node" doc:"A node's own."`
}

func sampleTree(t *testing.T) *config.Tree {
	t.Helper()
	s := config.NewSchema()
	s.Root(&sample{Word: "w", Place: "p"})
	tree, err := config.Parse(s, "", nil, config.Inputs{})
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

func set(t *testing.T, w wanted, path, value string) wanted {
	t.Helper()
	tree, _, err := w.tree.Set(path, value, "juliet", time.Unix(1, 0))
	if err != nil {
		t.Fatal(err)
	}
	return w.under(tree)
}

// Of two versions that follow the same one, one is made; the other leaves
// nothing behind.
func TestVersionsFollowEachOther(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db storage.DB) {
		if err := db.Migrate(t.Context(), "host", overlayMigrations); err != nil {
			t.Fatal(err)
		}
		one, two := overlayStore{db, "one"}, overlayStore{db, "two"}
		none := wanted{tree: sampleTree(t)}
		ping := slotKey{"processor", "ping"}
		a := set(t, set(t, none, "word", "a"), "place", "here").say(ping, Installed, "juliet", time.Unix(2, 0))
		if err := one.commit(t.Context(), none, a, events(none, a)); err != nil {
			t.Fatal(err)
		}
		b := set(t, none, "word", "b")
		if err := two.commit(t.Context(), none, b, events(none, b)); !errors.Is(err, errOvertaken) {
			t.Fatalf("a version that exists was made again: %v", err)
		}
		for _, c := range []struct {
			store overlayStore
			place string
		}{{one, "here"}, {two, "p"}} {
			st, err := c.store.load(t.Context())
			if err != nil || st.overlay.Version != 3 || len(st.said) != 1 || st.said[ping].phase != Installed {
				t.Fatalf("%+v %v", st, err)
			}
			tree, err := none.tree.WithOverlay(st.overlay)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := config.Get[sample](tree, ""); err != nil || got != (sample{"a", c.place}) {
				t.Errorf("%s has %+v %v", c.store.node, got, err)
			}
		}
		log, err := two.log(t.Context(), 10)
		if err != nil || len(log) != 3 || log[2].Path != "word" || log[2].Old != "w" || log[2].New != "a" {
			t.Errorf("%+v %v", log, err)
		}
		st, err := one.load(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		tree, err := none.tree.WithOverlay(st.overlay)
		if err != nil {
			t.Fatal(err)
		}
		now := wanted{tree, st.said}
		back, _, err := now.tree.Unset("word")
		if err != nil {
			t.Fatal(err)
		}
		next := now.under(back).unsaid(ping)
		if err := one.commit(t.Context(), now, next, events(now, next)); err != nil {
			t.Fatal(err)
		}
		st, err = one.load(t.Context())
		if err != nil || st.overlay.Version != 4 || len(st.said) != 0 || len(st.overlay.Settings) != 1 || st.overlay.Settings[0].Path != "place" {
			t.Errorf("after it was taken back: %+v %v", st, err)
		}
	})
}

func TestNodesSayHowFarTheyAre(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db storage.DB) {
		if err := db.Migrate(t.Context(), "host", overlayMigrations); err != nil {
			t.Fatal(err)
		}
		o := overlayStore{db: db}
		now := time.Unix(1e9, 0)
		for _, n := range []struct {
			ConfigNode
			at time.Time
		}{
			{ConfigNode{Node: "gone", Version: 1, Tried: 1}, now.Add(-2 * forgottenAfter)},
			{ConfigNode{Node: "away", Version: 1, Tried: 1}, now},
			{ConfigNode{Node: "refuses", Version: 1, Tried: 2}, now.Add(-2 * forgottenAfter)},
			{ConfigNode{Node: "here", Version: 1, Tried: 1, Error: "no"}, now.Add(-2 * forgottenAfter)},
			{ConfigNode{Node: "here", Version: 2, Tried: 2}, now},
		} {
			if err := o.report(t.Context(), n.ConfigNode, n.at); err != nil {
				t.Fatal(err)
			}
		}
		got, err := o.nodes(t.Context())
		if err != nil || len(got) != 3 || got["refuses"].Tried != 2 || got["here"].Version != 2 || got["here"].Error != "" || got["away"].Version != 1 || !got["away"].At.Equal(now) {
			t.Errorf("%+v %v", got, err)
		}
	})
}

// What was set before there were versions stays set, with who and when.
func TestOverlayFromBefore(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db storage.DB) {
		old := fstest.MapFS{}
		for _, d := range []string{"sqlite", "postgres"} {
			name := path.Join("sql", d, "0001_overlay.sql")
			text, err := fs.ReadFile(overlayMigrations, name)
			if err != nil {
				t.Fatal(err)
			}
			old[name] = &fstest.MapFile{Data: text}
		}
		if err := db.Migrate(t.Context(), "host", old); err != nil {
			t.Fatal(err)
		}
		for _, sql := range []string{
			`INSERT INTO config_version (id, version) VALUES (1, 5)`,
			`INSERT INTO config_overlay (path, value, version, set_by, set_at) VALUES ('word', 'old', 4, 'juliet', 7000000)`,
		} {
			if _, err := db.Exec(t.Context(), sql); err != nil {
				t.Fatal(err)
			}
		}
		if err := db.Migrate(t.Context(), "host", overlayMigrations); err != nil {
			t.Fatal(err)
		}
		o := overlayStore{db, "one"}
		st, err := o.load(t.Context())
		if err != nil || st.overlay.Version != 5 || len(st.overlay.Settings) != 1 || st.overlay.Settings[0].Value != "old" || st.overlay.Settings[0].By != "juliet" {
			t.Fatalf("%+v %v", st, err)
		}
		log, err := o.log(t.Context(), 10)
		if err != nil || len(log) != 1 || log[0].Version != 4 || log[0].By != "juliet" || log[0].New != "old" || !log[0].At.Equal(time.Unix(7, 0)) {
			t.Errorf("%+v %v", log, err)
		}
	})
}
