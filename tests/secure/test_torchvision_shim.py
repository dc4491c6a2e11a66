"""torchvision must be importable beside any torch, and stay untouched where it works by itself."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import prism_secure
from prism_secure import _torchvision

PACKAGE = Path(prism_secure.__file__).parent

# What the real torchvision does on import: a shape for each of two operators of its compiled library.
NEEDS_OPERATORS = """
import torch
for name in ("nms", "qnms"):
    torch.library.register_fake(f"torchvision::{name}")(lambda dets, scores, iou_threshold: dets)
"""


def run(code: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    root = str(PACKAGE.parent)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(path), root] if path else [root])}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, env=environment
    )


def fake_torchvision(folder: Path) -> Path:
    (folder / "torchvision").mkdir()
    (folder / "torchvision" / "__init__.py").write_text(NEEDS_OPERATORS)
    return folder


def test_torchvision_and_torchmetrics_import_in_a_fresh_process_without_warnings():
    found = run(
        "from prism_secure._torchvision import DECLARED, torchvision\n"
        "import torchmetrics.image.fid, torchvision.datasets, torchvision.models, torchvision.extension\n"
        "assert DECLARED == (() if torchvision.extension._has_ops() else ('nms', 'qnms')), DECLARED\n"
    )
    assert found.returncode == 0, found.stderr


def test_without_its_library_torchvision_fails_alone_and_imports_through_the_shim(tmp_path: Path):
    found = run(
        "import sys, torch\n"
        "try:\n"
        "    import torchvision\n"
        "except RuntimeError as error:\n"
        "    assert 'nms does not exist' in str(error), error\n"
        "    print('fails alone')\n"
        "assert 'torchvision' not in sys.modules\n"
        "from prism_secure._torchvision import DECLARED, torchvision\n"
        f"assert torchvision.__file__.startswith({str(tmp_path)!r})\n"
        "assert DECLARED == ('nms', 'qnms'), DECLARED\n"
        "try:\n"
        "    torch.ops.torchvision.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)\n"
        "except NotImplementedError:\n"
        "    print('has no implementation')\n",
        fake_torchvision(tmp_path),
    )
    assert found.stdout == "fails alone\nhas no implementation\n", found.stderr


def test_operators_that_somebody_else_declared_are_left_alone(tmp_path: Path):
    found = run(
        "import torch\n"
        "own = torch.library.Library('torchvision', 'FRAGMENT')\n"
        "own.define('nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')\n"
        "from prism_secure._torchvision import DECLARED\n"
        "assert DECLARED == ('qnms',), DECLARED\n",
        fake_torchvision(tmp_path),
    )
    assert found.returncode == 0, found.stderr


def test_a_library_that_loads_is_recognised_and_one_that_does_not_is_not(tmp_path: Path):
    suffix = importlib.machinery.EXTENSION_SUFFIXES[0]
    assert not _torchvision._own_operators_load(tmp_path)
    (tmp_path / f"_C{suffix}").write_bytes(b"not a library")
    assert not _torchvision._own_operators_load(tmp_path)
    spec = importlib.util.find_spec("_bisect")
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        pytest.skip("this Python has no extension module to stand for a library that loads")
    shutil.copy(spec.origin, tmp_path / f"_C{suffix}")
    assert _torchvision._own_operators_load(tmp_path)


def test_nothing_is_declared_once_torchvision_is_imported(tmp_path: Path):
    assert _torchvision._declare_missing(tmp_path) == ()


def test_every_module_that_imports_torchvision_goes_through_the_shim():
    for path in PACKAGE.rglob("*.py"):
        if path.name == "_torchvision.py":
            continue
        text = path.read_text()
        assert 'Library("torchvision"' not in text, path
        if re.search(r"^\s*(import|from) (torchvision|torchmetrics)", text, re.MULTILINE):
            assert "_torchvision" in text, f"{path} imports torchvision without the shim"
