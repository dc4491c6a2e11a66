"""`doctor` says what is broken, whatever it is, and goes on to the rest."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from prism_secure.commands import doctor
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
    assert lines[2].startswith("broken  torch")
    assert "(SIGILL)" in lines[2]
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
    found = next(doctor._tried_elsewhere())
    assert (found.level, found.name) == ("broken", "torch")
    assert words in found.text


def test_a_process_that_dies_later_breaks_what_it_was_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where convolutions alone are built for other processors."""
    found = b'["ok","torch","9.9"]\n["ok","graphics card","none"]\n'
    died = subprocess.CompletedProcess([], -4, stdout=found)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: died)
    *fine, last = doctor._tried_elsewhere()
    assert [finding.level for finding in fine] == ["ok", "ok"]
    assert (last.level, last.name) == ("broken", "features")
    assert "(SIGILL)" in last.text


def test_the_bundled_images_are_as_many_as_doctor_says() -> None:
    found = load_bundled()
    said = f"{found.name}: {len(found.train_images):,} images, {len(found.test_images):,} held out"
    assert doctor._bundled() == said
