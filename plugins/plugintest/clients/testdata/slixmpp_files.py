"""Alice sends bob a file.

The accounts alice and bob exist. How it is called: steps.py.
"""
import io
import os
from pathlib import Path

from aiohttp import ClientSession
from slixmpp.plugins.xep_0363 import FileTooBig

from devices import PATIENCE, Device, Failure, check
from steps import Steps

CONTENT = b"the quick brown fox " * 5000
step = Steps()


@step
async def login(w):
    os.environ["SSL_CERT_FILE"] = w.house.certificate  # for HTTPS: verified, not merely encrypted
    w.a, w.b = Device(w.house, "alice", "phone"), Device(w.house, "bob", "phone")
    for d in (w.a, w.b):
        d.register_plugin("xep_0066")
        d.register_plugin("xep_0363")
        await d.login()


@step
async def find(w):
    # Its own search hands coroutines to asyncio.wait, which Python 3.11 refuses (slixmpp 1.8.3).
    items = await w.a["xep_0030"].get_items(jid=w.house.domain, timeout=PATIENCE)
    service = f"upload.{w.house.domain}"
    check(service in [str(i[0]) for i in items["disco_items"]["items"]], f"the domain has {items}")
    info = await w.a["xep_0030"].get_info(jid=service, timeout=PATIENCE)
    check("urn:xmpp:http:upload:0" in info["disco_info"]["features"], f"the service is {info}")
    sizes = [f["values"]["max-file-size"] for f in info["disco_info"].iterables if f["values"]["FORM_TYPE"] == ["urn:xmpp:http:upload:0"]]
    check(len(sizes) == 1, f"the largest size is {sizes}")
    w.a["xep_0363"].upload_service, w.a["xep_0363"].max_file_size = service, int(sizes[0])


@step
async def upload(w):
    w.url = await w.a["xep_0363"].upload_file(Path("fox & fur.txt"), input_file=io.BytesIO(CONTENT), timeout=PATIENCE)
    check(w.url.startswith(f"https://{w.house.domain}:") and w.url.endswith("/fox%20&%20fur.txt"), f"the address is {w.url}")


@step
async def send(w):
    m = w.a.make_message(mto=w.bob, mbody=w.url, mtype="chat")
    m["oob"]["url"] = w.url
    m.send()
    got = await w.b.expect("the address", lambda s: s.name == "message" and s["body"] == w.url)
    check(got["oob"]["url"] == w.url, f"bob has {got}")
    async with ClientSession() as browser, browser.get(w.url) as answer:
        check(answer.status == 200 and await answer.read() == CONTENT, f"bob gets {answer.status}")


@step
async def large(w):
    try:
        await w.a["xep_0363"].upload_file(Path("large"), size=1 << 40, input_file=io.BytesIO(b""), timeout=PATIENCE)
    except FileTooBig:
        return
    raise Failure("a file of a terabyte is no problem")


@step
async def farewell(w):
    for d in (w.b, w.a):
        await d.logout()


if __name__ == "__main__":
    step.main(bob="bob@DOMAIN")
