"""Runs the steps of a script and says how each went.

A script makes its list, step = Steps(), marks its steps with @step, and ends
with step.main(world). It is called with HOST PORT DOMAIN CERTIFICATE PASSWORD
and prints `pass STEP` or `fail STEP: reason` for each; with --steps it prints
their names alone. Steps build on each other, so a failure may cause others;
when the first one fails there is nobody to talk, and nothing else runs.
"""
import asyncio
import logging
import sys
from types import SimpleNamespace

from slixmpp.exceptions import XMPPError

from devices import PATIENCE, Failure, check


class Steps(list):
    def __call__(self, function):
        self.append(function)
        return function

    async def run(self, world):
        failed = False
        for function in self:
            name = function.__name__
            try:
                async with asyncio.timeout(4 * PATIENCE):
                    await function(world)
                print(f"pass {name}", flush=True)
            except Exception as e:
                failed = True
                print(f"fail {name}: " + f"{type(e).__name__}: {e}".replace("\n", "\\n"), flush=True)
                if function is self[0]:
                    break
        return failed

    def main(self, **addresses):
        """Takes the addresses of the script's world, DOMAIN in them replaced."""
        if sys.argv[1] == "--steps":
            print(*(f.__name__ for f in self))
            sys.exit(0)
        logging.basicConfig(level=logging.ERROR, stream=sys.stderr)
        host, port, domain, certificate, password = sys.argv[1:]
        house = SimpleNamespace(host=host, port=int(port), domain=domain, certificate=certificate, password=password)
        world = SimpleNamespace(house=house, **{k: v.replace("DOMAIN", domain) for k, v in addresses.items()})
        sys.exit(asyncio.run(self.run(world)))


async def refused(condition, answer, text=""):
    """Awaits an answer that is an error, with a text for people in it."""
    try:
        await answer
    except XMPPError as e:
        check(e.condition == condition, f"refused with {e.condition}, not {condition}")
        check(text in (e.text or ""), f"the text {e.text!r} does not say {text!r}")
        return
    raise Failure(f"not refused: {condition} was due")
