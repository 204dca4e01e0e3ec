package script

import (
	"strings"
	"testing"
)

// passing scripts against the fake; each shows one part of the engine.
var passing = map[string]string{
	"message": `
client romeo juliet
login juliet
romeo  > <message to='$juliet' type='chat' id='$id'><body>a &amp; b</body></message>
juliet < <message from='$romeo.full' to='$juliet' id='$who'><body>a &amp; b</body></message>
juliet > <message to='$romeo.full' id='$who'/>
romeo  < <message id='$who'><not:body/></message>
romeo  !
juliet !
`,
	"continued lines and variables": `
client romeo juliet/balcony
set room garden-$run@$muc
juliet !
romeo > <message to='$juliet/balcony'
    type='chat'>
  <body>$room</body>
  </message>
juliet < <message to='$juliet.full'><body>garden-$*@rooms.fake.test</body></message>
`,
	"two devices of one account": `
client romeo/a romeo/b as romeo2 juliet
login romeo romeo2
juliet > <message to='$romeo'><body>x</body></message>
romeo  < <message from='$juliet.full'/>
romeo2 < <message from='$juliet.full'/>
romeo  !
`,
	"any order": `
client romeo juliet
login juliet
romeo  > <message to='$juliet' id='one'/><message to='$juliet' id='two'/><message to='$juliet' id='three'/>
juliet <~ { <message id='*'/> <message id='three'/>
            <message id='one'/> }
juliet !
`,
	"optional, there and not there": `
client romeo juliet
login juliet
romeo  > <message to='$juliet' id='one'/><message to='$juliet' id='two'/>
juliet <? <message id='zero'/>
juliet <? <message id='one'/>
juliet < <message id='two'/>
juliet <? <message id='three'/>
juliet !
`,
	"exact": `
client romeo juliet
login juliet
romeo  > <message to='$juliet' id='one'><body>x</body></message>
juliet < exact <message to='$juliet' from='$romeo.full' id='one'><body>x</body></message>
`,
	"stream management counters": `
client romeo juliet
romeo > <enable xmlns='urn:xmpp:sm:3' resume='true'/>
romeo < <enabled xmlns='urn:xmpp:sm:3' id='$sm'/>
juliet > <message to='$romeo.full' id='$sm'/>
romeo < <message id='$sm'/>
romeo > <r xmlns='urn:xmpp:sm:3'/>
romeo < <a xmlns='urn:xmpp:sm:3' h='$romeo.sent'/>
romeo > <message to='$juliet'/>
romeo !
romeo > <message to='$juliet.full'><body>$romeo.h $romeo.smid</body></message>
juliet < <message/>
juliet < <message><body>2 resume-me</body></message>
`,
	"bare connection": `
client romeo
connect bare
bare open
bare < <stream:stream from='$domain' id='*' version='1.0'>
bare < <stream:features><mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>PLAIN</mechanism></mechanisms></stream:features>
bare > <auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>$romeo.plain</auth>
bare < <success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>
bare raw "<stream:stream to='$domain' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>\n"
bare < <stream:stream from='$domain'/>
bare < <stream:features><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></stream:features>
bare raw <a></b>
bare < <stream:error><not-well-formed xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>
bare < </stream:stream>
bare eof
`,
	"close and connect again": `
client romeo
romeo close
romeo connect
romeo drop
romeo connect
romeo !
`,
	"drain": `
client romeo juliet
login juliet
romeo > <message to='$juliet'/><message to='$juliet'/>
drain juliet
juliet !
`,
	"auth and bind by hand": `
client romeo
romeo auth
romeo > <iq type='set' id='$id'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>hand</resource></bind></iq>
romeo < <iq type='result' id='$id'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><jid>$romeo/hand</jid></bind></iq>
romeo !
`,
}

func TestPassing(t *testing.T) {
	for name, text := range passing {
		t.Run(name, func(t *testing.T) {
			if res := runScript(t, newFake(t), text); res.Outcome != Passed {
				t.Fatalf("%s\n%s", res.Reason, res.Report)
			}
		})
	}
}

// failing scripts, each with pieces its report must hold.
var failing = map[string]struct {
	text string
	want []string
}{
	"text differs": {`# title
client romeo juliet
login juliet
romeo  > <message to='$juliet' id='m1'><body>helo</body></message>
juliet < <message from='$romeo.full'><body>hello</body></message>
juliet !
`, []string{
		"     3  login juliet\n",
		">    5  juliet < <message from='$romeo.full'>",
		"          romeo → <message to='juliet-",
		"test.txtar:5:",
		"expected: <message from='romeo-", "<body>hello</body>",
		"received: <message", "<body>helo</body>",
		`nearest:  message/body: text is "helo", expected "hello"`}},
	"no silence": {`client romeo juliet
login juliet
romeo > <message to='$juliet' id='loud'/>
juliet !
`, []string{"expected: silence", "received: <message", "id='loud'"}},
	"any order, one wrong": {`client romeo juliet
login juliet
romeo > <message to='$juliet' id='one'/><message to='$juliet' id='other'/>
juliet <~ { <message id='one'/> <message id='two'/> }
`, []string{"expected: in any order: <message id='two'/>", "received: <message", `message@id: is "other"`}},
	"exact, one attribute more": {`client romeo juliet
login juliet
romeo > <message to='$juliet' id='one'/>
juliet < exact <message to='$juliet' id='one'/>
`, []string{`has an attribute from="romeo-`}},
	"end of stream": {`connect bare
bare open
bare raw <a></b>
bare < <stream:stream/>
bare < <stream:features/>
bare < <stream:error><host-unknown xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>
`, []string{"error: has no child <host-unknown"}},
	"unread is shown": {`client romeo juliet
login juliet romeo
romeo > <message to='$juliet' id='one'/>
romeo !
# so that the next silence waits until she has read what came before
juliet > <presence/>
romeo !
romeo > <message to='$romeo' id='two'/>
romeo < <message id='zwei'/>
`, []string{"unread:   juliet ← <message", `expected "zwei"`}},
	"unknown value": {`client romeo
romeo > <message to='$nobody'/>
romeo > <message to='$nobody'/>
`, []string{"$nobody has no value"}},
	"gone": {`client romeo
romeo drop
romeo > <message/>
`, []string{"not connected any more"}},
}

func TestFailing(t *testing.T) {
	for name, tc := range failing {
		t.Run(name, func(t *testing.T) {
			res := runScript(t, newFake(t), tc.text)
			if res.Outcome != Failed {
				t.Fatalf("outcome %d, %s", res.Outcome, res.Reason)
			}
			for _, w := range tc.want {
				if !strings.Contains(res.Report, w) {
					t.Errorf("the report lacks %q:\n%s", w, res.Report)
				}
			}
		})
	}
}

// A stanza that was on its way before the ping breaks the silence even when the client's own link was quiet.
func TestSilenceSeesOwnNoise(t *testing.T) {
	f := newFake(t)
	f.noise = true
	res := runScript(t, f, "client romeo\nromeo !\n")
	if res.Outcome != Failed || !strings.Contains(res.Report, "noise") {
		t.Fatalf("outcome %d: %s", res.Outcome, res.Report)
	}
}

// What a client has sent to a service of another node has come back when it drains,
// and breaks its silence.
func TestSettledBeforeDrainAndSilence(t *testing.T) {
	const script = "client romeo\nromeo > <message to='garden@$muc' id='m1'/>\n"
	if res := runScript(t, newRooms(t), script+"drain romeo\nromeo !\n"); res.Outcome != Passed {
		t.Errorf("drain: %s\n%s", res.Reason, res.Report)
	}
	if res := runScript(t, newRooms(t), script+"romeo !\n"); res.Outcome != Failed || !strings.Contains(res.Report, "id='m1'") {
		t.Errorf("silence: outcome %d\n%s", res.Outcome, res.Report)
	}
}

// Where services are on other nodes an answer and what else the request leads to
// come in any order; each road keeps its own, and nothing that comes is passed over.
func TestAnswersTakeARoadOfTheirOwn(t *testing.T) {
	const ask = "client romeo\nromeo > <iq type='get' to='garden@$muc' id='q1'><a xmlns='urn:example'/></iq>\nromeo > <iq type='get' to='garden@$muc' id='q2'><a xmlns='urn:example'/></iq>\n"
	for name, tc := range map[string]struct {
		text string
		want Outcome
	}{
		"as they came":        {"romeo < <iq id='q1' type='result'/>\nromeo < <message id='told-q1'/>\nromeo < <iq id='q2' type='result'/>\nromeo < <message id='told-q2'/>\nromeo !\n", Passed},
		"told first":          {"romeo < <message id='told-q1'/>\nromeo < <iq id='q1' type='result'/>\nromeo < <message id='told-q2'/>\nromeo < <iq id='q2' type='result'/>\nromeo !\n", Passed},
		"no type":             {"romeo < <message id='told-q1'/>\nromeo < <iq id='q1'/>\nromeo < <message id='told-q2'/>\nromeo < <iq id='q2'/>\nromeo !\n", Passed},
		"in any order":        {"romeo <~ { <message id='told-q2'/> <iq id='q2' type='result'/> <message id='told-q1'/> <iq id='q1' type='result'/> }\nromeo !\n", Passed},
		"optional":            {"romeo <? <message id='told-q1'/>\nromeo < <iq id='q1' type='result'/>\nromeo < <message id='told-q2'/>\nromeo < <iq id='q2' type='result'/>\nromeo !\n", Passed},
		"answers turned":      {"romeo < <iq id='q2' type='result'/>\n", Failed},
		"told turned":         {"romeo < <message id='told-q2'/>\n", Failed},
		"an answer left over": {"romeo < <message id='told-q1'/>\nromeo < <message id='told-q2'/>\nromeo < <iq id='q1' type='result'/>\nromeo !\n", Failed},
		"told and left over":  {"romeo < <iq id='q1' type='result'/>\nromeo < <iq id='q2' type='result'/>\nromeo !\n", Failed},
	} {
		t.Run(name, func(t *testing.T) {
			if res := runScript(t, newRooms(t), ask+tc.text); res.Outcome != tc.want {
				t.Errorf("outcome %d, want %d: %s\n%s", res.Outcome, tc.want, res.Reason, res.Report)
			}
		})
	}
	if res := runScript(t, newFake(t), "client romeo\nromeo > <iq type='get' to='garden@$muc' id='q1'><a xmlns='urn:example'/></iq><message to='$romeo' id='m1'/>\nromeo < <message id='m1'/>\n"); res.Outcome != Failed {
		t.Errorf("on one node the order is not held: outcome %d", res.Outcome)
	}
}

func TestSkipped(t *testing.T) {
	for text, want := range map[string]string{
		"client romeo\nrestart\n":                                ErrUnsupported.Error(),
		"client romeo\nromeo > <presence to='a@$pubsub'/>\n":     "no pubsub service",
		"service circles\n":                                      "no circles service",
		"connect bare ws\nbare open\n":                           ErrUnsupported.Error(),
		"client romeo\nromeo !\n-- config.yaml --\nlog: debug\n": "configuration of its own",
	} {
		if res := runScript(t, newFake(t), text); res.Outcome != Skipped || !strings.Contains(res.Reason, want) {
			t.Errorf("%q: outcome %d, %q; want skipped, %q\n%s", text, res.Outcome, res.Reason, want, res.Report)
		}
	}
}

// Nothing that never comes may pass: the time-out ends the script as failed.
func TestTimeoutFails(t *testing.T) {
	s, err := Parse("test", []byte("client romeo\nromeo < <message/>\n"))
	if err != nil {
		t.Fatal(err)
	}
	r := &Runner{Target: newFake(t), Via: ViaPlain, Timeout: 50e6}
	if res := r.Run(t.Context(), s); res.Outcome != Failed || !strings.Contains(res.Report, "nothing came within 50ms") {
		t.Fatalf("outcome %d: %s", res.Outcome, res.Report)
	}
}
