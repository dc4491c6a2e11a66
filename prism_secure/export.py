"""From a finished run to one file that needs nothing else: the model with its card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import tomli_w

from prism_privacy import Adjacency, View
from prism_privacy.moments_release import ADJACENCY_WORDS
from prism_secure.config import Config, settings_to_show
from prism_secure.errors import RunFolderError
from prism_secure.history import RunHistory, read_history
from prism_secure.model_card import NOT_STATED, DataCard, Making, Measured, ModelCard, Privacy, number
from prism_secure.model_file import ModelFile, read_model_file, write_model
from prism_secure.samples import read_grid
from prism_secure.sources import ABOUT, data_set
from prism_secure.spending import mask_digest
from prism_secure.wording import EXTRACTORS

__all__ = ["export_run", "run_card"]

_PACKAGES = ("torch", "numpy", "dp-accounting", "cryptography")


def export_run(
    folder: Path,
    out: Path,
    *,
    licence: str = NOT_STATED,
    data_name: str | None = None,
    data_licence: str | None = None,
) -> ModelFile:
    """Write the model of a finished run with its card to `out`, entropy-coded where that is shorter.

    Args:
        folder: the run folder; its ledger is checked.
        licence: of the model.
        data_name: what the images are; left out: what the source is called.
        data_licence: of the data; left out: what is known of the source, or "not stated".

    Returns:
        The file as it can now be read.

    Raises:
        RunFolderError: no run, no model yet, no ledger, or a file is damaged.
        ModelError: the run's model is damaged.
        StorageError: the disk refused.
    """
    history = read_history(folder)
    path = folder / "model.safetensors"
    if not path.exists():
        raise RunFolderError(f"{folder} has no model yet ({history.status.text}): run it to its end first")
    model = read_model_file(path)
    card = run_card(history, model, licence=licence, data_name=data_name, data_licence=data_licence)
    write_model(out, model.architecture, model.seed, model.mask, card=card, entropy_coded=True)
    return read_model_file(out)


def run_card(
    history: RunHistory,
    model: ModelFile,
    *,
    licence: str = NOT_STATED,
    data_name: str | None = None,
    data_licence: str | None = None,
) -> ModelCard:
    """What a run folder says of the model that it left.

    Raises:
        RunFolderError: there is no ledger, so nobody could say what the model cost; or it is another model's.
    """
    source, classes = ABOUT[history.config.data.source], model.architecture.classes
    return ModelCard(
        data=DataCard(
            name=data_name or source.name,
            licence=data_licence or source.licence or NOT_STATED,
            classes=_names(history, classes),
            training_images=history.facts.training_images,
            held_out_images=history.facts.held_out_images,
            clients=history.config.federation.clients,
            partition=_partition(history),
        ),
        privacy=_privacy(history, _signed_digest(history, model)),
        measured=_measured(history),
        making=_making(history),
        licence=licence,
        weights=len(model.mask),
        kept=int(model.mask.sum()),
        score_layers=history.config.mask.score_layers,
    )


def _names(history: RunHistory, classes: int) -> tuple[str, ...]:
    """What the labels are called: the names in front of the rows of the last grid of samples."""
    numbered = tuple(map(str, range(classes)))
    if not history.samples or not classes:
        return numbered
    names = read_grid(history.samples[-1][1]).names
    return names if len(names) == classes else numbered


def _partition(history: RunHistory) -> str:
    if history.facts.own_data:
        return "each has images of its own"
    data = history.config.data
    return {
        "iid": "all alike",
        "shards": f"{data.shards_per_client} runs of images sorted by label each",
        "dirichlet": f"proportions of classes drawn from Dirichlet({data.dirichlet_alpha:g})",
    }[data.partition]


def _signed_digest(history: RunHistory, model: ModelFile) -> str | None:
    """The digest of the mask that the ledger's last line names; None where it names none."""
    last = history.ledger.entries[-1] if history.ledger and history.ledger.entries else None
    if last is None or last.kind != "end":
        return None
    if last.metrics.get("mask_sha256") != (found := mask_digest(model.mask)):
        raise RunFolderError(
            f"model.safetensors is not the run's: its ledger names another mask than {found}"
        )
    return found


def _privacy(history: RunHistory, mask: str | None) -> Privacy:
    config, spent, ledger = history.config, history.to_date, history.ledger
    if ledger is None or spent is None:
        raise RunFolderError("the run has no ledger.jsonl: nobody can say what its model cost")
    record = history.record_guarantee
    return Privacy(
        delta=config.privacy.delta,
        **{f"{v}_{a}": number(getattr(spent, f"{v}_{a}")) for v in View for a in Adjacency},
        cohort=config.record_cohort if config.opens_moments else config.cohort,
        known_coins=history.test_coins,
        record=None if record is None else number(record.epsilon),
        record_adjacency="" if record is None else ADJACENCY_WORDS[record.adjacency],
        record_cohort=config.record_cohort if config.opens_moments else 0,
        ledger_head=ledger.head,
        ledger_key=ledger.public_key,
        ledger_mask=mask,
    )


def _measured(history: RunHistory) -> Measured | None:
    last = next((record for record in reversed(history.records) if record.quality is not None), None)
    if last is None or last.quality is None:
        return None
    metrics, known = history.config.metrics, {field.name for field in msgspec.structs.fields(Measured)}
    quality = {key: value for key, value in msgspec.structs.asdict(last.quality).items() if key in known}
    # The classifier knows articles of clothing: of other images its verdict means nothing.
    if data_set(history.config.data) != "fashion_mnist":
        quality["label_accuracy"] = None
    return Measured(
        round=last.round,
        features=EXTRACTORS[metrics.features],
        samples=metrics.samples,
        held_out=metrics.held_out,
        **{key: None if value is None else number(value) for key, value in quality.items()},
    )


def _making(history: RunHistory) -> Making:
    packages = history.environment.get("packages", {})
    return Making(
        rounds=len(history.records),
        settings=_changed_settings(history.config),
        version=packages.get("prism-secure", "unknown"),
        commit=history.environment.get("commit"),
        packages={name: packages[name] for name in _PACKAGES if name in packages},
    )


def _changed_settings(config: Config) -> str:
    """What differs from the defaults, as TOML, but for paths and workers."""
    changed: dict[str, dict[str, Any]] = {}
    for section, values in settings_to_show(config).items():
        defaults = msgspec.to_builtins(type(getattr(config, section))())
        for key, value in values.items():
            if value is not None and value != defaults[key]:
                changed.setdefault(section, {})[key] = value
    return tomli_w.dumps(changed)
