"""`prism_secure.sweep`: a function beside the package of its name, and what it gives."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import prism_secure
from prism_secure.config import dump_config
from prism_secure.errors import ConfigError, RoundError
from prism_secure.run_folder.run import Run
from prism_secure.sweep.recipe import read_recipe
from prism_secure.sweep.results import Sweep, read_sweep

from ..tiny_data import small_images
from .tiny_runs import tiny_config

pytest.importorskip("optuna", reason="the extra 'sweep' is not installed")

BASE = tiny_config("privacy.record_epsilon=inf", "federation.rounds=2")
TEXT = dump_config(BASE) + "\n[sweep]\nseeds = [0, 1]\n[sweep.grid]\nprivacy.flip = [0.1, 0.2]\n"
NAMES = """
import sys
{first}
import prism_secure
{second}
from prism_secure import sweep
from prism_secure.sweep.results import read_sweep
from prism_secure.sweep import results
import inspect
assert inspect.isfunction(sweep) and prism_secure.sweep is sweep, sweep
assert results.read_sweep is read_sweep
assert "torch" not in sys.modules
"""


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("", ""),
        ("from prism_secure.sweep.results import read_sweep", ""),
        ("", "import prism_secure.sweep.composition"),
        (
            "import prism_secure.sweep.engine",
            "from importlib import *; import_module('prism_secure.sweep')",
        ),
    ],
)
def test_the_name_is_the_function_and_the_package_stays_importable_in_any_order(
    first: str, second: str
) -> None:
    code = NAMES.format(first=first, second=second)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_name_of_before_is_the_same_class_and_warns() -> None:
    from prism_secure.sweep import results

    with pytest.warns(DeprecationWarning, match=r"SweepResults is now Sweep.*0\.2"):
        assert results.SweepResults is Sweep
    with pytest.raises(AttributeError, match="nothing"):
        _ = results.nothing


def test_text_tables_and_file_are_the_same_recipe(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(TEXT)
    sources = (tmp_path / "recipe.toml", str(tmp_path / "recipe.toml"), TEXT, tomllib.loads(TEXT))
    recipes = [read_recipe(source) for source in sources]
    assert all(recipe == recipes[0] for recipe in recipes)


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("[sweep\n", "the recipe: not TOML"),
        ({"sweep": {"grid": {"privacy.flp": [0.1]}}}, "did you mean"),
        ({"federation": {}}, r"the recipe: a sweep needs a table \[sweep\]"),
        ("no/such/file.toml", "no such file"),
        (3, "a TOML file, its text, or its tables, got 3"),
    ],
)
def test_a_recipe_that_cannot_be_read_is_one_clear_error(source: object, why: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=why):
        prism_secure.sweep(source, tmp_path / "sweep", quiet=True)  # type: ignore[arg-type]
    assert not (tmp_path / "sweep").exists()


def test_a_sweep_gives_its_points_runs_front_page_and_a_table_of_rounds(
    tmp_path: Path, forked: None, capsys: pytest.CaptureFixture[str]
) -> None:
    found = prism_secure.sweep(TEXT, str(tmp_path / "sweep"), workers=2, quiet=True)
    assert capsys.readouterr().out == ""
    assert found == read_sweep(tmp_path / "sweep")
    assert Path(found) == found.report
    assert found.report.stat().st_size > 10_000
    assert [point.settings for point in found.points] == [{"privacy.flip": 0.1}, {"privacy.flip": 0.2}]
    assert {point.id for point in found.front()} <= {point.id for point in found.points}
    assert all(isinstance(each, Run) and each.finished for each in found.runs)
    table = found.metrics
    assert table.num_rows == 2 * 2 * 2
    rows = table.to_pylist()
    assert {(row["privacy.flip"], row["seed"], row["round"]) for row in rows} == {
        (flip, seed, number) for flip in (0.1, 0.2) for seed in (0, 1) for number in (1, 2)
    }
    first = found.runs[0]
    assert rows[0]["fid"] == first.records[0].quality.fid  # type: ignore[union-attr]
    assert "flip=0.2" in found._repr_html_()

    capsys.readouterr()
    again = prism_secure.sweep(TEXT, tmp_path / "sweep", workers=1)
    assert again == found
    assert "begin" not in capsys.readouterr().out


SCRIPT = """
import sys
from pathlib import Path
import prism_secure
Path(sys.argv[1], "begun").open("a").write("x")
prism_secure.sweep({text!r}, sys.argv[1] + "/sweep", workers=1)
"""


def test_a_script_without_a_guard_may_sweep(tmp_path: Path) -> None:
    """Its workers would load the script again, and sweep each."""
    text = TEXT.replace("[0, 1]", "[0]").replace("rounds = 2", "rounds = 1").replace("[0.1, 0.2]", "[0.1]")
    (tmp_path / "script.py").write_text(SCRIPT.format(text=text), "utf-8")
    words = [sys.executable, str(tmp_path / "script.py"), str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "begun").read_text() == "x"
    assert read_sweep(tmp_path / "sweep").counts()["done"] == 1


def test_points_that_fail_are_an_error_that_leaves_the_others(tmp_path: Path, forked: None) -> None:
    few = TEXT.replace(
        "privacy.flip = [0.1, 0.2]", f"data.folder = ['{small_images()}', '/nowhere']"
    ).replace("[0, 1]", "[0]")
    with pytest.raises(RoundError, match=r"1 point failed \(.*the data cannot be used") as failed:
        prism_secure.sweep(few, tmp_path / "sweep", workers=2, quiet=True)
    assert str(tmp_path / "sweep") in str(failed.value)
    assert read_sweep(tmp_path / "sweep").counts()["done"] == 1
