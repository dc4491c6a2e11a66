"""`doctor`: what is found with torch is remembered only while nothing that it rests on has changed."""

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from prism_secure.commands import doctor, tried_before
from prism_secure.commands.tried_before import Finding, keep, recall
from prism_secure.data.bundled import load_bundled

FOUND = [Finding("ok", "torch", "9.9, 2 threads"), Finding("missing", "features: vgg19_bn", "no weights")]


class Stub:
    """A module that is loaded, one below it, a folder of weights, and a folder earlier on the path."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.patch = monkeypatch
        self.module = folder / "installed" / "prism_stub" / "__init__.py"
        self.below = folder / "installed" / "prism_stub" / "below.py"
        self.weights, self.earlier = folder / "weights" / "some.pth", folder / "earlier"
        for path in (self.module, self.below, self.weights, self.earlier / "else.py"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("FIRST = 1\n")
        monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        monkeypatch.syspath_prepend(folder / "installed")
        monkeypatch.syspath_prepend(self.earlier)
        for name in ("prism_stub", "prism_stub.below"):
            monkeypatch.delitem(sys.modules, name, raising=False)
            import_module(name)

    def written_with_its_old_time(self) -> None:
        before = self.below.stat()
        self.below.write_text("FIRST = 2\n")
        os.utime(self.below, ns=(before.st_atime_ns, before.st_mtime_ns))


CHANGES: dict[str, Callable[[Stub], object]] = {
    "a module cut short": lambda stub: stub.below.write_text(""),
    "a module written again, of its size and with its old time": Stub.written_with_its_old_time,
    "a module gone": lambda stub: stub.below.unlink(),
    "a package gone": lambda stub: stub.module.parent.rename(stub.earlier / "kept"),
    "another module of that name, earlier": lambda stub: (stub.earlier / "prism_stub.py").write_text(""),
    "weights cut short": lambda stub: stub.weights.write_text(""),
    "new weights": lambda stub: stub.weights.with_name("new.pth").write_text("1"),
    "weights gone": lambda stub: stub.weights.unlink(),
    "a variable for libraries": lambda stub: stub.patch.setenv("LD_LIBRARY_PATH", "/elsewhere"),
    "a variable for cards": lambda stub: stub.patch.setenv("CUDA_VISIBLE_DEVICES", ""),
    "threads": lambda stub: stub.patch.setenv("OMP_NUM_THREADS", "7"),
    "the path": lambda stub: stub.patch.syspath_prepend(stub.weights.parent),
    "fewer cores": lambda stub: stub.patch.setattr(tried_before, "cores", lambda: 99),
    "a card": lambda stub: stub.patch.setattr(tried_before, "_cards", lambda: (0, 0, 99)),
    "another Python": lambda stub: stub.patch.setattr(sys, "version", "3.99"),
    "what is kept, torn": lambda stub: os.truncate(tried_before._file(), 100),
    "what is kept, of another shape": lambda stub: tried_before._file().write_text('{"when": "today"}'),
    "what is kept, no text": lambda stub: tried_before._file().write_bytes(b"\xff\xfe"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_torch_is_tried_again_after_a_change_of(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub = Stub(tmp_path, monkeypatch)
    assert recall() is None
    keep(FOUND, [stub.weights.parent])
    before = recall()
    assert before is not None
    assert before[1] == FOUND
    CHANGES[what](stub)
    assert recall() is None


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    keep(FOUND, [])
    assert recall() is None


def test_names_that_are_no_utf_8_are_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LD_LIBRARY_PATH", "/\udcff")
    keep(FOUND, [])
    assert recall() is not None
    tried_before._file().unlink()
    monkeypatch.setitem(sys.modules, "prism_none", None)
    keep(FOUND, [Path("/\udcff")])
    assert recall() is None


def test_what_the_driver_answers_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def asked(library: str) -> SimpleNamespace:
        assert library == "libcuda.so.1"
        if found is None:
            raise OSError("no such file")
        return SimpleNamespace(cuInit=lambda flags: failed, cuDeviceGetCount=count)

    def count(place: Any) -> int:
        place._obj.value = found
        return 0

    monkeypatch.setattr(ctypes, "CDLL", asked)
    for found, failed in ((None, 0), (1, 0), (2, 0), (2, 804)):
        assert recall() is None, (found, failed)
        keep(FOUND, [])
        assert recall() is not None, (found, failed)


def test_libraries_that_a_module_brings_along_are_watched() -> None:
    found = tried_before._loaded()
    assert Path(os.__file__) in map(Path, found)
    if sys.platform == "linux":
        assert any("libc.so" in path or "ld-musl" in path for path in found)


def _doctor(path: Path, *options: str) -> tuple[int, list[str]]:
    """Exit code and lines of a process with `path`/first first on its path; it never loads torch itself."""
    code = "import sys; from prism_secure.cli import main; code = main(['doctor', *sys.argv[1:]])\n"
    code += "assert 'torch' not in sys.modules; sys.exit(code)"
    variables = os.environ | {"XDG_CACHE_HOME": str(path / "cache"), "TORCH_HOME": str(path / "hub")}
    variables["PYTHONPATH"] = os.pathsep.join(
        [str(path / "first"), str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *options], cwd=path, env=variables, capture_output=True, text=True
    )
    assert done.stderr == ""
    return done.returncode, done.stdout.splitlines()


def test_doctor_tries_torch_once_and_again_when_it_is_broken(tmp_path: Path) -> None:
    broken = tmp_path / "first" / "torch" / "__init__.py"
    broken.parent.parent.mkdir()
    code, first = _doctor(tmp_path)
    assert code == 0
    code, again = _doctor(tmp_path)
    assert code == 0
    changed = [(old, new) for old, new in zip(first, again, strict=True) if old != new]
    (torch,) = (pair for pair in changed if pair[0].split()[1] == "torch")
    assert torch[0].endswith("; tried now")
    assert torch[1].startswith(torch[0].removesuffix("now") + "20")
    assert {old.split()[1] for old, _ in changed} <= {"torch", "this"}, "free disk may change, too"
    assert torch[0] in _doctor(tmp_path, "--anew")[1]

    broken.parent.mkdir()
    for cause, words in (
        ("raise OSError('libtorch_cpu.so: cannot open shared object file')", "libtorch_cpu.so: cannot open"),
        ("import no_such_module", "No module named 'no_such_module'"),
        (
            "import os, signal; os.kill(os.getpid(), signal.SIGILL)",
            "killed the process that tried it (SIGILL)",
        ),
        ("import os; os._exit(3)", "killed the process that tried it (code 3)"),
    ):
        broken.write_text(cause)
        code, lines = _doctor(tmp_path)
        assert code == 1
        assert lines[2].startswith("broken  torch")
        assert words in lines[2]
        assert any(line.startswith("ok      accountant") for line in lines), "the others are tried, too"
    assert _doctor(tmp_path) == (1, lines), "what is broken is not remembered"


def test_a_process_that_dies_later_breaks_what_it_was_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where convolutions alone are built for other processors."""
    found = b'["ok","torch","9.9"]\n["ok","graphics card","none"]\n'
    died = subprocess.CompletedProcess([], -4, stdout=found)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: died)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    *fine, last = doctor._tried_with_torch(anew=False)
    assert [finding.level for finding in fine] == ["ok", "ok"]
    assert (last.level, last.name) == ("broken", "features")
    assert "(SIGILL)" in last.text


def test_what_is_broken_in_this_process_counts_whatever_is_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    keep(FOUND, [])
    monkeypatch.setitem(sys.modules, "torch", None)
    assert next(doctor._tried_with_torch(anew=False)).level == "broken"


def test_the_bundled_images_are_as_many_as_doctor_says() -> None:
    found = load_bundled()
    said = f"{found.name}: {len(found.train_images):,} images, {len(found.test_images):,} held out"
    assert doctor._bundled() == said
