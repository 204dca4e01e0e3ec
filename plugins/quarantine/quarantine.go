// Package quarantine keeps stanzas that handlers have panicked at three times,
// for whoever has to find out why (reliability row 38).
//
// The processor counts and sets aside (processor/poison.go); here is what comes
// of it:
//
//	Poisoned hook  a row: who, when, why, and the bytes, sealed when encryption
//	               at rest is on; the archive then lets go of its pending row
//	admin socket   GET    /v1/quarantine       the rows without their bytes
//	               GET    /v1/quarantine/{id}  one with its bytes
//	               DELETE /v1/quarantine/{id}
//
// A row never returns by itself: whoever mended the handler asks the sender to
// send again.
package quarantine

import (
	"context"
	"embed"
	"net/http"
	"strconv"
	"time"

	"parley/parser/jid"
	"parley/plugins"
	"parley/plugins/admin"
	"parley/processor"
	"parley/storage/atrest"
)

// Name is the plugin's name.
const Name = "quarantine"

//go:embed sql
var migrations embed.FS

// Plugin provides the two components.
var Plugin = plugins.Plugin{
	Name:     Name,
	Doc:      "Keeps stanzas that handlers panicked at, for whoever mends them.",
	Requires: []string{admin.Name},
	Components: []plugins.Maker{
		{Server: processor.Name, Defaults: defaults(), New: newKeeper},
		{Server: admin.Name, New: newDoor},
	},
	Migrations: migrations,
	Sealed:     []atrest.Table{sealed},
	Contract:   newStore,
}

// Config is the section of the processor's component.
type Config struct {
	Max int `yaml:"max" min:"1" max:"1000000" unit:"stanzas" doc:"Stanzas that are kept; beyond it the oldest go."`
}

func defaults() *Config { return &Config{Max: 1000} }

// keeper works in the processor.
type keeper struct {
	cfg   Config
	store *store
}

var _ processor.Component = (*keeper)(nil)

func newKeeper(env plugins.Env, c plugins.Config) (plugins.Component, error) {
	k := &keeper{cfg: *defaults()}
	if err := c.Decode(&k.cfg); err != nil {
		return nil, err
	}
	var err error
	k.store, err = plugins.Need[*store](env, Name)
	return k, err
}

// Start implements plugins.Component.
func (*keeper) Start(context.Context) error { return nil }

// Stop implements plugins.Component.
func (*keeper) Stop(context.Context) error { return nil }

// Register implements processor.Component.
func (k *keeper) Register(r *processor.Registrar) {
	processor.On(r, processor.Poisoned, processor.Normal, func(ctx context.Context, x *processor.Poison) (processor.Verdict, error) {
		if err := k.store.put(ctx, x, k.cfg.Max); err != nil {
			return processor.Continue, err
		}
		x.Kept = true
		return processor.Continue, nil
	})
	processor.On(r, processor.AccountRemoved, processor.Normal, func(ctx context.Context, account jid.JID) (processor.Verdict, error) {
		return processor.Continue, k.store.forget(ctx, account)
	})
}

// Entry is a stanza on the wire.
type Entry struct {
	ID      int64     `json:"id"`
	Since   time.Time `json:"since"`
	Sender  string    `json:"sender"`            // bare
	Account string    `json:"account,omitempty"` // whose pending message it was, bare
	Pending int64     `json:"pending,omitempty"` // and its row
	Reason  string    `json:"reason"`
	Tries   int       `json:"tries"`
	Stanza  string    `json:"stanza,omitempty"`
}

// door has the routes.
type door struct{ store *store }

var _ admin.Component = (*door)(nil)

func newDoor(env plugins.Env, _ plugins.Config) (plugins.Component, error) {
	s, err := plugins.Need[*store](env, Name)
	return &door{s}, err
}

// Start implements plugins.Component.
func (*door) Start(context.Context) error { return nil }

// Stop implements plugins.Component.
func (*door) Stop(context.Context) error { return nil }

// Routes implements admin.Component.
func (d *door) Routes(mux *http.ServeMux) {
	mux.HandleFunc("GET /v1/quarantine", func(w http.ResponseWriter, r *http.Request) {
		list, err := d.store.list(r.Context())
		answer(w, list, err)
	})
	mux.HandleFunc("GET /v1/quarantine/{id}", func(w http.ResponseWriter, r *http.Request) {
		e, err := d.store.show(r.Context(), idOf(r))
		answer(w, e, err)
	})
	mux.HandleFunc("DELETE /v1/quarantine/{id}", func(w http.ResponseWriter, r *http.Request) {
		if err := d.store.drop(r.Context(), idOf(r)); err != nil {
			admin.WriteError(w, err)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
}

// idOf is the path's; 0, which is nobody's, for what is no number.
func idOf(r *http.Request) int64 {
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil {
		return 0
	}
	return id
}

func answer(w http.ResponseWriter, v any, err error) {
	if err != nil {
		admin.WriteError(w, err)
		return
	}
	admin.Write(w, v)
}
