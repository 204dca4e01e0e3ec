package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"parley/plugins/admin/client"
	"parley/plugins/config"
	"parley/stream"
)

// severity of what check has found.
type severity string

const (
	good    severity = "ok"
	warning severity = "warning"
	bad     severity = "error"
)

// result is one thing that was looked at.
type result struct {
	Area    string   `json:"area"`
	State   severity `json:"state"`
	Message string   `json:"message"`
	Fix     string   `json:"fix,omitempty"` // what to do about it
}

func ok(area, format string, args ...any) result {
	return result{area, good, fmt.Sprintf(format, args...), ""}
}

func warn(area, fix, format string, args ...any) result {
	return result{area, warning, fmt.Sprintf(format, args...), fix}
}

func fault(area, fix, format string, args ...any) result {
	return result{area, bad, fmt.Sprintf(format, args...), fix}
}

// examination is an installation with what its parts need to be looked at.
type examination struct {
	*setup
	streamer stream.Config
	running  bool     // a server answers on the data directory
	domains  []string // that it serves; the file's, when it does not run
	now      time.Time
	built    time.Time // zero: unknown
	dns      resolver
}

// resolver asks the DNS; net.Resolver is one.
type resolver interface {
	LookupSRV(ctx context.Context, service, proto, name string) (cname string, addrs []*net.SRV, err error)
	LookupHost(ctx context.Context, host string) ([]string, error)
}

// checkWithin bounds one check of something outside this process.
const checkWithin = 10 * time.Second

func checkCommand() *cobra.Command {
	var p place
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Look for what is wrong with the installation, and say how to put it right",
		Long: `Looks at the configuration, certificates, DNS records, ports, the database, disk
space, the clock and limits. The exit status is 1 when something is an error;
warnings leave it 0.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var all []result
			s, err := p.load(cmd)
			if err != nil {
				all = configurationFaults(err)
			} else {
				all = append(all, ok("configuration", "%s is right", orDefaults(p.file)))
				all = append(all, s.examine(cmd.Context())...)
			}
			return printResults(cmd, all, asJSON)
		},
	}
	p.common(cmd)
	p.doors(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func orDefaults(file string) string {
	if file == "" {
		return "the default"
	}
	return file
}

func configurationFaults(err error) []result {
	var found config.Findings
	if !errors.As(err, &found) {
		return []result{fault("configuration", "name the file with --config, and see that it can be read", "%v", err)}
	}
	var out []result
	for _, f := range found {
		fix := f.Hint
		if fix == "" {
			fix = "`parley config doc` explains every key"
		}
		out = append(out, fault("configuration", fix, "%s", f.Error()))
	}
	return out
}

// examine looks at everything but the configuration itself.
func (s *setup) examine(ctx context.Context) []result {
	c, err := streamConfig(s.tree)
	if err != nil {
		return []result{fault("configuration", "", "%v", err)}
	}
	e := &examination{setup: s, streamer: c, domains: s.settings.Domains, now: time.Now(), built: thisBuild().Time, dns: net.DefaultResolver}
	server, err := client.Open(ctx, s.settings.Data)
	if e.running = err == nil; e.running {
		if all, err := server.Domains(ctx); err == nil {
			e.domains = all
		}
	}
	var out []result
	if err != nil && !errors.Is(err, client.ErrNotRunning) {
		out = append(out, warn("server", "run this as the server's user or as root", "%v", err))
	}
	looks := []func(context.Context) []result{e.directory, e.keys, e.secrets}
	if s.tree.ServerEnabled(stream.Name) {
		looks = append(looks, e.certificates, e.records, e.ports, e.descriptors)
	}
	for _, look := range append(looks, e.cluster, e.clock, e.database) { // the last: it may give up root
		bound, cancel := context.WithTimeout(ctx, checkWithin)
		out = append(out, look(bound)...)
		cancel()
	}
	return out
}

func printResults(cmd *cobra.Command, all []result, asJSON bool) error {
	w := cmd.OutOrStdout()
	count := map[severity]int{}
	for _, r := range all {
		count[r.State]++
	}
	if asJSON {
		if err := printJSON(w, all); err != nil {
			return err
		}
	} else {
		for _, r := range all {
			fmt.Fprintf(w, "%-8s %-14s %s\n", r.State, r.Area, indent(r.Message))
			if r.Fix != "" {
				fmt.Fprintf(w, "%-8s %-14s → %s\n", "", "", indent(r.Fix))
			}
		}
		fmt.Fprintf(w, "\nok %d, warnings %d, errors %d\n", count[good], count[warning], count[bad])
	}
	if count[bad] > 0 {
		return errSaid
	}
	return nil
}

func indent(text string) string {
	return strings.ReplaceAll(text, "\n", "\n"+strings.Repeat(" ", 24))
}
