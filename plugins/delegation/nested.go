package delegation

import (
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins"
	"parley/plugins/disco"
	"parley/processor"
	"parley/stream/component"
)

// topic is what nodes tell each other: the domain of a component that has connected
// and is asked; later, behind NUL, the disco node and the answer's payload, if any.
const topic = "delegation"

// The separators of disco nodes (§7.2): of the server, of accounts.
const (
	ofServer  = "::"
	ofAccount = ":bare:"
)

// nested is what components can do in the server's place, as they have answered
// last. It is the plugin's contract, because the other nodes' notices come before
// the component is there.
type nested struct {
	env  plugins.Env
	part atomic.Pointer[part] // who asks now

	mu    sync.Mutex
	facts map[string]*disco.Facts // by component and disco node
	asked map[string]bool         // components
}

func newNested(env plugins.Env) *nested {
	n := &nested{env: env, facts: map[string]*disco.Facts{}, asked: map[string]bool{}}
	env.OnForget(topic, n.told)
	return n
}

// told takes what another node has been answered.
func (n *nested) told(key string) {
	domain, rest, answered := strings.Cut(key, "\x00")
	node, payload, _ := strings.Cut(rest, "\x00")
	var facts *disco.Facts
	if el, err := stanza.ParseElement([]byte(payload), ""); err == nil {
		facts, _ = disco.ParseFacts(el) // of our own making
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked[domain] = true
	if answered {
		n.put(domain, node, facts)
	}
}

// put keeps an answer; nil: there is none. n.mu is held.
func (n *nested) put(domain, node string, facts *disco.Facts) {
	if facts == nil {
		delete(n.facts, keyOf(domain, node))
		return
	}
	n.facts[keyOf(domain, node)] = facts
}

func keyOf(domain, node string) string { return domain + " " + node }

// refresh asks the component anew.
func (n *nested) refresh(ctx context.Context, domain string) {
	p := n.part.Load()
	at, err := jid.Parse(domain)
	if p == nil || err != nil {
		return
	}
	n.mu.Lock()
	n.asked[domain] = true
	n.mu.Unlock()
	late := context.WithoutCancel(ctx)
	for ns := range p.components.Grants(domain).Delegations {
		for _, separator := range []string{ofServer, ofAccount} {
			node := NS + separator + ns
			q := stanza.El(stanza.NSDiscoInfo, "query").With("node", node)
			iq := stanza.Make(stanza.IQ, stanza.TypeGet, jid.MustParse(n.env.Domains.List()[0]), at, p.reg.AskID(), q)
			p.reg.Ask(late, iq, func(st *stanza.Stanza, err error) { n.learn(late, domain, node, st, err) })
		}
	}
}

// learn takes an answer, and tells the other nodes; one that does not come, or is
// none, says that there is nothing to tell.
func (n *nested) learn(ctx context.Context, domain, node string, st *stanza.Stanza, err error) {
	var facts *disco.Facts
	if err == nil {
		facts, err = disco.ParseFacts(st.Payload())
	}
	var payload string
	if err != nil {
		n.env.Log.Debug("a component does not say what it can do", "component", domain, "node", node, "err", err)
		facts = nil
	} else {
		payload = string(facts.Element(node).Bytes(""))
	}
	n.mu.Lock()
	n.put(domain, node, facts)
	n.mu.Unlock()
	n.env.Forget(ctx, topic, domain+"\x00"+node+"\x00"+payload)
}

// of is what the component has answered. Who has not been asked, because it was
// there before this node, is asked now.
func (n *nested) of(ctx context.Context, domain, node string) *disco.Facts {
	n.mu.Lock()
	asked, facts := n.asked[domain], n.facts[keyOf(domain, node)]
	n.mu.Unlock()
	if !asked {
		n.refresh(ctx, domain)
	}
	return facts
}

// info replaces what the house can do by what components can (§7.2).
func (p *part) info(ctx context.Context, a *disco.InfoAnswer) (processor.Verdict, error) {
	if a.Node != "" {
		return processor.Continue, nil
	}
	separator := ofAccount
	if a.Server() {
		separator = ofServer
	}
	for _, domain := range p.components.Granted(hasDelegations) {
		for ns := range p.components.Grants(domain).Delegations {
			a.Features = slices.DeleteFunc(a.Features, func(f string) bool { return belongs(f, ns) })
			a.Forms = slices.DeleteFunc(a.Forms, func(f disco.Form) bool { return belongs(f.Type, ns) })
		}
	}
	for _, domain := range p.components.Granted(hasDelegations) {
		if !p.components.Here(domain) {
			continue
		}
		for ns := range p.components.Grants(domain).Delegations {
			facts := p.nested.of(ctx, domain, NS+separator+ns)
			if facts == nil {
				continue
			}
			for _, i := range facts.Identities {
				a.AddIdentity(i)
			}
			a.AddFeature(facts.Features...)
			for _, f := range facts.Forms {
				a.AddForm(f)
			}
		}
	}
	return processor.Continue, nil
}

func hasDelegations(g *component.Grants) bool { return len(g.Delegations) > 0 }

// belongs reports whether a feature is of the namespace.
func belongs(feature, ns string) bool {
	return feature == ns || strings.HasPrefix(feature, ns+"#")
}
