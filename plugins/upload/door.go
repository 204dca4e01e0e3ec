package upload

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"time"

	"parley/plugins"
	"parley/plugins/config"
	"parley/storage"
	"parley/storage/blob"
	"parley/stream"
)

// DoorConfig is the section of the component in the streamer.
type DoorConfig struct {
	MinRate   config.Size   `yaml:"min_rate" min:"1" doc:"Slowest upload or download, in bytes a second on average; who is slower is cut off."`
	Patience  time.Duration `yaml:"patience" min:"1s" max:"10m" doc:"How long a transfer may stand still, or be slower than min_rate, at its beginning."`
	Transfers int           `yaml:"max_transfers" min:"1" doc:"Uploads that this process takes at the same time; others are told to come back."`
	Origins   []string      `yaml:"origins" doc:"Origins of web pages that may put and fetch files, like https://chat.example.org; *: all."`
}

func doorDefaults() *DoorConfig {
	return &DoorConfig{MinRate: 8 << 10, Patience: 30 * time.Second, Transfers: 200, Origins: []string{"*"}}
}

// door puts files on the HTTP doors.
type door struct {
	*Files
	cfg    DoorConfig
	m      *doorMetrics
	slots  chan struct{} // one for each upload
	shrink shrinking

	reg    *stream.Registrar
	mu     sync.Mutex
	closed bool
	under  sync.WaitGroup // requests
	ctx    context.Context
	cancel context.CancelFunc
}

var _ stream.Component = (*door)(nil)

func newDoor(env plugins.Env, c plugins.Config) (plugins.Component, error) {
	d := &door{cfg: *doorDefaults(), shrink: newShrinking()}
	if err := c.Decode(&d.cfg); err != nil {
		return nil, err
	}
	d.slots = make(chan struct{}, d.cfg.Transfers)
	d.ctx, d.cancel = context.WithCancel(context.Background())
	var err error
	if d.Files, err = plugins.Need[*Files](env, Name); err != nil {
		return nil, err
	}
	d.m, err = newDoorMetrics(env.Metrics)
	return d, err
}

// Start implements plugins.Component.
func (*door) Start(context.Context) error { return nil }

// Stop implements plugins.Component: transfers end.
func (d *door) Stop(context.Context) error {
	d.doors.CompareAndSwap(d.reg, nil) // nothing is offered that nobody takes
	d.mu.Lock()
	d.closed = true
	d.mu.Unlock()
	d.cancel()
	d.under.Wait()
	return nil
}

// Register implements stream.Component.
func (d *door) Register(r *stream.Registrar) {
	d.reg = r
	d.doors.Store(r)
	if d.env.Files != nil {
		r.HTTPLasting(root, d)
	}
}

// enter counts a request; false: the door is closed.
func (d *door) enter() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return false
	}
	d.under.Add(1)
	return true
}

// ServeHTTP implements http.Handler.
func (d *door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !d.enter() {
		http.Error(w, "try again", http.StatusServiceUnavailable)
		return
	}
	defer d.under.Done()
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(d.ctx, cancel)()
	r = r.WithContext(ctx)
	d.harmless(w.Header(), r)
	do, ok := map[string]func(http.ResponseWriter, *http.Request) error{
		http.MethodGet: d.get, http.MethodHead: d.get, http.MethodPut: d.put, http.MethodDelete: d.delete, http.MethodOptions: preflight,
	}[r.Method]
	if !ok {
		w.Header().Set("Allow", methods)
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		return
	}
	err := do(w, r)
	if err != nil {
		d.refuse(w, r, err)
	}
	d.m.requests.WithLabelValues(r.Method, outcome(err)).Inc()
}

const methods = "GET, HEAD, PUT, DELETE, OPTIONS"

// harmless sets what every answer says (XEP-0363 §8, §9.1): nothing of it runs in
// a browser, wherever the address was opened, and pages of other servers may use it.
func (d *door) harmless(h http.Header, r *http.Request) {
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "default-src 'none'; img-src 'self'; media-src 'self'; frame-ancestors 'none'; sandbox")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Cross-Origin-Resource-Policy", "cross-origin")
	origin := r.Header.Get("Origin")
	for _, o := range d.cfg.Origins {
		if o == "*" || origin != "" && strings.EqualFold(o, origin) {
			if o != "*" {
				o = origin
				h.Add("Vary", "Origin")
			}
			h.Set("Access-Control-Allow-Origin", o)
			h.Set("Access-Control-Expose-Headers", "Content-Length, Content-Range, Content-Disposition, ETag")
			break
		}
	}
}

// preflight is what browsers ask before they put something (XEP-0363 §8).
func preflight(w http.ResponseWriter, _ *http.Request) error {
	h := w.Header()
	h.Set("Allow", methods)
	h.Set("Access-Control-Allow-Methods", methods)
	h.Set("Access-Control-Allow-Headers", "Content-Type, Range, If-Range, If-None-Match")
	h.Set("Access-Control-Max-Age", "7200")
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// refusal is an error with its status.
type refusal struct {
	status int
	text   string
}

func (r *refusal) Error() string { return r.text }

// refusals are what errors mean that come from below, in this order.
var refusals = []struct {
	is  error
	say refusal
}{
	{blob.ErrFull, refusal{http.StatusInsufficientStorage, "there is no room for files"}},
	{blob.ErrSize, refusal{http.StatusBadRequest, "the content is not as long as was said"}},
	{blob.ErrNotFound, refusal{http.StatusNotFound, "no such file"}},
	{blob.ErrUnavailable, refusal{http.StatusServiceUnavailable, "files are unavailable; try again"}},
	{storage.ErrUnavailable, refusal{http.StatusServiceUnavailable, "files are unavailable; try again"}},
	{storage.ErrStale, refusal{http.StatusGone, "the slot has expired"}},
	{ErrUnwanted, refusal{http.StatusUnprocessableEntity, "this file is not taken"}},
}

// refuse answers with an error. What went wrong inside goes to the log alone.
func (d *door) refuse(w http.ResponseWriter, r *http.Request, err error) {
	say := refusal{http.StatusInternalServerError, "something went wrong"}
	var own *refusal
	if errors.As(err, &own) {
		say = *own
	} else {
		for _, x := range refusals {
			if errors.Is(err, x.is) {
				say = x.say
				break
			}
		}
		if say.status >= http.StatusInternalServerError && r.Context().Err() == nil {
			d.env.Log.Error("file request failed", "method", r.Method, "err", err)
		}
	}
	h := w.Header()
	for _, name := range []string{"Content-Disposition", "Cache-Control", "ETag", "Last-Modified"} {
		h.Del(name)
	}
	if say.status == http.StatusServiceUnavailable || say.status == http.StatusInsufficientStorage {
		h.Set("Retry-After", "60")
	}
	http.Error(w, say.text, say.status)
}

// outcome is an error for the metrics.
func outcome(err error) string {
	var own *refusal
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, blob.ErrFull):
		return "full"
	case errors.As(err, &own):
		return "refused"
	}
	return "failed"
}

var notFound = &refusal{http.StatusNotFound, "no such file"}

// asked reads the address of a request: the file or slot at it. What it is not
// exactly the address of is not there.
func (d *door) asked(r *http.Request) (*File, error) {
	text, name, ok := strings.Cut(strings.TrimPrefix(r.URL.Path, root), "/")
	t, good := parseToken(text)
	if !ok || !good {
		return nil, notFound
	}
	f, err := d.store.find(r.Context(), t)
	if err != nil {
		return nil, err
	}
	if f == nil || f.Name != name || f.over(d.env.Clock.Now()) {
		return nil, notFound
	}
	return f, nil
}

// given is asked for those who have the address that the slot was given with.
// Nobody else learns whether there is something.
func (d *door) given(r *http.Request) (*File, error) {
	text, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, root), "/")
	t, good := parseToken(text)
	if !good || !d.proves(t, r.URL.Query().Get(putKey)) {
		return nil, &refusal{http.StatusForbidden, "this is not the address that was given for uploading"}
	}
	return d.asked(r)
}

// delete removes a file for whoever has uploaded it.
func (d *door) delete(w http.ResponseWriter, r *http.Request) error {
	f, err := d.given(r)
	if err != nil {
		return err
	}
	if f.state == stateClaimed {
		return &refusal{http.StatusConflict, "the file is being uploaded"}
	}
	if _, err := d.Remove(r.Context(), f.Owner, f.ID); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
