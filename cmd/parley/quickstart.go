package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/mail"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"parley/parser/jid"
	"parley/plugins/accountadmin"
	"parley/plugins/admin"
)

// quickstart is what the command was told.
type quickstart struct {
	domain     string
	email      string // of ACME; "": a self-signed certificate
	selfSigned bool
	data, file string
	accounts   []string // localparts or addresses
	force      bool
}

func quickstartCommand() *cobra.Command {
	var q quickstart
	cmd := &cobra.Command{
		Use:   "quickstart DOMAIN",
		Short: "Write a configuration for a domain, make the first accounts, say what is left to do",
		Example: `  parley quickstart example.org --email you@example.org --account alice,bob
  parley quickstart chat.internal --self-signed`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			q.domain = args[0]
			return q.run(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.StringVar(&q.email, "email", "", "get certificates by ACME (Let's Encrypt), which writes to this address when something is wrong")
	f.BoolVar(&q.selfSigned, "self-signed", false, "use a self-signed certificate, which people accept in their clients")
	f.StringVar(&q.data, "data", "data", "directory of the installation")
	f.StringVarP(&q.file, "config", "c", "parley.yaml", "configuration file to write")
	f.StringSliceVar(&q.accounts, "account", []string{"admin"}, "accounts to make; may be repeated, or separated by commas")
	f.BoolVar(&q.force, "force", false, "replace the configuration file")
	return cmd
}

func (q *quickstart) run(ctx context.Context, out, logs io.Writer) error {
	if err := q.check(); err != nil {
		return err
	}
	if err := q.write(); err != nil {
		return err
	}
	s, err := read(q.file, nil)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "Wrote %s.\n\n", q.file)
	if err := q.people(ctx, out, logs); err != nil {
		return err
	}
	q.dns(out, s)
	q.next(out)
	return nil
}

// check prepares what was given.
func (q *quickstart) check() error {
	d, err := jid.Parse(q.domain)
	if err != nil || !d.IsDomain() {
		return fmt.Errorf("%q is not a domain", q.domain)
	}
	q.domain = d.Domain()
	switch {
	case q.email != "" && q.selfSigned:
		return errors.New("which certificate? --email gets one from Let's Encrypt, --self-signed makes one: give one of the two")
	case q.email == "" && !q.selfSigned && private(q.domain):
		q.selfSigned = true // nothing else is possible
	case q.email == "" && !q.selfSigned:
		return errors.New("which certificate? --email YOU@… gets one from Let's Encrypt, --self-signed makes one")
	case q.email != "" && private(q.domain):
		return fmt.Errorf("no authority gives a certificate for %s: use --self-signed", q.domain)
	}
	if q.email != "" {
		if _, err := mail.ParseAddress(q.email); err != nil {
			return fmt.Errorf("--email: %w", err)
		}
	}
	for i, a := range q.accounts {
		if !strings.Contains(a, "@") {
			a += "@" + q.domain
		}
		j, err := jid.Parse(a)
		if err != nil || !j.IsBare() || j.Local() == "" || j.Domain() != q.domain {
			return fmt.Errorf("%q is not the name of an account at %s", q.accounts[i], q.domain)
		}
		q.accounts[i] = j.String()
	}
	for _, p := range []*string{&q.data, &q.file} {
		if *p, err = filepath.Abs(*p); err != nil {
			return err
		}
	}
	return nil
}

// write makes the configuration file; one that is there stays, unless forced.
func (q *quickstart) write() error {
	mode := os.O_WRONLY | os.O_CREATE | os.O_EXCL
	if q.force {
		mode = os.O_WRONLY | os.O_CREATE | os.O_TRUNC
	}
	if err := makeReadable(filepath.Dir(q.file)); err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	f, err := os.OpenFile(q.file, mode, 0o600)
	if errors.Is(err, os.ErrExist) {
		return fmt.Errorf("%s is there already; --force replaces it", q.file)
	}
	if err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	_, err = f.WriteString(q.configuration())
	return errors.Join(err, f.Close())
}

// makeReadable makes the directory of the configuration unless it is there. The
// server's own user has to enter it; the file is what is protected.
func makeReadable(dir string) error {
	_, err := os.Stat(dir)
	if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return errors.Join(os.MkdirAll(dir, 0o755), os.Chmod(dir, 0o755)) // Chmod: the umask keeps others out
}

// configuration is the file. Values in quotes are YAML as they are JSON.
func (q *quickstart) configuration() string {
	tls := `    # A self-signed certificate is made in the data directory. For one of your
    # own: certificate: FILE and key: FILE. By ACME: acme: {enabled: true, email: YOU}.
    tls: {}
`
	if q.email != "" {
		tls = fmt.Sprintf(`    tls:
      # Certificates from Let's Encrypt, renewed by themselves. Port 80 of this
      # machine must be reachable under the domain.
      acme:
        enabled: true
        email: %q
        http: ":80"
`, q.email)
	}
	return fmt.Sprintf(`# Parley at %[1]s.
# Every key with its documentation: parley config doc. After a change:
# parley config check FILE, then parley config reload (or systemctl reload parley).

domains: [%[2]q]

# Database, certificates, files and the administration socket. Back it up.
data: %[3]q

log:
  level: info     # debug, info, warn, error
  format: text    # json for collectors

# SQLite in the data directory carries thousands of people. For Postgres:
# storage: {driver: postgres, dsn_file: /etc/parley/dsn}

servers:
  streamer:
    c2s: ":5222"               # clients over TCP with STARTTLS
    c2s_tls: ":5223"           # clients over direct TLS
    https: ":5443"             # secure WebSocket
    http: "127.0.0.1:5280"     # for a proxy on this machine; health and metrics
%[4]s`, q.domain, q.domain, q.data, tls)
}

// people makes the accounts and prints each with its password and a code that
// leads to it (RFC 5122).
func (q *quickstart) people(ctx context.Context, out, logs io.Writer) (err error) {
	c, err := reachOrStart(ctx, logs, q.file, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.release()) }()
	for _, a := range q.accounts {
		password := newPassword()
		_, err := accountadmin.Client{Client: c.Client}.Create(ctx, a, password)
		var p *admin.Problem
		if errors.As(err, &p) && p.Status == http.StatusConflict {
			fmt.Fprintf(out, "Account   %s is there already; its password stays\n\n", a)
			continue
		}
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "Account   %s\nPassword  %s   (shown this once)\n", a, password)
		if err := printQR(out, "xmpp:"+a); err != nil {
			return err
		}
		fmt.Fprintln(out)
	}
	return nil
}

// dns prints the records that clients look for.
func (q *quickstart) dns(out io.Writer, s *setup) {
	c, err := streamConfig(s.tree)
	if err != nil || private(q.domain) {
		fmt.Fprintf(out, "%s needs no DNS records: tell clients this machine's address.\n\n", q.domain)
		return
	}
	fmt.Fprintf(out, "DNS records to add, with the addresses of this machine:\n\n%s\n", addressRecords(q.domain))
	for _, sv := range services(c.C2S, c.C2STLS) {
		fmt.Fprintln(out, srvRecord(q.domain, sv))
	}
	fmt.Fprintln(out)
}

func (q *quickstart) next(out io.Writer) {
	fmt.Fprintf(out, `Next:
  %[3]s check --config %[1]s       what is still missing
  %[3]s serve --config %[1]s       run it here
As a service: examples/parley.service is a systemd unit and says how to install
it. It wants quickstart with --data /var/lib/parley --config /etc/parley/parley.yaml
More people: %[3]s account add NAME@%[2]s --config %[1]s
`, q.file, q.domain, called())
}

// called is how this program was called, for what somebody is to type next.
func called() string {
	if strings.ContainsRune(os.Args[0], os.PathSeparator) {
		return os.Args[0]
	}
	return "parley"
}
