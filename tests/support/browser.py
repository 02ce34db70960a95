"""A browser without a window, spoken to by chromedriver's own protocol, and a server of files for it."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from time import monotonic, sleep
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=900,900",
)
PATIENCE = 240.0  # seconds


@dataclass(frozen=True)
class Browser:
    """A window of Chromium, opened by chromedriver at `address`."""

    address: str

    def open(self, url: str) -> None:
        """Go to a page and wait until it is loaded."""
        self._post("url", {"url": url})

    def run(self, script: str, *given: Any) -> Any:
        """Return what a script returns that is run in the page."""
        return self._post("execute/sync", {"script": script, "args": list(given)})

    def wait(self, condition: str) -> None:
        """Wait until an expression is true in the page."""
        end = monotonic() + PATIENCE
        while not self.run(f"return Boolean({condition})"):
            assert monotonic() < end, f"never true: {condition}\n{self.run('return document.body.innerText')}"
            sleep(0.2)

    def screenshot(self, path: Path) -> None:
        """Write what is seen."""
        with urlopen(f"{self.address}/screenshot") as answer:
            path.write_bytes(b64decode(json.load(answer)["value"]))

    def close(self) -> None:
        """End it."""
        with urlopen(Request(self.address, method="DELETE")):
            pass

    def _post(self, what: str, body: dict[str, Any]) -> Any:
        return _posted(f"{self.address}/{what}", body)


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """Yield a browser with an empty profile in `folder`; skip where Chromium is not installed."""
    driver, chromium = shutil.which("chromedriver"), shutil.which("chromium") or shutil.which("google-chrome")
    if driver is None or chromium is None:
        pytest.skip("needs chromium and chromedriver")
    process = subprocess.Popen([driver, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert process.stdout is not None
        line = next(line for line in process.stdout if "started successfully on port" in line)
        root = f"http://127.0.0.1:{line.rstrip('.' + chr(10)).rsplit(' ', 1)[-1]}"
        options = {"binary": chromium, "args": [*FLAGS, f"--user-data-dir={folder}"]}
        wanted = {"capabilities": {"alwaysMatch": {"goog:chromeOptions": options}}}
        windows = f"{root}/session"  # WebDriver's word for one
        opened = Browser(f"{windows}/{_posted(windows, wanted)['sessionId']}")
        try:
            yield opened
        finally:
            opened.close()
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Yield the address at which the files of a folder are served."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def _posted(url: str, body: dict[str, Any]) -> Any:
    request = Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urlopen(request) as answer:
            return json.load(answer)["value"]
    except HTTPError as error:
        raise AssertionError(error.read().decode()) from None
