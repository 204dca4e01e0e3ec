package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"parley/plugins"
	"parley/storage"
	"parley/stream"
)

// house is a Host with its database.
type house struct {
	host *plugins.Host
	db   storage.DB
}

// open opens the database and makes the Host. Nothing runs yet.
func (s *setup) open(ctx context.Context, log *slog.Logger, level *slog.LevelVar) (*house, error) {
	if err := prepareData(s.settings.Data); err != nil {
		return nil, err
	}
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	db, err := storage.Open(ctx, s.settings.StorageConfig(), log.With("component", "storage"), reg)
	if err != nil {
		return nil, fmt.Errorf("database: %w%s", err, s.dsnFrom())
	}
	h, err := plugins.New(ctx, plugins.Options{
		Plugins: s.plugins, Tree: s.tree, Reload: s.reload, DB: db, Log: log, Level: level,
		Clock: plugins.SystemClock{}, Metrics: reg, Version: thisBuild().Version, Node: s.node(),
	})
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &house{h, db}, nil
}

// dsnFrom says where the connection string of Postgres is from.
func (s *setup) dsnFrom() string {
	if s.settings.Storage.Driver != "postgres" {
		return ""
	}
	for _, key := range []string{"storage.dsn_file", "storage.dsn"} {
		for _, e := range s.tree.Show() {
			if e.Path == key {
				return fmt.Sprintf(" (see that Postgres runs and that %s is right; it is from %s)", key, e.Source)
			}
		}
	}
	return ""
}

func (s *setup) node() string {
	if s.settings.Node != "" {
		return s.settings.Node
	}
	name, err := os.Hostname()
	if err != nil {
		return "parley"
	}
	return name
}

// stop drains the Host and closes the database.
func (h *house) stop(ctx context.Context) error {
	return errors.Join(h.host.Stop(ctx), h.db.Close())
}

// streamer is the Server with the doors.
func (h *house) streamer() (*stream.Server, bool) {
	s, ok := h.host.Server(stream.Name)
	if !ok {
		return nil, false
	}
	st, ok := s.(*stream.Server)
	return st, ok
}

// addresses are those of the streamer's doors, once they are open.
func (h *house) addresses() map[string]string {
	st, ok := h.streamer()
	if !ok {
		return nil
	}
	return st.Addresses()
}
