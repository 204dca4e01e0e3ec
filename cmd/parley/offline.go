package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"parley/plugins"
	"parley/plugins/admin"
	"parley/plugins/admin/client"
	"parley/plugins/config"
	"parley/stream"
)

// reached is a server that answers, and how to let go of it.
type reached struct {
	*client.Client
	release func() error
}

// reach opens the administration of the server that runs on the data
// directory.
func (p *place) reach(cmd *cobra.Command) (*reached, error) {
	s, err := p.load(cmd)
	if err != nil {
		return nil, unread(p.file, err)
	}
	c, err := client.Open(cmd.Context(), s.settings.Data)
	if err != nil {
		return nil, err
	}
	return &reached{c, func() error { return nil }}, nil
}

// reachAlways is reach; when no server runs it starts a house without doors in
// this process, so that what is done to an account goes through the same
// components, and every feature hears of it.
func (p *place) reachAlways(cmd *cobra.Command) (*reached, error) {
	flags, err := p.given(cmd)
	if err != nil {
		return nil, err
	}
	return reachOrStart(cmd.Context(), cmd.ErrOrStderr(), p.file, flags)
}

func reachOrStart(ctx context.Context, logs io.Writer, file string, flags []config.Flag) (*reached, error) {
	s, err := read(file, flags)
	if err != nil {
		return nil, unread(file, err)
	}
	c, err := client.Open(ctx, s.settings.Data)
	switch {
	case err == nil:
		return &reached{c, func() error { return nil }}, nil
	case !errors.Is(err, client.ErrNotRunning):
		return nil, err
	}
	s, err = read(file, append(flags,
		config.Flag{Name: "offline", Path: config.ServerPath(stream.Name) + ".enabled", Value: "false"},
		config.Flag{Name: "offline", Path: config.ServerPath(admin.Name) + ".enabled", Value: "true"},
		config.Flag{Name: "offline", Path: "cluster.nats.urls", Value: "[]"}, // it works on the database alone
		config.Flag{Name: "offline", Path: "cluster.nats.embedded.listen", Value: ""},
		config.Flag{Name: "offline", Path: "cluster.nats.embedded.advertise", Value: ""},
		config.Flag{Name: "offline", Path: "cluster.nats.embedded.routes", Value: "[]"},
		config.Flag{Name: "offline", Path: "log.level", Value: "error"}))
	if err != nil {
		return nil, err
	}
	return s.offline(ctx, logs)
}

// unread adds how to do without a configuration that is wrong.
func unread(file string, err error) error {
	if file == "" {
		return err
	}
	return fmt.Errorf("%w\nA server that runs is found without its file: give --data DIR instead of --config", err)
}

// offline starts the house without its doors.
func (s *setup) offline(ctx context.Context, logs io.Writer) (*reached, error) {
	log, level, err := newLog(logs, s.settings.Log)
	if err != nil {
		return nil, err
	}
	if err := becomeOwner(s.settings.Data); err != nil {
		return nil, err
	}
	h, err := s.open(ctx, log, level)
	var beside *plugins.BesideError
	switch {
	case errors.As(err, &beside):
		return nil, fmt.Errorf("no server runs on %s, but these nodes work on its database: %s. Nothing was done, because they would not have heard of it: run this command where one of them runs, with the --config or --data of that node (one that was killed counts until its lease is over)",
			s.settings.Data, strings.Join(beside.Nodes, ", "))
	case err != nil:
		return nil, err
	}
	stop := func() error {
		bound, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopWithin)
		defer cancel()
		return h.stop(bound)
	}
	if err := h.host.Start(ctx); err != nil {
		return nil, errors.Join(err, stop())
	}
	c, err := s.answering(ctx, h)
	if err != nil {
		return nil, errors.Join(err, stop())
	}
	return &reached{c, stop}, nil
}

// answering waits for the administration of a house that was just started.
func (s *setup) answering(ctx context.Context, h *house) (*client.Client, error) {
	for {
		c, err := client.Open(ctx, s.settings.Data)
		if !errors.Is(err, client.ErrNotRunning) {
			return c, err
		}
		select {
		case err := <-h.host.Fatal():
			return nil, err
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-pause():
		}
	}
}
