package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"time"

	"parley/plugins/plugintest/script"
)

// target is a server reached over the network.
type target struct {
	flags
	via      script.Via
	given    map[string]string // --service
	discover sync.Once
	found    map[string]string
}

func newTarget(f flags, via script.Via) (*target, error) {
	host, _, err := net.SplitHostPort(f.server)
	if err != nil {
		return nil, fmt.Errorf("--server: %w", err)
	}
	if f.domain == "" {
		f.domain = host
	}
	if f.direct == "" && via == script.ViaDirectTLS { // then --server is no port for STARTTLS
		f.direct, f.server = f.server, ""
	}
	t := &target{flags: f, via: via, given: map[string]string{}}
	for _, s := range f.services {
		name, address, ok := strings.Cut(s, "=")
		if !ok {
			return nil, fmt.Errorf("--service %s: write name=address", s)
		}
		t.given[name] = address
	}
	if f.register != "0077" && !strings.HasPrefix(f.register, "command ") {
		return nil, fmt.Errorf("--register %s: use 0077 or 'command …'", f.register)
	}
	return t, nil
}

func (t *target) Domain() string { return t.domain }

// Dial opens the socket of that kind; ErrUnsupported when no address was given for it.
func (t *target) Dial(ctx context.Context, kind script.DialKind) (net.Conn, error) {
	var d net.Dialer
	switch kind {
	case script.TCP:
		if t.server == "" {
			return nil, fmt.Errorf("plain TCP without a --server beside --direct: %w", script.ErrUnsupported)
		}
		return d.DialContext(ctx, "tcp", t.server)
	case script.DirectTLS:
		if t.direct == "" {
			return nil, fmt.Errorf("direct TLS without --direct: %w", script.ErrUnsupported)
		}
		return d.DialContext(ctx, "tcp", t.direct)
	case script.BOSH:
		if t.bosh == "" {
			return nil, fmt.Errorf("BOSH without --bosh: %w", script.ErrUnsupported)
		}
		return script.DialBOSH(t.bosh, anyCertificate()), nil
	default:
		if t.websocket == "" {
			return nil, fmt.Errorf("WebSocket without --websocket: %w", script.ErrUnsupported)
		}
		return script.DialWebSocket(ctx, t.websocket, anyCertificate())
	}
}

// anyCertificate checks none: the server under test often has one of its own making.
func anyCertificate() *http.Client {
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
}

// Account makes an account by the way --register names.
func (t *target) Account(ctx context.Context, user, password string) error {
	if template, ok := strings.CutPrefix(t.register, "command "); ok {
		return shell(ctx, template, "{user}", user, "{domain}", t.domain, "{password}", password)
	}
	return script.Register(ctx, t.connection(), user, password)
}

func (t *target) connection() script.Connection {
	return script.Connection{Target: t, Via: t.via, Timeout: t.timeout}
}

// Service is what --service says, else what disco finds; disco is asked once, by an account made for it.
func (t *target) Service(name string) string {
	if a, ok := t.given[name]; ok {
		return a
	}
	t.discover.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 8*t.timeout)
		defer cancel()
		user, password := t.prefix+"discover-"+strings.ToLower(rand.Text()[:6]), rand.Text()
		if err := t.Account(ctx, user, password); err == nil {
			t.found, _ = script.Discover(ctx, t.connection(), user, password) // nothing found: scripts that need it are skipped
		}
	})
	return t.found[name]
}

// Restart runs --restart and waits until the port answers.
func (t *target) Restart(ctx context.Context) error {
	if t.restart == "" {
		return fmt.Errorf("restart without --restart: %w", script.ErrUnsupported)
	}
	if err := shell(ctx, t.restart); err != nil {
		return err
	}
	up := script.TCP
	if t.server == "" {
		up = script.DirectTLS
	}
	for {
		conn, err := t.Dial(ctx, up)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-time.After(50 * time.Millisecond): // polling another process: there is nothing to wait on
		case <-ctx.Done():
			return fmt.Errorf("after restart: %w", errors.Join(err, ctx.Err()))
		}
	}
}

// Reload runs --reload.
func (t *target) Reload(ctx context.Context) error {
	if t.reload == "" {
		return fmt.Errorf("reload without --reload: %w", script.ErrUnsupported)
	}
	return shell(ctx, t.reload)
}

// shell runs a command template. Values are quoted, so that a prefix or domain cannot become shell text.
func shell(ctx context.Context, template string, pairs ...string) error {
	for i := 1; i < len(pairs); i += 2 {
		pairs[i] = "'" + strings.ReplaceAll(pairs[i], "'", `'\''`) + "'"
	}
	cmd := exec.CommandContext(ctx, "sh", "-c", strings.NewReplacer(pairs...).Replace(template))
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", template, err, strings.TrimSpace(string(out)))
	}
	return nil
}
