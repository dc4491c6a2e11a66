"""A model file gives back what was written, or says what is wrong with it; it never runs anything."""

from __future__ import annotations

import contextlib
import json
import pickle
import re
import tracemalloc
import zlib
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from prism_secure.config import load_config
from prism_secure.errors import ConfigError, ModelError
from prism_secure.model import model_file
from prism_secure.model.generator import Architecture, ResNetGenerator
from prism_secure.model.model_card import DataCard, Making, ModelCard, Privacy, mask_digest
from prism_secure.model.model_file import read_model, read_model_file, write_model

ARCHITECTURE = Architecture(latent=6, width=4, image_size=8, classes=3)
CARD = ModelCard(
    data=DataCard(name="tiles", classes=("inf", "nan", "Ökonom"), clients=10, partition="all alike"),
    privacy=Privacy(
        delta=1e-5, sum_zero_out=0.1, sum_replace_one=0.3, upload_zero_out=9.7, upload_replace_one="inf",
        cohort=10, ledger_head="ab", ledger_key="cd",
    ),
    measured=None,
    making=Making(rounds=3, settings="[model]\nwidth = 4\n", version="1"),
    weights=0,
    kept=0,
)  # fmt: skip

few = settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])


def _weights(architecture: Architecture) -> int:
    return sum(each.numel() for each in ResNetGenerator(architecture).parameters())


def _mask(architecture: Architecture = ARCHITECTURE, density: float = 0.5, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(_weights(architecture)) < density


def _card(mask: np.ndarray) -> ModelCard:
    privacy = msgspec.structs.replace(CARD.privacy, ledger_mask=mask_digest(mask))
    return msgspec.structs.replace(CARD, weights=len(mask), kept=int(mask.sum()), privacy=privacy)


@pytest.fixture(scope="module", params=[False, True], ids=["packed", "coded"])
def data(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A whole file, with a card."""
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    mask = _mask(density=0.05)
    write_model(path, ARCHITECTURE, 7, mask, card=_card(mask), entropy_coded=request.param)
    return path.read_bytes()


@given(
    st.builds(
        Architecture,
        latent=st.integers(1, 9),
        width=st.integers(1, 5),
        image_size=st.sampled_from([8, 16]),
        channels=st.sampled_from([1, 3]),
        classes=st.integers(0, 4),
        max_channels=st.integers(0, 6),
    ),
    st.sampled_from([0.0, 0.05, 0.5, 0.97, 1.0]),
    st.integers(0, 2**63 - 1),
    st.booleans(),
    st.booleans(),
)
@few
def test_what_is_written_is_read(tmp_path, architecture, density, seed, coded, described):
    mask = _mask(architecture, density, seed)
    card = _card(mask) if described else None
    path = tmp_path / "model.safetensors"
    write_model(path, architecture, seed, mask, card=card, entropy_coded=coded)
    found = read_model_file(path)
    assert (found.architecture, found.seed, found.card) == (architecture, seed, card)
    assert np.array_equal(found.mask, mask)


def test_the_network_of_a_file_has_the_weights_that_the_mask_keeps(tmp_path: Path) -> None:
    mask = _mask()
    write_model(tmp_path / "m", ARCHITECTURE, 7, mask)
    network = read_model(tmp_path / "m").network
    assert np.array_equal(np.concatenate([p.numpy().ravel() != 0 for p in network.parameters()]), mask)


@pytest.mark.parametrize(("density", "most"), [(0.05, 0.32), (0.1, 0.52), (0.2, 0.77)])
def test_few_kept_weights_are_coded_near_their_entropy(tmp_path: Path, density: float, most: float) -> None:
    """Within a tenth of the entropy H(density): 0.286, 0.469 and 0.722 bits a weight."""
    architecture = Architecture(width=8, image_size=32)
    write_model(tmp_path / "m", architecture, 0, _mask(architecture, density), entropy_coded=True)
    found = read_model_file(tmp_path / "m")
    assert 8 * found.stored / len(found.mask) < most


def test_half_the_weights_are_not_coded_to_something_longer(tmp_path: Path) -> None:
    write_model(tmp_path / "m", ARCHITECTURE, 0, _mask(), entropy_coded=True)
    assert read_model_file(tmp_path / "m").stored == -(-_weights(ARCHITECTURE) // 8)


def _refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "spoiled"
    path.write_bytes(data)
    with pytest.raises(ModelError):
        read_model_file(path)


@given(st.data())
@few
def test_a_file_cut_short_is_refused(tmp_path, data, draw):
    _refused(tmp_path, data[: draw.draw(st.integers(0, len(data) - 1))])


@given(st.data())
@few
def test_a_flipped_bit_is_found_wherever_it_is(tmp_path, data, draw):
    at = draw.draw(st.integers(0, 8 * len(data) - 1))
    spoiled = bytearray(data)
    spoiled[at // 8] ^= 1 << at % 8
    _refused(tmp_path, bytes(spoiled))


@given(st.binary(max_size=300))
@few
def test_arbitrary_bytes_are_refused(tmp_path, junk):
    _refused(tmp_path, junk)
    _refused(tmp_path, len(junk).to_bytes(8, "little") + junk)


def test_bytes_behind_the_end_are_refused(tmp_path: Path, data: bytes) -> None:
    _refused(tmp_path, data + b"\0")


@pytest.mark.parametrize(
    "foreign",
    [
        save({"weight": np.zeros(4, np.float32)}),
        save({"mask": np.zeros(4, np.uint8)}, metadata={"format": "pt"}),
        save({"mask": np.zeros(4, np.uint8)}, metadata={"prism-secure/v1/model": "[]"}),
        save({"mask": np.zeros(4, np.uint8)}, metadata={"prism-secure/v1/model": "[" * 100_000}),
        save({"mask": np.zeros(4, np.uint8)}, metadata={"prism-secure/v1/model": '{"card":' + "[" * 100_000}),
        save({"mask": np.zeros(4, np.uint8)}, metadata={"prism-secure/v2/model": "{}"}),
        b"PK\x03\x04 a zip archive, as torch.save writes",
    ],
)
def test_foreign_files_are_refused(tmp_path: Path, foreign: bytes) -> None:
    _refused(tmp_path, foreign)


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    text = tmp_path / "fashion.md"
    text.write_text("# A page, longer than a header's length")
    for path, words in (
        (tmp_path / "nowhere", "does not exist"),
        (tmp_path, "is a folder"),
        (text, "fashion.md is not a model file, or a damaged one: `prism-secure export`"),
    ):
        with pytest.raises(ModelError, match=words):
            read_model(path)


class _Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_no_pickle_is_ever_opened(tmp_path: Path) -> None:
    trap = tmp_path / "sprung"
    torch.save(_Trap(trap), tmp_path / "torch")
    for data in (pickle.dumps(_Trap(trap)), (tmp_path / "torch").read_bytes()):
        _refused(tmp_path, data)
    assert not trap.exists()
    pickle.loads(pickle.dumps(_Trap(trap)))
    assert trap.exists()  # it would have gone off


def _declaring(path: Path, name: str, stored: np.ndarray, **header: object) -> None:
    """A file whose digest is right and whose header says what is given."""
    known = model_file._Header(
        **{"architecture": ARCHITECTURE.as_dict(), "seed": 0, "weights": 8 * len(stored), "sha256": ""}
        | header
    )
    sealed = msgspec.structs.replace(known, sha256=model_file._digest(known, name, stored))
    text = msgspec.json.encode(sealed).decode()
    path.write_bytes(save({name: stored}, metadata={model_file._FORMAT: text}))


@pytest.mark.parametrize(
    "sizes",
    [
        {"width": 1024, "latent": 4096, "image_size": 256},
        {"width": 257, "image_size": 256, "max_channels": 257},
        {"width": 1, "max_channels": 1, "image_size": 2**40},
        {"width": 2**62},
        {"classes": 2**62},
        {"latent": 10**30},
        {"image_size": 12},
        {"channels": 2},
        {"depth": 3},
        {"weights": "anything"},
    ],
)
def test_declared_sizes_that_the_file_does_not_pay_for_take_no_memory(
    tmp_path: Path, sizes: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = np.zeros(64, np.uint8)
    _declaring(tmp_path / "m", "mask", stored, architecture=ARCHITECTURE.as_dict() | sizes)
    monkeypatch.setattr(model_file, "DeployedGenerator", None)
    tracemalloc.start()
    try:
        with pytest.raises(ModelError):
            read_model(tmp_path / "m")
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_decompression_bomb_is_refused_before_it_opens(tmp_path: Path) -> None:
    architecture = Architecture(width=32, image_size=32)  # 1.1 million weights
    size = -(-_weights(architecture) // 8)
    zeros = np.frombuffer(zlib.compress(bytes(size), 9), np.uint8)
    assert len(zeros) < size / 100
    _declaring(
        tmp_path / "m", "coded", zeros, architecture=architecture.as_dict(), weights=_weights(architecture)
    )
    with pytest.raises(ModelError, match="cannot hold"):
        read_model(tmp_path / "m")
    long = np.frombuffer(zlib.compress(bytes(50_000_000), 9), np.uint8)
    _declaring(tmp_path / "m", "coded", long, weights=_weights(ARCHITECTURE))
    tracemalloc.start()
    try:
        with pytest.raises(ModelError, match="end where it should"):
            read_model(tmp_path / "m")
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_card_of_a_later_version_is_read_as_far_as_it_is_known(tmp_path: Path) -> None:
    card = _card(_mask())
    more = msgspec.to_builtins(card) | {"colour": "blue"}
    stored, d = np.packbits(_mask()), _weights(ARCHITECTURE)
    _declaring(tmp_path / "m", "mask", stored, weights=d, card=msgspec.Raw(msgspec.json.encode(more)))
    assert read_model_file(tmp_path / "m").card == card
    less = {key: value for key, value in more.items() if key != "data"}
    _declaring(tmp_path / "m", "mask", stored, weights=d, card=msgspec.Raw(msgspec.json.encode(less)))
    with pytest.raises(ModelError, match="damaged card"):
        read_model_file(tmp_path / "m")


def _with_card(path: Path, card: bytes) -> Path:
    _declaring(path, "mask", np.packbits(_mask()), weights=_weights(ARCHITECTURE), card=msgspec.Raw(card))
    return path


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [
        ("privacy", "delta", 5.0),
        ("privacy", "delta", 0.0),
        ("privacy", "delta", -1.0),
        ("privacy", "sum_zero_out", -1.0),
        ("privacy", "sum_zero_out", "nan"),
        ("privacy", "sum_zero_out", 0.4),  # more than where a client is replaced
        ("privacy", "upload_zero_out", 0.05),  # less than a sum that it is part of
        ("privacy", "record", -2.0),
        ("privacy", "cohort", 0),
        ("privacy", "record_cohort", -3),
        ("privacy", "ledger_mask", "0" * 64),
        ("privacy", "ledger_head", "`\n"),
        ("data", "clients", -5),
        ("data", "training_images", -1),
        ("making", "rounds", -1),
        ("", "kept", -7),
        ("", "kept", 1),
        ("", "weights", 10**30),
        ("", "score_layers", -1.0),
    ],
)
def test_a_card_with_figures_that_cannot_be_or_of_another_mask_is_refused(
    tmp_path: Path, part: str, field: str, value: object
) -> None:
    card = msgspec.to_builtins(_card(_mask()))
    _with_card(tmp_path / "m", json.dumps(card).encode())
    assert read_model_file(tmp_path / "m").card is not None
    (card[part] if part else card)[field] = value
    with pytest.raises(ModelError, match="card"):
        read_model_file(_with_card(tmp_path / "m", json.dumps(card).encode()))


@pytest.mark.parametrize("deep", [500, 5_000, 100_000])
def test_deeply_nested_cards_are_refused_or_passed_over(tmp_path: Path, deep: int) -> None:
    nested = b"[" * deep + b"]" * deep
    with pytest.raises(ModelError):
        read_model_file(_with_card(tmp_path / "m", nested))
    unknown = msgspec.json.encode(_card(_mask()))[:-1] + b',"colour":' + nested + b"}"
    with contextlib.suppress(ModelError):
        assert read_model_file(_with_card(tmp_path / "m", unknown)).card == _card(_mask())


def test_what_a_file_says_drives_no_terminal(tmp_path: Path) -> None:
    header = json.dumps({"architecture": {}, "\x1b[2J\n": 1})
    (tmp_path / "m").write_bytes(
        save({"mask": np.zeros(4, np.uint8)}, metadata={"prism-secure/v1/model": header})
    )
    with pytest.raises(ModelError, match="damaged") as refused:
        read_model_file(tmp_path / "m")
    assert str(refused.value).isprintable()
    evil = "\x1b]52;c;cm0gLXJmIH4=\x07\u202e\n\n## Privacy\n\n| <script>alert(1)</script> [x](javascript:1) `"
    card = _card(_mask())
    told = msgspec.structs.replace(
        card,
        licence=evil,
        data=DataCard(name=evil, licence=evil, classes=(evil,), clients=10, partition=evil),
        privacy=msgspec.structs.replace(card.privacy, record=1.0, record_adjacency=evil),
        making=Making(rounds=3, settings=f"```\n{evil}", version=evil, commit=evil, packages={evil: evil}),
    )
    _with_card(tmp_path / "m", msgspec.json.encode(told))
    text = read_model_file(tmp_path / "m").card.markdown()
    assert text.replace("\n", "").isprintable()
    assert text.count("\n## Privacy\n") == 1
    shown = "\n".join(line for line in text.split("\n") if not line.startswith("    "))  # the rest is code
    assert "script" in shown
    assert not re.search(r"(?<!\\)(<script|\[x|;\) `)", shown)


@pytest.mark.parametrize(
    ("name", "length", "header", "match"),
    [
        ("mask", 1, {}, "weights"),
        ("mask", 1, {"seed": -1}, "seed"),
        ("mask", 1, {"seed": 2**63}, "seed"),
        ("mask", 0, {"weights": _weights(ARCHITECTURE)}, "bytes, expected"),
        ("coded", 300, {"weights": _weights(ARCHITECTURE)}, "cannot be decoded"),
    ],
)
def test_headers_that_do_not_fit_are_refused(
    tmp_path: Path, name: str, length: int, header: dict[str, object], match: str
) -> None:
    _declaring(tmp_path / "m", name, np.ones(length, np.uint8), **header)
    with pytest.raises(ModelError, match=match):
        read_model(tmp_path / "m")


def test_bits_behind_the_last_weight_are_refused(tmp_path: Path) -> None:
    d = _weights(ARCHITECTURE)
    assert d % 8, "the last byte must have room"
    stored = np.packbits(_mask())
    stored[-1] |= 1
    _declaring(tmp_path / "m", "mask", stored, weights=d)
    with pytest.raises(ModelError, match="goes on behind"):
        read_model(tmp_path / "m")


@pytest.mark.parametrize("size", ["latent", "width", "image_size", "max_channels"])
def test_a_model_file_may_be_as_large_as_a_configuration_and_no_larger(size: str) -> None:
    most = model_file._MOST[size]
    assert getattr(load_config(None, [f"model.{size}={most}"]).model, size) == most
    with pytest.raises(ConfigError, match=rf"model\.{size} must be"):
        load_config(None, [f"model.{size}={2 * most}"])
