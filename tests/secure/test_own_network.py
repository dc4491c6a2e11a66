"""A generator of the user's own: through local training, measured rounds and the server's end steps, into a
model file and out of it; and what is refused."""

from __future__ import annotations

import hashlib
import importlib
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from prism_privacy import verify_ledger
from prism_secure.cli import main
from prism_secure.config import load_config
from prism_secure.config.whole import Config
from prism_secure.errors import ConfigError, ModelError, RunFolderError
from prism_secure.flower.client_app import binding
from prism_secure.model import onnx_export
from prism_secure.model.deployed import DeployedGenerator
from prism_secure.model.generator import Architecture, draw_latents
from prism_secure.model.model_file import read_model, read_model_file, write_model
from prism_secure.model.network import architecture_of, weight_count
from prism_secure.model.sparse_inference import sparse_generator
from prism_secure.rounds.components import Components
from prism_secure.rounds.simulation import run
from prism_secure.run_folder.export import export_run
from prism_secure.sweep.recipe import read_recipe, run_id

from .test_measured_rounds import MEASURED
from .tiny_data import TINY, outcome, write_data

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
DIGEST = hashlib.sha256((HERE / "own_networks.py").read_bytes()).hexdigest()
BRUSH = "own_networks:Brush"
ONE_SHOT = ["privacy.record_epsilon=4", "privacy.record_release=summed", "training.end_steps=2"]


@pytest.fixture(scope="module", autouse=True)
def importable() -> Iterator[None]:
    """As with PYTHONPATH; processes that are started inherit it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(HERE)
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data") / "images")


def tiny(data: Path, network: str = BRUSH, *overrides: str) -> Config:
    settings = [*TINY, "privacy.record_epsilon=inf", f"data.folder={data}", f"model.network={network}"]
    return load_config(None, [*settings, *overrides])


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("brush") / "run"
    run(tiny(data), out)
    return out


def test_ledger_model_and_card_name_the_code(finished: Path, tmp_path: Path) -> None:
    ledger, named = verify_ledger(finished / "ledger.jsonl"), f"{BRUSH}, sha256 {DIGEST}"
    assert ledger.settings["model.network"] == named
    assert any("kept no memory from one client to the next" in word for word in ledger.warnings)
    assert ledger.entries[-1].metrics["architecture"]["network"] == named
    exported = export_run(finished, tmp_path / "m.safetensors")
    assert exported.card is not None
    assert exported.architecture.network == exported.card.network == named
    assert DIGEST in exported.card.markdown()
    assert exported.mask.size == 8 * 4 * 18 + 8 * 4 * 64  # Brush's own two layers


@pytest.mark.parametrize("kind", [MEASURED, ONE_SHOT], ids=["measured", "one shot"])
def test_the_server_trains_it(kind: list[str], data: Path, tmp_path: Path) -> None:
    run(tiny(data, BRUSH, *kind), tmp_path / "run")
    assert read_model_file(tmp_path / "run" / "model.safetensors").architecture.network.startswith(BRUSH)


def test_the_built_in_network_by_its_reference_makes_the_same_model(data: Path, tmp_path: Path) -> None:
    """It is given what the built-in one is given, and trained, deployed and drawn alike."""
    built_in, named = Architecture(latent=6, width=4, image_size=8, classes=3), "own_resnet:Mine"
    (tmp_path / "own_resnet.py").write_text(
        "from prism_secure.model.generator import ResNetGenerator\n\n\nclass Mine(ResNetGenerator): pass\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        digest = hashlib.sha256((tmp_path / "own_resnet.py").read_bytes()).hexdigest()
        own = Architecture(latent=6, width=4, image_size=8, classes=3, network=f"{named}, sha256 {digest}")
        dimension = Components(tiny(data, named)).trainer.dimension
        assert dimension == Components(tiny(data, "resnet")).trainer.dimension
        mask = torch.rand(weight_count(built_in), generator=torch.Generator().manual_seed(0)) > 0.5
        built, mine = (DeployedGenerator(each, seed=1, mask=mask) for each in (built_in, own))
        assert torch.equal(built.generate(4, seed=2)[0], mine.generate(4, seed=2)[0])


def test_generate_and_onnx_work_from_the_model_file(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = finished / "model.safetensors", tmp_path / "grid.png"
    assert main(["generate", "--model", str(path), "--count", "10", "--out", str(out)]) == 0
    assert out.exists()
    runtime = pytest.importorskip("onnxruntime")
    model = read_model(path)
    onnx_export.write_onnx(tmp_path / "m.onnx", model)
    session = runtime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    latents, labels = draw_latents(5, model.architecture, torch.Generator().manual_seed(7))
    assert labels is not None
    (images,) = session.run(["images"], {"latents": latents.numpy(), "labels": labels.numpy()})
    np.testing.assert_allclose(images, model.generate(5, seed=7)[0].numpy(), atol=1e-5)


def test_what_onnx_cannot_hold_is_said_in_one_message(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    architecture = Components(tiny(data, "own_networks:Untraceable")).architecture
    model = DeployedGenerator(architecture, seed=1, mask=torch.ones(weight_count(architecture)))
    with pytest.raises(ConfigError, match="own_networks:Untraceable cannot be written as ONNX; torch says: "):
        onnx_export.write_onnx(tmp_path / "m.onnx", model)
    assert not (tmp_path / "m.onnx").exists()


def test_a_model_whose_code_is_not_here_or_another_is_refused_in_one_message(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    architecture = read_model_file(finished / "model.safetensors").architecture
    other = {**architecture.as_dict(), "network": f"{BRUSH}, sha256 {'0' * 64}"}
    absent = {**architecture.as_dict(), "network": f"not_here_at_all:Net, sha256 {DIGEST}"}
    ran = tmp_path / "ran"
    (tmp_path / "trap.py").write_text(f"open({str(ran)!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    trap = {**architecture.as_dict(), "network": f"trap:Net, sha256 {DIGEST}"}
    for sizes, why in ((other, "its code has changed"), (absent, "no module"), (trap, "has changed")):
        write_model(tmp_path / "m", Architecture(**sizes), 1, np.ones(10, bool))
        with pytest.raises(ModelError, match=rf"needs the network that it was made with.*{why}"):
            read_model(tmp_path / "m")
    assert not ran.exists()  # another source than the file names is not even imported
    with pytest.raises(ValueError, match="network must be empty or"):
        Architecture(network=BRUSH)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("Remembers", "whatever it made before"),
        ("KeepsStatistics", "whatever it made before"),
        ("Draws", "whatever it made before"),
        ("Centred", "does not depend on those beside it"),
        ("Biased", r"got bias \(3,\)"),
        ("Flat", r"must give images \(10, 1, 8, 8\), got \(10, 64\)"),
        ("Bright", r"must give float32 images in \[-1, 1\]"),
        ("Fails", "cannot take latents and labels: RuntimeError"),
        ("no_weights", "two or more dimensions only.*got none"),
        ("no_module", "must give a torch.nn.Module, got 4"),
        ("takes_nothing", "cannot be built: TypeError"),
        ("no_such_name", "cannot be imported: AttributeError"),
    ],
)
def test_what_no_claim_could_rest_on_is_refused_before_anything_is_made(
    name: str, why: str, data: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=why):
        run(tiny(data, f"own_networks:{name}"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_names_no_file_is_refused(data: Path, tmp_path: Path) -> None:
    for network, why in (
        ("__main__:Net", "cannot be found|source file|not a script"),
        ("sys:exit", "source file"),
        ("no_such_module:Net", "there is no module"),
    ):
        with pytest.raises(ConfigError, match=why):
            run(tiny(data, network), tmp_path / "run")
    with pytest.raises(ConfigError, match=r"'resnet' \| 'package.module:name' of your own, got 'unet'"):
        tiny(data, "unet")


def test_it_is_swept_like_any_setting(data: Path) -> None:
    base = msgspec.to_builtins(tiny(data))
    values = {section: {k: v for k, v in keys.items() if v is not None} for section, keys in base.items()}
    recipe = read_recipe({**values, "sweep": {"grid": {"model.network": ["resnet", BRUSH]}}})
    configs = [recipe.config(settings, 0) for settings in recipe.grid()]
    assert [config.model.network for config in configs] == ["resnet", BRUSH]
    assert len({run_id(config) for config in configs}) == 2


def test_its_mask_has_a_length_before_anything_is_trained(data: Path) -> None:
    config = tiny(data)
    expected = Components(config).trainer.dimension
    architecture = architecture_of(config, channels=1, classes=10)
    assert weight_count(architecture) == expected == 8 * 4 * 18 + 8 * 4 * 64


def test_a_plan_counts_the_bits_of_its_mask(capsys: pytest.CaptureFixture[str]) -> None:
    own = ["--set", f"model.network={BRUSH}"]
    assert main(["config", "--epsilon", "--recipe", "one-shot", *own]) == 0
    assert f"{128 * (64 + 10) + 128 * 32 * 32:,} mask bits" in capsys.readouterr().out


@pytest.mark.parametrize(
    "setting",
    [
        "model.network=mine_now:Brush",
        "aggregation.rule=mine_now:half_of_all_for_all",
        'features.extractors=["mine_now:pooled"]',
        "federation.behaviour=mine_now:Echo",
    ],
)
def test_no_run_goes_on_with_other_code_than_its_ledger_names(
    setting: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = tmp_path / "mine_now.py"
    code.write_text("from own_networks import *\nfrom own_parts import *\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    with monkeypatch.context() as patch:
        from prism_secure.rounds import simulation

        def killed(*given: object, **how: object) -> None:
            raise KeyboardInterrupt

        patch.setattr(simulation, "open_securely", killed)
        with pytest.raises(KeyboardInterrupt):
            run(tiny(data, "resnet", setting), tmp_path / "run")
    code.write_text(code.read_text() + "changed = True\n")
    with pytest.raises(RunFolderError, match="was begun with other code"):
        run(tiny(data, "resnet", setting), tmp_path / "run")
    sys.modules.pop("mine_now")


def test_parties_agree_on_the_code_and_not_only_on_its_name(tmp_path: Path, data: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        shutil.copy(HERE / "own_networks.py", tmp_path / "agreed_net.py")
        importlib.invalidate_caches()
        config = tiny(data, "agreed_net:Brush")
        first = binding(config)
        assert first == binding(config) != binding(tiny(data, "resnet"))
        with (tmp_path / "agreed_net.py").open("a") as file:
            file.write("# another\n")
        assert binding(config) != first


def test_sparse_weights_are_for_the_built_in_network(finished: Path) -> None:
    with pytest.raises(ModelError, match="for the built-in network, got own_networks:Brush"):
        sparse_generator(read_model(finished / "model.safetensors"))


def test_the_documented_network_is_one_that_runs(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (ROOT / "docs" / "plug-in.md").read_text("utf-8")
    code = page.partition("**`model.network`**")[2].partition("```python\n")[2].partition("```")[0]
    (tmp_path / "documented.py").write_text(code, "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    run(tiny(data, "documented:Brush", "federation.rounds=1"), tmp_path / "run")
    assert outcome(tmp_path / "run")
