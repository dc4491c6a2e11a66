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
from collections.abc import Sequence
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


# Of a page in every width: what sticks out of it, and lies in no box that scrolls. Paper has the rules of
# @media print, and nothing on it scrolls.
MEASURE = """<!DOCTYPE html><meta charset="utf-8"><body style="margin:0"><script>
const asked = %s, print = (rules) => { for (const rule of rules) if (rule.media)
  rule.media.mediaText = rule.media.mediaText === "print" ? "all"
    : rule.media.mediaText.startsWith("screen") ? "not all" : rule.media.mediaText; };
const measure = async ([page, width, paper]) => {
  const frame = document.createElement("iframe");
  frame.style = `width:${width}px;height:900px;border:0`;
  await new Promise((done) => { frame.onload = done; frame.src = page; document.body.append(frame); });
  const found = frame.contentDocument, view = frame.contentWindow, until = performance.now() + 30000;
  while (found.getElementById("plotly") && performance.now() < until
    && !view.performance.getEntriesByName("all-figures").length)
    await new Promise((done) => setTimeout(done, 50));
  for (const sheet of found.styleSheets) if (paper) print(sheet.cssRules);
  for (const each of found.querySelectorAll("details")) each.open ||= !paper;
  const edge = found.documentElement.clientWidth, scrolls = (box) => !paper && box !== found.body
    && box !== found.documentElement && view.getComputedStyle(box).overflowX !== "visible";
  const out = [...found.querySelectorAll("body *")].filter((each) => {
    const place = each.getBoundingClientRect();
    if (!place.width || place.right <= edge + 1) return false;
    for (let box = each.parentElement; box; box = box.parentElement) if (scrolls(box)) return false;
    return true;
  }).map((each) => `${each.tagName} ${each.className} ${each.textContent.trim().slice(0, 40)}`);
  const shut = [...found.querySelectorAll("details table")].filter((each) => !each.checkVisibility(
    { contentVisibilityAuto: true }) || !each.getBoundingClientRect().height).length;
  const wide = found.documentElement.scrollWidth - edge;
  const told = { page, width, paper, out: out.slice(0, 5), wide, shut };
  frame.remove();
  return told;
};
(async () => {
  const told = [];
  for (const each of asked) told.push(await measure(each));
  fetch("told", { method: "POST", body: JSON.stringify({ told }) });
})();
</script>"""


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
    folder.mkdir(parents=True, exist_ok=True)
    text = page.read_text("utf-8")
    text = text.replace("<head>", "<head>" + LISTEN, 1).replace("</body>", ASK % script + "</body>")
    (folder / "asked.html").write_text(text, "utf-8")
    (folder / "frame.html").write_text(FRAME % width, "utf-8")
    return _told(folder)


def sticking_out(
    pages: Sequence[Path], folder: Path, *, widths: Sequence[int], paper: int
) -> list[dict[str, Any]]:
    """What sticks out of pages `widths` pixels wide, and on `paper` pixels of paper; one browser for all.

    Each with its `page`, its `width`, whether it was on `paper`, what lies beyond its right edge (`out`) and
    in no box that scrolls, by how much its content is too `wide`, and how many tables were `shut`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    asked = []
    for number, page in enumerate(pages):
        name = f"{number}-{page.name}"
        (folder / name).write_bytes(page.read_bytes())
        asked += [(name, width, False) for width in widths] + [(name, paper, True)]
    (folder / "frame.html").write_text(MEASURE % json.dumps(asked), "utf-8")
    found: list[dict[str, Any]] = _told(folder)["told"]
    return found


def _told(folder: Path) -> dict[str, Any]:
    """What `frame.html` of a folder says in the end."""
    assert CHROMIUM is not None
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
