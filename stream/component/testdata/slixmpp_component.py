"""A component made with slixmpp: it connects, pings the server, and reports."""
import asyncio
import sys

from slixmpp.componentxmpp import ComponentXMPP


async def main():
    component = ComponentXMPP("irc.localhost", "s3cret", sys.argv[1], int(sys.argv[2]))
    component.register_plugin("xep_0199")
    started = asyncio.get_running_loop().create_future()
    component.add_event_handler("session_start", lambda _: started.done() or started.set_result(None))
    component.connect()
    await asyncio.wait_for(started, 20)
    iq = component.make_iq_get(ito="localhost", ifrom="user@irc.localhost")
    iq.enable("ping")
    answer = await iq.send(timeout=10)
    print("pong from", answer["from"])
    await component.disconnect()


asyncio.run(main())
