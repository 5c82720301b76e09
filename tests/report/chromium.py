"""A headless Chromium, driven over its DevTools protocol."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_PATIENCE = 300
"""Seconds for any single step; machines that run all tests at once are slow."""


class Page:
    """One page of a browser: a record of its messages and requests, and ways to use it.

    Attributes:
        messages: Messages of the console, warnings and errors of the browser, uncaught exceptions.
        requested: Requested addresses, without `data:`.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._loop, self._socket = loop, socket
        self._last, self._loaded = 0, False
        self.messages: list[str] = []
        self.requested: list[str] = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol and wait for its answer."""
        return self._loop.run_until_complete(asyncio.wait_for(self._call(method, params), _PATIENCE))

    async def _call(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        self._last += 1
        await self._socket.send_json({"id": self._last, "method": method, "params": params})
        while True:
            message = await self._receive()
            if message.get("id") == self._last:
                assert "error" not in message, message["error"]
                return message["result"]

    async def _receive(self) -> dict[str, Any]:
        message = json.loads((await self._socket.receive()).data)
        params = message.get("params", {})
        match message.get("method"):
            case "Runtime.consoleAPICalled":
                self.messages.append(str([a.get("value") for a in params["args"]]))
            case "Runtime.exceptionThrown":
                self.messages.append(str(params["exceptionDetails"]))
            case "Log.entryAdded":
                self.messages.append(params["entry"]["text"])
            case "Network.requestWillBeSent" if not params["request"]["url"].startswith("data:"):
                self.requested.append(params["request"]["url"])
            case "Page.loadEventFired":
                self._loaded = True
        return message

    def open(self, path: Path) -> None:
        """Load a file and wait for its load event."""
        self._loaded = False
        self.messages.clear()
        self.requested.clear()
        self.call("Page.navigate", url=path.resolve().as_uri())
        while not self._loaded:
            self._loop.run_until_complete(asyncio.wait_for(self._receive(), _PATIENCE))

    def ask(self, expression: str) -> Any:
        """Value of a JavaScript expression, promises awaited."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def press(self, key: str) -> None:
        """Press a key, named as in JavaScript, on the focused element."""
        codes = {"Tab": 9, "Enter": 13, " ": 32, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}
        codes |= {"Escape": 27, "End": 35, "Home": 36}
        code = codes.get(key, ord(key[0]))
        text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, text=text, windowsVirtualKeyCode=code)

    def point(self, x: float, y: float) -> None:
        """Move the mouse to a point of the window."""
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Press the mouse at one point of the window, move it to another and let go."""
        steps = (("mousePressed", start), ("mouseMoved", end), ("mouseReleased", end))
        for kind, (x, y) in steps:
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)

    def show(self, width: int, height: int, *, dark: bool = False, media: str = "screen") -> None:
        """Set the size of the window in pixels, the colour scheme and the medium; nothing scrolls smoothly."""
        features = {"prefers-color-scheme": "dark" if dark else "light", "prefers-reduced-motion": "reduce"}
        named = [{"name": name, "value": value} for name, value in features.items()]
        self.call("Emulation.setEmulatedMedia", media=media, features=named)
        size = {"width": width, "height": height, "deviceScaleFactor": 1}
        self.call("Emulation.setDeviceMetricsOverride", **size, mobile=width < 600)

    def screenshot(self, path: Path) -> None:
        """Picture of the window as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))


@contextmanager
def browser(folder: Path) -> Iterator[Page]:
    """A fresh browser with one empty page.

    Args:
        folder: Where it keeps its profile.
    """
    assert PROGRAM is not None
    rootless = [] if os.geteuid() else ["--no-sandbox"]
    quiet = ["--headless", "--disable-gpu", "--no-first-run", "--hide-scrollbars", *rootless]
    command = [PROGRAM, *quiet, "--remote-debugging-port=0", f"--user-data-dir={folder}", "about:blank"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        loop = asyncio.new_event_loop()
        try:
            session, socket = loop.run_until_complete(_connect(folder / "DevToolsActivePort", process))
            yield Page(loop, socket)
            loop.run_until_complete(session.close())
        finally:
            process.terminate()
            process.wait(_PATIENCE)
            loop.close()


async def _connect(
    port: Path, process: subprocess.Popen[bytes]
) -> tuple[aiohttp.ClientSession, aiohttp.ClientWebSocketResponse]:
    """Wait until the browser has written its port, then connect to its page."""
    until = time.monotonic() + _PATIENCE
    while not (port.exists() and port.read_text().count("\n")):
        assert process.poll() is None, "Chromium ended at once"
        assert time.monotonic() < until, "Chromium does not respond"
        await asyncio.sleep(0.05)
    session = aiohttp.ClientSession()
    async with session.get(f"http://127.0.0.1:{port.read_text().splitlines()[0]}/json") as answer:
        pages = [target for target in await answer.json() if target["type"] == "page"]
    return session, await session.ws_connect(pages[0]["webSocketDebuggerUrl"], max_msg_size=0)
