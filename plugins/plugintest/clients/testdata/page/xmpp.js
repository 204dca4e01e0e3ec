// A client in a page: XMPP over WebSocket (RFC 7395), SCRAM-SHA-256 (RFC 7677)
// by WebCrypto, resource binding, microblogs of contacts by their +notify
// (XEP-0163, XEP-0277). No library.
"use strict";

const NS = {
  framing: "urn:ietf:params:xml:ns:xmpp-framing",
  sasl: "urn:ietf:params:xml:ns:xmpp-sasl",
  bind: "urn:ietf:params:xml:ns:xmpp-bind",
  client: "jabber:client",
  caps: "http://jabber.org/protocol/caps",
  info: "http://jabber.org/protocol/disco#info",
  pubsub: "http://jabber.org/protocol/pubsub",
  event: "http://jabber.org/protocol/pubsub#event",
  blog: "urn:xmpp:microblog:0",
  atom: "http://www.w3.org/2005/Atom",
};

// What the page can do, in the order of XEP-0115 §5.1.
const features = [NS.caps, NS.info, `${NS.blog}+notify`];

const text = new TextEncoder();
const base64 = bytes => btoa(String.fromCharCode(...bytes));
const unbase64 = s => Uint8Array.from(atob(s), c => c.charCodeAt(0));
const escape = s => s.replace(/[&<>'"]/g, c => `&#${c.charCodeAt(0)};`);

async function hmac(key, data) {
  const k = await crypto.subtle.importKey("raw", key, { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
  return new Uint8Array(await crypto.subtle.sign("HMAC", k, data));
}

// Scram holds one SCRAM-SHA-256 exchange; the caller is no authority over the
// channel, so it says "n": a page cannot see its TLS.
class Scram {
  constructor(user, password) {
    this.password = password;
    this.nonce = base64(crypto.getRandomValues(new Uint8Array(18)));
    this.bare = `n=${user.replace(/=/g, "=3D").replace(/,/g, "=2C")},r=${this.nonce}`;
  }

  first() {
    return btoa("n,," + this.bare);
  }

  async final(challenge) {
    const server = atob(challenge);
    const field = name => server.split(",").find(f => f.startsWith(name + "=")).slice(2);
    if (!field("r").startsWith(this.nonce) || field("r") === this.nonce) throw new Error("the server's nonce is not ours");
    const key = await crypto.subtle.importKey("raw", text.encode(this.password.normalize("NFKC")), "PBKDF2", false, ["deriveBits"]);
    const parameters = { name: "PBKDF2", hash: "SHA-256", salt: unbase64(field("s")), iterations: Number(field("i")) };
    const salted = new Uint8Array(await crypto.subtle.deriveBits(parameters, key, 256));
    const withoutProof = `c=biws,r=${field("r")}`;
    const auth = text.encode(`${this.bare},${server},${withoutProof}`);
    const clientKey = await hmac(salted, text.encode("Client Key"));
    const storedKey = new Uint8Array(await crypto.subtle.digest("SHA-256", clientKey));
    const signature = await hmac(storedKey, auth);
    this.signature = base64(await hmac(await hmac(salted, text.encode("Server Key")), auth));
    return btoa(`${withoutProof},p=${base64(clientKey.map((b, i) => b ^ signature[i]))}`);
  }

  verify(success) {
    if (atob(success) !== `v=${this.signature}`) throw new Error("the server does not know the password");
  }
}

// verification is the hash of what the page can do (XEP-0115 §5.1).
async function verification() {
  const said = "client/web//A page<" + features.map(f => f + "<").join("");
  return base64(new Uint8Array(await crypto.subtle.digest("SHA-1", text.encode(said))));
}

// Client logs in when it is made. on.state gets a word; on.message, on.presence
// and on.entry get an address and a text.
class Client {
  constructor(url, jid, password, on) {
    [this.user, this.domain] = jid.split("@");
    this.on = on;
    this.scram = new Scram(this.user, password);
    this.authenticated = false;
    this.work = Promise.resolve();
    this.socket = new WebSocket(url, "xmpp");
    this.socket.onopen = () => this.open();
    this.socket.onclose = () => this.on.state("closed");
    // One message after the other: what WebCrypto does takes turns.
    this.socket.onmessage = e => {
      this.work = this.work.then(() => this.receive(e.data)).catch(error => this.fail(error.message));
    };
  }

  open() {
    this.socket.send(`<open xmlns="${NS.framing}" to="${escape(this.domain)}" version="1.0"/>`);
  }

  fail(why) {
    this.on.state(`failed: ${why}`);
    this.socket.onclose = null;
    this.socket.close();
  }

  // receive takes one element: every message is a document of its own (RFC 7395 §3.3).
  async receive(data) {
    const element = new DOMParser().parseFromString(data, "text/xml").documentElement;
    const child = (ns, name) => element.getElementsByTagNameNS(ns, name)[0];
    switch (element.localName) {
      case "features":
        if (!this.authenticated) {
          const offered = [...element.getElementsByTagNameNS(NS.sasl, "mechanism")].map(m => m.textContent);
          if (!offered.includes("SCRAM-SHA-256")) throw new Error(`only ${offered}`);
          this.socket.send(`<auth xmlns="${NS.sasl}" mechanism="SCRAM-SHA-256">${this.scram.first()}</auth>`);
        } else if (child(NS.bind, "bind")) {
          this.socket.send(`<iq xmlns="${NS.client}" type="set" id="bind"><bind xmlns="${NS.bind}"><resource>page</resource></bind></iq>`);
        }
        break;
      case "challenge":
        this.socket.send(`<response xmlns="${NS.sasl}">${await this.scram.final(element.textContent)}</response>`);
        break;
      case "success":
        this.scram.verify(element.textContent);
        this.authenticated = true;
        this.open();
        break;
      case "failure":
        throw new Error(element.firstElementChild.localName);
      case "iq":
        if (element.getAttribute("id") === "bind" && element.getAttribute("type") === "result") {
          this.socket.send(`<presence xmlns="${NS.client}"><c xmlns="${NS.caps}" hash="sha-1" node="urn:example:page" ver="${await verification()}"/></presence>`);
          this.on.state(`online as ${child(NS.bind, "jid").textContent}`);
        } else if (child(NS.info, "query") && element.getAttribute("type") === "get") {
          const node = child(NS.info, "query").getAttribute("node");
          this.socket.send(`<iq xmlns="${NS.client}" type="result" id="${escape(element.getAttribute("id"))}" to="${escape(element.getAttribute("from") || this.domain)}">` +
            `<query xmlns="${NS.info}"${node ? ` node="${escape(node)}"` : ""}><identity category="client" type="web" name="A page"/>` +
            features.map(f => `<feature var="${f}"/>`).join("") + "</query></iq>");
        } else if (child(NS.atom, "entry")) {
          for (const title of element.getElementsByTagNameNS(NS.atom, "title")) this.on.entry(element.getAttribute("from"), title.textContent);
        } else if (element.getAttribute("type") === "error") {
          this.on.state(`failed: ${element.getAttribute("id")}: ${child("urn:ietf:params:xml:ns:xmpp-stanzas", "text")?.textContent}`);
        } else if (["get", "set"].includes(element.getAttribute("type"))) {
          this.socket.send(`<iq xmlns="${NS.client}" type="error" id="${escape(element.getAttribute("id"))}" to="${escape(element.getAttribute("from") || this.domain)}">` +
            `<error type="cancel"><service-unavailable xmlns="urn:ietf:params:xml:ns:xmpp-stanzas"/></error></iq>`);
        }
        break;
      case "message":
        // A microblog's notification names the entry and has no text of it (XEP-0472).
        for (const item of element.getElementsByTagNameNS(NS.event, "item")) {
          this.read(element.getAttribute("from"), `<item id="${escape(item.getAttribute("id"))}"/>`);
        }
        if (child(NS.client, "body")) this.on.message(element.getAttribute("from"), child(NS.client, "body").textContent);
        break;
      case "presence":
        if (element.getAttribute("type") === "subscribe") {
          this.socket.send(`<presence xmlns="${NS.client}" type="subscribed" to="${escape(element.getAttribute("from"))}"/>`);
        } else {
          this.on.presence(element.getAttribute("from"), element.getAttribute("type") || "available");
        }
        break;
      case "close":
        this.socket.send(`<close xmlns="${NS.framing}"/>`);
        break;
    }
  }

  // follow asks to see somebody's presence, and with it what is published.
  follow(author) {
    this.socket.send(`<presence xmlns="${NS.client}" type="subscribe" to="${escape(author)}"/>`);
  }

  // read asks for somebody's microblog, or for some items of it.
  read(author, items = "") {
    this.socket.send(`<iq xmlns="${NS.client}" type="get" id="read" to="${escape(author)}"><pubsub xmlns="${NS.pubsub}"><items node="${NS.blog}">${items}</items></pubsub></iq>`);
  }

  // publish adds an entry to the user's microblog (XEP-0277 §2).
  publish(title) {
    const id = crypto.randomUUID(), now = new Date().toISOString();
    this.socket.send(`<iq xmlns="${NS.client}" type="set" id="publish"><pubsub xmlns="${NS.pubsub}"><publish node="${NS.blog}"><item id="${id}">` +
      `<entry xmlns="${NS.atom}"><title type="text">${escape(title)}</title><id>urn:uuid:${id}</id><updated>${now}</updated>` +
      `<author><name>${escape(this.user)}</name></author></entry></item></publish></pubsub></iq>`);
  }

  say(to, body) {
    this.socket.send(`<message xmlns="${NS.client}" type="chat" to="${escape(to)}"><body>${escape(body)}</body></message>`);
  }
}
