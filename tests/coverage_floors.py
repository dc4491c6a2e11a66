"""Whether tests reach enough of each package; `make coverage` runs it after pytest.

python tests/coverage_floors.py FOLDER      what pytest wrote with REACHED=FOLDER
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LINES, BRANCHES = ("covered_lines", "missing_lines"), ("covered_branches", "missing_branches")
FLOORS = (
    (("prism_crypto", "prism_privacy"), (LINES, BRANCHES), 95),
    (("prism_secure",), (LINES,), 90),
)
"""Packages, what is counted of them together, and at least how many percent of it must be reached."""


def shortfalls(files: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What is below its floor, in words; prints every share.

    Args:
        files: slipcover's report: by path, with a ``summary`` of counts.
    """
    found = []
    for packages, counted, floor in FLOORS:
        own = [each["summary"] for path, each in files.items() if {*packages} & {*Path(path).parts}]
        reached, missed = (sum(summary[pair[at]] for summary in own for pair in counted) for at in (0, 1))
        share = 100 * reached / (reached + missed) if own else 0.0
        what = "lines" if counted == (LINES,) else "lines and branches"
        line = f"{' and '.join(packages)}: {share:.2f}% of {what}, at least {floor}% wanted"
        print(line)
        if share < floor:
            found.append(line)
    return found


def main(folder: str) -> int:
    import slipcover  # not needed for the tests of this file

    reports, files = [], {}
    for what in ("branches", "lines"):  # slipcover merges neither into the other
        first, *others = (json.loads(path.read_text("utf-8")) for path in Path(folder).glob(f"*.{what}.json"))
        for other in others:
            slipcover.merge_coverage(first, other)
        reports.append(first)
        files |= first["files"]
    lacking = shortfalls(files)
    if lacking:  # what was missed, for whoever has to write the tests
        for report in reports:
            slipcover.print_coverage(report, skip_covered=True)
    return 1 if lacking else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
