// A client in a page: XMPP over WebSocket (RFC 7395), SCRAM-SHA-256 (RFC 7677)
// by WebCrypto, resource binding. No library.
"use strict";

const NS = {
  framing: "urn:ietf:params:xml:ns:xmpp-framing",
  sasl: "urn:ietf:params:xml:ns:xmpp-sasl",
  bind: "urn:ietf:params:xml:ns:xmpp-bind",
  client: "jabber:client",
};

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

// Client logs in when it is made. onstate gets a word, onmessage (from, body).
class Client {
  constructor(url, jid, password, onstate, onmessage) {
    [this.user, this.domain] = jid.split("@");
    this.onstate = onstate;
    this.onmessage = onmessage;
    this.scram = new Scram(this.user, password);
    this.authenticated = false;
    this.work = Promise.resolve();
    this.socket = new WebSocket(url, "xmpp");
    this.socket.onopen = () => this.open();
    this.socket.onclose = () => this.onstate("closed");
    // One message after the other: what WebCrypto does takes turns.
    this.socket.onmessage = e => {
      this.work = this.work.then(() => this.receive(e.data)).catch(error => this.fail(error.message));
    };
  }

  open() {
    this.socket.send(`<open xmlns="${NS.framing}" to="${escape(this.domain)}" version="1.0"/>`);
  }

  fail(why) {
    this.onstate(`failed: ${why}`);
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
          this.socket.send(`<presence xmlns="${NS.client}"/>`);
          this.onstate(`online as ${child(NS.bind, "jid").textContent}`);
        } else if (["get", "set"].includes(element.getAttribute("type"))) {
          this.socket.send(`<iq xmlns="${NS.client}" type="error" id="${escape(element.getAttribute("id"))}" to="${escape(element.getAttribute("from") || this.domain)}">` +
            `<error type="cancel"><service-unavailable xmlns="urn:ietf:params:xml:ns:xmpp-stanzas"/></error></iq>`);
        }
        break;
      case "message":
        if (child(NS.client, "body")) this.onmessage(element.getAttribute("from"), child(NS.client, "body").textContent);
        break;
      case "close":
        this.socket.send(`<close xmlns="${NS.framing}"/>`);
        break;
    }
  }

  say(to, body) {
    this.socket.send(`<message xmlns="${NS.client}" type="chat" to="${escape(to)}"><body>${escape(body)}</body></message>`);
  }
}
