package script

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"
)

// DefaultTimeout bounds one expectation. It only ends a script that fails.
const DefaultTimeout = 5 * time.Second

// Runner runs scripts against one server. Fields are set before the first Run and not changed afterwards; Run may be
// called from several goroutines when the Target allows it.
type Runner struct {
	Target     Target
	Timeout    time.Duration // per expectation; 0 is DefaultTimeout
	Settle     time.Duration // waited before a silence is checked; 0 against our own server, where round trips prove it
	Via        Via           // how clients log in unless the script says
	TLS        *tls.Config   // nil: any certificate is accepted
	UserPrefix string        // put before every account's name
	Trace      io.Writer     // everything sent and received, as it happens; nil for none
	traceLock  sync.Mutex
}

// Outcome of a script.
type Outcome uint8

const (
	Passed Outcome = iota
	Failed
	Skipped
)

// Result of one run.
type Result struct {
	Outcome Outcome
	Reason  string // why it was skipped, or the failure in one line
	Report  string // Failed: the transcript and what was expected
}

// skip ends a script without judging it.
type skip struct{ reason string }

func (s skip) Error() string { return s.reason }

// run is the state of one script being run.
type run struct {
	*Runner
	script   *Script
	opts     *options
	clients  map[string]*client
	order    []string
	accounts map[string]string // account → password
	binds    binds
	suffix   string
	current  *client // whose $id a pattern means
	freshID  string
	lines    []transcriptLine
}

// Run runs a script. An error is never returned: whatever went wrong is in the Result.
func (r *Runner) Run(ctx context.Context, s *Script) Result {
	x := &run{Runner: r, script: s, clients: map[string]*client{}, accounts: map[string]string{}, binds: binds{}, suffix: randomText(6)}
	x.opts = &options{target: r.Target, timeout: r.timeout(), tls: r.TLS, via: r.Via, trace: r.trace}
	if x.opts.tls == nil {
		x.opts.tls = anyCertificate()
	}
	defer x.end()
	if err := x.prepare(ctx); err != nil {
		return x.result(step{line: 1, text: "(preparation)"}, err)
	}
	for _, st := range s.steps {
		x.begin(st)
		if err := x.step(ctx, st); err != nil {
			return x.result(st, err)
		}
	}
	return Result{}
}

func (r *Runner) timeout() time.Duration {
	if r.Timeout == 0 {
		return DefaultTimeout
	}
	return r.Timeout
}

func (r *Runner) trace(who, direction, text string) {
	if r.Trace != nil {
		r.traceLock.Lock()
		defer r.traceLock.Unlock()
		fmt.Fprintf(r.Trace, "%s %s %s\n", who, direction, text)
	}
}

// prepare configures the server and makes the accounts.
func (x *run) prepare(ctx context.Context) error {
	overlay, has := x.script.Files["config.yaml"]
	if c, ok := x.Target.(Configurer); ok {
		named := strings.NewReplacer("$run", x.suffix, "$domain", x.Target.Domain()) // who an account of the script is
		if err := c.Configure(ctx, []byte(named.Replace(string(overlay)))); err != nil {
			return fmt.Errorf("configure: %w", err)
		}
	} else if has {
		return skip{"needs a configuration of its own"}
	}
	for i, d := range x.script.clients {
		c := &client{name: d.name, place: i, opts: x.opts, decl: d, wanted: d.resource, user: x.UserPrefix + d.account + "-" + x.suffix}
		if _, made := x.accounts[d.account]; !made {
			password := randomText(20)
			if err := x.Target.Account(ctx, c.user, password); err != nil {
				return fmt.Errorf("account %s: %w", c.user, err)
			}
			x.accounts[d.account] = password
		}
		c.password = x.accounts[d.account]
		x.add(c)
	}
	return nil
}

func (x *run) add(c *client) {
	if _, known := x.clients[c.name]; !known {
		x.order = append(x.order, c.name)
	}
	x.clients[c.name] = c
}

// end closes what is still open.
func (x *run) end() {
	for _, n := range x.order {
		c := x.clients[n]
		if c.link != nil {
			_ = c.farewell() // the connection may be gone already
			c.drop()
		}
	}
}

// step runs one line.
func (x *run) step(ctx context.Context, st step) error {
	limit := x.timeout()
	if st.op == opVerb || st.op == opAll {
		limit *= 4 // logins and restarts are several exchanges
	}
	long, cancelLong := context.WithTimeout(ctx, x.timeout()*4)
	defer cancelLong()
	if err := x.ensureMentioned(long, st); err != nil {
		return err
	}
	if st.op == opAll {
		return x.directive(long, st)
	}
	c := x.clients[st.who]
	if c == nil {
		return fmt.Errorf("%s has no connection yet: its connect line comes later", st.who)
	}
	x.current = c
	if st.op != opVerb || !startsConnection[st.verb] {
		if err := x.ensure(long, c); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	switch st.op {
	case opSend, opRaw:
		return x.send(c, st)
	case opOptional:
		on := x.roadOf(c, st.patterns[0])
		if on == either {
			on = near
		}
		c.optional[on] = append(c.optional[on], st.patterns[0])
		return nil
	case opExpect, opExact:
		return x.expect(ctx, c, st)
	case opAnyOrder:
		return x.anyOrder(ctx, c, st)
	case opSilence:
		return x.silence(ctx, c)
	}
	return x.verb(ctx, c, st)
}

// startsConnection are the verbs before which a client is not logged in by itself.
var startsConnection = map[string]bool{"connect": true, "auth": true, "resume": true}

// ensure logs a client in when it is used for the first time.
func (x *run) ensure(ctx context.Context, c *client) error {
	if c.link != nil {
		return nil
	}
	if c.started || c.user == "" {
		return fmt.Errorf("%s is not connected any more: use connect or resume", c.name)
	}
	c.started = true
	if err := c.connect(ctx); err != nil {
		return err
	}
	x.note(c.name, "·", "logged in as "+c.full)
	return nil
}

// ensureMentioned logs in the clients whose full JID and the like a line needs.
func (x *run) ensureMentioned(ctx context.Context, st step) error {
	for _, tok := range variable.FindAllString(st.text, -1) {
		base, field := splitVariable(tok)
		c := x.clients[base]
		if c == nil || c.started || c.user == "" || field == "" || field == "user" || field == "password" || field == "plain" {
			continue
		}
		if err := x.ensure(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

// lookup resolves what is not bound by a pattern.
func (x *run) lookup(base, field string) (string, bool, error) {
	if c, ok := x.clients[base]; ok {
		return c.field(field)
	}
	v := ""
	switch base {
	case "domain":
		v = x.Target.Domain()
	case "run":
		v = x.suffix
	case "id":
		if v = x.freshID; v == "" && x.current != nil {
			v = x.current.lastID
		}
	default:
		v = x.Target.Service(base)
		if v == "" && reserved[base] {
			return "", false, skip{"the server has no " + base + " service"}
		}
	}
	if v != "" && field != "" {
		v += "." + field
	}
	return v, v != "", nil
}

// field is what $name.field stands for.
func (c *client) field(field string) (string, bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v := ""
	switch field {
	case "":
		if v = c.user + "@" + c.opts.target.Domain(); c.user == "" {
			v, _, _ = strings.Cut(c.full, "/")
		}
	case "full":
		v = c.full
	case "user":
		v = c.user
	case "resource":
		_, v, _ = strings.Cut(c.full, "/")
	case "password":
		v = c.password
	case "plain":
		v = c.plain()
	case "h":
		v = strconv.FormatUint(uint64(c.sm.handled), 10)
	case "sent":
		v = strconv.FormatUint(uint64(c.sm.sent), 10)
	case "smid":
		v = c.sm.id
	case "streamid":
		v = c.stream
	}
	if v == "" {
		return "", false, fmt.Errorf("$%s.%s has no value yet", c.name, field)
	}
	return v, true, nil
}

// send expands and sends a line. $id is one fresh value for the whole line.
func (x *run) send(c *client, st step) error {
	x.freshID = ""
	if strings.Contains(st.body, "$id") {
		x.freshID = "id-" + randomText(8)
		c.lastID = x.freshID
	}
	escape := attrEscaper.Replace
	if st.op == opRaw {
		escape = func(s string) string { return s }
	}
	text, err := expand(st.body, x.binds, x.lookup, escape)
	x.freshID = ""
	if err != nil {
		return err
	}
	x.note(c.name, "→", text)
	if st.op == opRaw {
		return c.write(text)
	}
	return c.send(text)
}

// skipped tells whether an error says that the target cannot, rather than that it is wrong.
func skipped(err error) (string, bool) {
	var s skip
	if errors.As(err, &s) {
		return s.reason, true
	}
	return fmt.Sprint(err), errors.Is(err, ErrUnsupported)
}
