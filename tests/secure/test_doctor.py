"""`doctor` says what is broken, whatever it is, and goes on to the rest."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from prism_secure.commands import looks
from prism_secure.data.bundled import load_bundled


def _doctor(path: Path) -> tuple[int, list[str]]:
    """Exit code and lines of a process with `path`/first first on its path; it never loads torch itself."""
    code = "import sys; from prism_secure.cli import main; code = main(['doctor'])\n"
    code += "assert 'torch' not in sys.modules; sys.exit(code)"
    variables = os.environ | {"TORCH_HOME": str(path / "hub")}
    variables["PYTHONPATH"] = os.pathsep.join(
        [str(path / "first"), str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=path, env=variables, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout.splitlines()


def test_a_torch_that_is_broken_is_a_line_like_any_other(tmp_path: Path) -> None:
    broken = tmp_path / "first" / "torch" / "__init__.py"
    broken.parent.mkdir(parents=True)
    broken.write_text("import os, signal; os.kill(os.getpid(), signal.SIGILL)")
    code, lines = _doctor(tmp_path)
    assert code == 1
    assert lines[3].startswith("broken  torch")
    assert "(SIGILL)" in lines[3]
    assert sum(line.startswith("broken") for line in lines) == 1, "what needs torch is not tried without it"
    assert any(line.startswith("ok      accountant") for line in lines), "the others are tried, too"


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        ("import no_such_module", "No module named 'no_such_module'"),
        ("raise OSError('libtorch_cpu.so: cannot open shared object file')", "libtorch_cpu.so: cannot open"),
        (
            "import os, signal; os.kill(os.getpid(), signal.SIGILL)",
            "killed the process that tried it (SIGILL)",
        ),
        ("import os; os._exit(3)", "killed the process that tried it (code 3)"),
        ("import os; os.write(1, b'of C code'); raise OSError('after words')", "after words"),
    ],
)
def test_however_torch_fails_its_line_says_so(
    cause: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text(cause)
    monkeypatch.syspath_prepend(tmp_path)
    numpy, found, *_ = looks.tried_elsewhere()
    assert (numpy.level, numpy.name) == ("ok", "numpy")
    assert (found.level, found.name) == ("broken", "torch")
    assert words in found.text


@pytest.mark.parametrize(
    ("package", "lost", "still_tried"),
    [
        ("numpy", {"numpy"}, set[str]()),
        ("cryptography", {"secure sum"}, {"torch", "features", "bundled images", "report"}),
        ("matplotlib", {"report"}, {"torch", "features", "secure sum", "accountant", "bundled images"}),
    ],
)
def test_whatever_else_kills_the_process_is_a_line_and_the_rest_is_tried(
    package: str, lost: set[str], still_tried: set[str], tmp_path: Path
) -> None:
    killer = tmp_path / "first" / package / "__init__.py"
    killer.parent.mkdir(parents=True)
    killer.write_text("import os, signal; os.kill(os.getpid(), signal.SIGBUS)")
    code, lines = _doctor(tmp_path)
    broken = {line[8:31].strip(): line for line in lines if line.startswith("broken")}
    assert code == 1
    assert broken.keys() == lost
    assert all(f"(SIGBUS): install {package} for this machine" in line for line in broken.values())
    assert {line[8:31].strip() for line in lines if line.startswith("ok")} >= still_tried


def test_a_process_that_dies_later_breaks_what_it_was_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where convolutions alone are built for other processors."""
    names = [look.name for look in looks.looks()]
    outcomes = iter([(-4, names[:3]), (0, names[7:])])

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[bytes]:
        code, told = next(outcomes)
        assert command[3].split(",")[: len(told)] == told, "it is told what to try"
        lines = "".join(f'["ok","{name}","fine"]\n' for name in told)
        return subprocess.CompletedProcess([], code, stdout=lines.encode())

    monkeypatch.setattr(subprocess, "run", run)
    found = list(looks.tried_elsewhere())
    assert [finding.name for finding in found] == [*names[:4], *names[7:]]
    assert [finding.name for finding in found if finding.level == "broken"] == ["features"]
    assert "(SIGILL)" in found[3].text


def test_the_bundled_images_are_as_many_as_doctor_says() -> None:
    found = load_bundled()
    said = f"{found.name}: {len(found.train_images):,} images, {len(found.test_images):,} held out"
    assert looks._bundled() == said
