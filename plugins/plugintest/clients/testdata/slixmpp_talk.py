"""Two people with two devices each talk through a server.

The accounts alice, bob and carol exist. How it is called: steps.py.
"""
from slixmpp import JID
from slixmpp.stanza import Iq, Message, Presence

from devices import PATIENCE, Device, Failure, check
from steps import Steps

step = Steps()


@step
async def login(w):
    for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-1"):
        d = Device(w.house, "alice", "scram", mechanism=mechanism)
        await d.arrive()
        check(d["feature_mechanisms"].mech.name == mechanism, f"logged in by {d['feature_mechanisms'].mech.name}")
        check(d.boundjid.full == f"{w.alice}/scram", f"bound to {d.boundjid}")
        await d.logout()
    w.a1, w.a2 = Device(w.house, "alice", "phone"), Device(w.house, "alice", "desk")
    w.b1, w.b2 = Device(w.house, "bob", "phone"), Device(w.house, "bob", "desk")
    for d in (w.a1, w.a2, w.b1, w.b2):
        await d.login()


@step
async def login_as_it_comes(w):
    """Without our help the library finds something, time and again."""
    for _ in range(5):
        d = Device(w.house, "carol", "phone", mechanism=None)
        await d.arrive()
        await d.logout()


@step
async def wrong_password(w):
    d = Device(w.house, "alice", "thief", password="not this one")
    try:
        await d.arrive()
    except Failure as e:
        check("not authorized" in str(e), str(e))
        return
    raise Failure("logged in with a wrong password")


@step
async def resource_by_server(w):
    d = Device(w.house, "alice", "")
    await d.arrive()
    check(d.boundjid.resource, "no resource was made up")
    await d.logout()


@step
async def disco(w):
    info = await w.a1["xep_0030"].get_info(jid=w.house.domain, timeout=PATIENCE)
    features = info["disco_info"]["features"]
    for feature in ("urn:xmpp:carbons:2", "urn:xmpp:blocking", "urn:xmpp:ping", "vcard-temp", "jabber:iq:version", "urn:xmpp:time"):
        check(feature in features, f"{feature} is not among the server's features {sorted(features)}")
    own = await w.a1["xep_0030"].get_info(jid=w.alice, timeout=PATIENCE)
    check("urn:xmpp:mam:2" in own["disco_info"]["features"], "the account has no archive")


def roster_push(jid, **want):
    def fits(s):
        if not isinstance(s, Iq) or s["type"] != "set" or s.get_plugin("roster", check=True) is None:
            return False
        item = s["roster"]["items"].get(JID(jid))
        return item is not None and all(item[k] == v for k, v in want.items())
    return fits


@step
async def roster(w):
    await w.a1.update_roster(w.bob, name="Bob", groups=["Friends"], timeout=PATIENCE)
    for d in (w.a1, w.a2):
        await d.expect("a roster push for bob", roster_push(w.bob, name="Bob", groups=["Friends"]))
    d = Device(w.house, "alice", "tablet")
    await d.arrive()
    iq = await d.get_roster(timeout=PATIENCE)
    item = iq["roster"]["items"].get(JID(w.bob))
    check(item and item["name"] == "Bob" and item["groups"] == ["Friends"] and item["subscription"] == "none", f"the roster is {iq}")
    await d.logout()


@step
async def subscription(w):
    w.a1.send_presence_subscription(pto=w.bob)
    await w.a2.expect("a roster push: asked", roster_push(w.bob, ask="subscribe", subscription="none"))
    for d in (w.b1, w.b2):
        await d.presence(w.alice, "subscribe")
    w.b1.send_presence_subscription(pto=w.alice, ptype="subscribed")
    await w.a1.presence(w.bob, "subscribed")
    await w.a2.expect("a roster push: to", roster_push(w.bob, subscription="to"))
    w.b1.send_presence_subscription(pto=w.alice, ptype="subscribe")
    await w.a1.presence(w.bob, "subscribe")
    w.a1.send_presence_subscription(pto=w.bob, ptype="subscribed")
    for d, who in ((w.a1, w.bob), (w.a2, w.bob), (w.b1, w.alice), (w.b2, w.alice)):
        await d.expect("a roster push: both", roster_push(who, subscription="both"))
        await d.get_roster(timeout=PATIENCE)  # by its version: the answer may be empty (RFC 6121 §2.6)
        check(d.client_roster[who]["subscription"] == "both", f"{d.boundjid} has {d.client_roster}")


@step
async def presence(w):
    for d in (w.a1, w.a2):
        for other in (w.b1, w.b2):
            await d.presence(other.boundjid.full)
    for d in (w.b1, w.b2):
        for other in (w.a1, w.a2):
            await d.presence(other.boundjid.full)
    w.b1.send_presence(pshow="away", pstatus="At lunch", ppriority=0)
    for d in (w.a1, w.a2, w.b2):
        await d.presence(w.b1.boundjid.full, show="away", status="At lunch")
    w.b1.send_presence(ppriority=0)
    for d in (w.a1, w.a2, w.b2):
        await d.presence(w.b1.boundjid.full, show="")


@step
async def chat(w):
    w.a1.say(w.bob, "good morning")
    for d in (w.b1, w.b2):
        got = await d.body("good morning")
        check(got["from"] == w.a1.boundjid and got["to"].bare == w.bob, f"addressed {got}")
    await w.a2.carbon("sent", "good morning")
    w.sent = ["good morning"]


@step
async def carbons(w):
    w.b1.say(w.a1.boundjid.full, "to your phone")
    await w.a1.body("to your phone")
    await w.a2.carbon("received", "to your phone")
    await w.b2.carbon("sent", "to your phone")
    await w.a1.nothing("a carbon of what it got itself", lambda s: isinstance(s, Message) and "to your phone" in str(s))
    w.sent.append("to your phone")


@step
async def receipts(w):
    w.b1["xep_0184"].auto_ack = True
    ident = w.a1.say(w.bob, "did it arrive?", receipt=True)
    await w.b1.body("did it arrive?")
    got = await w.a1.expect("a receipt", lambda s: isinstance(s, Message) and s["receipt"] == ident)
    check(got["from"] == w.b1.boundjid, f"the receipt comes from {got['from']}")
    w.b1["xep_0184"].auto_ack = False
    w.sent.append("did it arrive?")


@step
async def ping(w):
    for target in (w.house.domain, w.alice, w.b1.boundjid.full):
        await w.a1["xep_0199"].send_ping(target, timeout=PATIENCE)


@step
async def version_and_time(w):
    iq = await w.a1["xep_0092"].get_version(w.house.domain, timeout=PATIENCE)
    check(iq["software_version"]["name"] == "Parley", f"the software is {iq}")
    iq = await w.a1["xep_0202"].get_entity_time(w.house.domain, timeout=PATIENCE)
    utc = iq["entity_time"].xml.findtext("{urn:xmpp:time}utc")  # slixmpp's own reading adds a second Z
    check(utc and utc.endswith("Z"), f"the time is {iq}")


@step
async def vcard(w):
    card = w.a1["xep_0054"].make_vcard()
    card["FN"] = "Alice Liddell"
    card["NICKNAME"] = ["al"]
    await w.a1["xep_0054"].publish_vcard(card, timeout=PATIENCE)
    iq = await w.b1["xep_0054"].get_vcard(JID(w.alice), timeout=PATIENCE)
    check(iq["vcard_temp"]["FN"] == "Alice Liddell", f"the card is {iq}")


@step
async def blocking(w):
    for d in (w.b1, w.b2):  # who asks for the list is told of its changes (XEP-0191 §3.2)
        listed = await d["xep_0191"].get_blocked(timeout=PATIENCE)
        check(not listed["blocklist"]["items"], f"the list is {listed}")
    await w.b1["xep_0191"].block(JID(w.alice), timeout=PATIENCE)
    for d in (w.b1, w.b2):
        await d.expect("a block push", lambda s: isinstance(s, Iq) and s["type"] == "set" and s.get_plugin("block", check=True) is not None)
    for other in (w.b1, w.b2):  # XEP-0191 §3.3: the blocked contact sees the user go
        await w.a1.presence(other.boundjid.full, "unavailable")
    ident = w.a1.say(w.bob, "can you hear me?")
    error = await w.a1.expect("an error", lambda s: isinstance(s, Message) and s["type"] == "error" and s["id"] == ident)
    check(error["error"]["condition"] == "service-unavailable", f"the error is {error}")
    listed = await w.b2["xep_0191"].get_blocked(timeout=PATIENCE)
    check({JID(j) for j in listed["blocklist"]["items"]} == {JID(w.alice)}, f"the list is {listed}")
    await w.b1["xep_0191"].unblock(JID(w.alice), timeout=PATIENCE)
    for other in (w.b1, w.b2):
        await w.a1.presence(other.boundjid.full)
    w.a1.say(w.bob, "and now?")
    await w.b1.body("and now?")
    await w.b2.body("and now?")
    for d in (w.b1, w.b2):
        await d.nothing("what was blocked", lambda s: isinstance(s, Message) and "hear me" in str(s))
    w.sent.append("and now?")


@step
async def resumption(w):
    """The line breaks; what comes in the meantime is not lost (XEP-0198 §5)."""
    w.b1.abort()
    w.a1.say(w.b1.boundjid.full, "are you in a tunnel?")
    check(await w.b1.arrive() == "resumed", "a new session instead of the old one")
    await w.b1.body("are you in a tunnel?")
    w.sent.append("are you in a tunnel?")


@step
async def offline(w):
    for d in (w.b1, w.b2):
        await d.logout()
        await w.a1.presence(d.boundjid.full, "unavailable")
    left = [f"note {n}" for n in range(1, 6)]
    for text in left:
        w.a1.say(w.bob, text)
    w.sent += left
    w.b1 = await Device(w.house, "bob", "phone").login()
    await w.b1["xep_0199"].send_ping(w.house.domain, timeout=PATIENCE)
    for text in left:
        got = await w.b1.body(text)
        check(got.get_plugin("delay", check=True) is not None, f"no delay stamp on {got}")
    await w.b1.nothing("a second copy", lambda s: isinstance(s, Message) and s["body"])
    order = [s for s in w.b1.order if s in left]
    check(order == left, f"the order is {order}")
    await w.b1.logout()
    await w.a1.presence(w.b1.boundjid.full, "unavailable")
    w.b1 = await Device(w.house, "bob", "phone").login()
    w.a1.say(w.bob, "now you have them all")
    await w.b1.body("now you have them all")
    await w.b1.nothing("old messages once more", lambda s: isinstance(s, Message) and s["body"])
    w.sent.append("now you have them all")


@step
async def offline_subscription(w):
    """A request waits for somebody who is offline (RFC 6121 §3.1.3)."""
    await w.b1.logout()
    await w.a1.presence(w.b1.boundjid.full, "unavailable")
    c = await Device(w.house, "carol", "phone").login()
    c.send_presence_subscription(pto=w.bob)
    await c.expect("a roster push: asked", roster_push(w.bob, ask="subscribe"))
    w.b1 = await Device(w.house, "bob", "phone").login()
    await w.b1.presence(f"carol@{w.house.domain}", "subscribe")
    w.b1.send_presence_subscription(pto=f"carol@{w.house.domain}", ptype="unsubscribed")
    await c.presence(w.bob, "unsubscribed")
    await c.logout()


async def history(device, other, **rsm):
    bodies, ids = [], []
    async for result in device["xep_0313"].iterate(with_jid=JID(other), rsm=rsm or {"max": 50}):
        inner = result["mam_result"]["forwarded"]["stanza"]
        if inner["body"]:
            bodies.append(inner["body"])
        ids.append(result["mam_result"]["id"])
    check(len(set(ids)) == len(ids), f"an id comes twice in {ids}")
    return bodies


@step
async def archive(w):
    for device, other in ((w.a1, w.bob), (w.b1, w.alice)):
        for page in (50, 3):
            bodies = await history(device, other, max=page)
            # Whether a message that was refused stands in its sender's own archive is the server's choice.
            told = [b for b in bodies if b != "can you hear me?"]
            check(told == w.sent, f"{device.boundjid} reads, {page} at a time, {told} where {w.sent} was said")
            check(device is w.a1 or bodies == told, "bob's archive has what he had blocked")
    check(await history(w.a1, f"carol@{w.house.domain}") == [], "a conversation that never was")


@step
async def farewell(w):
    for d in (w.b1, w.a2, w.a1):
        await d.logout()


if __name__ == "__main__":
    step.main(alice="alice@DOMAIN", bob="bob@DOMAIN")
