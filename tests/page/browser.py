"""A headless Chromium, driven by chromedriver over the WebDriver protocol."""

import base64
import json
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Browser:
    def __init__(self, port, width=1280, height=860):
        self.profile = tempfile.TemporaryDirectory(prefix="page-")
        self.driver = subprocess.Popen(
            ["chromedriver", f"--port={port}", "--silent"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.base = f"http://127.0.0.1:{port}"
        # Root has no sandbox; the only pages are those of the server under test.
        arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-proxy-server",
                     "--hide-scrollbars", "--disable-background-networking", "--no-first-run",
                     f"--window-size={width},{height}", f"--user-data-dir={self.profile.name}"]
        wanted = {"capabilities": {"alwaysMatch": {"goog:chromeOptions": {"args": arguments}}}}
        deadline = time.monotonic() + 30
        while True:
            try:
                session = self.call("POST", "/session", wanted)
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
        self.base += f"/session/{session['sessionId']}"

    def call(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with DIRECT.open(request, timeout=60) as reply:
                return json.load(reply)["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(json.load(error)["value"]["message"]) from None

    def open(self, url):
        self.call("POST", "/url", {"url": url})

    def run(self, script, *arguments):
        """The value of a script's `return`."""
        return self.call("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def run_async(self, script, *arguments):
        """What a script gives to its last argument."""
        return self.call("POST", "/execute/async", {"script": script, "args": list(arguments)})

    def chrome(self, command, **parameters):
        """A command of the Chrome DevTools protocol."""
        return self.call("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def color_scheme(self, scheme):
        self.chrome("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def size(self, width, height):
        self.chrome("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def screenshot(self, path):
        path.write_bytes(base64.b64decode(self.call("GET", "/screenshot")))

    def until(self, what, script, *arguments, seconds=20):
        """Waits until a script returns something true; returns it and the seconds that it took."""
        start = time.monotonic()
        while True:
            value = self.run(script, *arguments)
            taken = time.monotonic() - start
            if value:
                return value, taken
            if taken > seconds:
                shown = self.run("return document.title + '\\n' + document.body.innerText.slice(0, 3000)")
                raise AssertionError(f"not within {seconds} s: {what}; the page says:\n{shown}")
            time.sleep(0.02)

    def close(self):
        try:
            self.call("DELETE", "")
        except (OSError, RuntimeError):
            pass
        self.driver.terminate()
        self.driver.wait(10)
        self.profile.cleanup()
