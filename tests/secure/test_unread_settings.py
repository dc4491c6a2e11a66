"""A setting that a run never reads is refused, and the table of these misses none."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_type_hints

import msgspec
import pytest

from prism_secure.config import Config, load_config
from prism_secure.config.unread import NEVER_READ
from prism_secure.errors import ConfigError
from prism_secure.rounds.simulation import run

from .test_measured_rounds import MEASURED
from .tiny_data import TINY, write_data

SETTINGS = {"train": ["privacy.record_epsilon=2", "privacy.record_release=summed"], "measure": MEASURED}


READ_ELSEWHERE = {
    ("aggregation", "floor"),  # with a kalman rule
    ("features", "vgg_layers"),  # with vgg19_bn
    ("mask", "score_bits"),  # with mask.score_layers
    ("mask", "score_limit"),
    ("metrics", "held_out"),  # by the report, from the folder's own copy
}


def heard(config: Config, read: set[tuple[str, str]]) -> Config:
    """The same configuration, which keeps in `read` what is asked of it."""

    def heard_section(name: str, section: Any) -> Any:
        class Heard(type(section), frozen=True):  # type: ignore[misc]
            def __getattribute__(self, key: str) -> Any:
                if not key.startswith("_"):
                    read.add((name, key))
                return super().__getattribute__(key)

        return Heard(**msgspec.structs.asdict(section))

    sections = {name: heard_section(name, getattr(config, name)) for name in get_type_hints(Config)}
    return msgspec.structs.replace(config, **sections)


@pytest.mark.parametrize("behaviour", ["train", "measure"])
def test_what_a_run_reads_nowhere_is_in_the_table(behaviour: str, tmp_path: Path) -> None:
    data = f"data.folder={write_data(tmp_path / 'data')}"
    read: set[tuple[str, str]] = set()
    config = heard(load_config(None, [*TINY, *SETTINGS[behaviour], data]), read)
    read.clear()
    run(config, tmp_path / "run")
    every = {
        (section, key) for section, kind in get_type_hints(Config).items() for key in get_type_hints(kind)
    }
    assert every - read - set(NEVER_READ[behaviour]) - READ_ELSEWHERE == set()
    assert set(NEVER_READ[behaviour]) <= every


@pytest.mark.parametrize(
    ("recipe", "overrides", "named"),
    [
        (None, ["measured.epsilon=1"], "measured.epsilon = 1.0 has no effect"),
        ("prism", ["measured.rows=30"], "recipe that reads it: cross-device or cross-silo"),
        ("cross-device", ["federation.behaviour=train"], "measured.directions = 4096, measured.coordinates"),
        ("cross-silo", ["federation.local_steps=8"], "federation.local_steps = 8 has no effect"),
        ("cross-silo", ["mask.density=0.3"], "leave it at the default 0.5"),
        ("cross-device", ["privacy.record_cohort=1"], "no moments are released"),
        (
            "cross-device",
            ["aggregation.rule=fixed", "training.optimizer=root"],
            "training.optimizer = 'root', ",
        ),
    ],
)
def test_a_setting_that_nobody_reads_is_refused_by_name(
    recipe: str | None, overrides: list[str], named: str
) -> None:
    with pytest.raises(ConfigError, match="no effect with") as error:
        load_config(None, overrides, recipe=recipe)
    assert named in str(error.value)


@pytest.mark.parametrize(
    ("unread", "ending"),
    [
        ([("measured", "rows")], "600, or start from a recipe that reads it: cross-device or cross-silo"),
        ([("federation", "local_steps")], "32, or start from a recipe that reads it: one-shot or prism"),
        ([("training", "batch_size")], "reads it: cross-device or cross-silo or one-shot or prism"),
        ([("measured", "rows"), ("federation", "local_steps")], "leave them at the defaults"),
    ],
)
def test_one_more_behaviour_is_sent_to_a_recipe_that_reads_the_setting(
    unread: list[tuple[str, str]], ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(NEVER_READ, "mine:third", dict.fromkeys(unread, "nobody asks"))
    own = ["federation.behaviour=mine:third", "privacy.record_epsilon=inf", "training.batch_size=20"]
    with pytest.raises(ConfigError, match="nobody asks") as error:
        load_config(None, [*own, "measured.rows=30", "federation.local_steps=8"])
    assert str(error.value).endswith(ending)


def test_at_its_default_it_is_no_fault_and_a_behaviour_of_ones_own_may_read_all() -> None:
    load_config(None, ["federation.local_steps=32", "aggregation.lambda_end=0.2"], recipe="cross-device")
    load_config(None, ["measured.epsilon=2"])
    own = ["federation.behaviour=mine:answer", "privacy.record_epsilon=inf"]
    load_config(None, [*own, "measured.epsilon=1", "federation.local_steps=8", "aggregation.rule=fixed"])
