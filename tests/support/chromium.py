"""A headless Chromium, driven by the DevTools protocol over a pair of pipes."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PATIENCE_S = 300.0
"""Slack for a busy machine; every wait ends as soon as what it waits for is there."""
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe",
    "--no-first-run", "--disable-background-networking", "--disable-component-update", "--hide-scrollbars",
    "--force-color-profile=srgb", "--no-proxy-server",
)  # fmt: skip


class PageHasLeftError(Exception):
    """The page went elsewhere during the call."""


class Page:
    """The browser's one page."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        """Speak over these files."""
        self._out, self._in = to_browser, from_browser
        self._buffer = b""
        self._count = 0
        self._session: str | None = None
        self.problems: list[str] = []
        """Uncaught errors, and what the console calls an error."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result."""
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        until = time.monotonic() + PATIENCE_S
        while True:
            answer = self._receive(until)
            if answer.get("id") == self._count:
                if "navigated" in str(answer.get("error", "")):
                    raise PageHasLeftError(method)
                assert "error" not in answer, f"{method}: {answer['error']}"
                return dict(answer["result"])

    def _receive(self, until: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._in], [], [], max(0.0, until - time.monotonic()))
            assert ready, "the browser did not answer in time"
            data = os.read(self._in, 1 << 20)
            assert data, "the browser ended"
            self._buffer += data
        text, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        self._note(message)
        return message

    def _note(self, message: dict[str, Any]) -> None:
        parameters = message.get("params", {})
        if message.get("method") == "Runtime.exceptionThrown":
            details = parameters["exceptionDetails"]
            self.problems.append(str(details.get("exception", {}).get("description", details["text"])))
        if message.get("method") == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            self.problems.append(f"{parameters['entry']['text']} {parameters['entry'].get('url', '')}")

    def open(self, address: str) -> None:
        """Go there."""
        self.call("Page.navigate", url=address)

    def value(self, expression: str) -> Any:
        """What an expression is in the page."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, expression: str) -> None:
        """Wait until an expression is true in the page."""
        until = time.monotonic() + PATIENCE_S
        while not self._is_true(expression):
            if time.monotonic() > until:
                raise AssertionError(f"never true: {expression}; the page says: {self.text()[:2000]}; {self.problems}")
            time.sleep(0.1)

    def _is_true(self, expression: str) -> bool:
        """False while the page is not there yet."""
        guarded = f"(() => {{ try {{ return !!({expression}) }} catch (error) {{ return false }} }})()"
        try:
            return bool(self.value(guarded))
        except PageHasLeftError:
            return False

    def text(self) -> str:
        """What a person reads."""
        return str(self.value("document.body ? document.body.innerText : ''"))

    def click(self, selector: str) -> None:
        """Click an element."""
        self.value(f"document.querySelector({json.dumps(selector)}).click()")

    def press(self, key: str) -> None:
        """Press and let go a key, named as in JavaScript."""
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key)

    def resize(self, width: int, height: int, is_phone: bool = False) -> None:
        """Give the window this size in pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=is_phone
        )

    def wait_to_fit(self, width: int) -> None:
        """Wait until nothing is wider than this many pixels: charts follow a window's size a frame later."""
        self.wait(f"document.documentElement.scrollWidth <= {width}")

    def prefer(self, scheme: str) -> None:
        """Light or dark."""
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def picture(self, path: Path) -> None:
        """Write a PNG of the whole page."""
        data = self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(data))


def find_chromium() -> str:
    """The browser's program. Fails with what to do where there is none: these tests do not pass over it."""
    found = next((path for name in PROGRAMS if (path := shutil.which(name))), None)
    assert found, "Chromium is not installed: apt-get install chromium"
    return found


@contextmanager
def browser(folder: Path) -> Iterator[Page]:
    """A browser whose profile is in `folder`."""
    from_us, to_browser = os.pipe()
    from_browser, to_us = os.pipe()

    def place_pipes() -> None:  # the protocol's: it reads file 3 and writes file 4
        first, second = os.dup(from_us), os.dup(to_us)
        os.dup2(first, 3)
        os.dup2(second, 4)

    with (folder / "chromium.log").open("wb") as log:
        process = subprocess.Popen(
            [find_chromium(), *FLAGS, f"--user-data-dir={folder / 'profile'}", "--window-size=1280,900"],
            stdout=log, stderr=log, pass_fds=(3, 4), preexec_fn=place_pipes,
        )  # fmt: skip
    os.close(from_us)
    os.close(to_us)
    try:
        yield Page(to_browser, from_browser)
    finally:
        os.close(to_browser)
        os.close(from_browser)
        process.terminate()
        process.wait(timeout=PATIENCE_S)
