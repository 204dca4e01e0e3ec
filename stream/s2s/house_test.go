package s2s_test

import (
	"bytes"
	"context"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"parley/plugins/plugintest"
	"parley/plugins/plugintest/federation"
)

// patience ends a wait for what does not come.
const patience = 30 * time.Second

// logs is a house's log.
type logs struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if os.Getenv("PARLEY_TEST_LOG") != "" {
		_, _ = os.Stderr.Write(p)
	}
	return l.buf.Write(p)
}

// has reports whether a line has all of the texts.
func (l *logs) has(texts ...string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.buf.String()) {
		all := true
		for _, t := range texts {
			all = all && strings.Contains(line, t)
		}
		if all {
			return true
		}
	}
	return false
}

// house is a server with one user.
type house struct {
	*federation.House
	t   *testing.T
	log *logs
}

func start(t *testing.T, w *federation.World, domain string, o federation.Options) *house {
	t.Helper()
	l := &logs{}
	o.Log = l
	return &house{w.House(domain, o), t, l}
}

func (h *house) login(user string) *federation.Person {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), patience)
	defer cancel()
	c, err := h.Login(ctx, user, "r")
	if err != nil {
		h.t.Fatal(err)
	}
	return federation.NewPerson(h.t, c)
}

// loginAt is login at one of several domains.
func (h *house) loginAt(domain, user string) *federation.Person {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), patience)
	defer cancel()
	if err := h.AccountAt(ctx, domain, user, plugintest.Password); err != nil {
		h.t.Fatal(err)
	}
	c, err := plugintest.Dial(ctx, h.Door("c2s"), domain, user, plugintest.Password, "r")
	if err != nil {
		h.t.Fatal(err)
	}
	return federation.NewPerson(h.t, c)
}

// online is login with presence.
func (h *house) online(user string) *federation.Person {
	h.t.Helper()
	return h.login(user).Online()
}

// Short names for what a Person hears.
var (
	withID    = federation.WithID
	body      = federation.Body
	presence  = federation.Presence
	condition = federation.Condition
)
