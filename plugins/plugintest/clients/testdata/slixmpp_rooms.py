"""Alice makes a room for members; bob is one, carol is not.

The accounts alice, bob and carol exist. How it is called: steps.py.
The library knows older forms of retraction and moderation than the rooms do,
and no inbox: those steps put the elements together themselves.
"""
from xml.etree import ElementTree

from slixmpp import JID
from slixmpp.stanza import Message, Presence

from devices import PATIENCE, Device, check
from steps import Steps, refused

MUC = "http://jabber.org/protocol/muc"
SID = "{urn:xmpp:sid:0}stanza-id"
OCCUPANT = "{urn:xmpp:occupant-id:0}occupant-id"
RETRACT = "urn:xmpp:message-retract:1"
MODERATE = "urn:xmpp:message-moderate:1"
INBOX = "urn:xmpp:inbox:1"
step = Steps()


def device(w, user, resource="phone"):
    d = Device(w.house, user, resource)
    for plugin in ("xep_0045", "xep_0249", "xep_0421"):
        d.register_plugin(plugin)
    d["xep_0045"].room = d["xep_0045"].rooms  # slixmpp looks for it under this name when an invitation is declined
    return d


async def enter(w, d, nick, room=None, **more):
    """Enters; returns its own presence, the subject, the occupants and the history."""
    more.setdefault("maxstanzas", 0)
    return await d["xep_0045"].join_muc_wait(room or w.room, nick, timeout=PATIENCE, **more)


def codes(stanza):
    return set(stanza["muc"]["status_codes"])


async def occupant(w, d, nick, kind="available", *statuses):
    """Presence of an occupant with the status codes in it."""
    def fits(s):
        return isinstance(s, Presence) and s["from"] == JID(f"{w.room}/{nick}") and (s["type"] == "unavailable") == (kind == "unavailable") and set(statuses) <= codes(s)
    return await d.expect(f"{nick} to be {kind}, with {statuses}", fits)


async def say(w, d, text, *hearers):
    """Says something in the room; returns it as its speaker got it back, which is its acknowledgement."""
    m = d.make_message(mto=w.room, mbody=text, mtype="groupchat")
    m.send()
    back = await d.body(text)
    check(back["id"] == m["id"], f"another id than {m['id']} on {back}")
    for h in hearers:
        got = await h.body(text)
        check(stanza_id(w, got) == stanza_id(w, back), f"{h.boundjid} has another stanza-id than the speaker")
    return back


def stanza_id(w, message):
    ids = [e.get("id") for e in message.xml.findall(SID) if e.get("by") == str(w.room)]
    check(len(ids) == 1 and ids[0], f"stanza-ids of the room: {ids} in {message}")
    return ids[0]


def occupant_id(stanza):
    found = stanza.xml.find(OCCUPANT)
    check(found is not None and found.get("id"), f"no occupant-id in {stanza}")
    return found.get("id")


def invitation(w, kind):
    return lambda s: isinstance(s, Message) and s.get_plugin("muc", check=True) is not None and s["muc"].get_plugin(kind, check=True) is not None and s["from"] == w.room


async def archive(w, d, size):
    """Each message of the room's archive, by pages of a size."""
    ids, messages = [], []
    async for result in d["xep_0313"].iterate(jid=w.room, rsm={"max": size}):
        ids.append(result["mam_result"]["id"])
        messages.append(result["mam_result"]["forwarded"]["stanza"])
    check(len(set(ids)) == len(ids), f"an id comes twice in {ids}")
    return ids, messages


async def ask(d, to, payload, kind="set"):
    iq = d.make_iq(itype=kind, ito=to)
    iq.append(payload)
    return await iq.send(timeout=PATIENCE)


@step
async def login(w):
    w.room = JID(w.address)
    w.a, w.b, w.c = device(w, "alice"), device(w, "bob"), device(w, "carol")
    for d in (w.a, w.b, w.c):
        await d.login()


@step
async def service(w):
    items = await w.a["xep_0030"].get_items(jid=w.house.domain, timeout=PATIENCE)
    check(w.room.domain in str(items), f"the server has {items}")
    info = await w.a["xep_0030"].get_info(jid=w.room.domain, timeout=PATIENCE)
    check(MUC in info["disco_info"]["features"] and ("conference", "text", None, "Rooms") in info["disco_info"]["identities"], f"the service is {info}")


@step
async def create(w):
    own, *_ = await enter(w, w.a, "Alice")
    check({110, 201} <= codes(own), f"the room is not new: {own}")
    await refused("item-not-found", enter(w, w.b, "Bob"), "not ready yet")
    muc = w.a["xep_0045"]
    form = await muc.get_room_config(w.room, timeout=PATIENCE)
    values = form.get_values()
    check(values["muc#roomconfig_persistentroom"] is False and "muc#roomconfig_membersonly" in values, f"the form is {form}")
    form.set_type("submit")
    form.set_values({**values, "muc#roomconfig_roomname": "The garden", "muc#roomconfig_persistentroom": True, "muc#roomconfig_membersonly": True})
    await muc.set_room_config(w.room, form, timeout=PATIENCE)
    info = await w.c["xep_0030"].get_info(jid=w.room, timeout=PATIENCE)
    features = info["disco_info"]["features"]
    for feature in ("muc_persistent", "muc_membersonly", "urn:xmpp:mam:2", "urn:xmpp:occupant-id:0", "urn:xmpp:sid:0"):
        check(feature in features, f"{feature} is not among {sorted(features)}")
    check(any(i[3] == "The garden" for i in info["disco_info"]["identities"]), f"the room is {info}")


@step
async def members_only(w):
    await refused("registration-required", enter(w, w.b, "Bob"), "members")
    await w.a["xep_0045"].set_affiliation(w.room, "member", jid=JID(w.bob), timeout=PATIENCE)
    await w.b.expect("an invitation: who is made a member is told", invitation(w, "invite"))
    members = await w.a["xep_0045"].get_affiliation_list(w.room, "member", timeout=PATIENCE)
    check(members == [JID(w.bob)], f"the members are {members}")


@step
async def enters(w):
    own, subject, others, history = await enter(w, w.b, "Bob")
    check(codes(own) >= {110} and own["muc"]["affiliation"] == "member" and own["muc"]["role"] == "participant", f"bob is {own}")
    check([o["from"].resource for o in others] == ["Alice", "Bob"] and history == [], f"bob sees {others} and {history}")
    check(subject["subject"] == "", f"there is a subject: {subject}")
    seen = await occupant(w, w.a, "Bob")
    check(seen["muc"]["jid"] == w.b.boundjid, f"a moderator sees {seen}")
    alice = await occupant(w, w.b, "Alice")
    check(not alice["muc"]["jid"].full, f"a participant sees alice's address: {alice}")


@step
async def messages(w):
    """Who speaks gets it back; all have the room's id of it, and the speaker's."""
    own = w.b["xep_0045"].rooms[w.room]["Bob"]
    check(own["role"] == "participant", f"bob is {own}")
    first = await say(w, w.a, "good morning", w.b)
    check(first["type"] == "groupchat" and first["from"] == JID(f"{w.room}/Alice"), f"it is {first}")
    answer = await say(w, w.b, "morning, alice", w.a)
    check(occupant_id(first) != occupant_id(answer), "alice and bob have the same occupant-id")
    check(occupant_id(await say(w, w.b, "nice here", w.a)) == occupant_id(answer), "bob's occupant-id has changed")
    w.said = ["good morning", "morning, alice", "nice here"]


@step
async def private_message(w):
    w.b.make_message(mto=f"{w.room}/Alice", mbody="just between us", mtype="chat").send()
    got = await w.a.body("just between us")
    check(got["from"] == JID(f"{w.room}/Bob") and got["type"] == "chat", f"it is {got}")


@step
async def subject(w):
    def is_subject(s):
        return isinstance(s, Message) and s["type"] == "groupchat" and s["subject"] == "Larks"
    w.a["xep_0045"].set_subject(w.room, "Larks")
    for d in (w.a, w.b):
        got = await d.expect("the subject", is_subject)
        check(got["from"].resource == "Alice", f"the subject is {got}")
    w.b["xep_0045"].set_subject(w.room, "Nightingales")
    error = await w.b.expect("an error", lambda s: isinstance(s, Message) and s["type"] == "error")
    check(error["error"]["condition"] == "forbidden", f"the error is {error}")


@step
async def history(w):
    """Who comes back is shown as much as it asks for, and the subject with its author."""
    w.b["xep_0045"].leave_muc(w.room, "Bob", msg="back soon")
    gone = await occupant(w, w.a, "Bob", "unavailable")
    check(gone["status"] == "back soon", f"bob leaves with {gone}")
    await occupant(w, w.b, "Bob", "unavailable", 110)
    for text in ("one", "two", "three"):
        await say(w, w.a, text)
        w.said.append(text)
    _, subject, _, history = await enter(w, w.b, "Bob", maxstanzas=2)
    check([m["body"] for m in history] == ["two", "three"], f"the history is {history}")
    check(subject["subject"] == "Larks" and subject["from"].resource == "Alice", f"the subject is {subject}")
    await occupant(w, w.a, "Bob")


@step
async def nicknames(w):
    w.b.send_presence(pto=f"{w.room}/Robert")
    for d in (w.a, w.b):
        left = await occupant(w, d, "Bob", "unavailable", 303)
        check(left["muc"].xml.find(f"{{{MUC}#user}}item").get("nick") == "Robert", f"bob's new name is not in {left}")
        await occupant(w, d, "Robert")
    w.b.send_presence(pto=f"{w.room}/Bob")
    for d in (w.a, w.b):
        await occupant(w, d, "Robert", "unavailable", 303)
        await occupant(w, d, "Bob")


@step
async def self_ping(w):
    """XEP-0410: whoever is in the room gets an answer, others get an error."""
    await w.b["xep_0199"].send_ping(JID(f"{w.room}/Bob"), timeout=PATIENCE)
    await refused("not-acceptable", w.c["xep_0199"].send_ping(JID(f"{w.room}/Carol"), timeout=PATIENCE))


@step
async def invitations(w):
    w.a["xep_0045"].invite(w.room, JID(w.carol), reason="come in")
    got = await w.c.expect("an invitation", invitation(w, "invite"))
    check(got["muc"]["invite"]["reason"] == "come in" and got["muc"]["invite"]["from"] == JID(f"{w.room}/Alice"), f"the invitation is {got}")
    w.c["xep_0045"].decline(w.room, got["muc"]["invite"]["from"], reason="busy")
    got = await w.a.expect("that carol does not come", invitation(w, "decline"))
    check(got["muc"]["decline"]["reason"] == "busy", f"the answer is {got}")
    w.b["xep_0249"].send_invitation(JID(w.carol), w.room, reason="do come")
    got = await w.c.expect("a direct invitation", lambda s: isinstance(s, Message) and s.get_plugin("groupchat_invite", check=True) is not None and s["groupchat_invite"]["reason"] == "do come")
    check(got["groupchat_invite"]["jid"] == w.room.bare and got["from"].bare == w.bob, f"the invitation is {got}")
    await refused("conflict", enter(w, w.c, "Alice"), "nickname")
    own, *_ = await enter(w, w.c, "Carol")  # whom an admin invites is a member
    check(own["muc"]["affiliation"] == "member", f"carol is {own}")
    for d in (w.a, w.b):
        await occupant(w, d, "Carol")


@step
async def retraction(w):
    """XEP-0424, as it is today: by the id that the room has given."""
    wrong = await say(w, w.b, "the wrong room", w.a, w.c)
    back = ElementTree.Element(f"{{{RETRACT}}}retract", id=stanza_id(w, wrong))
    m = w.b.make_message(mto=w.room, mtype="groupchat")
    m.append(back)
    m.send()
    for d in (w.a, w.b, w.c):
        got = await d.expect("the retraction", lambda s: isinstance(s, Message) and s.xml.find(f"{{{RETRACT}}}retract") is not None)
        check(got["from"].resource == "Bob" and got.xml.find(f"{{{RETRACT}}}retract").get("id") == back.get("id"), f"it is {got}")


@step
async def moderation(w):
    """XEP-0425, as it is today."""
    spam = await say(w, w.c, "free potions", w.a, w.b)

    def moderate():
        el = ElementTree.Element(f"{{{MODERATE}}}moderate", id=stanza_id(w, spam))
        ElementTree.SubElement(el, f"{{{RETRACT}}}retract")
        ElementTree.SubElement(el, f"{{{MODERATE}}}reason").text = "spam"
        return el
    await refused("forbidden", ask(w.b, w.room, moderate()))
    await ask(w.a, w.room, moderate())
    for d in (w.a, w.b, w.c):
        got = await d.expect("the retraction", lambda s: isinstance(s, Message) and s.xml.find(f"{{{RETRACT}}}retract") is not None)
        by = got.xml.find(f"{{{RETRACT}}}retract/{{{MODERATE}}}moderated")
        check(got["from"] == w.room and by is not None and by.get("by") == f"{w.room}/Alice", f"it is {got}")


@step
async def room_archive(w):
    """Members read all that was said, with tombstones for what was taken back; whispers are not in it."""
    for size in (50, 3):
        _, messages = await archive(w, w.b, size)
        told = [m["body"] for m in messages if m["body"]]
        check(told == w.said, f"bob reads, {size} at a time, {told} where {w.said} was said")
        stones = [m for m in messages if m.xml.find(f"{{{RETRACT}}}retracted") is not None]
        check(len(stones) == 2, f"{len(stones)} tombstones in {messages}")
        check(any(m["subject"] == "Larks" for m in messages), f"no subject in {messages}")


@step
async def roles(w):
    """A kick ends the visit; a ban keeps away, and has no place in the archive."""
    await w.a["xep_0045"].set_role(w.room, "Carol", "none", reason="enough", timeout=PATIENCE)
    for d in (w.a, w.b, w.c):
        await occupant(w, d, "Carol", "unavailable", 307)
    await enter(w, w.c, "Carol")
    for d in (w.a, w.b):
        await occupant(w, d, "Carol")
    await refused("forbidden", w.b["xep_0045"].set_affiliation(w.room, "outcast", jid=JID(w.carol), timeout=PATIENCE))
    await w.a["xep_0045"].set_affiliation(w.room, "outcast", jid=JID(w.carol), reason="potions", timeout=PATIENCE)
    for d in (w.a, w.b, w.c):
        await occupant(w, d, "Carol", "unavailable", 301)
    await refused("forbidden", enter(w, w.c, "Carol"), "banned")
    await refused("forbidden", w.c["xep_0313"].get_archive_metadata(w.room, timeout=PATIENCE))


@step
async def password(w):
    """A second room, for whoever knows the word; who does not is told what is wrong."""
    cellar = JID(f"cellar@{w.room.domain}")
    muc = w.a["xep_0045"]
    await enter(w, w.a, "Alice", cellar)
    form = await muc.get_room_config(cellar, timeout=PATIENCE)
    form.set_type("submit")
    form.set_values({**form.get_values(), "muc#roomconfig_passwordprotectedroom": True, "muc#roomconfig_roomsecret": "rose"})
    await muc.set_room_config(cellar, form, timeout=PATIENCE)
    await refused("not-authorized", enter(w, w.c, "Carol", cellar), "a password is needed")
    await refused("not-authorized", enter(w, w.c, "Carol", cellar, password="lily"), "not the password")
    own, *_ = await enter(w, w.c, "Carol", cellar, password="rose")
    check(110 in codes(own), f"carol is {own}")
    await muc.destroy(cellar, timeout=PATIENCE)


@step
async def away(w):
    """What a member misses while it is offline is in its inbox, and the rest in the room's archive."""
    await w.b.logout()
    await occupant(w, w.a, "Bob", "unavailable")
    last = None
    for text in ("is bob away?", "Bob, this is for you"):
        last = await say(w, w.a, text)
        w.said.append(text)
    w.b = await device(w, "bob").login()
    fin = await ask(w.b, None, ElementTree.Element(f"{{{INBOX}}}inbox"), "get")
    check(fin.xml.find(f"{{{INBOX}}}fin") is not None, f"the inbox ends with {fin}")
    got = await w.b.expect("the room in the inbox", lambda s: isinstance(s, Message) and any(e.get("jid") == str(w.room) for e in s.xml.findall(f"{{{INBOX}}}entry")))
    entry = got.xml.find(f"{{{INBOX}}}entry")
    check(entry.get("unread") == "2" and entry.get("id") == stanza_id(w, last), f"the inbox has {got}")
    check("Bob, this is for you" in str(got), f"the last message is not in {got}")
    _, messages = await archive(w, w.b, 50)
    told = [m["body"] for m in messages if m["body"]]
    check(told == w.said, f"bob reads {told} where {w.said} was said")


@step
async def destroy(w):
    await enter(w, w.b, "Bob")
    await refused("forbidden", w.b["xep_0045"].destroy(w.room, timeout=PATIENCE))
    other = JID(f"meadow@{w.room.domain}")
    await w.a["xep_0045"].destroy(w.room, reason="winter", altroom=other, timeout=PATIENCE)
    for d, nick in ((w.a, "Alice"), (w.b, "Bob")):
        got = await d.expect("the end of the room", lambda s: isinstance(s, Presence) and s["from"] == JID(f"{w.room}/{nick}") and s["muc"].get_plugin("destroy", check=True) is not None)
        check(got["type"] == "unavailable" and got["muc"]["destroy"]["jid"] == other and got["muc"]["destroy"]["reason"] == "winter", f"the end is {got}")
    await refused("item-not-found", w.b["xep_0030"].get_info(jid=w.room, timeout=PATIENCE))


@step
async def farewell(w):
    for d in (w.c, w.b, w.a):
        await d.logout()


if __name__ == "__main__":
    step.main(alice="alice@DOMAIN", bob="bob@DOMAIN", carol="carol@DOMAIN", address="garden@conference.DOMAIN")
