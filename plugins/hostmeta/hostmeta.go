// Package hostmeta tells clients that cannot ask the DNS where else this
// server can be reached (XEP-0156 §2, RFC 6415), at /.well-known/host-meta
// as XRD and at /.well-known/host-meta.json as JRD.
//
// What is listed is what components serve on the HTTP doors at the moment.
// The addresses come from the configuration, or else from the request: clients
// ask the domain they want to talk to.
package hostmeta

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"

	"parley/plugins"
	"parley/plugins/config"
	"parley/stream"
)

// Plugin provides the component.
var Plugin = plugins.Plugin{
	Name:       "hostmeta",
	Doc:        "Web clients find this server's WebSocket and BOSH addresses (XEP-0156).",
	Components: []plugins.Maker{{Server: stream.Name, Defaults: &Config{}, New: newHostMeta}},
}

// Config is the component's section.
type Config struct {
	PublicURL string `yaml:"public_url" doc:"Where clients reach the HTTPS door, like https://xmpp.example.org or https://xmpp.example.org:5443. Empty: the host that the client asked, with the port of the https door unless it came over HTTPS itself."`
}

// Validate implements what package config asks of a section.
func (c *Config) Validate() error {
	if c.PublicURL == "" {
		return nil
	}
	u, err := url.Parse(c.PublicURL)
	if err != nil || u.Host == "" || websocketScheme[u.Scheme] == "" || u.RawQuery != "" || u.Fragment != "" {
		return config.Key("public_url", "%q is not the URL of an HTTPS server", c.PublicURL)
	}
	return nil
}

// websocketScheme is the scheme of a WebSocket at an HTTP server. Without TLS
// only if the operator says so: XEP-0156 §2.2 forbids it.
var websocketScheme = map[string]string{"https": "wss", "http": "ws"}

// alternatives are the ways in (XEP-0156 §2.1) and the paths that serve them.
var alternatives = []struct {
	rel, path string
	websocket bool
}{
	{"urn:xmpp:alt-connections:websocket", "/xmpp-websocket", true},
	{"urn:xmpp:alt-connections:xbosh", "/http-bind", false},
}

type hostMeta struct {
	public  *url.URL // nil: derived from the request
	streams *stream.Registrar
}

var _ stream.Component = (*hostMeta)(nil)

func newHostMeta(_ plugins.Env, c plugins.Config) (plugins.Component, error) {
	var cfg Config
	if err := c.Decode(&cfg); err != nil {
		return nil, err
	}
	h := &hostMeta{}
	if cfg.PublicURL != "" {
		u, err := url.Parse(cfg.PublicURL)
		if err != nil {
			return nil, fmt.Errorf("public_url: %w", err)
		}
		h.public = u
	}
	return h, nil
}

// Register implements stream.Component.
func (h *hostMeta) Register(r *stream.Registrar) {
	h.streams = r
	r.HTTP("/.well-known/host-meta", h.serve("application/xrd+xml", xrd))
	r.HTTP("/.well-known/host-meta.json", h.serve("application/jrd+json", jrd))
}

// Start implements plugins.Component.
func (h *hostMeta) Start(context.Context) error { return nil }

// Stop implements plugins.Component.
func (h *hostMeta) Stop(context.Context) error { return nil }

// link is one alternative.
type link struct {
	Rel  string `xml:"rel,attr" json:"rel"`
	Href string `xml:"href,attr" json:"href"`
}

func (h *hostMeta) serve(contentType string, render func([]link) ([]byte, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		header.Set("Access-Control-Allow-Origin", "*") // XEP-0156 §3
		switch r.Method {
		case http.MethodGet, http.MethodHead:
		case http.MethodOptions:
			header.Set("Access-Control-Allow-Methods", "GET, HEAD, OPTIONS")
			header.Set("Access-Control-Allow-Headers", "Content-Type, Accept")
			w.WriteHeader(http.StatusNoContent)
			return
		default:
			header.Set("Allow", "GET, HEAD, OPTIONS")
			http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
			return
		}
		body, err := render(h.links(r))
		if err != nil {
			http.Error(w, "internal error", http.StatusInternalServerError)
			return
		}
		header.Set("Content-Type", contentType)
		header.Set("Vary", "X-Forwarded-Proto")
		_, _ = w.Write(body)
	}
}

// links lists what is served now; nothing when no secure address is known.
func (h *hostMeta) links(r *http.Request) []link {
	base := h.base(r)
	if base == nil {
		return nil
	}
	var out []link
	for _, a := range alternatives {
		if !h.streams.Routed(a.path) {
			continue
		}
		u := *base
		u.Path = strings.TrimSuffix(u.Path, "/") + a.path
		if a.websocket {
			u.Scheme = websocketScheme[u.Scheme]
		}
		out = append(out, link{a.rel, u.String()})
	}
	return out
}

// base is the URL of the HTTPS door as the client sees it. What the request
// says of itself comes back to its sender only.
func (h *hostMeta) base(r *http.Request) *url.URL {
	if h.public != nil {
		return h.public
	}
	asked, err := url.Parse("https://" + r.Host)
	if err != nil || asked.Host == "" || asked.Host != r.Host {
		return nil
	}
	if r.TLS != nil || strings.EqualFold(r.Header.Get("X-Forwarded-Proto"), "https") {
		return &url.URL{Scheme: "https", Host: asked.Host}
	}
	_, port, err := net.SplitHostPort(h.streams.Addresses()["https"])
	if err != nil {
		return nil
	}
	return &url.URL{Scheme: "https", Host: net.JoinHostPort(asked.Hostname(), port)}
}

// xrd is RFC 6415.
func xrd(links []link) ([]byte, error) {
	doc := struct {
		XMLName xml.Name `xml:"http://docs.oasis-open.org/ns/xri/xrd-1.0 XRD"`
		Links   []link   `xml:"Link"`
	}{Links: links}
	var b bytes.Buffer
	b.WriteString("<?xml version='1.0' encoding='UTF-8'?>\n")
	if err := xml.NewEncoder(&b).Encode(doc); err != nil {
		return nil, fmt.Errorf("host-meta: %w", err)
	}
	b.WriteByte('\n')
	return b.Bytes(), nil
}

// jrd is RFC 6415, Appendix A.
func jrd(links []link) ([]byte, error) {
	if links == nil {
		links = []link{}
	}
	b, err := json.Marshal(struct {
		Links []link `json:"links"`
	}{links})
	if err != nil {
		return nil, fmt.Errorf("host-meta: %w", err)
	}
	return append(b, '\n'), nil
}
