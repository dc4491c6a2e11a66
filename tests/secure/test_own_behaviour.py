"""A behaviour and an aggregation rule of the user's own, through a small run, and what is refused."""

from __future__ import annotations

import hashlib
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args

import msgspec
import numpy as np
import pytest
import torch

from prism_privacy import CoinSecret, verify_ledger
from prism_secure.accounting.plan import why_infinite
from prism_secure.config import load_config, sections
from prism_secure.config.plugged import origin
from prism_secure.config.unread import NEVER_READ, START_FROM
from prism_secure.config.whole import Config
from prism_secure.errors import ConfigError, FeatureError, RoundError, RunFolderError
from prism_secure.rounds import client as client_module
from prism_secure.rounds import simulation
from prism_secure.rounds.arrays import packed, read_arrays
from prism_secure.rounds.behaviours import choice
from prism_secure.rounds.behaviours.choice import behaviour_of
from prism_secure.rounds.behaviours.measure import Measure
from prism_secure.rounds.behaviours.train import Train
from prism_secure.rounds.broadcast import Broadcast
from prism_secure.rounds.client import Client
from prism_secure.rounds.components import Components
from prism_secure.rounds.server import Server
from prism_secure.rounds.simulation import run
from prism_secure.run_folder.folder import read_records
from prism_secure.run_folder.history import read_history
from prism_secure.sweep.recipe import read_recipe, run_id

from .tiny_data import TINY, outcome, same_secrets, write_data

HERE = "own_parts"


@pytest.fixture(scope="module", autouse=True)
def importable() -> Iterator[None]:
    """As with PYTHONPATH; processes that are started inherit it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parent)
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data") / "images")


def tiny(data: Path, *overrides: str) -> Config:
    claims_nothing = "privacy.record_epsilon=inf"
    return load_config(None, [*TINY, f"data.folder={data}", claims_nothing, *overrides])


def echo(data: Path, *overrides: str) -> Config:
    return tiny(data, f"federation.behaviour={HERE}:Echo", "federation.rounds=2", *overrides)


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("echo") / "run"
    run(echo(data), out)
    return out


def test_a_run_of_ones_own_behaviour_is_charged_as_any_other(finished: Path, data: Path) -> None:
    records = read_records(finished)
    assert [record.step for record in records] == [0.1] * 2
    dimension = Components(echo(data)).trainer.dimension
    assert (
        records[0].downlink_bytes > 3 * 2 * 8 * dimension
    )  # theta and as long a direction, to each of three
    entries = verify_ledger(finished / "ledger.jsonl").entries
    assert [entry.kind for entry in entries] == ["round"] * 2 + ["end"]


def test_the_ledger_names_the_code_that_clients_ran_and_what_epsilon_then_rests_on(finished: Path) -> None:
    report = verify_ledger(finished / "ledger.jsonl")
    digest = hashlib.sha256((Path(__file__).parent / "own_parts.py").read_bytes()).hexdigest()
    assert report.settings["federation.behaviour"] == f"{HERE}:Echo, sha256 {digest}"
    assert "aggregation.rule" not in report.settings
    (warning,) = [each for each in report.warnings if "code of the run's own" in each]
    assert digest in warning
    assert "code of the run&#39;s own" in (finished / "report.html").read_text("utf-8")


def test_the_ledger_names_a_rule_of_ones_own_which_costs_no_epsilon(data: Path, tmp_path: Path) -> None:
    run(tiny(data, f"aggregation.rule={HERE}:half_of_all_for_all"), tmp_path / "own")
    run(tiny(data), tmp_path / "plain")
    own, plain = (verify_ledger(tmp_path / name / "ledger.jsonl") for name in ("own", "plain"))
    assert own.settings["aggregation.rule"].startswith(f"{HERE}:half_of_all_for_all, sha256 ")
    assert "aggregation.rule" not in plain.settings
    assert own.warnings == plain.warnings


def test_what_is_in_the_script_that_runs_is_refused(data: Path, tmp_path: Path) -> None:
    """No other process, and nobody who repeats the run, has it."""
    for setting in ("federation.behaviour", "aggregation.rule"):
        with pytest.raises(ConfigError, match=f"{setting} = '__main__:Mine' must name a module"):
            run(tiny(data, f"{setting}=__main__:Mine"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_parts_of_ones_own_are_swept_like_any_setting(data: Path, tmp_path: Path) -> None:
    base = msgspec.to_builtins(tiny(data))
    values = {section: {k: v for k, v in keys.items() if v is not None} for section, keys in base.items()}
    rules = ["schedule", f"{HERE}:half_of_all_for_all"]
    recipe = read_recipe({**values, "sweep": {"grid": {"aggregation.rule": rules}}})
    assert [settings["aggregation.rule"] for settings in recipe.grid()] == rules
    configs = [recipe.config(settings, 0) for settings in recipe.grid()]
    assert len({run_id(config) for config in configs}) == 2


def test_a_kill_between_rounds_or_in_one_changes_nothing(
    finished: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, opened = same_secrets(finished, tmp_path / "run"), []
    honest, save = simulation.open_securely, client_module.write_atomic

    def killed_at_the_sum(*given, **how):
        opened.append(1)
        if len(opened) == 2:
            raise KeyboardInterrupt
        return honest(*given, **how)

    def killed_at_the_state(path: Path, *given, **how) -> None:
        if path.name == "state.safetensors" and "02" in path.parts:
            raise KeyboardInterrupt
        save(path, *given, **how)

    for place, killed in (
        ((client_module, "write_atomic"), killed_at_the_state),
        ((simulation, "open_securely"), killed_at_the_sum),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(*place, killed)
            with pytest.raises(KeyboardInterrupt):
                run(echo(data), out)
    run(echo(data), out)
    assert outcome(out) == outcome(finished)


def test_workers_find_a_behaviour_of_ones_own_too(
    finished: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = same_secrets(finished, tmp_path / "run")
    run(echo(data, "federation.workers=2"), out)
    assert outcome(out) == outcome(finished)


def test_no_behaviour_gets_more_past_the_clip_or_an_error_out(data: Path, tmp_path: Path) -> None:
    """All that leaves a client are bits within C of the public point, and NaN is the public point itself."""
    bits = []
    for name in ("Echo", "Loud"):
        own = f"federation.behaviour={HERE}:{name}"
        components = Components(tiny(data, own, "privacy.clip=0.01", "privacy.flip=0.25"))
        theta = np.full(components.trainer.dimension, 0.5)
        broadcast = Broadcast("f", 1, theta, {"direction": theta})
        client = Client(0, tmp_path / name, components, coins=CoinSecret.for_test(bytes(32)))
        client.answer(broadcast)
        bits.append(client.bits(broadcast))
    # Same coins and probabilities 0.01 apart in norm: hardly a bit differs. Loud asked for all ones.
    assert np.mean(bits[0] != bits[1]) < 0.01
    assert bits[1].mean() < 0.52


def test_all_that_a_behaviour_broadcasts_is_in_the_digest() -> None:
    theta, one = np.full(4, 0.5), np.arange(4.0)
    asked = [
        dict[str, np.ndarray](),
        {"a": one},
        {"b": one},
        {"a": one + 1e-12},
        {"a": one.astype(np.float32)},
        {"a": one.reshape(2, 2)},
        {"a": one, "b": one},
        {"a": np.concatenate([one, one])},
    ]
    digests = [Broadcast("f", 1, theta, public).digest for public in asked]
    assert len(set(digests)) == len(asked)
    # In another order, another layout of memory, another machine's order of bytes: the same numbers.
    same = {"b": np.stack([one, one], 1)[:, 0], "a": one.astype(">f8")}
    assert Broadcast("f", 1, theta, same).digest == digests[6]
    # A process hashes what it has loaded, not what the sender says.
    sent = Broadcast("f", 1, theta, {"a": one})
    _ = sent.digest
    received = pickle.loads(pickle.dumps(sent))
    received.public["a"][0] = 7
    assert received.digest not in digests


@pytest.mark.parametrize("array", [np.arange(6.0).reshape(2, 3).T, np.arange(6)[::2], np.array(3)])
def test_what_is_kept_comes_back_however_it_lies_in_memory(array: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / "kept").write_bytes(packed({"array": array}))
    found = read_arrays(tmp_path / "kept")["array"]
    assert found.shape == array.shape
    assert np.array_equal(found, array)


def test_another_question_means_other_coins(data: Path, tmp_path: Path) -> None:
    client = Client(0, tmp_path, Components(echo(data)))
    theta = np.full(client._components.trainer.dimension, 0.5)
    client.answer(Broadcast("f", 1, theta, {"direction": 0 * theta}))
    with pytest.raises(RunFolderError, match="answered round 1 for another"):
        client.answer(Broadcast("f", 1, theta, {"direction": 0 * theta - 0.0 + 1e-300}))


@pytest.mark.parametrize(
    ("rule", "steps"), [("half_of_all_for_all", 0.5), ("each_its_own", 0.5)]
)  # fmt: skip
def test_a_rule_of_ones_own_moves_theta(rule: str, steps: float, data: Path, tmp_path: Path) -> None:
    run(tiny(data, f"aggregation.rule={HERE}:{rule}"), tmp_path / "run")
    assert [record.step for record in read_records(tmp_path / "run")] == pytest.approx([steps] * 2)


@pytest.mark.parametrize("setting", ["aggregation.rule", "federation.behaviour"])
@pytest.mark.parametrize(
    ("named", "why"),
    [
        ("no_such_module_anywhere:rule", "cannot be imported: ModuleNotFoundError"),
        (f"{HERE}:no_such_name", "cannot be imported: AttributeError"),
        (f"{HERE}:not_callable", "must be something to call, got 3"),
        ("raises_when_imported:rule", "cannot be imported: ZeroDivisionError"),
        ("exits_when_imported:rule", "cannot be imported: SystemExit"),
    ],
)
def test_what_cannot_be_used_is_refused_before_anything_is_made(
    setting: str, named: str, why: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "raises_when_imported.py").write_text("1 / 0", "utf-8")
    (tmp_path / "exits_when_imported.py").write_text("raise SystemExit(0)", "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=rf"{setting} = '{named}' {why}"):
        run(tiny(data, f"{setting}={named}"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    sys.modules.pop("exits_when_imported", None)


@pytest.mark.parametrize("setting", ["aggregation.rule", "federation.behaviour"])
@pytest.mark.parametrize("wrong", ["shedule", "module:", ":name", "a b:c", "module.name"])
def test_a_word_that_names_nothing_is_refused_with_all_that_there_are(setting: str, wrong: str) -> None:
    with pytest.raises(ConfigError, match=r"'(schedule|train)'.* \| 'package.module:name' of your own, got"):
        load_config(None, [f"{setting}={wrong}"])


def test_a_rule_that_gives_no_step_is_refused_before_anything_is_charged(data: Path, tmp_path: Path) -> None:
    with pytest.raises(RoundError, match=r"must give a finite number, or one for each of .* got nan"):
        run(tiny(data, f"aggregation.rule={HERE}:nothing"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("built", ["half_of_all_for_all", "Echo.client", "Echo.server"])
def test_what_is_no_behaviour_is_refused_before_anything_is_made(
    built: str, data: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"behaviour = .* (must give a Behaviour|cannot be built)"):
        run(tiny(data, f"federation.behaviour={HERE}:{built}"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def own_features(data: Path, name: str, *overrides: str) -> Config:
    return tiny(data, f'features.extractors=["{HERE}:{name}"]', *overrides)


def test_features_of_ones_own_are_matched_and_named_in_the_ledger(data: Path, tmp_path: Path) -> None:
    config = own_features(data, "pooled")
    assert Components(config).extractor.dimension == 16
    run(config, tmp_path / "run")
    report = verify_ledger(tmp_path / "run" / "ledger.jsonl")
    assert report.settings["features.extractors"].startswith(f"{HERE}:pooled, sha256 ")
    assert any("kept no memory of others" in warning for warning in report.warnings)


def test_images_of_clients_go_through_ones_own_features_one_at_a_time(data: Path) -> None:
    components = Components(own_features(data, "pooled"))
    (part,) = components.extractor.parts
    sizes = []
    part.network.register_forward_pre_hook(lambda module, given: sizes.append(len(given[0])))
    components.features(0)
    components.targets(0)
    assert set(sizes) == {1}
    generated = torch.zeros(5, 1, 8, 8, requires_grad=True)
    part(generated).sum().backward()
    assert sizes[-1] == 5
    assert generated.grad is not None


@pytest.mark.parametrize(
    ("name", "error", "why"),
    [
        ("centred_by_batch", FeatureError, "the same features whatever other images are beside it"),
        ("not_finite", FeatureError, "must give finite features"),
        ("not_flat", FeatureError, r"must give features \(N, D\)"),
        ("one_number", FeatureError, r"must give \(4, 64\) of 4 images, got \(\)"),
        ("too_narrow", FeatureError, "cannot take images: RuntimeError"),
        ("no_module", ConfigError, "must give a torch.nn.Module, got 8"),
        ("takes_nothing", ConfigError, "cannot be built: TypeError"),
        ("no_such_name", ConfigError, "cannot be imported: AttributeError"),
    ],
)
def test_features_that_no_claim_could_rest_on_are_refused_before_anything_is_made(
    name: str, error: type[Exception], why: str, data: Path, tmp_path: Path
) -> None:
    with pytest.raises(error, match=why):
        run(own_features(data, name), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_module_that_is_not_there_has_no_origin() -> None:
    for reference in ("no_such_module_of_mine:x", "no_such_module_of_mine.inside:x"):
        with pytest.raises(ConfigError, match="cannot be found: "):
            origin(reference)


def test_no_kept_release_is_made_of_features_of_ones_own(data: Path) -> None:
    with pytest.raises(ConfigError, match=r"record_epsilon must be inf with features.extractors of your own"):
        own_features(data, "pooled", "privacy.record_epsilon=2.0")
    with pytest.raises(ConfigError, match=r"'vgg19_bn' \| 'package.module:name' of your own, each once, got"):
        tiny(data, 'features.extractors=["fourrier"]')


def test_no_claim_for_one_image_stands_beside_a_behaviour_of_ones_own(data: Path) -> None:
    """The opened moments' claim says that masks cost nothing more; of other reading of images it is false."""
    for epsilon in ("2.0", "100"):
        with pytest.raises(ConfigError, match=rf"must be inf with .*behaviour = '{HERE}:Echo', because"):
            echo(data, f"privacy.record_epsilon={epsilon}")


@pytest.fixture
def third(monkeypatch: pytest.MonkeyPatch) -> str:
    """A built-in behaviour more, added as CONTRIBUTING says: it reads its clients' images in every round."""
    from own_parts import Echo

    monkeypatch.setattr(sections, "Behaviour", Literal["train", "measure", "third"])
    monkeypatch.setattr(choice, "BUILT_IN", {**choice.BUILT_IN, "third": Echo})
    return "federation.behaviour=third"


@pytest.mark.parametrize("release", ["summed", "client"])
def test_one_more_built_in_behaviour_claims_nothing_for_an_image(
    third: str, release: str, data: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"must be inf with .*behaviour = 'third', because nothing"):
        tiny(data, third, "privacy.record_epsilon=2.0", f"privacy.record_release={release}")
    config = tiny(data, third, f"privacy.record_release={release}")
    run(config, tmp_path / "run")
    assert read_history(tmp_path / "run").record_guarantee is None
    told = [str(why) for why in why_infinite(config, 1000, 20)]
    (why,) = [each for each in told if each.startswith("ε(image)")]
    assert "nothing says what federation.behaviour = 'third' reads of the images" in why
    assert "record_epsilon=" not in why  # which would be refused


def test_no_behaviour_stands_in_for_another(third: str, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert type(behaviour_of(Components(tiny(data, third)))).__name__ == "Echo"
    monkeypatch.setattr(choice, "BUILT_IN", {"train": Train, "measure": Measure})  # forgotten
    with pytest.raises(ConfigError, match=r"behaviour = 'third' cannot be imported"):
        behaviour_of(Components(tiny(data, third)))


def test_lists_of_built_in_behaviours_name_the_same() -> None:
    names = set(get_args(sections.Behaviour))
    assert names == set(choice.BUILT_IN) == set(NEVER_READ) == set(START_FROM)
    assert names >= sections.KEEP_TO_THE_RELEASE


@pytest.mark.parametrize("release", ["summed", "client"])
@pytest.mark.parametrize("name", sorted(sections.KEEP_TO_THE_RELEASE))
def test_who_keeps_to_the_release_answers_without_its_images(
    name: str, release: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claims = ("privacy.record_epsilon=2.0", f"privacy.record_release={release}")
    components = Components(tiny(data, f"federation.behaviour={name}", *claims))
    client = Client(0, tmp_path / "00", components, coins=CoinSecret.for_test(bytes(32)))
    server = Server.of(components, "f")
    client.prepare("f")
    if (made := components.record_release) is not None and made.summed:
        client.moments.receive(made.plan.open(client.moments.share(), 1))

    def read(*_: object, **__: object) -> None:
        raise AssertionError("a client has read its images after the release")

    for way in ("_images", "features", "targets", "persons"):
        monkeypatch.setattr(components, way, read)
    client.answer(server.broadcast())


@pytest.mark.parametrize(
    ("own", "why"),
    [
        (
            f"federation.behaviour={HERE}:Echo",
            f"nothing says what federation.behaviour = '{HERE}:Echo'",
        ),
        (f'features.extractors=["{HERE}:pooled"]', f"features of your own promises nothing ({HERE}:pooled)"),
        (f'features.extractors=["fourier","{HERE}:pooled"]', "features of your own promises nothing"),
    ],
)
def test_no_remedy_for_an_image_is_offered_that_would_be_refused(own: str, why: str, data: Path) -> None:
    (told,) = [each for each in map(str, why_infinite(tiny(data, own), 1000, 20)) if "ε(image)" in each]
    assert why in told
    assert "privacy.record_epsilon=" not in told


def test_components_have_one_behaviour_and_share_it_with_no_others(data: Path) -> None:
    one, other = Components(tiny(data)), Components(tiny(data))
    assert behaviour_of(one) is behaviour_of(one)
    assert behaviour_of(one) is not behaviour_of(other)
