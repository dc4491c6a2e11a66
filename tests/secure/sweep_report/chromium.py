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


# Of a page in every width: what sticks out of it, and lies in no box that scrolls; of a figure nothing may,
# for the ends of its lines are what it tells. On a screen, in light and in dark: what cannot be read, by the
# contrast of WCAG 2.2 (4.5, or 3 where letters are large). Paper has the rules of @media print; nothing on
# it scrolls.
MEASURE = """<!DOCTYPE html><meta charset="utf-8"><body style="margin:0"><script>
const asked = %s, print = (rules) => { for (const rule of rules) if (rule.media)
  rule.media.mediaText = rule.media.mediaText === "print" ? "all"
    : rule.media.mediaText.startsWith("screen") ? "not all" : rule.media.mediaText; };
const wait = (time) => new Promise((done) => setTimeout(done, time));
const channels = (colour) => { const found = colour.match(/[\\d.]+/g)?.map(Number);
  return found?.length >= 3 && (found[3] ?? 1) > 0.85 ? found : null; };
const light = (rgb) => [0.2126, 0.7152, 0.0722].reduce((sum, part, at) => { const value = rgb[at] / 255;
  return sum + part * (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4); }, 0);
const contrast = (one, other) => { const [low, high] = [light(one), light(other)].sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05); };
const dim = (view, found) => {
  const style = (each) => view.getComputedStyle(each), told = [];
  const shapes = new Map([...found.querySelectorAll("svg")].map((svg) => [svg,
    [...svg.querySelectorAll("path, rect, image")].map((shape) => [shape, shape.getBoundingClientRect()])]));
  const behind = (each) => {
    const svg = each.closest("svg"), place = each.getBoundingClientRect();
    const x = place.left + place.width / 2, y = place.top + place.height / 2;
    for (const [shape, box] of (shapes.get(svg) ?? []).toReversed()) {
      if (x < box.left || x > box.right || y < box.top || y > box.bottom) continue;
      if (!(shape.compareDocumentPosition(each) & Node.DOCUMENT_POSITION_FOLLOWING)) continue;
      if (shape.tagName === "image") return null; // of more colours than one
      const fill = style(shape), seen = fill.fill !== "none" && channels(fill.fill);
      if (seen && Math.min(fill.fillOpacity, fill.opacity) > 0.85) return seen;
    }
    for (let box = svg ?? each; box; box = box.parentElement) {
      const seen = channels(style(box).backgroundColor);
      if (seen) return seen;
    }
    return [255, 255, 255];
  };
  const texts = found.createTreeWalker(found.body, NodeFilter.SHOW_TEXT), seen = new Set();
  while (texts.nextNode()) {
    const each = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || seen.has(each) || each.matches("option, script, style")) continue;
    seen.add(each);
    if (!each.checkVisibility({ visibilityProperty: true, opacityProperty: true })) continue;
    const look = style(each), size = parseFloat(look.fontSize), back = behind(each);
    const large = size >= 24 || (size >= 18.66 && look.fontWeight >= 700);
    const ink = channels(each.closest("svg") ? look.fill : look.color);
    const ratio = back && ink && contrast(ink, back);
    if (back && !(ratio >= (large ? 3 : 4.5)))
      told.push(`${each.textContent.trim().slice(0, 40)}: ${ink} on ${back}, ${ratio?.toFixed(2)}`);
  }
  return told;
};
const measure = async ([page, width, paper]) => {
  const frame = document.createElement("iframe");
  frame.style = `width:${width}px;height:900px;border:0;color-scheme:light`;
  await new Promise((done) => { frame.onload = done; frame.src = page; document.body.append(frame); });
  const found = frame.contentDocument, view = frame.contentWindow, until = performance.now() + 30000;
  const drawn = found.getElementById("plotly");
  while (drawn && performance.now() < until && !view.performance.getEntriesByName("all-figures").length)
    await wait(50);
  for (const sheet of found.styleSheets) if (paper) print(sheet.cssRules);
  for (const each of found.querySelectorAll("details")) each.open ||= !paper;
  const edge = found.documentElement.clientWidth, scrolls = (box) => !paper && box !== found.body
    && box !== found.documentElement && view.getComputedStyle(box).overflowX !== "visible";
  const out = [...found.querySelectorAll("body *")].filter((each) => {
    const place = each.getBoundingClientRect();
    if (!place.width || place.right <= edge + 1) return false;
    if (each.closest("figure svg")) return true;
    for (let box = each.parentElement; box; box = box.parentElement) if (scrolls(box)) return false;
    return true;
  }).map((each) => `${each.tagName} ${each.className} ${each.textContent.trim().slice(0, 40)}`);
  const shut = [...found.querySelectorAll("details table")].filter((each) => !each.checkVisibility(
    { contentVisibilityAuto: true }) || !each.getBoundingClientRect().height).length;
  const wide = found.documentElement.scrollWidth - edge, unread = {};
  for (const scheme of paper ? [] : ["light", "dark"]) {
    frame.style.colorScheme = scheme;
    for (let tries = 0; tries < 40 && scheme !== (dark(view) ? "dark" : "light"); tries++) await wait(25);
    if (drawn && dark(view)) await wait(200); // its figures are drawn again
    if (scheme === (dark(view) ? "dark" : "light")) unread[scheme] = dim(view, found).slice(0, 8);
  }
  const told = { page, width, paper, out: out.slice(0, 5), wide, shut, unread };
  frame.remove();
  return told;
};
const dark = (view) => view.matchMedia("(prefers-color-scheme: dark)").matches;
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
    in no box that scrolls, by how much its content is too `wide`, how many tables were `shut`, and what is
    `unread` for want of contrast, of each colour scheme that it was seen in.
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
