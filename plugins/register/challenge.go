package register

import (
	"context"
	"net/netip"
	"sync/atomic"

	"parley/parser/stanza"
	"parley/parser/stanza/form"
	"parley/stream"
)

// Challenger may want something of people without an invitation before they get an
// account in band (XEP-0158 §4): that they are people. It is safe for concurrent use.
type Challenger interface {
	// Challenge makes the one challenge that is open for a stream, in the place of an
	// earlier one.
	Challenge(Applicant) Challenge
	// Passed looks at what was submitted; nil: no form. Once it returns nil, it does for
	// the same challenge until Made. Errors go to the client: *stanza.Error.
	Passed(context.Context, Applicant, *form.Form) error
	// Made ends the challenge of a stream: the account is there.
	Made(Applicant)
}

// Applicant is who wants an account.
type Applicant struct {
	Stream string       // the id of the stream; no other one has it
	Domain string       // where the account is to be
	Remote netip.Addr   // the zero one when the transport has none
	Wait   func(func()) // runs what waits for somebody else, while components may be replaced
}

// Challenge is what the form for an account has besides a name and a password.
type Challenge struct {
	ID     string
	URL    string // of a page with more about it; empty: there is none
	Fields []form.Field
}

// Door is the plugin's contract: who stands in front of this process's registration.
type Door struct{ guard atomic.Pointer[guard] }

type guard struct{ Challenger }

// Guard lets c be asked, in the place of who is asked now, until leave.
func (d *Door) Guard(c Challenger) (leave func()) {
	g := &guard{c}
	d.guard.Store(g)
	return func() { d.guard.CompareAndSwap(g, nil) } // who came meanwhile stays
}

// Guarded reports whether somebody is asked.
func (d *Door) Guarded() bool { return d.guard.Load() != nil }

// challenger is who is asked about a stream; nil: nobody is.
func (s *signup) challenger(c *stream.Conn) Challenger {
	g := s.door.guard.Load()
	if g == nil || !s.cfg.of(c.Domain()).Challenge || s.invited.has(c.ID()) {
		return nil
	}
	return g
}

func applicant(c *stream.Conn) Applicant {
	ap, _ := netip.ParseAddrPort(c.Transport().RemoteAddr().String())
	return Applicant{Stream: c.ID(), Domain: c.Domain(), Remote: ap.Addr(), Wait: c.Wait}
}

const nsOOB = "jabber:x:oob" // XEP-0066 §3

// fields are what somebody has to fill in (XEP-0077 §3.1). A challenge is in a form;
// the plain fields are left out then, because they would not do (§6).
func (s *signup) fields(c *stream.Conn, id string) *stanza.Element {
	instructions := s.cfg.of(c.Domain()).Instructions
	out := stanza.El(ns, "query").Add(stanza.El(ns, "instructions").AddText(instructions))
	by := s.challenger(c)
	if by == nil {
		return out.Add(stanza.El(ns, "username"), stanza.El(ns, "password"))
	}
	asked := by.Challenge(applicant(c))
	f := &form.Form{Kind: form.Empty, Type: ns, Instructions: instructions}
	f.Add(form.Hidden, "challenge", "", asked.ID).Add(form.Hidden, "sid", "", id) // XEP-0158 §4
	f.Fields = append(f.Fields,
		form.Field{Var: "username", Type: form.TextSingle, Label: "Name", Required: true},
		form.Field{Var: "password", Type: form.TextPrivate, Label: "Password", Required: true})
	f.Fields = append(f.Fields, asked.Fields...)
	out.Add(f.Element())
	if asked.URL != "" {
		out.Add(stanza.El(nsOOB, "x").Add(stanza.El(nsOOB, "url").AddText(asked.URL)))
	}
	return out
}

// filled is what somebody has filled in.
type filled struct {
	name, password string
	form           *form.Form // nil: the plain fields
}

// fill reads it; a form takes precedence (XEP-0077 §4).
func fill(q *stanza.Element) (f filled, err error) {
	if x := form.In(q); x != nil {
		if f.form, err = form.Submitted(x, ns); err != nil {
			return f, err
		}
		f.name, f.password = f.form.Value("username"), f.form.Value("password")
		return f, nil
	}
	f.name, _ = text(q, "username")
	f.password, _ = text(q, "password")
	return f, nil
}
