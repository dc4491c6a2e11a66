"""How long the page of a large sweep takes to make, and to open in Chromium.

    python experiments/sweep/report_bench.py FOLDER

Makes a sweep of 500 runs of 100 rounds in FOLDER without training (once: an existing one is used again),
writes its page in a fresh process, and opens that in headless Chromium. Printed are wall-clock and processor
seconds of making, and when the load event came and the first figure and all figures were drawn, by the page's
own clock. On a machine with other work to do the times mean little: the load is printed with them.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
from tests.secure.sweep_report import chromium, fake_sweep  # noqa: E402 - they lie among the tests

GRID = """
privacy.flip = [0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4]
privacy.clip = [0.125, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 4.0, 8.0, 16.0]
"""
TIMES = """
  const at = (name) => performance.getEntriesByName(name)[0].startTime / 1000;
  const load = performance.getEntriesByType("navigation")[0].loadEventEnd / 1000;
  return [load, at("first-figure"), at("all-figures")];
"""


def main(folder: Path) -> None:
    if not folder.exists():
        fake_sweep.make_sweep(folder, GRID, seeds=5, rounds=100)
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "prism_secure.cli", "report", str(folder)], check=True)
    wall, used = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"made in {wall:.1f} s, {used.ru_utime + used.ru_stime:.1f} s of processor (to be reached: 20 s)")
    page = folder / "report.html"
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print(f"page: {page.stat().st_size / 1e6:.2f} MB")
    if chromium.CHROMIUM is None:
        print("no Chromium here: not opened")
        return
    with tempfile.TemporaryDirectory() as place:
        answer = chromium.ask(page, Path(place), TIMES)
    load, first, every = answer["told"]
    print(
        f"load event after {load:.2f} s, first figure {first:.2f} s, all {every:.2f} s (to be reached: 3 s)"
    )
    if answer["trouble"]:
        sys.exit(f"the page had trouble: {answer['trouble']}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
