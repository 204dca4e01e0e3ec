package register_test

import (
	"errors"
	"strings"
	"testing"

	"parley/plugins/config"
	"parley/plugins/plugintest"
)

// What is said of a domain that is not served keeps a house from starting and a file
// from being read again; who removes the domain, or says it at run time, is told.
func TestOnlyOfDomainsThatAreServed(t *testing.T) {
	ctx := t.Context()
	of := func(domains, entry string) []byte {
		return []byte("domains: [" + domains + "]\nservers: {streamer: {components: {register: {enabled: true, domains: {" + entry + "}}}}}")
	}
	h := plugintest.Start(t, plugintest.Options{Plugins: house()})
	refused := func(err error, want string) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	for entry, want := range map[string]string{
		"b.exmaple: {open: false}": `register.domains."b.exmaple": b.exmaple is not served; served are localhost, b.example`,
		"B.example: {open: false}": "addresses have it as b.example",
		"a@b.example: {}":          "is not a domain",
		"b.example: {opne: false}": `unknown key "opne"`,
	} {
		err := h.Configure(ctx, of("localhost, b.example", entry))
		var found config.Findings
		if !errors.As(err, &found) || found[0].Line == 0 {
			t.Errorf("%s: %v", entry, err)
			continue
		}
		refused(err, want)
	}

	if err := h.Configure(ctx, of("localhost", "localhost: {open: false}")); err != nil {
		t.Fatal(err)
	}
	control := h.Host().Control()
	set := func(key, value string) error {
		_, err := control.Reconfigure(ctx, "a test", "streamer", "register", map[string]string{key: value})
		return err
	}
	refused(set(`domains."b.example".open`, "false"), "b.example is not served")
	if _, err := control.AddDomain(ctx, "a test", "b.example"); err != nil {
		t.Fatal(err)
	}
	if err := set(`domains."b.example".open`, "false"); err != nil {
		t.Fatal(err)
	}
	_, err := control.RemoveDomain(ctx, "a test", "b.example")
	refused(err, "overlay v2 (a test")
	if _, err := control.Unset(ctx, "a test", "servers.streamer.components.register"); err != nil {
		t.Fatal(err)
	}
	if _, err := control.RemoveDomain(ctx, "a test", "b.example"); err != nil {
		t.Error(err)
	}
}

// A node whose file says something of a domain that was removed elsewhere starts.
func TestDomainRemovedElsewhere(t *testing.T) {
	ctx := t.Context()
	h := plugintest.Start(t, plugintest.Options{Plugins: house()})
	for _, d := range []string{"b.example", "c.example"} {
		if _, err := h.Host().Control().AddDomain(ctx, "a test", d); err != nil {
			t.Fatal(err)
		}
	}
	file := []byte("servers: {streamer: {components: {register: {enabled: true, domains: {b.example: {open: false}}}}}}")
	if err := h.Configure(ctx, file); err != nil {
		t.Fatal(err)
	}
	if err := h.Configure(ctx, []byte("log: {level: info}")); err != nil { // the other node's
		t.Fatal(err)
	}
	if _, err := h.Host().Control().RemoveDomain(ctx, "a test", "b.example"); err != nil {
		t.Fatal(err)
	}
	if err := h.Configure(ctx, file); err != nil {
		t.Fatal(err)
	}
	var found config.Findings
	if _, err := h.Host().Control().Reload(ctx); !errors.As(err, &found) {
		t.Errorf("read again: %v", err)
	}
}
