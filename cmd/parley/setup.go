package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"syscall"

	"github.com/spf13/cobra"

	"parley/plugins"
	"parley/plugins/all"
	"parley/plugins/config"
)

// everything is what this binary runs.
func everything() []plugins.Plugin { return all.Plugins() }

// place says which installation a command is about. Its flags win over the
// file, the file over the defaults (plugins/config).
type place struct {
	file  string
	extra []config.Flag // what the command itself sets
	flags []pathFlag
}

// pathFlag is a flag that sets a key of the configuration.
type pathFlag struct {
	name, path, usage string
	list              bool // may be repeated; the key is a list
}

// common adds the flags that every command on an installation has.
func (p *place) common(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&p.file, "config", "c", "", "configuration file; without one the defaults serve localhost")
	p.add(cmd,
		pathFlag{name: "domain", path: "domains", usage: "domain to serve; may be repeated", list: true},
		pathFlag{name: "data", path: "data", usage: "directory of the installation"},
	)
}

// doors adds the flags for the streamer's addresses.
func (p *place) doors(cmd *cobra.Command) {
	p.add(cmd,
		pathFlag{name: "c2s", path: "servers.streamer.c2s", usage: "address for clients (STARTTLS); empty: none"},
		pathFlag{name: "c2s-tls", path: "servers.streamer.c2s_tls", usage: "address for clients over direct TLS; empty: none"},
		pathFlag{name: "http", path: "servers.streamer.http", usage: "address for HTTP (WebSocket, health, metrics); empty: none"},
		pathFlag{name: "https", path: "servers.streamer.https", usage: "address for HTTPS; empty: none"},
		pathFlag{name: "log-level", path: "log.level", usage: "debug, info, warn or error"},
		pathFlag{name: "log-format", path: "log.format", usage: "text or json"},
	)
}

func (p *place) add(cmd *cobra.Command, flags ...pathFlag) {
	for _, f := range flags {
		if f.list {
			cmd.Flags().StringArray(f.name, nil, f.usage)
		} else {
			cmd.Flags().String(f.name, "", f.usage)
		}
		p.flags = append(p.flags, f)
	}
}

// given collects the flags that are on the command line.
func (p *place) given(cmd *cobra.Command) ([]config.Flag, error) {
	out := slices.Clone(p.extra)
	for _, f := range p.flags {
		if !cmd.Flags().Changed(f.name) {
			continue
		}
		value, err := "", error(nil)
		if f.list {
			var values []string
			values, err = cmd.Flags().GetStringArray(f.name)
			value = yamlList(values)
		} else {
			value, err = cmd.Flags().GetString(f.name)
		}
		if err != nil {
			return nil, fmt.Errorf("flag --%s: %w", f.name, err)
		}
		out = append(out, config.Flag{Name: f.name, Path: f.path, Value: value})
	}
	return out, nil
}

// yamlList writes texts as a YAML flow sequence.
func yamlList(values []string) string {
	out := "["
	for i, v := range values {
		if i > 0 {
			out += ", "
		}
		out += fmt.Sprintf("%q", v)
	}
	return out + "]"
}

// setup is a configuration that was read.
type setup struct {
	plugins  []plugins.Plugin
	schema   *config.Schema
	tree     *config.Tree
	settings plugins.Settings
	reload   func() (*config.Tree, error)
}

// load reads the configuration.
func (p *place) load(cmd *cobra.Command) (*setup, error) {
	flags, err := p.given(cmd)
	if err != nil {
		return nil, err
	}
	return read(p.file, flags)
}

func read(file string, flags []config.Flag) (*setup, error) {
	s := &setup{plugins: everything(), settings: *plugins.DefaultSettings()}
	var err error
	if s.schema, err = plugins.Schema(s.plugins); err != nil {
		return nil, err
	}
	s.reload = func() (*config.Tree, error) {
		return config.Load(s.schema, file, config.Inputs{Environ: os.Environ(), Flags: flags})
	}
	if s.tree, err = s.reload(); err != nil {
		var found config.Findings
		if errors.As(err, &found) {
			err = fmt.Errorf("configuration: %w", err)
		}
		return nil, err
	}
	return s, s.tree.Decode("", &s.settings)
}

// prepareData makes the data directory, which nobody else may enter: keys,
// the database and the administration socket are in it.
func prepareData(dir string) error {
	st, err := os.Stat(dir)
	switch {
	case os.IsNotExist(err):
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("data directory: %w", err)
		}
		return nil
	case err != nil:
		return fmt.Errorf("data directory: %w", err)
	case !st.IsDir():
		return fmt.Errorf("data directory: %w", &fs.PathError{Op: "use", Path: dir, Err: syscall.ENOTDIR})
	}
	return nil
}

// becomeOwner gives up root for the owner of the data directory, so that what
// this process makes in it is not root's: the server could not open it.
func becomeOwner(dir string) error {
	st, err := os.Stat(dir)
	if err != nil || os.Geteuid() != 0 {
		return nil // what is not there yet is made by whoever runs this
	}
	owner, ok := st.Sys().(*syscall.Stat_t)
	if !ok || owner.Uid == 0 {
		return nil
	}
	uid, gid := int(owner.Uid), int(owner.Gid)
	if err := errors.Join(syscall.Setgroups([]int{gid}), syscall.Setgid(gid), syscall.Setuid(uid)); err != nil {
		return fmt.Errorf("become the owner of %s: %w", dir, err)
	}
	return nil
}
