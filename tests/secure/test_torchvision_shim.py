"""torchvision must be importable beside any torch, and stay untouched where it works by itself."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import prism_secure

PACKAGE = Path(prism_secure.__file__).parent

# What the real torchvision does on import: it loads its compiled library, which defines operators, and then
# registers a shape for each of two of them. To define one twice ends the real process.
LOADS_AND_NEEDS_OPERATORS = """
import pathlib, torch
library = pathlib.Path(__file__).with_name({library!r})
if library.exists() and library.read_bytes() == b"loads":
    own = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        own.define(name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
for name in ("nms", "qnms"):
    torch.library.register_fake(f"torchvision::{{name}}")(lambda dets, scores, iou_threshold: dets)
"""
LIBRARIES = ["_C.so", "_C_stable.so", "_another_name.abi3.so"]
"""Of torchvision to 0.28, of 0.29, and of one to come."""


FORKS = """
import json, os, sys, tempfile, traceback, torch
for line in sys.stdin:
    code, path = json.loads(line)
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        child = os.fork()
        if not child:
            os.dup2(out.fileno(), 1), os.dup2(err.fileno(), 2)
            sys.path.insert(0, path)
            try:
                exec(code, {"__name__": "__main__"})
                ended = 0
            except BaseException:
                traceback.print_exc()
                ended = 1
            sys.stdout.flush(), sys.stderr.flush()
            os._exit(ended)
        ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        out.seek(0), err.seek(0)
        print(json.dumps([ended, out.read(), err.read()]), flush=True)
"""
Run = Callable[[str, Path], "subprocess.CompletedProcess[str]"]
"""Code, and the folder of the torchvision that it is to find; warnings are errors."""


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """Each in a process with torch and without torchvision: children of one that imports torch once."""
    command = [sys.executable, "-W", "error", "-c", FORKS]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment()
    ) as forks:
        assert forks.stdin is not None
        assert forks.stdout is not None
        to, back = forks.stdin, forks.stdout

        def one(code: str, path: Path) -> subprocess.CompletedProcess[str]:
            print(json.dumps([code, str(path)]), file=to, flush=True)
            ended, out, err = json.loads(back.readline())
            return subprocess.CompletedProcess(command, ended, out, err)

        yield one


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}


def fake_torchvision(folder: Path, library: str = "_C.so", content: bytes | None = None) -> Path:
    package = folder / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text(LOADS_AND_NEEDS_OPERATORS.format(library=library))
    if content is not None:
        (package / library).write_bytes(content)
    return folder


def test_torchvision_imports_in_a_fresh_process_without_warnings():
    code = (
        "from prism_secure.data.torchvision_shim import DECLARED, torchvision\n"
        "import torchvision.datasets, torchvision.models, torchvision.extension\n"
        "assert DECLARED == (() if torchvision.extension._has_ops() else ('nms', 'qnms')), DECLARED\n"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    found = subprocess.run(command, capture_output=True, text=True, env=environment())
    assert found.returncode == 0, found.stderr


def test_without_its_library_torchvision_fails_alone_and_imports_through_the_shim(tmp_path: Path, run: Run):
    found = run(
        "import sys, torch\n"
        "try:\n"
        "    import torchvision\n"
        "except RuntimeError as error:\n"
        "    assert 'nms does not exist' in str(error), error\n"
        "    print('fails alone')\n"
        "assert 'torchvision' not in sys.modules\n"
        "from prism_secure.data.torchvision_shim import DECLARED, torchvision\n"
        f"assert torchvision.__file__.startswith({str(tmp_path)!r})\n"
        "assert DECLARED == ('nms', 'qnms'), DECLARED\n"
        "try:\n"
        "    torch.ops.torchvision.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)\n"
        "except NotImplementedError:\n"
        "    print('has no implementation')\n",
        fake_torchvision(tmp_path),
    )
    assert found.stdout == "fails alone\nhas no implementation\n", found.stderr


def test_operators_that_somebody_else_declared_are_left_alone(tmp_path: Path, run: Run):
    found = run(
        "import torch\n"
        "own = torch.library.Library('torchvision', 'FRAGMENT')\n"
        "own.define('nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')\n"
        "from prism_secure.data.torchvision_shim import DECLARED\n"
        "assert DECLARED == ('qnms',), DECLARED\n",
        fake_torchvision(tmp_path),
    )
    assert found.returncode == 0, found.stderr


@pytest.mark.parametrize("library", LIBRARIES)
def test_nothing_is_declared_beside_a_library_that_loads_whatever_its_file_is_called(
    tmp_path: Path, library: str, run: Run
):
    found = run(
        "from prism_secure.data.torchvision_shim import DECLARED, torchvision\n"
        "import torch\n"
        "assert DECLARED == (), DECLARED\n"
        "assert torch.ops.torchvision.nms and torch.ops.torchvision.qnms\n",
        fake_torchvision(tmp_path, library, b"loads"),
    )
    assert found.returncode == 0, found.stderr


@pytest.mark.parametrize("library", LIBRARIES)
def test_beside_a_library_that_does_not_load_torchvision_imports(tmp_path: Path, library: str, run: Run):
    found = run(
        "from prism_secure.data.torchvision_shim import DECLARED\n"
        "assert DECLARED == ('nms', 'qnms'), DECLARED\n",
        fake_torchvision(tmp_path, library, b"built for another torch"),
    )
    assert found.returncode == 0, found.stderr


def test_a_torchvision_that_is_broken_otherwise_says_so_itself(tmp_path: Path, run: Run):
    path = fake_torchvision(tmp_path, content=b"loads") / "torchvision" / "__init__.py"
    path.write_text(path.read_text() + "raise RuntimeError('compiled with different CUDA major versions')\n")
    found = run("import prism_secure.data.torchvision_shim", tmp_path)
    assert found.returncode != 0
    assert "RuntimeError: compiled with different CUDA major versions" in found.stderr
    assert "already" not in found.stderr


def test_nothing_is_declared_once_torchvision_is_imported(tmp_path: Path, run: Run):
    found = run(
        "import torchvision\nfrom prism_secure.data import torchvision_shim\n"
        "assert torchvision_shim.torchvision is torchvision\nassert torchvision_shim.DECLARED == ()\n",
        fake_torchvision(tmp_path, content=b"loads"),
    )
    assert found.returncode == 0, found.stderr


def test_every_module_that_imports_torchvision_goes_through_the_shim():
    for path in PACKAGE.rglob("*.py"):
        if path.name == "torchvision_shim.py":
            continue
        text = path.read_text()
        assert 'Library("torchvision"' not in text, path
        if re.search(r"^\s*(import|from) torchvision", text, re.MULTILINE):
            assert "torchvision_shim" in text, f"{path} imports torchvision without the shim"
