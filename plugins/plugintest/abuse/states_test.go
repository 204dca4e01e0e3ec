package abuse

import (
	"strings"
)

// protocolStates are where FuzzConnection begins; a state's place in the list is part of
// the corpus: new ones come last.
var protocolStates = []protocolState{
	{"before the header", enterFresh, []string{
		header, "<", "<?xml version='1.0'?>" + header + "</stream:stream>",
		"<?xml version='1.0' encoding='latin-1'?>" + header, "<!DOCTYPE a [<!ENTITY b 'c'>]>" + header,
		strings.Replace(header, "1.0", "0.9", 1), strings.Replace(header, "localhost", "elsewhere", 1),
		"GET / HTTP/1.1\r\n\r\n", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc", "<message/>",
	}, ""},
	{"after the header", enterOpened, []string{
		"<starttls xmlns='" + nsTLS + "'/>" + header, plain(fuzzed, secret) + header, plain(fuzzed, "wrong"),
		"<auth xmlns='" + nsSASL + "' mechanism='SCRAM-SHA-256'>" + b64("n,,n=mallory,r=x") + "</auth><abort xmlns='" + nsSASL + "'/>",
		"<message/>", "<iq type='get' id='1'><query xmlns='jabber:iq:register'/></iq>", "</stream:stream>",
		"<enable xmlns='urn:xmpp:sm:3'/><r xmlns='urn:xmpp:sm:3'/>", "<!-- -->", "<a xmlns='u' xmlns:b='v'><b:c b:d='&lt;'/></a>", "\xff",
	}, ""},
	{"after STARTTLS", enterTLS, []string{header, header + plain(fuzzed, secret), "<starttls xmlns='" + nsTLS + "'/>", "\x00"}, ""},
	{"garbled handshake", enterProceed, []string{header, "\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00", ""}, ""},
	{"in SASL", enterSASL, []string{
		"<response xmlns='" + nsSASL + "'>" + b64("c=biws,r=x,p=AAAA") + "</response>", "<response xmlns='" + nsSASL + "'/>",
		"<response xmlns='" + nsSASL + "'>=</response>", "<abort xmlns='" + nsSASL + "'/>", plain(fuzzed, secret), "<response xmlns='" + nsSASL2 + "'>AA==</response>",
	}, ""},
	{"in SASL2", enterSASL2, []string{
		"<response xmlns='" + nsSASL2 + "'>" + b64("c=biws,r=x,p=AAAA") + "</response>", "<abort xmlns='" + nsSASL2 + "'/>", "<presence/>",
		"<response xmlns='" + nsSASL2 + "'><x/></response>",
	}, ""},
	{"before SASL2", enterOpened, []string{
		sasl2("<bind xmlns='urn:xmpp:bind:0'><tag>t</tag><enable xmlns='urn:xmpp:sm:3' resume='1'/><enable xmlns='urn:xmpp:carbons:2'/><inactive xmlns='urn:xmpp:csi:0'/></bind>") + "<presence/>",
		sasl2("<resume xmlns='urn:xmpp:sm:3' previd='x' h='1'/><bind xmlns='urn:xmpp:bind:0'/>"),
		sasl2("<request-token xmlns='urn:xmpp:fast:0' mechanism='HT-SHA-256-NONE'/>"), sasl2("<fast xmlns='urn:xmpp:fast:0' count='-1'/>"),
	}, ""},
	{"logged in", enterAuthenticated, []string{
		"<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq><presence/>",
		"<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>\u202e\U0001F600</resource></bind></iq>",
		"<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>" + strings.Repeat("r", 1024) + "</resource></bind></iq>",
		"<resume xmlns='urn:xmpp:sm:3' previd='x' h='-1'/>", "<message to='alice@localhost'><body>early</body></message>", plain(fuzzed, secret),
	}, ""},
	{"bound", enterBound, boundSeeds, ""},
	{"bound with stream management", enterManaged, append([]string{
		"<r xmlns='urn:xmpp:sm:3'/><a xmlns='urn:xmpp:sm:3' h='0'/>", "<a xmlns='urn:xmpp:sm:3' h='4294967295'/>", "<a xmlns='urn:xmpp:sm:3' h='x'/>",
		"<enable xmlns='urn:xmpp:sm:3'/>", "<resume xmlns='urn:xmpp:sm:3' previd='$ID' h='0'/>",
	}, boundSeeds...), ""},
	{"hibernated", enterHibernated, []string{
		"<resume xmlns='urn:xmpp:sm:3' previd='$ID' h='0'/><presence/>", "<resume xmlns='urn:xmpp:sm:3' previd='$ID' h='7'/>",
		"<resume xmlns='urn:xmpp:sm:3' previd='$ID'/>", "<resume xmlns='urn:xmpp:sm:3' previd='$ID' h='0'/><resume xmlns='urn:xmpp:sm:3' previd='$ID' h='0'/>",
		"<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>fuzz</resource></bind></iq><resume xmlns='urn:xmpp:sm:3' previd='$ID' h='0'/>",
	}, ""},
	{"WebSocket", enterWebSocket, []string{
		open + "\n" + plain(fuzzed, secret) + "\n" + open, open + "\n<close xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>", open + open, "<open/>", header,
		open + "\n" + sasl2("<bind xmlns='urn:xmpp:bind:0'/>") + "\n<presence xmlns='jabber:client'/>", "", " ", open + "\n<starttls xmlns='" + nsTLS + "'/>", open + "\n<a",
	}, "http"},
	{"bound WebSocket", enterBoundWebSocket, []string{
		"<message xmlns='jabber:client' to='$BOB'><body>b</body></message>", "<message to='$BOB'/>", "<presence xmlns='jabber:client'/>\n<presence xmlns='jabber:client' type='unavailable'/>",
		"<enable xmlns='urn:xmpp:sm:3' resume='1'/>\n<r xmlns='urn:xmpp:sm:3'/>", "<!-- -->", "</a>", "<iq xmlns='jabber:client' type='get' id='1'><ping xmlns='urn:xmpp:ping'/></iq>",
	}, "http"},
	{"WebSocket frames", enterFrames, []string{
		"\x01\x81\x00\x00\x00\x00<\x80\x82\x00\x00\x00\x00/>", "\x82\x80\x00\x00\x00\x00", "\x88\x82\x00\x00\x00\x00\x03\xe8", "\x89\x80\x00\x00\x00\x00",
		"\x81\xff\xff\xff\xff\xff\xff\xff\xff\xff", "\xc1\x80\x00\x00\x00\x00", "\x81\x00", "\x80\x80\x00\x00\x00\x00", "\x81\xff\x7f\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00",
	}, "http"},
	{"HTTP", enterHTTP, []string{
		"GET /.well-known/host-meta HTTP/1.1\r\nHost: localhost\r\n\r\n", "GET /metrics HTTP/1.0\r\n\r\n", "GET /xmpp-websocket HTTP/1.1\r\nHost: x\r\n\r\n",
		"POST /readyz HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n", "GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
	}, "http"},
}

// boundSeeds touch every feature once.
var boundSeeds = []string{
	"<presence><priority>-1</priority><c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='n' ver='AAAA'/></presence>",
	"<presence to='alice@localhost' type='subscribe'/><presence to='alice@localhost' type='probe'/><presence type='unavailable'/>",
	"<message to='$BOB' type='chat'><body>b</body><received xmlns='urn:xmpp:carbons:2'/><stanza-id xmlns='urn:xmpp:sid:0' by='bob@localhost' id='1'/></message>",
	"<message to='nobody@localhost' type='groupchat'/><message to='@@'/><message type='error'/><message from='bob@localhost' to='mallory@localhost'><body/></message>",
	iq("<query xmlns='jabber:iq:roster' ver=''/>") + iq("<query xmlns='jabber:iq:roster'><item jid='a@b' name='n' subscription='both'><group/></item></query>"),
	iq("<query xmlns='urn:xmpp:mam:2' queryid='q'><x xmlns='jabber:x:data' type='submit'><field var='start'><value>2000-01-01T00:00:00Z</value></field></x><set xmlns='http://jabber.org/protocol/rsm'><max>1</max><before/></set></query>"),
	iq("<prefs xmlns='urn:xmpp:mam:2' default='never'><always><jid>a@b</jid></always></prefs>") + iq("<metadata xmlns='urn:xmpp:mam:2'/>"),
	iq("<block xmlns='urn:xmpp:blocking'><item jid='a@b'/></block>") + iq("<unblock xmlns='urn:xmpp:blocking'/>") + iq("<blocklist xmlns='urn:xmpp:blocking'/>"),
	iq("<vCard xmlns='vcard-temp'><FN>m</FN></vCard>") + iq("<query xmlns='jabber:iq:private'><a xmlns='u'/></query>"),
	iq("<query xmlns='http://jabber.org/protocol/disco#info' node='n'/>") + iq("<query xmlns='http://jabber.org/protocol/disco#items'/>"),
	iq("<query xmlns='jabber:iq:register'><username>mallory</username><password>"+secret+"</password></query>") + iq("<enable xmlns='urn:xmpp:carbons:2'/>"),
	iq("<query xmlns='jabber:iq:last'/>") + iq("<time xmlns='urn:xmpp:time'/>") + iq("<query xmlns='jabber:iq:version'/>") + "<iq/>" + "<iq type='result' id='1'/>",
	"<message><body>&#xD;&#x0;</body></message>", "<stream:error/>", "</stream:stream>", "<message xmlns='jabber:server'/>", "<x:y xmlns:x='u' x:z=''/>", "<inactive xmlns='urn:xmpp:csi:0'/><active xmlns='urn:xmpp:csi:0'/>",
}

func iq(payload string) string {
	return "<iq type='set' id='1'>" + payload + "</iq><iq type='get' id='2' to='alice@localhost'>" + payload + "</iq>"
}

func sasl2(inline string) string {
	return "<authenticate xmlns='" + nsSASL2 + "' mechanism='PLAIN'><initial-response>" + b64("\x00"+fuzzed+"\x00"+secret) +
		"</initial-response><user-agent id='d4565fa7-4d72-4749-b3d3-740edbf87770'/>" + inline + "</authenticate>"
}

func enterFresh(_ *world, p *peer) (*peer, error) { return p, nil }

func enterOpened(_ *world, p *peer) (*peer, error) {
	return p, p.exchange(header, "</stream:features>")
}

func enterProceed(w *world, p *peer) (*peer, error) {
	if _, err := enterOpened(w, p); err != nil {
		return p, err
	}
	err := p.exchange("<starttls xmlns='"+nsTLS+"'/>", "<proceed xmlns='"+nsTLS+"'/>")
	p.check = func([]byte) error { return nil } // TLS alerts
	return p, err
}

func enterTLS(w *world, p *peer) (*peer, error) {
	if _, err := enterProceed(w, p); err != nil {
		return p, err
	}
	p.check = checkStream
	return p, p.secure()
}

const clientFirst = "n,,n=" + fuzzed + ",r=fyko+d2lbbFgONRv9qkxdawL"

func enterSASL(w *world, p *peer) (*peer, error) {
	if _, err := enterOpened(w, p); err != nil {
		return p, err
	}
	return p, p.exchange("<auth xmlns='"+nsSASL+"' mechanism='SCRAM-SHA-256'>"+b64(clientFirst)+"</auth>", "</challenge>")
}

func enterSASL2(w *world, p *peer) (*peer, error) {
	if _, err := enterOpened(w, p); err != nil {
		return p, err
	}
	return p, p.exchange("<authenticate xmlns='"+nsSASL2+"' mechanism='SCRAM-SHA-1'><initial-response>"+b64(clientFirst)+"</initial-response></authenticate>", "</challenge>")
}

func enterAuthenticated(w *world, p *peer) (*peer, error) { return p, p.auth(w.fuzzed) }

func enterBound(w *world, p *peer) (*peer, error) {
	if err := p.auth(w.fuzzed); err != nil {
		return p, err
	}
	return p, p.bind("fuzz")
}

func enterManaged(w *world, p *peer) (*peer, error) {
	if _, err := enterBound(w, p); err != nil {
		return p, err
	}
	return p, p.manage()
}

// manage switches stream management on and remembers the id.
func (p *peer) manage() error {
	if err := p.exchange("<enable xmlns='urn:xmpp:sm:3' resume='true'/>", "<enabled xmlns='urn:xmpp:sm:3' id='"); err != nil {
		return err
	}
	id, err := p.until("'")
	p.id = id
	return err
}

func enterHibernated(w *world, p *peer) (*peer, error) {
	if _, err := enterManaged(w, p); err != nil {
		return p, err
	}
	p.drop()
	q, err := dialPeer(w.Door("c2s"))
	if err != nil {
		return nil, err
	}
	q.id = p.id
	return q, q.auth(w.fuzzed)
}
