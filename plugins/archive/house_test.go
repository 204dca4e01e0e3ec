package archive_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"parley/plugins"
	"parley/plugins/archive"
	"parley/plugins/carbons"
	"parley/plugins/plugintest"
	"parley/storage"
	"parley/storage/atrest"
	"parley/storage/storagetest"
)

func house() []plugins.Plugin {
	return plugintest.Basics(archive.Plugin, carbons.Plugin)
}

func TestScripts(t *testing.T) {
	storagetest.EachConfig(t, func(t *testing.T, c storage.Config) {
		plugintest.Run(t, plugintest.Options{Plugins: house(), Storage: func() storage.Config { return c }}, "testdata/*.txtar")
	})
}

// encrypted is the configuration of a house with a new keys file.
func encrypted(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "keys")
	if _, err := atrest.NewKey(file, time.Now(), -1, -1); err != nil {
		t.Fatal(err)
	}
	return "storage: {encryption: {keys_file: " + file + "}}\n"
}

// Clients see no difference when messages are encrypted at rest, and nobody
// else sees them.
func TestScriptsEncrypted(t *testing.T) {
	c := storagetest.SQLite(t)
	o := plugintest.Options{Plugins: house(), Config: encrypted(t), Storage: func() storage.Config { return c }}
	t.Run("only", func(t *testing.T) { plugintest.Run(t, o, "testdata/encrypted/*.txtar") })
	plugintest.Run(t, o, "testdata/[^t]*.txtar") // text.txtar: nothing looks into messages then
	if n := bytes.Count(files(t, c), []byte("<body>")); n > 0 {
		t.Errorf("%d messages can be read in the files", n)
	}
}

// files are those of a SQLite database in use.
func files(t *testing.T, c storage.Config) (all []byte) {
	t.Helper()
	for _, suffix := range []string{"", "-wal"} {
		part, err := os.ReadFile(c.Path + suffix)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, part...)
	}
	return all
}

// A message that waits and one that is archived: the files hold their text when
// encryption is off, and not when it is on.
func TestFilesHoldNoText(t *testing.T) {
	for name, conf := range map[string]string{"off": "", "on": encrypted(t)} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), limit)
			defer cancel()
			c := storagetest.SQLite(t)
			h := plugintest.Start(t, plugintest.Options{Plugins: house(), Config: conf, Storage: func() storage.Config { return c }})
			romeo := login(ctx, t, h, "romeo", "a")
			if err := h.Account(ctx, "juliet", "x"); err != nil {
				t.Fatal(err)
			}
			if err := romeo.Send("<message to='juliet@localhost' type='chat'><body>palmers kiss</body></message>" +
				"<message to='juliet@localhost' type='chat'><body>holy shrine</body><no-permanent-store xmlns='urn:xmpp:hints'/></message>"); err != nil {
				t.Fatal(err)
			}
			sync(ctx, t, romeo)
			raw := files(t, c)
			for _, text := range []string{"palmers kiss", "holy shrine"} {
				if found := bytes.Contains(raw, []byte(text)); found != (conf == "") {
					t.Errorf("%q is in the files: %v", text, found)
				}
			}
		})
	}
}
