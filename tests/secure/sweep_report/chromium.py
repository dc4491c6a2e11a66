"""Pages opened in headless Chromium: what a visitor's browser makes of them, told by a script in the page."""

from __future__ import annotations

import http.server
import json
import os
import queue
import shutil
import signal
import subprocess
import threading
from functools import partial
from pathlib import Path
from typing import Any

CHROMIUM = next(
    (
        path
        for name in ("chromium", "chromium-browser", "google-chrome", "chrome")
        if (path := shutil.which(name))
    ),
    None,
)

LISTEN = """<script>
window.trouble = [];
addEventListener("error", (event) => trouble.push("error: " + event.message));
addEventListener("unhandledrejection", (event) => trouble.push("rejection: " + event.reason));
addEventListener("securitypolicyviolation", (event) => trouble.push("policy: " + event.blockedURI));
for (const name of ["error", "warn"])
  console[name] = (...words) => trouble.push(name + ": " + words.join(" "));
</script>"""

ASK = """<script>
(async () => {
  const until = performance.now() + 60000, wait = () => new Promise((done) => setTimeout(done, 50));
  while (!performance.getEntriesByName("all-figures").length && performance.now() < until) await wait();
  await wait();
  let told;
  try { told = await (async () => { %s })(); } catch (error) { trouble.push("asked: " + error); }
  const wide = document.documentElement.scrollWidth;
  const text = JSON.stringify({ told, trouble, width: innerWidth, wide });
  parent.postMessage(text, "*");
})();
</script>"""

FRAME = """<!DOCTYPE html><meta charset="utf-8"><body style="margin:0">
<iframe src="asked.html" style="width:%dpx;height:900px;border:0"></iframe>
<script>addEventListener("message", (event) => fetch("told", { method: "POST", body: event.data }));</script>
"""


class _Told(http.server.SimpleHTTPRequestHandler):
    """Hands out a folder on loopback, and keeps what is posted."""

    def __init__(self, *arguments: Any, told: queue.Queue[bytes], **named: Any) -> None:
        self.told = told
        super().__init__(*arguments, **named)

    def do_POST(self) -> None:
        self.told.put(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


def ask(page: Path, folder: Path, script: str, *, width: int = 1280) -> dict[str, Any]:
    """Open `page` `width` pixels wide, in a frame, and run `script`, the body of an async function, in it.

    Returns what it returned (`told`), the `trouble` that the page had (errors, warnings, what its policy
    refused), and how `wide` its content was for the `width` it had.
    """
    assert CHROMIUM is not None
    folder.mkdir(parents=True, exist_ok=True)
    text = page.read_text("utf-8")
    text = text.replace("<head>", "<head>" + LISTEN, 1).replace("</body>", ASK % script + "</body>")
    (folder / "asked.html").write_text(text, "utf-8")
    (folder / "frame.html").write_text(FRAME % width, "utf-8")
    told: queue.Queue[bytes] = queue.Queue()
    handler = partial(_Told, told=told, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        command = [
            CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            "--no-first-run", f"--user-data-dir={folder / 'profile'}", "--window-size=1400,1000",
            "--remote-debugging-port=0", f"http://127.0.0.1:{server.server_port}/frame.html",
        ]  # fmt: skip
        browser = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        try:
            return dict(json.loads(told.get(timeout=240)))
        finally:
            os.killpg(browser.pid, signal.SIGKILL)
            browser.wait()
            server.shutdown()
