package config

import (
	"strings"
	"testing"
	"time"
)

type doorConfig struct {
	Address string          `yaml:"address" doc:"Where." overlay:"node"`
	Name    string          `yaml:"name" doc:"What."`
	Files   filesConfig     `yaml:"files" doc:"Of this machine." overlay:"node"`
	Peers   map[string]peer `yaml:"peers" doc:"Who."`
}

type filesConfig struct {
	Key string `yaml:"key" doc:"A file."`
}

type peer struct {
	Secret Secret `yaml:"secret" doc:"Shared."`
	Title  string `yaml:"title" doc:"Of the peer."`
}

// Addresses and files of a machine are its node's own: the tag says so of a key
// or a section, and a file with a secret is one without it.
func TestOwn(t *testing.T) {
	s := NewSchema()
	s.Root(&doorConfig{})
	tree, err := Parse(s, "", []byte("peers: {a: {secret: hunter2}}"), Inputs{})
	if err != nil {
		t.Fatal(err)
	}
	for path, own := range map[string]bool{
		"address": true, "name": false, "files.key": true, "peers.a.secret_file": true, "peers.a.title": false, "nothing": false,
	} {
		if tree.Own(path) != own {
			t.Errorf("%s: own is %t", path, !own)
		}
	}
	if _, _, err := tree.Set("address", ":1", "juliet", time.Time{}); err != nil {
		t.Error(err)
	}
	if text, err := Doc(s); err != nil || strings.Count(text, "of that node alone") != 2 {
		t.Errorf("the documentation says\n%s%v", text, err)
	}
	wrong := NewSchema()
	wrong.Root(&struct {
		A string `yaml:"a" doc:"A." overlay:"nobody"`
	}{})
	if err := wrong.Err(); err == nil || !strings.Contains(err.Error(), `not "nobody"`) {
		t.Errorf("got %v", err)
	}
}

// A version can be higher than that of any key.
func TestAt(t *testing.T) {
	tree := mustParse(t, good, Inputs{})
	later := tree.At(7)
	if tree.Version() != 0 || later.Version() != 7 {
		t.Errorf("versions %d and %d", tree.Version(), later.Version())
	}
	expect(t, Diff(tree, later), "")
	next, added, err := later.Set(rosterPath+".max_items", "7", "juliet", time.Time{})
	if err != nil || next.Version() != 8 || added[0].Version != 8 {
		t.Errorf("%+v %v", added, err)
	}
}
