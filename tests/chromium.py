"""Drive a headless Chromium through a pipe, with its DevTools protocol."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Chromium:
    """One page of a browser of its own.

    Args:
        folder: for its profile.
    """

    def __init__(self, folder: Path) -> None:
        assert BROWSER
        theirs_in, self.out = os.pipe()
        self.into, theirs_out = os.pipe()

        def inherit() -> None:  # the protocol wants the descriptors 3 and 4
            given = os.dup(theirs_in), os.dup(theirs_out)
            os.dup2(given[0], 3)
            os.dup2(given[1], 4)

        words = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--remote-debugging-pipe",
            "--disable-dev-shm-usage",
        ]
        words += [
            "--no-first-run",
            "--disable-background-networking",
            "--disable-extensions",
            f"--user-data-dir={folder}",
        ]
        self.process = subprocess.Popen(
            [BROWSER, *words], preexec_fn=inherit, close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self.number, self.left = 0, b""
        self.session: str | None = None
        self.problems: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **values: Any) -> dict[str, Any]:
        """Ask the browser and wait for its answer; errors of the page meanwhile are kept in `problems`."""
        self.number += 1
        asked = {"id": self.number, "method": method, "params": values}
        os.write(self.out, json.dumps(asked | ({"sessionId": self.session} if self.session else {})).encode() + b"\0")
        deadline = time.monotonic() + 120
        while True:
            while b"\0" not in self.left:
                assert select.select([self.into], [], [], deadline - time.monotonic())[0], f"no answer to {method}"
                block = os.read(self.into, 1 << 16)
                assert block, "the browser has ended"
                self.left += block
            message, _, self.left = self.left.partition(b"\0")
            found = json.loads(message)
            if found.get("method") == "Runtime.exceptionThrown" or (
                found.get("method") == "Log.entryAdded" and found["params"]["entry"]["level"] == "error"
            ):
                self.problems.append(json.dumps(found["params"]))
            if found.get("id") == self.number:
                assert "error" not in found, found
                return found["result"]

    def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait(self, script: str) -> Any:
        """Wait until an expression is true; its value."""
        deadline = time.monotonic() + 60
        while not (found := self.run(script)):
            assert time.monotonic() < deadline, (script, self.run("document.body.innerText"), self.problems)
            time.sleep(0.05)
        return found

    def press(self, *keys: str) -> None:
        """Press keys, one after the other: names such as Tab, or a text that is typed."""
        codes = {"Tab": 9, "Enter": 13, "ArrowDown": 40, "ArrowUp": 38, "Escape": 27, " ": 32}
        for key in keys:
            if key in codes:
                about = {"key": key, "code": key, "windowsVirtualKeyCode": codes[key]}
                about |= {"text": "\r"} if key == "Enter" else {}
                self.call("Input.dispatchKeyEvent", type="keyDown", **about)
                self.call("Input.dispatchKeyEvent", type="keyUp", **about)
            else:
                self.call("Input.insertText", text=key)

    def size(self, width: int, height: int, *, mobile: bool = False) -> None:
        """Let the window be so large."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)

    def picture(self, path: Path) -> None:
        """Write a picture of the whole page."""
        found = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(found["data"]))

    def close(self) -> None:
        """End the browser."""
        self.process.terminate()
        self.process.wait()
        os.close(self.into)
        os.close(self.out)
