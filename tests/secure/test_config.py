"""A misspelt or impossible setting must be one clear line, and the resolved file must reproduce the run."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from prism_crypto.primitives import hybrid
from prism_secure.config import Config, dump_config, load_config, meanings, sections
from prism_secure.config.explain import bounds
from prism_secure.config.reading import MEANT
from prism_secure.config.recipes import text
from prism_secure.errors import ConfigError
from prism_secure.sweep.recipe import read_recipe


def test_resolved_configuration_reads_back_as_itself(tmp_path: Path) -> None:
    config = load_config(None, ["privacy.clip=1.5", "data.partition=shards", "secure_sum.min_survivors=8"])
    path = tmp_path / "config.toml"
    path.write_text(dump_config(config))
    assert load_config(path) == config
    assert config != Config()


def test_defaults_need_no_file() -> None:
    assert load_config() == Config()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("privcy.flip=0", "unknown setting 'privcy'; did you mean 'privacy'?"),
        ("privacy.flp=0", "unknown setting 'privacy.flp'; did you mean 'privacy.flip'?"),
        ("data.flip=0", "unknown setting 'data.flip'; did you mean 'privacy.flip'?"),
        ("privacy.flip=0.7", "privacy.flip must be in [0, 0.5), got 0.7"),
        ("privacy.flip=nan", "privacy.flip must be in [0, 0.5), got nan"),
        ("federation.rounds=ten", "federation.rounds must be a whole number, got 'ten'"),
        ("federation.rounds=1.5", "federation.rounds must be a whole number, got 1.5"),
        ("privacy.flip=true", "privacy.flip must be a number, got true"),
        ("privacy.clip=true", "privacy.clip must be a number | none, got true"),
        ("secure_sum.simulate=1", "secure_sum.simulate must be true or false, got 1"),
        ("data.folder=7", "data.folder must be text | none, got 7"),
        ("metrics.utility=no", "metrics.utility must be a whole number | 'end' | 'off', got 'no'"),
        ("federation.rounds=0", "federation.rounds must be at least 1, got 0"),
        ("federation.clients=2", "federation.clients must be from 3"),
        ("data.partition=iiid", "data.partition must be 'iid' | 'shards' | 'dirichlet', got 'iiid'"),
        ('features.extractors=["vgg"]', "features.extractors must be one or more of 'efficientnet_lite0' | "),
        ("features.extractors=[]", "features.extractors must be one or more of 'efficientnet_lite0' | "),
        ('features.extractors=["fourier", "fourier"]', "features.extractors must be one or more of "),
        ("features.extractors=[1]", "features.extractors must be a list of texts in quotes, got [1]"),
        ("privacy.record_epsilon=0", "privacy.record_epsilon must be a positive number or inf, got 0"),
        ("privacy.record_cohort=-1", "privacy.record_cohort must be at least 0, got -1"),
        ("privacy.clip_space=score", "privacy.clip_space must be 'probability' without a clip, got 'score'"),
        ("secure_sum.threshold=5", "secure_sum.threshold must be above n/2 = 5, got 5"),
        ("secure_sum.threshold=11", "secure_sum.threshold must be at most min_survivors = 10, got 11"),
        ("secure_sum.min_survivors=11", "secure_sum.min_survivors must be at most federation.clients = 10"),
        ("privacy.colluders=10", "privacy.colluders must be at most 9 where federation.clients = 10"),
        ("secure_sum.min_survivors=5", "secure_sum.min_survivors must be at least 7, the threshold by rule"),
        ("features.vgg_layers=[3, 17]", "features.vgg_layers must be different numbers from 1 to 16"),
        ("training.end_steps=-1", "training.end_steps must be at least 0, got -1"),
        ("training.betas=[0.5, 1.0]", "training.betas must be two numbers in [0, 1)"),
        ("mask.score_layers=0.5", "mask.score_layers needs privacy.flip = 0"),
        ("mask.score_bits=1", "mask.score_bits must be from 2 to 32"),
        ("mask.spread=0", "mask.spread must be a positive number, got 0"),
        ("model.image_size=48", "model.image_size must be a power of two from 8 to 256, got 48"),
        (
            "data.source=images",
            "data.folder must be the folder with the files of 'images', got none",
        ),
        (
            "data.folder=pictures",
            "data.folder must be none with source = 'fashion_mnist_12k', which is bundled",
        ),
        ("privacy.flip", "--set takes section.key=value, got 'privacy.flip'"),
        ("flip=0.1", "--set takes section.key=value, got 'flip=0.1'; did you mean 'privacy.flip'?"),
        ("rounds=2", "--set takes section.key=value, got 'rounds=2'; did you mean 'federation.rounds'?"),
        ("privacy.epsilon=5", "did you mean 'privacy.record_epsilon' or 'measured.epsilon'?"),
        ("data.dataset=mnist", "unknown setting 'data.dataset'; did you mean 'data.source'?"),
        ("lr=0.1", "--set takes section.key=value, got 'lr=0.1'; did you mean 'training.learning_rate'?"),
        ("federation.fraction=1", "did you mean 'federation.client_fraction'?"),
    ],
)
def test_impossible_setting_is_named_with_what_was_expected(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_config(None, [override])
    assert message in str(error.value)


def test_what_is_meant_by_other_programs_keys_is_a_setting_and_no_key_of_ours() -> None:
    settings = {f"{section}.{key}" for section, key in meanings()}
    assert set(MEANT.values()) <= settings
    assert not set(MEANT) & {key for _, key in meanings()}


@pytest.mark.parametrize("path", [3, ["privacy.flip=0.25"], {"privacy": {"flip": 0.25}}, Config()])
def test_what_is_no_path_of_a_file_is_told_what_was_expected(path: Any) -> None:
    with pytest.raises(ConfigError, match="takes the path of a TOML file, or None, got"):
        load_config(path)


@pytest.mark.parametrize("overrides", ["privacy.flip=0.25", {"privacy.flip": 0.25}, [("privacy.flip", 0.25)]])
def test_overrides_that_are_no_list_of_strings_are_told_what_was_expected(overrides: Any) -> None:
    for read in (load_config, read_recipe):
        with pytest.raises(ConfigError, match=r"overrides must be a list such as"):
            read(None if read is load_config else text("sweep-epsilon"), overrides)


def test_a_string_is_the_path_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a string: no such file"):
        load_config("a string")
    path = tmp_path / "recipe.toml"
    path.write_text("[privacy]\nflip = 0.125\n")
    assert load_config(str(path)) == load_config(path) == load_config(overrides=("privacy.flip=0.125",))


@pytest.mark.parametrize("content", [b"privacy = 3", b"[privacy\nflip = 0", b"\xff\xfe"])
def test_unreadable_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"broken\.toml"):
        load_config(path)
    with pytest.raises(ConfigError, match=r"missing\.toml"):
        load_config(tmp_path / "missing.toml")


@pytest.mark.skipif(not hybrid.available(), reason="this cryptography has no ML-KEM-768")
@pytest.mark.parametrize("suite", ["x25519", "x25519+ml-kem-768"])
def test_either_suite_takes_the_same_threshold_and_cohort(suite: str) -> None:
    override = [f"secure_sum.suite={suite}", "secure_sum.mode=active"]
    config = load_config(None, override)
    assert (config.threshold, config.min_survivors, config.cohort) == (7, 10, 10)
    config = load_config(None, [*override, "secure_sum.min_survivors=8", "privacy.colluders=2"])
    assert (config.threshold, config.cohort) == (7, 6)
    with pytest.raises(ConfigError, match=r"threshold must be at most min_survivors = 8, got 9"):
        load_config(None, [*override, "secure_sum.min_survivors=8", "secure_sum.threshold=9"])
    config = load_config(None, override, recipe="cross-device")
    assert (config.graph, config.secure_sum.suite) == ("chosen", suite)
    assert config.cohort == load_config(None, recipe="cross-device").cohort


def test_hybrid_keys_are_refused_where_cryptography_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    override = ["secure_sum.suite=x25519+ml-kem-768", "secure_sum.mode=semi_honest"]
    if hybrid.available():
        assert load_config(None, override).secure_sum.suite == "x25519+ml-kem-768"
    monkeypatch.setattr(hybrid, "available", lambda: False)
    with pytest.raises(ConfigError, match=r"secure_sum.suite can't be .* here: hybrid keys need ML-KEM-768"):
        load_config(None, override)
    with pytest.raises(ConfigError, match=r"secure_sum.suite must be"):
        load_config(None, ["secure_sum.suite=ml-kem-768"])
    assert load_config().secure_sum.suite == "x25519"


def test_cohort_is_what_policies_guarantee_less_colluders() -> None:
    config = load_config(None, ["secure_sum.min_survivors=8", "privacy.colluders=2"])
    assert (config.threshold, config.min_survivors, config.cohort) == (7, 8, 6)
    suspicious = load_config(None, ["privacy.colluders=5"])
    assert (suspicious.threshold, suspicious.cohort) == (8, 5)
    with pytest.raises(ConfigError, match="below 2 \\* threshold - n = 4, got 5"):
        load_config(None, ["privacy.colluders=5", "secure_sum.threshold=7"])
    relaxed = load_config(None, ["secure_sum.mode=semi_honest"])
    assert (relaxed.threshold, relaxed.cohort) == (6, 10)


@pytest.mark.parametrize(
    ("overrides", "cause"),
    [
        (["federation.clients=40"], "privacy.colluders must be at most 39 where federation.clients = 40"),
        (
            ["federation.client_fraction=0.04"],
            "colluders must be at most 39 where the clients a round invites = 40",
        ),
        (["federation.clients=300", "privacy.colluders=300"], "privacy.colluders must be at most 299"),
        (["federation.clients=40", "secure_sum.mode=active"], "privacy.colluders must be at most 39"),
        (
            ["federation.clients=40", "secure_sum.threshold=45"],
            "secure_sum.threshold must be at most min_survivors",
        ),
        (
            ["federation.clients=100", "secure_sum.min_survivors=50"],
            "secure_sum.min_survivors must be at least 51, the threshold by rule",
        ),
    ],
)
def test_fewer_clients_than_a_recipe_has_name_what_was_set_not_what_follows(
    overrides: list[str], cause: str
) -> None:
    with pytest.raises(ConfigError) as error:
        load_config(None, overrides, recipe="cross-device")
    assert cause in str(error.value)


@pytest.mark.parametrize("mode", ["active", "semi_honest"])
@pytest.mark.parametrize("survivors", [10, 8])
def test_the_most_colluders_that_are_named_can_be_had(mode: str, survivors: int) -> None:
    base = [f"secure_sum.mode={mode}", f"secure_sum.min_survivors={survivors}"]
    with pytest.raises(ConfigError) as error:
        load_config(None, [*base, "privacy.colluders=10"])
    most = int(re.findall(r"privacy.colluders must be at most (\d+)", str(error.value))[0])
    assert load_config(None, [*base, f"privacy.colluders={most}"]).threshold <= survivors
    with pytest.raises(ConfigError):
        load_config(None, [*base, f"privacy.colluders={most + 1}"])


def test_a_later_override_wins_and_keeps_the_files_other_keys(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text("[privacy]\nflip = 0.25\nclip = 2.0\n")
    config = load_config(path, ["privacy.flip=0.2", "privacy.flip=0.3"])
    assert (config.privacy.flip, config.privacy.clip) == (0.3, 2.0)


def test_every_setting_has_a_meaning() -> None:
    keys = {
        (section, key) for section, kind in get_type_hints(Config).items() for key in get_type_hints(kind)
    }
    assert set(meanings()) == keys
    assert [key for key, text in meanings().items() if not text.endswith(".")] == []


def test_what_may_have_no_value_has_none_by_default() -> None:
    """A written configuration leaves it out, and would read back as another one."""
    optional = [
        (section, key)
        for section, kind in get_type_hints(Config).items()
        for key, hint in get_type_hints(kind).items()
        if type(None) in get_args(hint)
    ]
    assert len(optional) > 5
    for section, key in optional:
        assert getattr(getattr(Config(), section), key) is None, (section, key)


def test_a_configuration_of_measured_rounds_reads_back(tmp_path: Path) -> None:
    measure = ["federation.behaviour=measure", "privacy.record_epsilon=inf", "measured.epsilon=inf"]
    config = load_config(None, [*measure, "measured.radius=0.5", "budget.image_epsilon=2"])
    (tmp_path / "config.toml").write_text(dump_config(config))
    assert load_config(tmp_path / "config.toml") == config


def test_no_more_noise_may_be_missing_than_honest_clients_bring() -> None:
    few = ["privacy.record_epsilon=2", "privacy.record_release=summed", "privacy.colluders=2"]
    assert load_config(None, few).record_cohort == 8
    assert load_config(None, [*few, "privacy.record_cohort=1"]).record_cohort == 1
    with pytest.raises(ConfigError, match="at most min_survivors - colluders = 8, got 9"):
        load_config(None, [*few, "privacy.record_cohort=9"])


def test_an_infinite_record_epsilon_reads_back(tmp_path: Path) -> None:
    config = load_config(None, ["privacy.record_epsilon=inf"])
    (tmp_path / "config.toml").write_text(dump_config(config))
    assert load_config(tmp_path / "config.toml") == config


def test_annealing_needs_to_know_the_last_round() -> None:
    annealed = load_config(None, ["mask.mode=annealed"])
    assert annealed.budget.epsilon is None
    with pytest.raises(ConfigError, match=r"budget\.epsilon may end the run before"):
        load_config(None, ["mask.mode=annealed", "budget.epsilon=8"])


@pytest.mark.parametrize(
    ("settings", "private"),
    [
        ([], False),
        (["data.source=cifar10", "data.folder=here"], False),
        (["data.source=images", "data.folder=here"], True),
        (["data.source=idx", "data.folder=here"], True),
        (["data.source=images", "data.folder=here", "metrics.held_out=public"], False),
        (["metrics.held_out=private"], True),
    ],
)
def test_held_out_images_of_ones_own_are_private_unless_declared(settings: list[str], private: bool) -> None:
    assert load_config(None, settings).private_metrics is private


def test_folder_for_a_recipe_is_called_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="it is a folder; name a TOML file"):
        load_config(tmp_path)


@pytest.mark.parametrize(
    ("section", "key", "wrong"),
    [
        ("metrics", "samples", "1"),
        ("aggregation", "hold", "2.0"),
        ("aggregation", "rule", "none_such"),
        ("federation", "behaviour", "none_such"),
        ("measured", "growth", "-1.0"),
        ("measured", "record_clip", "0.0"),
        ("measured", "coordinates", "3"),
        ("features", "vgg_layers", "[17]"),
        ("budget", "image_epsilon", "-1.0"),
    ],
)
def test_explain_says_what_a_wrong_value_is_refused_with(section: str, key: str, wrong: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load_config(None, [f"{section}.{key}={wrong}"])
    assert f"{section}.{key} must be {bounds()[section, key]}, got " in str(refused.value)


def test_explain_knows_every_check_of_a_section() -> None:
    """Those that the sections' source names, and those that an annotation has."""
    source = inspect.getsource(sections)
    named = set(re.findall(r'_require(?:_named)?\(\s*"(\w+)"', source))
    named |= {name for kind in get_type_hints(Config).values() for name, _ in sections._ranges(kind)}
    assert len(named) > 55
    assert named <= {key for _, key in bounds()}
    assert not {key for section, key in bounds() if not hasattr(getattr(Config(), section), key)}
