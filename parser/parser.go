// Package parser is stage 2: bytes become typed stanzas.
//
// The streamer's reader has checked every byte for well-formedness; here the
// element's header is read and its children are found (parser/stanza), its
// addresses are prepared (parser/jid), and the sender is stamped: a client is
// who its stream is bound to, whatever it wrote (RFC 6120 §8.1.2.1).
package parser

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins"
	"parley/router/channel"
	"parley/router/sessions"
)

// Name is the Server's name in configurations.
const Name = "parser"

// Plugin provides the Server.
var Plugin = plugins.Plugin{
	Name:  Name,
	Doc:   "Turns bytes into stanzas.",
	Serve: &plugins.ServerMaker{Name: Name, Defaults: &Config{Deployment: plugins.Deployment{Type: "local"}}, New: newServer},
}

// addresses is how many prepared addresses are remembered.
const addresses = 1 << 17

// Config is the Server's section.
type Config struct {
	Deployment plugins.Deployment `yaml:"deployment" reload:"restart" doc:"How the Server is joined to the others."`
}

// Server is the stage.
type Server struct {
	log   *slog.Logger
	links plugins.Links
	jids  *jid.Cache
}

func newServer(env plugins.Env, _ plugins.Config, links plugins.Links) (plugins.Server, error) {
	return &Server{log: env.Log, links: links, jids: jid.NewCache(addresses)}, nil
}

// Serve implements plugins.Server.
func (s *Server) Serve(ctx context.Context) error { return s.links.In.Receive(ctx, s.parse) }

// Attach implements plugins.Server; the parser has no use for components yet.
func (s *Server) Attach(string, plugins.Component) (func(context.Context) error, error) {
	return nil, errors.New("the parser takes no components")
}

// parse is the stage's channel.Handler.
func (s *Server) parse(ctx context.Context, batch []*channel.Envelope) error {
	p := stanza.NewParser(len(batch))
	for i, e := range batch {
		if e.Kind == channel.Stanza || e.Kind == channel.Undelivered {
			batch[i] = s.stanza(&p, e)
		}
	}
	return s.links.Out("processor").Send(ctx, batch)
}

// stanza parses one envelope's bytes. What is no stanza ends its stream.
func (s *Server) stanza(p *stanza.Parser, e *channel.Envelope) *channel.Envelope {
	st, err := s.parsed(p, e)
	if err != nil {
		if end := s.fault(e, err); end != "" {
			return &channel.Envelope{Kind: channel.Close, To: []sessions.Ref{e.Session}, Reason: string(end)}
		}
		e.Reason = string(stanza.JIDMalformed) // RFC 6120 §8.3.3.8
	}
	st.Rebase() // a component's or a server's children follow into our namespace
	if e.Kind == channel.Stanza && e.Session.Peer() == sessions.Client {
		st.From = e.Session.JID
	}
	if st.Lang == "" {
		st.Lang = e.Lang // RFC 6120 §8.1.5
	}
	e.Stanza = st
	return e
}

// parsed survives a panic (reliability row 38): it ends the stream, which is
// what bytes that are no stanza do.
func (s *Server) parsed(p *stanza.Parser, e *channel.Envelope) (st *stanza.Stanza, err error) {
	defer func() {
		if x := recover(); x != nil {
			s.log.Error("parsing panicked", "panic", fmt.Sprint(x), "conn", e.Session.Conn, "stack", string(debug.Stack()))
			*p, err = stanza.NewParser(1), errPanic
		}
	}()
	return p.Parse(e.Raw, channel.ContentNS(e.Session), s.jids)
}

var errPanic = errors.New("parsing panicked")

// fault tells what a stream that sent e has to end with; "": only the stanza's
// addresses are wrong.
func (s *Server) fault(e *channel.Envelope, err error) stanza.StreamCondition {
	var malformed *stanza.AddressError
	var fatal *stanza.StreamError
	switch {
	case errors.As(err, &malformed):
		return ""
	case errors.As(err, &fatal):
		return fatal.Condition
	}
	s.log.Error("element not parsed", "conn", e.Session.Conn, "err", err)
	return stanza.StreamInternalServerError
}
