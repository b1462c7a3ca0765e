"""A real browser without a driver: headless Chromium, told what to do over its own debugging protocol."""

import base64
import json
import shutil
import subprocess
import urllib.request
from contextlib import ExitStack

from websockets.sync.client import connect

from tests.waiting import until

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def find():
    """Return the path of an installed Chromium, or None."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Page:
    """One page of a Chromium of its own; what its console and its network said is in `log`."""

    def __init__(self, profile):
        """Start the browser; `profile` is an empty folder."""
        # Without a sandbox it starts as root too; it only ever sees this test's own page.
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", "--window-size=1100,900"]
        options += ["--no-first-run", "--disable-dev-shm-usage", "--disable-background-networking", "about:blank"]
        self._process = subprocess.Popen(
            [find(), f"--user-data-dir={profile}", *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        port = until(lambda: (profile / "DevToolsActivePort").exists() and _port(profile))
        found = json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/json"))
        page = next(one for one in found if one["type"] == "page")
        self._opened = ExitStack()
        self._socket = self._opened.enter_context(connect(page["webSocketDebuggerUrl"], max_size=None))
        self._number = 0
        self.log = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.command(f"{domain}.enable")

    def command(self, method, **parameters):
        """Send one command and return its result; events that come meanwhile are kept in `log`."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(timeout=60))
            if message.get("id") == self._number:
                assert "error" not in message, message
                return message["result"]
            self.log.append(message)

    def evaluate(self, expression):
        """Return the value of a JavaScript expression."""
        result = self.command("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def open(self, address):
        """Go to a page and wait until it has loaded."""
        self.command("Page.navigate", url=address)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def until(self, expression):
        """Wait until an expression is true and return its value."""
        return until(lambda: self.evaluate(expression))

    def click(self, selector):
        """Click with the mouse on the middle of the first element that a selector finds."""
        self.evaluate(
            f"var found = document.querySelector({json.dumps(selector)}); found.scrollIntoView({{block: 'center'}})"
        )
        x, y = self.evaluate(
            "(() => { const r = found.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.command("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def type(self, text):
        """Type into what has the focus."""
        self.command("Input.insertText", text=text)

    def press_enter(self):
        """Press the Enter key."""
        for kind in ("keyDown", "keyUp"):
            self.command("Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", windowsVirtualKeyCode=13)

    def picture(self, file):
        """Save what is seen as a PNG file."""
        file.write_bytes(base64.b64decode(self.command("Page.captureScreenshot")["data"]))

    def complaints(self):
        """Return what the console, the content security policy and uncaught errors said."""
        self.evaluate("1")
        errors = [one["params"] for one in self.log if one["method"] in ("Runtime.exceptionThrown", "Log.entryAdded")]
        return [str(error) for error in errors]

    def requested(self):
        """Return every address that was asked for."""
        return [one["params"]["request"]["url"] for one in self.log if one["method"] == "Network.requestWillBeSent"]

    def close(self):
        """End the browser."""
        self._opened.close()
        self._process.terminate()
        self._process.wait(30)


def _port(profile):
    return (profile / "DevToolsActivePort").read_text().split("\n")[0]
