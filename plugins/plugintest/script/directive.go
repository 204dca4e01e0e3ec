package script

import (
	"fmt"
	"strings"
)

// directive parses a line that no client's name begins.
func (p *parser) directive(line int, text, word string, args []string) {
	if word == "client" {
		p.clients(line, args)
		return
	}
	st := step{line: line, text: text, op: opAll, verb: word, args: args}
	var err error
	switch word {
	case "connect":
		err = p.connection(args)
	case "login", "roster", "drain":
		err = p.names(args, 1, 0)
	case "friends":
		err = p.names(args, 2, 2)
	case "set":
		if len(args) != 2 || !clientName.MatchString(args[0]) || p.known[args[0]] || reserved[args[0]] {
			err = fmt.Errorf("write set NAME VALUE; NAME is no client and no reserved word")
		}
	case "service":
		if len(args) == 0 {
			err = fmt.Errorf("write service NAME …")
		}
	case "together", "restart", "reload", "kill":
		if len(args) != 0 {
			err = fmt.Errorf("%s takes nothing", word)
		}
	}
	if err != nil {
		p.fail(line, "%v", err)
		return
	}
	p.script.steps = append(p.script.steps, st)
}

// names checks a list of client names; most 0 means any number.
func (p *parser) names(args []string, least, most int) error {
	if len(args) < least || most > 0 && len(args) > most {
		return fmt.Errorf("wrong number of clients")
	}
	for _, a := range args {
		if !p.known[a] {
			return fmt.Errorf("no client is named %q", a)
		}
	}
	return nil
}

// connection is `connect NAME [raw|plain|starttls|tls|ws] …`.
func (p *parser) connection(args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("write connect NAME [raw|starttls|tls|ws]")
	}
	for _, a := range args {
		if _, kind := ParseVia(a); kind {
			continue
		}
		if err := p.declare(a); err != nil {
			return err
		}
	}
	if _, kind := ParseVia(args[0]); kind {
		return fmt.Errorf("a connection's name comes before its kind")
	}
	return nil
}

func (p *parser) declare(n string) error {
	if !clientName.MatchString(n) || reserved[n] || directive.MatchString(n) {
		return fmt.Errorf("%q cannot name a client", n)
	}
	p.known[n] = true
	return nil
}

// clients is `client account[/resource] [as name] [via kind] …`.
func (p *parser) clients(line int, args []string) {
	for i := 0; i < len(args); {
		var d clientDecl
		d.account, d.resource, _ = strings.Cut(args[i], "/")
		d.name = d.account
		for i++; i+1 < len(args) && (args[i] == "as" || args[i] == "via"); i += 2 {
			if args[i] == "as" {
				d.name = args[i+1]
				continue
			}
			if d.via, d.hasVia = ParseVia(args[i+1]); !d.hasVia {
				p.fail(line, "no way to log in is called %q: starttls, tls, plain, ws", args[i+1])
			}
		}
		if !clientName.MatchString(d.account) {
			p.fail(line, "%q cannot name an account", d.account)
			continue
		}
		if p.known[d.name] {
			p.fail(line, "two clients are named %q: use %s/resource as NAME", d.name, d.account)
			continue
		}
		if err := p.declare(d.name); err != nil {
			p.fail(line, "%v", err)
			continue
		}
		p.script.clients = append(p.script.clients, d)
	}
}
