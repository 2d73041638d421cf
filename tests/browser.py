"""A real browser that opens our pages, without a window and without a network."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import os
import re
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tornado.websocket import websocket_connect

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--hide-scrollbars",
)  # fmt: skip
SHOTS = "NETFLIXDASK_SHOTS"  # names a folder that keeps the screenshots
PATIENCE = 120.0  # seconds, of a machine that has other work

# What is drawn stands below shadow roots, which querySelector does not enter.
_DEEP = """(() => {
  const found = [], walk = (root) => {
    found.push(...root.querySelectorAll(%s));
    for (const e of root.querySelectorAll('*')) if (e.shadowRoot) walk(e.shadowRoot);
  };
  walk(document);
  return found.map((e) => %s);
})()"""


def browse(page: Path, tmp_path: Path, *options: str, fragment: str = "") -> str:
    """Open a page; return what the browser prints."""
    done = subprocess.run(
        [
            CHROMIUM, *FLAGS, "--window-size=1500,1180", "--virtual-time-budget=20000",
            f"--user-data-dir={tmp_path / 'profile'}", *options, page.as_uri() + fragment,
        ],
        capture_output=True, encoding="utf-8", timeout=120, check=True,
    )  # fmt: skip
    return done.stdout


def said(page: str, name: str) -> int:
    """Return a number that the page's script left on its body."""
    found = re.search(rf'<body[^>]*data-{name}="(\d+)"', page)
    assert found is not None, page[-2000:]
    return int(found[1])


class Tab:
    """A page that stays open, driven over Chromium's debugging port."""

    def __init__(self, loop: asyncio.AbstractEventLoop, socket: Any) -> None:
        self._loop, self._socket, self._ids = loop, socket, itertools.count(1)
        self.heard: list[tuple[str, dict[str, Any]]] = []
        """Events of the domains that were enabled, by their name."""

    def send(self, method: str, **options: Any) -> dict[str, Any]:
        """Send a command; return its result."""
        return self._loop.run_until_complete(
            asyncio.wait_for(self._send(method, options), PATIENCE)
        )

    async def _send(self, method: str, options: dict[str, Any]) -> dict[str, Any]:
        mine = next(self._ids)
        await self._socket.write_message(
            json.dumps({"id": mine, "method": method, "params": options})
        )
        while True:
            text = await self._socket.read_message()
            assert text is not None, "the browser closed the tab"
            answer = json.loads(text)
            if answer.get("id") == mine:
                assert "error" not in answer, answer
                return answer["result"]
            if "method" in answer:
                self.heard.append((answer["method"], answer["params"]))

    def run(self, code: str) -> Any:
        """Return the value of JavaScript."""
        answer = self.send("Runtime.evaluate", expression=code, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def each(self, selector: str, value: str = "e.textContent") -> list[Any]:
        """Return a value of every element that a selector finds, below shadow roots too."""
        return self.run(_DEEP % (json.dumps(selector), value))

    def size(self, width: int, height: int) -> None:
        """Make the window so large."""
        size = {"width": width, "height": height}
        self.send("Emulation.setDeviceMetricsOverride", **size, deviceScaleFactor=1, mobile=False)

    def show(self, url: str) -> None:
        """Open an address, and wait until the page is there; nothing may come over a network."""
        for domain in ("Runtime", "Log", "Network", "Page"):
            self.send(f"{domain}.enable")
        offline = {"latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
        self.send("Network.emulateNetworkConditions", offline=True, **offline)
        self.send("Page.navigate", url=url)
        end = time.monotonic() + PATIENCE
        ready = f"location.href === {json.dumps(url)} && document.readyState === 'complete'"
        while not self.run(ready):
            assert time.monotonic() < end, f"{url} did not load"
            time.sleep(0.05)

    def dark(self, on: bool) -> None:
        """Prefer dark or light."""
        value = "dark" if on else "light"
        features = [{"name": "prefers-color-scheme", "value": value}]
        self.send("Emulation.setEmulatedMedia", features=features)

    def shoot(self, path: Path) -> int:
        """Write a screenshot of the whole page; return its bytes."""
        taken = self.send("Page.captureScreenshot", captureBeyondViewport=True)
        return path.write_bytes(base64.b64decode(taken["data"]))


def keep(page: Tab, tmp_path: Path, name: str) -> None:
    """Keep a screenshot, which has more on it than a plain ground."""
    shot = tmp_path / f"{name}.png"
    assert page.shoot(shot) > 20_000
    if folder := os.environ.get(SHOTS):
        shutil.copy(shot, folder)


@contextlib.contextmanager
def tab(tmp_path: Path, width: int = 1366, height: int = 768) -> Iterator[Tab]:
    """Open an empty tab of a laptop's size."""
    profile, loop = tmp_path / "profile", asyncio.new_event_loop()
    command = [
        CHROMIUM, *FLAGS, "--remote-debugging-port=0", "--remote-allow-origins=*",
        f"--window-size={width},{height}", f"--user-data-dir={profile}", "about:blank",
    ]  # fmt: skip
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as chromium:
        try:
            socket = loop.run_until_complete(_connected(_debugged(profile)))
            try:
                opened = Tab(loop, socket)
                opened.size(width, height)
                yield opened
            finally:
                loop.run_until_complete(_closed(socket))
        finally:
            chromium.terminate()
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()


def _debugged(profile: Path) -> str:
    """Return the address of the first tab, once it is there."""
    told, end = profile / "DevToolsActivePort", time.monotonic() + PATIENCE
    while time.monotonic() < end:
        with contextlib.suppress(OSError, IndexError, ValueError):
            port = int(told.read_text().splitlines()[0])
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list") as answer:
                pages = [t for t in json.load(answer) if t["type"] == "page"]
            return str(pages[0]["webSocketDebuggerUrl"])
        time.sleep(0.1)
    raise TimeoutError("the browser did not start")


async def _closed(socket: Any) -> None:
    # Within its loop: a thread in which asyncio.run has ended has no other.
    socket.close()
    await asyncio.sleep(0.1)


async def _connected(url: str) -> Any:
    return await websocket_connect(url, max_message_size=1 << 28)
