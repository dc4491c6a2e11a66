"""Whether tests reach enough of each package; `make coverage` runs it after pytest.

python tests/coverage_floors.py [FILE]      the data that pytest --cov wrote; .coverage if left out
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coverage import Coverage

LINES, BRANCHES = ("covered_lines", "num_statements"), ("covered_branches", "num_branches")
FLOORS = (
    (("prism_crypto", "prism_privacy"), (LINES, BRANCHES), 95),
    (("prism_secure",), (LINES,), 90),
)
"""Packages, what is counted of them together, and at least how many percent of it must be reached."""


def shortfalls(files: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What is below its floor, in words; prints every share.

    Args:
        files: coverage's JSON report: by path, with a ``summary`` of counts.
    """
    found = []
    for packages, counted, floor in FLOORS:
        own = [each["summary"] for path, each in files.items() if {*packages} & {*Path(path).parts}]
        reached = sum(summary[of] for summary in own for of, _ in counted)
        there = sum(summary[of] for summary in own for _, of in counted)
        share = 100 * reached / there if there else 0.0
        what = "lines" if counted == (LINES,) else "lines and branches"
        line = f"{' and '.join(packages)}: {share:.2f}% of {what}, at least {floor}% wanted"
        print(line)
        if share < floor:
            found.append(line)
    return found


def main(data_file: str = ".coverage") -> int:
    measured = Coverage(data_file=data_file)
    measured.load()
    with tempfile.NamedTemporaryFile(suffix=".json") as report:
        measured.json_report(outfile=report.name)
        files = json.loads(Path(report.name).read_text("utf-8"))["files"]
    lacking = shortfalls(files)
    if lacking:  # what was missed, for whoever has to write the tests
        measured.report(show_missing=True, skip_covered=True)
    return 1 if lacking else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
