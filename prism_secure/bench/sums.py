"""The secure sum beside Flower's, by `prism_crypto.bench` in its small sizes."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

from prism_crypto.bench.secure_sum import main
from prism_secure.bench.rows import Row


def rows(tries: int, *, quick: bool = False) -> Iterator[Row]:
    """`prism-secure bench secure-sum` has the large ones, in minutes."""
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(StringIO()):
        found = Path(folder) / "found.json"
        main(["--quick", "--json", str(found)])
        figures = json.loads(found.read_text())["figures"]
    for figure in figures:
        other = [] if figure["flower"] is None else [figure["flower"]]
        yield Row(
            name=figure["name"].strip(), unit=figure["unit"], ours=[figure["ours"]], other=other,
            instead="Flower's SecAgg+" if other else "",
        )  # fmt: skip
