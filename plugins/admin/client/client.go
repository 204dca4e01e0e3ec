// Package client speaks to a running server's administration socket
// (plugins/admin): HTTP and JSON, errors as problem documents (RFC 9457).
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"parley/plugins"
	"parley/plugins/admin"
	"parley/storage/atrest"
)

// ErrNotRunning: no server answers on the data directory's socket.
var ErrNotRunning = errors.New("the server is not running")

// maxAnswer bounds what is read of an answer, in bytes.
const maxAnswer = 256 << 20

// Client is a connection to one server. Its methods' errors are
// *admin.Problem when the server refuses.
type Client struct{ http *http.Client }

// Open returns the client of the server that runs on a data directory;
// ErrNotRunning when there is none.
func Open(ctx context.Context, data string) (*Client, error) {
	path := short(filepath.Join(data, admin.Socket))
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}
	c, err := dial(ctx, "", "")
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return nil, fmt.Errorf("%w (nobody answers on %s)", ErrNotRunning, path)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("%s: only the user the server runs as, and root, may use it: %w", path, err)
	case err != nil:
		return nil, fmt.Errorf("administration socket: %w", err)
	}
	_ = c.Close()
	return &Client{&http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}}, nil
}

func short(path string) string {
	wd, err := os.Getwd()
	if err != nil {
		return path
	}
	if rel, err := filepath.Rel(wd, path); err == nil && len(rel) < len(path) {
		return rel
	}
	return path
}

// Do sends in (nil: nothing) as JSON and decodes the answer into out (nil: it
// is of no interest). Elements of a path are escaped with Path.
func (c *Client) Do(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		raw, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("request: %w", err)
		}
		body = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://parley"+path, body)
	if err != nil {
		return fmt.Errorf("request: %w", err)
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("the server did not answer: %w", err)
	}
	defer func() { _ = res.Body.Close() }()
	raw, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("the server's answer: %w", err)
	}
	if res.StatusCode >= http.StatusBadRequest {
		return problem(res, raw)
	}
	if out == nil || len(raw) == 0 {
		return nil
	}
	if err := json.Unmarshal(raw, out); err != nil {
		return fmt.Errorf("the server's answer: %w", err)
	}
	return nil
}

func problem(res *http.Response, raw []byte) error {
	p := &admin.Problem{}
	if err := json.Unmarshal(raw, p); err != nil || p.Title == "" {
		return admin.Fail(res.StatusCode, "%s", strings.TrimSpace(string(raw)))
	}
	return p
}

// Path joins escaped elements below /v1.
func Path(elements ...string) string {
	var b strings.Builder
	b.WriteString("/v1")
	for _, e := range elements {
		b.WriteByte('/')
		b.WriteString(url.PathEscape(e))
	}
	return b.String()
}

// get is Do for a question.
func get[T any](ctx context.Context, c *Client, elements ...string) (out T, err error) {
	err = c.Do(ctx, http.MethodGet, Path(elements...), nil, &out)
	return out, err
}

// change is Do for what may take a while to count on every node.
func (c *Client) change(ctx context.Context, method string, in any, elements ...string) (out plugins.Applied, err error) {
	err = c.Do(ctx, method, Path(elements...), in, &out)
	return out, err
}

func (c *Client) post(ctx context.Context, elements ...string) error {
	return c.Do(ctx, http.MethodPost, Path(elements...), nil, nil)
}

// Status tells who answers.
func (c *Client) Status(ctx context.Context) (admin.Status, error) {
	return get[admin.Status](ctx, c, "status")
}

// Components lists them all.
func (c *Client) Components(ctx context.Context) ([]plugins.Status, error) {
	return get[[]plugins.Status](ctx, c, "components")
}

// Component takes one through its life: install, start, stop, uninstall.
func (c *Client) Component(ctx context.Context, verb, server, name string) (plugins.Applied, error) {
	return c.change(ctx, http.MethodPost, nil, "components", server, name, verb)
}

// Reconfigure sets keys of a component's section; values are YAML text.
func (c *Client) Reconfigure(ctx context.Context, server, name string, set map[string]string) (plugins.Applied, error) {
	return c.change(ctx, http.MethodPatch, admin.Settings{Set: set}, "components", server, name)
}

// Servers lists them all.
func (c *Client) Servers(ctx context.Context) ([]plugins.ServerStatus, error) {
	return get[[]plugins.ServerStatus](ctx, c, "servers")
}

// Server starts or stops one.
func (c *Client) Server(ctx context.Context, verb, name string) error {
	return c.post(ctx, "servers", name, verb)
}

// Plugins lists them all.
func (c *Client) Plugins(ctx context.Context) ([]admin.PluginStatus, error) {
	return get[[]admin.PluginStatus](ctx, c, "plugins")
}

// Plugin starts or stops the components of one in every Server.
func (c *Client) Plugin(ctx context.Context, verb, name string) (plugins.Applied, error) {
	return c.change(ctx, http.MethodPost, nil, "plugins", name, verb)
}

// Config lists every key with its value and source.
func (c *Client) Config(ctx context.Context) ([]plugins.ConfigEntry, error) {
	return get[[]plugins.ConfigEntry](ctx, c, "config")
}

// Reload lets the server read its configuration again.
func (c *Client) Reload(ctx context.Context) (out []plugins.ConfigChange, err error) {
	err = c.Do(ctx, http.MethodPost, Path("config", "reload"), nil, &out)
	return out, err
}

// Cluster tells of the nodes as the server sees them.
func (c *Client) Cluster(ctx context.Context) (plugins.Cluster, error) {
	return get[plugins.Cluster](ctx, c, "nodes")
}

// Drain lets a node begin to send its clients away, pace of them a second.
func (c *Client) Drain(ctx context.Context, node string, pace float64) error {
	return c.Do(ctx, http.MethodPost, Path("nodes", node, "drain"), admin.Drain{Pace: pace}, nil)
}

// Undrain takes it back.
func (c *Client) Undrain(ctx context.Context, node string) error {
	return c.post(ctx, "nodes", node, "undrain")
}

// Keys tells which keys the database is encrypted with.
func (c *Client) Keys(ctx context.Context) (atrest.Status, error) {
	return get[atrest.Status](ctx, c, "keys")
}

// RetireKey returns nil when a key can be taken out of the keys file.
func (c *Client) RetireKey(ctx context.Context, id int64) error {
	return c.post(ctx, "keys", strconv.FormatInt(id, 10), "retire")
}

// Domains are those that the node serves.
func (c *Client) Domains(ctx context.Context) ([]string, error) {
	return get[[]string](ctx, c, "domains")
}

// AddDomain lets a domain be served on every node.
func (c *Client) AddDomain(ctx context.Context, domain string) (plugins.Applied, error) {
	return c.change(ctx, http.MethodPut, nil, "domains", domain)
}

// RemoveDomain ends that.
func (c *Client) RemoveDomain(ctx context.Context, domain string) (plugins.Applied, error) {
	return c.change(ctx, http.MethodDelete, nil, "domains", domain)
}

// Unset takes back what was set at run time at and below a path.
func (c *Client) Unset(ctx context.Context, path string) (plugins.Applied, error) {
	return c.change(ctx, http.MethodDelete, nil, "config", path)
}

// ConfigLog is what was set at run time, the last n changes, the newest first.
func (c *Client) ConfigLog(ctx context.Context, n int) (out []plugins.ConfigEvent, err error) {
	err = c.Do(ctx, http.MethodGet, Path("config", "log")+"?n="+strconv.Itoa(n), nil, &out)
	return out, err
}

// ConfigNodes tells which version of what is set at run time counts on which
// node.
func (c *Client) ConfigNodes(ctx context.Context) ([]plugins.ConfigNode, error) {
	return get[[]plugins.ConfigNode](ctx, c, "config", "nodes")
}
