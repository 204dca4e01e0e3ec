package externals

import (
	"context"
	"errors"
	"net/http"
	"path/filepath"
	"strconv"

	"parley/plugins/admin"
	"parley/plugins/admin/client"
)

// Folder is the body of POST /v1/externals and /v1/externals/upgrade: where the
// manifest and the component's files are, on the server's machine.
type Folder struct {
	Path string `json:"path"`
}

// Log is the answer of GET /v1/externals/NAME/logs?lines=N.
type Log struct {
	Text string `json:"text"`
}

// maxLines is the most that is shown of a log.
const maxLines = 100_000

// Routes implements admin.Component.
func (s *supervisor) Routes(mux *http.ServeMux) {
	for pattern, f := range map[string]func(*http.Request) (any, error){
		"GET /v1/externals":                 func(*http.Request) (any, error) { return s.list(), nil },
		"POST /v1/externals":                s.folder(s.install),
		"POST /v1/externals/upgrade":        s.folder(s.upgrade),
		"POST /v1/externals/{name}/restart": s.restart,
		"GET /v1/externals/{name}/logs":     s.logs,
		"DELETE /v1/externals/{name}": func(r *http.Request) (any, error) {
			return nil, s.remove(r.Context(), r.PathValue("name"))
		},
	} {
		mux.HandleFunc(pattern, admin.Answer(refused, f))
	}
}

// refused gives errors their status.
func refused(err error) error {
	for _, row := range []struct {
		err    error
		status int
	}{
		{errRolledBack, http.StatusUnprocessableEntity},
		{errUnknown, http.StatusNotFound},
		{errExists, http.StatusConflict},
		{errManifest, http.StatusUnprocessableEntity},
		{errFiles, http.StatusUnprocessableEntity},
		{errNodes, http.StatusUnprocessableEntity},
		{errRoom, http.StatusUnprocessableEntity},
		{errNoDoor, http.StatusUnprocessableEntity},
	} {
		if errors.Is(err, row.err) {
			return admin.Fail(row.status, "%s", err.Error())
		}
	}
	return err
}

func (s *supervisor) folder(do func(context.Context, string) (Status, error)) func(*http.Request) (any, error) {
	return func(r *http.Request) (any, error) {
		var in Folder
		if err := admin.Read(r, &in); err != nil {
			return nil, err
		}
		if !filepath.IsAbs(in.Path) {
			return nil, admin.Fail(http.StatusUnprocessableEntity, "%q is not the whole path of a folder", in.Path)
		}
		st, err := do(r.Context(), in.Path)
		if err != nil {
			return nil, err
		}
		return st, nil
	}
}

func (s *supervisor) restart(r *http.Request) (any, error) {
	run, err := s.find(r.PathValue("name"))
	if err != nil {
		return nil, err
	}
	if err := run.order(r.Context(), run.restart); err != nil {
		return nil, err
	}
	return run.now(), nil
}

func (s *supervisor) logs(r *http.Request) (any, error) {
	run, err := s.find(r.PathValue("name"))
	if err != nil {
		return nil, err
	}
	lines, err := strconv.Atoi(r.URL.Query().Get("lines"))
	if err != nil || lines < 1 || lines > maxLines {
		return nil, admin.Fail(http.StatusUnprocessableEntity, "lines is between 1 and %d", maxLines)
	}
	text, err := run.log.tail(lines)
	return Log{string(text)}, err
}

// Client manages the external components of a running server. Errors are
// *admin.Problem when the server refuses.
type Client struct{ *client.Client }

// List is what is installed on the server's node.
func (c Client) List(ctx context.Context) (out []Status, err error) {
	err = c.Do(ctx, http.MethodGet, client.Path("externals"), nil, &out)
	return out, err
}

// Install installs and starts what is in a folder (its whole path).
func (c Client) Install(ctx context.Context, path string) (st Status, err error) {
	err = c.Do(ctx, http.MethodPost, client.Path("externals"), Folder{path}, &st)
	return st, err
}

// Upgrade goes on with the version in a folder (its whole path); 422: it did not
// become healthy, and the one before is back.
func (c Client) Upgrade(ctx context.Context, path string) (st Status, err error) {
	err = c.Do(ctx, http.MethodPost, client.Path("externals", "upgrade"), Folder{path}, &st)
	return st, err
}

// Restart begins anew.
func (c Client) Restart(ctx context.Context, name string) (st Status, err error) {
	err = c.Do(ctx, http.MethodPost, client.Path("externals", name, "restart"), nil, &st)
	return st, err
}

// Logs is the end of what a component has written.
func (c Client) Logs(ctx context.Context, name string, lines int) (string, error) {
	var out Log
	err := c.Do(ctx, http.MethodGet, client.Path("externals", name, "logs")+"?lines="+strconv.Itoa(lines), nil, &out)
	return out.Text, err
}

// Remove ends a component and takes it away.
func (c Client) Remove(ctx context.Context, name string) error {
	return c.Do(ctx, http.MethodDelete, client.Path("externals", name), nil, nil)
}
