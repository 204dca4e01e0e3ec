package script

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"time"
)

// Connection is how the helpers below reach a server.
type Connection struct {
	Target  Target
	Via     Via
	TLS     *tls.Config   // nil: any certificate is accepted
	Timeout time.Duration // of the whole exchange
}

func (k Connection) client(name, user, password string) (*client, func()) {
	o := &options{target: k.Target, timeout: k.Timeout, tls: k.TLS, via: k.Via, trace: func(string, string, string) {}}
	if o.tls == nil {
		o.tls = anyCertificate()
	}
	if o.timeout == 0 {
		o.timeout = DefaultTimeout
	}
	c := &client{name: name, opts: o, user: user, password: password}
	return c, c.drop
}

// anyCertificate is for tests: the server under test has a certificate of its own making.
func anyCertificate() *tls.Config { return &tls.Config{InsecureSkipVerify: true} }

// Register makes an account in band, before login (XEP-0077 §3.1).
func Register(ctx context.Context, k Connection, user, password string) error {
	c, done := k.client("register", user, password)
	defer done()
	ctx, cancel := context.WithTimeout(ctx, c.opts.timeout)
	defer cancel()
	if _, err := c.secured(ctx, k.Via); err != nil {
		return fmt.Errorf("in-band registration: %w", err)
	}
	to := k.Target.Domain()
	if _, err := c.ask(ctx, "get", to, "<query xmlns='"+nsRegister+"'/>"); err != nil {
		return fmt.Errorf("in-band registration: %w", err)
	}
	_, err := c.ask(ctx, "set", to, "<query xmlns='"+nsRegister+"'><username>"+textEscaper.Replace(user)+
		"</username><password>"+textEscaper.Replace(password)+"</password></query>")
	if err != nil {
		return fmt.Errorf("in-band registration of %s: %w", user, err)
	}
	return nil
}

// serviceIdentity tells services apart by disco identity category/type and, where given, a feature.
var serviceIdentity = []struct{ name, identity, feature string }{
	{"muc", "conference/text", "http://jabber.org/protocol/muc"},
	{"pubsub", "pubsub/service", ""},
	{"upload", "store/file", "urn:xmpp:http:upload:0"},
	{"proxy", "proxy/bytestreams", ""},
	{"search", "directory/user", "jabber:iq:search"},
}

// Discover logs in and finds the domain's services by disco#items and disco#info (XEP-0030 §4.1, §3.1).
// The keys are the names scripts use: muc, pubsub, upload, proxy, search.
func Discover(ctx context.Context, k Connection, user, password string) (map[string]string, error) {
	c, done := k.client("discover", user, password)
	defer done()
	ctx, cancel := context.WithTimeout(ctx, 4*c.opts.timeout)
	defer cancel()
	if err := c.connect(ctx); err != nil {
		return nil, err
	}
	domain := k.Target.Domain()
	items, err := c.ask(ctx, "get", domain, "<query xmlns='"+nsItems+"'/>")
	if err != nil {
		return nil, fmt.Errorf("disco#items: %w", err)
	}
	found := map[string]string{}
	hosts := []string{domain}
	for _, it := range items.child(nsItems, "query").items(nsItems, "item") {
		if it.get("node") == "" && it.get("jid") != "" {
			hosts = append(hosts, it.get("jid"))
		}
	}
	for _, host := range hosts {
		info, err := c.ask(ctx, "get", host, "<query xmlns='"+nsInfo+"'/>")
		if ctx.Err() != nil || errors.Is(err, errNotConnected) {
			return found, err
		}
		if err == nil { // a service that does not answer is simply not used
			classify(found, host, info.child(nsInfo, "query"))
		}
	}
	return found, nil
}

func (n *node) items(space, local string) []*node {
	var out []*node
	if n != nil {
		for _, k := range n.kids {
			if k.is(space, local) {
				out = append(out, k)
			}
		}
	}
	return out
}

func classify(found map[string]string, host string, info *node) {
	identities, features := map[string]bool{}, map[string]bool{}
	for _, i := range info.items(nsInfo, "identity") {
		identities[i.get("category")+"/"+i.get("type")] = true
	}
	for _, f := range info.items(nsInfo, "feature") {
		features[f.get("var")] = true
	}
	for _, s := range serviceIdentity {
		if found[s.name] == "" && identities[s.identity] && (s.feature == "" || features[s.feature]) {
			found[s.name] = host
		}
	}
}
