package extdisco

import (
	"testing"
	"time"

	"parley/parser/jid"
	"parley/plugins"
	"parley/plugins/config"
	"parley/processor"
	"parley/router/sessions"
)

// The password is what `openssl dgst -sha1 -hmac north -binary | base64` makes of the
// name (draft-uberti-behave-turn-rest-00 §2.2).
func TestLimitedCredentials(t *testing.T) {
	g := limited("north", jid.MustParse("romeo@montague.example"), time.Unix(1e9, 999))
	if g.username != "1000000000:romeo@montague.example" || g.password != "SfyaHyBr+n4y9ScGvye5kfu51Ok=" {
		t.Errorf("%+v", g)
	}
	s := Service{Type: "turn", Host: "192.0.2.1", Secret: config.NewSecret("north")}
	if got := s.element(g).Get("expires"); got != "2001-09-09T01:46:40Z" {
		t.Errorf("expires %s", got)
	}
}

func TestValidate(t *testing.T) {
	north := config.NewSecret("north")
	for name, row := range map[string]struct {
		s    Service
		good bool
	}{
		"name":               {Service{Type: "stun", Host: "stun.example.org"}, true},
		"IPv4":               {Service{Type: "stun", Host: "192.0.2.1"}, true},
		"IPv6":               {Service{Type: "stun", Host: "2001:db8::1"}, true},
		"IPv6 in brackets":   {Service{Type: "stun", Host: "[2001:db8::1]"}, false},
		"a URI":              {Service{Type: "stun", Host: "stun:example.org"}, false},
		"an account":         {Service{Type: "stun", Host: "romeo@example.org"}, false},
		"nothing":            {Service{Type: "stun"}, false},
		"secret":             {Service{Type: "turn", Host: "t.example.org", Secret: north}, true},
		"secret and name":    {Service{Type: "turn", Host: "t.example.org", Secret: north, Username: "u", Password: north}, false},
		"name alone":         {Service{Type: "turn", Host: "t.example.org", Username: "u"}, false},
		"password alone":     {Service{Type: "turn", Host: "t.example.org", Password: north}, false},
		"name and password":  {Service{Type: "turn", Host: "t.example.org", Username: "u", Password: north}, true},
		"twice, by defaults": {Service{Type: "stun", Host: "first.example.org", Port: 3478, Transport: "udp"}, false},
	} {
		c := Config{Services: map[string]Service{"a": {Type: "stun", Host: "first.example.org"}, "b": row.s}}
		if err := c.Validate(); (err == nil) != row.good {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCompare(t *testing.T) {
	north, south := config.NewSecret("north"), config.NewSecret("south")
	list := func(all ...Service) *Config {
		c := Config{Services: map[string]Service{}}
		for i, s := range all {
			c.Services[string(rune('a'+i))] = s
		}
		return &c
	}
	a, b, c := Service{Type: "turn", Host: "a", Secret: north}, Service{Type: "stun", Host: "b"}, Service{Type: "stun", Host: "c"}
	other := a
	other.Secret = south
	got := compare(list(a, b), list(c, other))
	if len(got) != 3 || got[0].action != "add" || got[0].at.host != "c" || got[1].action != "modify" || got[1].at.host != "a" || got[2].action != "remove" || got[2].at.host != "b" {
		t.Errorf("%+v", got)
	}
	if got := compare(list(a, b), list(b, a)); len(got) != 0 {
		t.Errorf("other names alone: %+v", got)
	}
}

// Nobody but people of this server hears of services: not a component, nor another
// server's user.
func TestForOurPeopleAlone(t *testing.T) {
	for name, e := range map[string]*sessions.Entry{"remote": nil, "component": {State: sessions.State{Kind: sessions.Client + 1}}} {
		if check(&processor.IQ{Session: e}) == nil {
			t.Errorf("%s is answered", name)
		}
	}
}

func TestAskedIsForgotten(t *testing.T) {
	var a asked
	ref := sessions.Ref{Node: "n", Conn: 1, JID: jid.MustParse("romeo@montague.example/x")}
	a.add(ref, "stun")
	a.add(ref, "")
	if a.of(ref) != Type("stun").kind()|Type("").kind() {
		t.Errorf("%b", a.of(ref))
	}
	if a.forget(ref); len(a.all()) != 0 {
		t.Error("it is still there")
	}
}

func TestStopWithoutPush(t *testing.T) {
	d := &directory{env: plugins.Env{Clock: plugins.SystemClock{}}}
	if err := d.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	d.tell([]change{{}}) // after the end: nothing begins
}
