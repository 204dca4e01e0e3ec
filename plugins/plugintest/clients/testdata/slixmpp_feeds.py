"""Alice shares what she listens to, keeps notes of her own, and has a blog that bob reads.

The accounts alice, bob and carol exist. How it is called: steps.py.
"""
from xml.etree import ElementTree

from slixmpp import JID
from slixmpp.stanza import Message

from devices import PATIENCE, Device, check
from steps import Steps, refused

TUNE = "http://jabber.org/protocol/tune"
NOTES = "urn:example:notes"
PUBSUB = "http://jabber.org/protocol/pubsub"
step = Steps()


def device(w, user, resource):
    d = Device(w.house, user, resource)
    for plugin in ("xep_0060", "xep_0163", "xep_0118"):
        d.register_plugin(plugin)
    return d


def note(text):
    el = ElementTree.Element("{%s}note" % NOTES)
    el.text = text
    return el


def form(d, about, **values):
    x = d["xep_0004"].make_form(ftype="submit")
    x.add_field("FORM_TYPE", ftype="hidden", value=f"{PUBSUB}#{about}")
    for name, value in values.items():
        x.add_field(f"pubsub#{name}", value=value)
    return x


def event(node, *parts):
    """A notification of the node in which the parts stand."""
    def fits(s):
        text = str(s)
        return isinstance(s, Message) and s.get_plugin("pubsub_event", check=True) is not None and node in text and all(p in text for p in parts)
    return fits


@step
async def login(w):
    w.a1, w.a2, w.b1 = device(w, "alice", "phone"), device(w, "alice", "desk"), device(w, "bob", "phone")
    for d in (w.a1, w.a2, w.b1):
        await d.login()
    for asks, grants, who, other in ((w.a1, w.b1, w.alice, w.bob), (w.b1, w.a1, w.bob, w.alice)):
        asks.send_presence_subscription(pto=other)
        await grants.presence(who, "subscribe")
        grants.send_presence_subscription(pto=who, ptype="subscribed")
        await asks.presence(other)


@step
async def support(w):
    own = await w.a1["xep_0030"].get_info(jid=w.alice, timeout=PATIENCE)
    check(("pubsub", "pep", None, None) in own["disco_info"]["identities"], f"the account is {own}")
    info = await w.a1["xep_0030"].get_info(jid=w.service, timeout=PATIENCE)
    check(f"{PUBSUB}#publish" in info["disco_info"]["features"], f"the service is {info}")


@step
async def tune(w):
    await w.a1["xep_0118"].publish_tune(artist="Gerald Finzi", title="Introduction", timeout=PATIENCE)
    for d in (w.a1, w.a2, w.b1):
        got = await d.expect("the tune", event(TUNE, "Gerald Finzi"))
        check(got["from"] == JID(w.alice) and got["type"] == "headline", f"the notification is {got}")
    items = await w.b1["xep_0060"].get_items(w.alice, TUNE, timeout=PATIENCE)
    check("Gerald Finzi" in str(items), f"the items are {items}")


@step
async def last_item(w):
    """Who comes later hears what the last tune was."""
    w.b2 = device(w, "bob", "desk")
    await w.b2.login()
    got = await w.b2.expect("the last tune", event(TUNE, "Gerald Finzi"))
    check(got.get_plugin("delay", check=True) is not None, f"no delay stamp on {got}")


@step
async def private_notes(w):
    kept = form(w.a1, "publish-options", persist_items="true", access_model="whitelist", max_items="max")
    for name in ("one", "two"):
        await w.a1["xep_0060"].publish(None, NOTES, id=name, payload=note(name), options=kept, timeout=PATIENCE)
    items = await w.a2["xep_0060"].get_items(None, NOTES, timeout=PATIENCE)
    check([i["id"] for i in items["pubsub"]["items"]] == ["one", "two"], f"the notes are {items}")
    await refused("not-allowed", w.b1["xep_0060"].get_items(w.alice, NOTES, timeout=PATIENCE))
    other = form(w.a1, "publish-options", access_model="open")
    await refused("conflict", w.a1["xep_0060"].publish(None, NOTES, id="three", payload=note("three"), options=other, timeout=PATIENCE))
    await w.a1["xep_0060"].retract(None, NOTES, "one", timeout=PATIENCE)
    items = await w.a2["xep_0060"].get_items(None, NOTES, timeout=PATIENCE)
    check([i["id"] for i in items["pubsub"]["items"]] == ["two"], f"the notes are {items}")


@step
async def blog(w):
    a, b = w.a1["xep_0060"], w.b1["xep_0060"]
    await a.create_node(w.service, "blog", config=form(w.a1, "node_config", title="Wonderland", max_items="2"), timeout=PATIENCE)
    await refused("conflict", a.create_node(w.service, "blog", timeout=PATIENCE))
    nodes = await b.get_nodes(w.service, timeout=PATIENCE)
    check("blog" in str(nodes), f"the nodes are {nodes}")
    got = await b.subscribe(w.service, "blog", timeout=PATIENCE)
    check(got["pubsub"]["subscription"]["subscription"] == "subscribed", f"bob has {got}")
    for text in ("first", "second", "third"):
        await a.publish(w.service, "blog", id=text, payload=note(text), timeout=PATIENCE)
        await w.b1.expect(f"the {text} entry", event("blog", text, NOTES))
    await w.b1.expect("that the first is gone", event("blog", "retract", "first"))
    newest = await b.get_items(w.service, "blog", max_items=1, timeout=PATIENCE)
    check([i["id"] for i in newest["pubsub"]["items"]] == ["third"], f"the newest is {newest}")
    await refused("forbidden", b.publish(w.service, "blog", id="bob", payload=note("bob"), timeout=PATIENCE))
    await a.modify_affiliations(w.service, "blog", affiliations=[(w.bob, "publisher")], timeout=PATIENCE)
    await b.publish(w.service, "blog", id="bob", payload=note("bob"), timeout=PATIENCE)
    config = await a.get_node_config(w.service, "blog", timeout=PATIENCE)
    check(config["pubsub_owner"]["configure"]["form"]["values"]["pubsub#title"] == "Wonderland", f"the configuration is {config}")
    await a.delete_node(w.service, "blog", timeout=PATIENCE)
    await w.b1.expect("that the blog is gone", event("blog", "delete"))
    await refused("item-not-found", b.get_items(w.service, "blog", timeout=PATIENCE))


@step
async def farewell(w):
    for d in (w.b2, w.b1, w.a2, w.a1):
        await d.logout()


if __name__ == "__main__":
    step.main(alice="alice@DOMAIN", bob="bob@DOMAIN", service="pubsub.DOMAIN")
