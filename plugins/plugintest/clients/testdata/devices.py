"""Devices: slixmpp clients that keep what they have seen.

expect() waits for the first stanza that fits and has not been expected yet;
nothing here waits for time to pass, except to give up.
"""
import asyncio
import ssl

from slixmpp import ClientXMPP, JID
from slixmpp.stanza import Iq, Message, Presence

PATIENCE = 30  # seconds after which what is awaited does not come

PLUGINS = (
    "xep_0030", "xep_0054", "xep_0059", "xep_0092", "xep_0115", "xep_0184", "xep_0191",
    "xep_0198", "xep_0199", "xep_0202", "xep_0203", "xep_0280", "xep_0313", "xep_0359",
)


class Failure(Exception):
    """What the server did is not what was due."""


def check(ok, what):
    if not ok:
        raise Failure(what)


class Device(ClientXMPP):
    def __init__(self, house, user, resource, password=None, mechanism="SCRAM-SHA-256"):
        jid = f"{user}@{house.domain}" + (f"/{resource}" if resource else "")
        super().__init__(JID(jid), password or house.password, sasl_mech=mechanism)
        self.house = house
        if mechanism:
            # Python knows no channel binding for TLS 1.3; before 1.8.5 slixmpp claims tls-unique nevertheless.
            sasl = self["feature_mechanisms"]
            default = sasl.sasl_callback
            sasl.sasl_callback = lambda required, optional: {**default(required, optional), "channel_binding": None}
        self.seen = []   # stanzas that were not expected yet
        self.order = []  # bodies of messages, in the order in which they came
        self.changed = asyncio.Condition()
        self.ca_certs = house.certificate  # verified, not merely encrypted
        self.auto_authorize = None  # subscriptions are answered by the test
        self.auto_subscribe = False
        for plugin in PLUGINS:
            self.register_plugin(plugin)
        self["xep_0184"].auto_ack = False
        self.add_filter("in", self._note)
        self.add_event_handler("failed_all_auth", lambda _: self._settle(Failure("not authorized")))
        self.add_event_handler("connection_failed", lambda e: self._settle(Failure(f"no connection: {e}")))
        self.add_event_handler("session_start", lambda _: self._settle("session"))
        self.add_event_handler("session_resumed", lambda _: self._settle("resumed"))
        self.outcome = None

    # -- what comes in

    def _note(self, stanza):
        if isinstance(stanza, (Message, Presence, Iq)):
            self.seen.append(stanza)
            if isinstance(stanza, Message) and stanza["body"]:
                self.order.append(stanza["body"])
            asyncio.ensure_future(self._tell())
        return stanza

    async def _tell(self):
        async with self.changed:
            self.changed.notify_all()

    async def expect(self, what, fits):
        """The first stanza that fits; it is taken from those that were seen."""
        def take():
            for i, stanza in enumerate(self.seen):
                if fits(stanza):
                    return self.seen.pop(i)
            return None
        try:
            async with asyncio.timeout(PATIENCE):
                async with self.changed:
                    while (found := take()) is None:
                        await self.changed.wait()
                    return found
        except TimeoutError:
            last = "\n    ".join(str(s) for s in self.seen[-8:])
            raise Failure(f"{self.boundjid} waits for {what}; it has seen\n    {last}") from None

    async def body(self, text):
        return await self.expect(f"the message {text!r}", lambda s: isinstance(s, Message) and s["body"] == text)

    async def presence(self, who, kind="available", **more):
        def fits(s):
            return (isinstance(s, Presence) and s["type"] in ((kind,) if kind != "available" else ("available", "away", "dnd", "xa", "chat"))
                    and (s["from"].full == who or s["from"].bare == who)
                    and all(s[k] == v for k, v in more.items()))
        return await self.expect(f"presence {kind} {more or ''} of {who}", fits)

    async def carbon(self, kind, text):
        def fits(s):
            return isinstance(s, Message) and s.get_plugin(f"carbon_{kind}", check=True) is not None and s[f"carbon_{kind}"]["body"] == text
        return await self.expect(f"a carbon ({kind}) of {text!r}", fits)

    async def nothing(self, what, fits):
        """Silence, proven by a round trip: the server keeps the order."""
        await self["xep_0199"].send_ping(self.house.domain, timeout=PATIENCE)
        for stanza in self.seen:
            if fits(stanza):
                raise Failure(f"{self.boundjid} has {what}: {stanza}")

    # -- coming and going

    def _settle(self, result):
        if self.outcome is not None and not self.outcome.done():
            self.outcome.set_result(result)

    async def arrive(self):
        """Connects and authenticates, or resumes; says which."""
        self.outcome = asyncio.get_running_loop().create_future()
        self.connect((self.house.host, self.house.port))
        try:
            result = await asyncio.wait_for(self.outcome, PATIENCE)
        except asyncio.TimeoutError:
            raise Failure(f"{self.requested_jid} is not logged in after {PATIENCE} s") from None
        if isinstance(result, Failure):
            self.abort()
            raise result
        return result

    async def login(self, presence=True):
        await self.arrive()
        check(isinstance(self.transport.get_extra_info("ssl_object"), ssl.SSLObject), "the connection is not encrypted")
        if presence:
            await self["xep_0280"].enable(timeout=PATIENCE)
            await self.get_roster(timeout=PATIENCE)
            self.send_presence(ppriority=0)
            await self.presence(self.boundjid.full)  # the server tells the sender too (RFC 6121 §4.2.2)
        return self

    async def logout(self):
        await self.disconnect(wait=PATIENCE)

    # -- what people do

    def say(self, to, text, **more):
        message = self.make_message(mto=to, mbody=text, mtype="chat")
        message["id"] = self.new_id()
        if more.get("receipt"):
            message["request_receipt"] = True
        message.send()
        return message["id"]
