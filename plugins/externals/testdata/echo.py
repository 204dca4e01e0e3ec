"""An echo component: whoever writes to it gets the same back."""
import asyncio
import os
import signal

from slixmpp.componentxmpp import ComponentXMPP


class Echo(ComponentXMPP):
    def __init__(self):
        env = os.environ
        super().__init__(env["PARLEY_COMPONENT_DOMAIN"], env["PARLEY_COMPONENT_SECRET"],
                         env["PARLEY_COMPONENT_HOST"], int(env["PARLEY_COMPONENT_PORT"]))
        self.register_plugin("xep_0199")  # answers the server's pings
        self.add_event_handler("message", self.echo)
        self.add_event_handler("session_start", lambda _: print("connected", flush=True))

    def echo(self, message):
        if message["type"] != "error" and message["body"]:
            message.reply(message["body"]).send()


async def main():
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    echo = Echo()
    echo.connect()
    await stop.wait()
    print("ends in order", flush=True)
    await echo.disconnect()


asyncio.run(main())
