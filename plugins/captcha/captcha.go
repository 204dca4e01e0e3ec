// Package captcha asks people who want an account, and were not invited, for
// something that programs do not know (XEP-0158 §4; reliability row 11). It is off
// until the configuration turns it on, and stands in front of plugins/register.
//
//	the form is asked for  → a challenge is open for that stream (open.go)
//	the form comes back    → its answer is compared (question.go), or shown to whoever
//	                         keeps the page where it was given (site.go)
//	the account is there   → the challenge is over
//
// A wrong answer ends a challenge, a right one is good for one account: on that
// stream, in this process, for a while.
package captcha

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"parley/parser/stanza"
	"parley/parser/stanza/form"
	"parley/plugins"
	"parley/plugins/config"
	"parley/plugins/register"
	"parley/stream"
)

// Name is the plugin's name.
const Name = "captcha"

// Plugin provides the component.
var Plugin = plugins.Plugin{
	Name:       Name,
	Doc:        "Asks people who want an account something that programs do not know (XEP-0158).",
	Requires:   []string{register.Name},
	Components: []plugins.Maker{{Server: stream.Name, Off: true, Defaults: defaults(), New: newGuard}},
}

// Config is the component's section.
type Config struct {
	Kind      Kind                `yaml:"kind" enum:"questions,page" doc:"questions: one of questions is asked. page: people get a code from a page."`
	Questions map[string][]string `yaml:"questions" doc:"Questions, and what answers each. Case and spaces do not matter."`
	Page      Page                `yaml:"page" doc:"A page that gives codes, and who knows whether they are good: as hCaptcha, Turnstile and reCAPTCHA do it."`
	TTL       time.Duration       `yaml:"ttl" min:"10s" max:"1h" doc:"How long people have for it."`
}

// Kind is what is asked.
type Kind string

// The kinds.
const (
	Questions Kind = "questions"
	Web       Kind = "page"
)

// Page is where people get a code, and how it is verified.
type Page struct {
	URL     string        `yaml:"url" doc:"The page that people open; ?challenge=ID is added. It shows them a code."`
	Verify  string        `yaml:"verify" doc:"Where codes are verified: a POST with secret and response, answered by JSON with success."`
	Secret  config.Secret `yaml:"secret" doc:"What Parley proves itself with there."`
	Address bool          `yaml:"send_address" doc:"The applicant's address is sent there, too (remoteip)."`
	Timeout time.Duration `yaml:"timeout" min:"100ms" max:"30s" doc:"How long it may take; then nobody has passed."`
}

func defaults() *Config {
	return &Config{Kind: Questions, TTL: 10 * time.Minute, Page: Page{Timeout: 5 * time.Second}}
}

// Validate implements config.Validator.
func (c *Config) Validate() error {
	if c.Kind == Web {
		return c.Page.validate()
	}
	if len(c.Questions) == 0 {
		return config.Key("questions", `ask something: {"Which colour has a ripe banana?": [yellow]}`)
	}
	var errs []error
	for q, answers := range c.Questions {
		if plain(q) == "" || len(answers) == 0 {
			errs = append(errs, config.Key(fmt.Sprintf("questions.%q", q), "nothing answers it"))
		}
		for _, a := range answers {
			if plain(a) == "" {
				errs = append(errs, config.Key(fmt.Sprintf("questions.%q", q), "an answer is empty"))
			}
		}
	}
	return errors.Join(errs...)
}

func (p *Page) validate() error {
	var errs []error
	for _, row := range []struct{ key, text string }{{"url", p.URL}, {"verify", p.Verify}} {
		u, err := url.Parse(row.text)
		if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
			errs = append(errs, config.Key("page."+row.key, "%q is not the URL of a page: https://HOST/…", row.text))
			continue
		}
		if ip, err := netip.ParseAddr(u.Hostname()); row.key == "verify" && u.Scheme != "https" && u.Hostname() != "localhost" && (err != nil || !ip.IsLoopback()) {
			errs = append(errs, config.Key("page.verify", "the secret goes there: use https"))
		}
	}
	if p.Secret.IsZero() {
		errs = append(errs, config.Key("page.secret", "is needed (secret_file keeps it out of this file)"))
	}
	return errors.Join(errs...)
}

// guard stands in front of registration.
type guard struct {
	env       plugins.Env
	cfg       Config
	door      *register.Door
	open      open
	questions []question
	site      *site // nil: the kind is not page
	count     *prometheus.CounterVec
	leave     func()
}

var (
	_ stream.Component    = (*guard)(nil)
	_ register.Challenger = (*guard)(nil)
)

func newGuard(env plugins.Env, c plugins.Config) (plugins.Component, error) {
	g := &guard{env: env, cfg: *defaults(), leave: func() {}}
	if err := c.Decode(&g.cfg); err != nil {
		return nil, err
	}
	var err error
	if g.door, err = plugins.Need[*register.Door](env, register.Name); err != nil {
		return nil, err
	}
	g.open = newOpen(env.Clock, g.cfg.TTL)
	if g.cfg.Kind == Web {
		g.site = newSite(g.cfg.Page)
	}
	g.questions = prepare(g.cfg.Questions)
	g.count = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "parley_captcha_total", Help: "Challenges to people who want an account: asked, passed, wrong, unknown (none was open), unverified (nobody could tell)."}, []string{"outcome"})
	if err := env.Metrics.Register(g.count); err != nil {
		return nil, fmt.Errorf("captcha metrics: %w", err)
	}
	return g, nil
}

// Start implements plugins.Component.
func (*guard) Start(context.Context) error { return nil }

// Register implements stream.Component.
func (g *guard) Register(*stream.Registrar) { g.leave = g.door.Guard(g) }

// Stop implements plugins.Component: what is being verified fails.
func (g *guard) Stop(context.Context) error {
	g.leave()
	if g.site != nil {
		g.site.close()
	}
	return nil
}

// field is the answer's (XEP-0158 §6.2).
const field = "qa"

// Challenge implements register.Challenger.
func (g *guard) Challenge(a register.Applicant) register.Challenge {
	g.count.WithLabelValues("asked").Inc()
	if g.site != nil {
		id := g.open.add(a, question{})
		at := g.site.page(id)
		return register.Challenge{ID: id, URL: at, Fields: []form.Field{{
			Var: field, Type: form.TextSingle, Label: "The code from " + at, Required: true,
			Media: []form.Media{{Type: "text/html", URI: at}}, // XEP-0158 §3.1.2
		}}}
	}
	q := pick(g.questions)
	return register.Challenge{ID: g.open.add(a, q), Fields: []form.Field{{Var: field, Type: form.TextSingle, Label: q.text, Required: true}}}
}

// Passed implements register.Challenger. What is not open is not-acceptable like a
// wrong answer: service-unavailable (XEP-0158 §3.1.4) would say that nobody can
// register here (XEP-0077 §3.1).
func (g *guard) Passed(ctx context.Context, a register.Applicant, f *form.Form) error {
	if f == nil {
		return g.refuse("unknown", "more is asked here than a name and a password: ask for the form, or register with another client")
	}
	id := f.Value("challenge")
	q, passed, ok := g.open.take(a, id)
	switch {
	case !ok:
		return g.refuse("unknown", "the form is too old; ask for it again")
	case passed:
		return nil
	}
	good, err := g.judge(ctx, a, id, q, f.Value(field))
	switch {
	case err != nil: // nobody passes whom nobody has vouched for
		g.env.Log.Error("a code could not be verified", "err", err)
		g.count.WithLabelValues("unverified").Inc()
		return stanza.NewError(stanza.ResourceConstraint, "the answer cannot be looked at now; ask for the form again later")
	case !good:
		return g.refuse("wrong", "the answer is wrong; ask for the form again")
	}
	g.open.pass(a, id)
	g.count.WithLabelValues("passed").Inc()
	return nil
}

func (g *guard) refuse(outcome, text string) error {
	g.count.WithLabelValues(outcome).Inc()
	return stanza.NewError(stanza.NotAcceptable, text)
}

func (g *guard) judge(ctx context.Context, a register.Applicant, id string, q question, answer string) (good bool, err error) {
	if g.site == nil {
		return q.answers[plain(answer)], nil
	}
	g.site.work.Add(1) // before anybody may stop the component
	defer g.site.work.Done()
	a.Wait(func() { good, err = g.site.verify(ctx, a.Remote, id, answer) })
	return good, err
}

// Made implements register.Challenger.
func (g *guard) Made(a register.Applicant) { g.open.Drop(a.Stream) }
