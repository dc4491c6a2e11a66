"""From a finished run to one file that needs nothing else: the model with its card."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import tomli_w

from prism_privacy import LedgerReport, Spent
from prism_privacy.ledger.entry import json_safe
from prism_privacy.moments.release import ADJACENCY_WORDS
from prism_secure.accounting.epsilons import CELLS, Epsilons
from prism_secure.config import Config, settings_to_show
from prism_secure.data.sources import ABOUT, data_set, features_caveat
from prism_secure.errors import ConfigError, RunFolderError
from prism_secure.model.model_card import (
    NOT_STATED,
    DataCard,
    Making,
    ModelCard,
    Privacy,
    QualityCard,
    mask_digest,
    model_words,
    plain,
)
from prism_secure.quality.samples import read_grid
from prism_secure.run_folder.history import RunHistory, read_history
from prism_secure.wording import extractor_words

if TYPE_CHECKING:
    from prism_secure.model.model_file import ModelFile

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
        folder: the run folder; its ledger is checked, and must be whole.
        licence: of the model.
        data_name: what the images are; left out: what the source is called.
        data_licence: of the data; left out: what is known of the source, or "not stated".

    Returns:
        The file as it can now be read.

    Raises:
        ConfigError: a text has a line break or a control character.
        RunFolderError: no run, no model yet, a file is damaged, or the ledger is not there, may have lost
            lines at its end, does not name this model, or disagrees with config.toml.
        ModelError: the run's model is damaged.
        StorageError: the disk refused.
    """
    from prism_secure.model.model_file import read_model_file, write_model  # here, as it imports torch

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
    """What a run folder says of the model that it left; what the ledger signs is taken from the ledger.

    Raises:
        ConfigError, RunFolderError: as `export_run`.
    """
    for option, text in (("licence", licence), ("data-name", data_name), ("data-licence", data_licence)):
        if text is not None and plain(text) != text:
            raise ConfigError(f"--{option} must be one line without control characters, got {text!r}")
    source, classes = ABOUT[history.config.data.source], model.architecture.classes
    ledger, measured = _whole_ledger(history, model), _measured(history)
    private = history.config.private_metrics
    return ModelCard(
        data=DataCard(
            name=data_name or source.name,
            licence=data_licence or source.licence or NOT_STATED,
            classes=_names(history, classes),
            training_images=history.facts.training_images,
            held_out_images=history.facts.held_out_images,
            clients=history.config.federation.clients,  # the ledger's, too
            partition=_partition(history),
        ),
        privacy=_privacy(history, ledger, mask_digest(model.mask)),
        measured=None if private else measured,
        private_quality=private and measured is not None,
        making=_making(history),
        licence=licence,
        weights=len(model.mask),
        kept=int(model.mask.sum()),
        network=model.architecture.network,
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


def _whole_ledger(history: RunHistory, model: ModelFile) -> LedgerReport:
    """The run's ledger, if nothing can be missing from it and it is that of this model and configuration."""
    ledger = history.ledger
    if ledger is None:
        raise RunFolderError("the run has no ledger.jsonl: nobody can say what its model cost")
    if not ledger.end_checked:
        raise RunFolderError(
            f"{ledger.path}.head is missing, so lines may have been cut off the ledger's end: put it back"
        )
    if not ledger.complete:
        raise RunFolderError(
            f"{ledger.path} lacks the last line of a run that is over, so it may not state all that was "
            "spent: run it to its end, or put the whole ledger back"
        )
    signed = ledger.entries[-1].metrics
    words = model_words(model.architecture, model.seed, model.mask)
    if unlike := [name for name, value in words.items() if signed.get(name) != value]:
        raise RunFolderError(
            f"the ledger's last line does not name this model.safetensors: {', '.join(unlike)} differ, or "
            "are not signed (by an older version)"
        )
    _check_settings(history, ledger)
    return ledger


def _check_settings(history: RunHistory, ledger: LedgerReport) -> None:
    """Refuse unless config.toml asks for what the ledger charged, as far as the ledger can tell."""
    config, rounds = history.config, len(history.rounds)
    first, last = ledger.entries[0], ledger.entries[-1]
    stated: dict[str, tuple[object, object]] = {
        "federation.clients": (config.federation.clients, ledger.clients),
        "federation.rounds": (config.federation.rounds, max(rounds, config.federation.rounds)),
        "privacy.delta": (config.privacy.delta, last.delta),
        "privacy.flip": (config.privacy.flip, last.release.get("flip")),
        "privacy.clip": (config.privacy.clip, last.release.get("clip")),
        "privacy.clip_space": (config.privacy.clip_space, last.release.get("space")),
        "the honest clients of a sum": (config.cohort, last.cohort),
        "secure_sum.simulate": (config.secure_sum.simulate, ledger.sum_not_run),
        "who is a record (data.person)": (config.record, ledger.one_record),
    }
    if "client_clip" in last.release:  # its clips follow a rule; the plan's epsilons are what the card states
        for name in ("privacy.clip", "privacy.clip_space"):
            del stated[name]
        stated["federation.behaviour"] = (config.federation.behaviour, "measure")
        stated["measured.directions"] = (config.measured.directions, last.release.get("directions"))
    if (release := ledger.settings.get("record_release")) is not None:
        stated["privacy.record_release"] = (config.privacy.record_release, release)
    if (record := history.record_guarantee) is not None:
        stated["the delta of one image"] = (config.privacy.delta, record.delta)
    if first.kind == "moments" and _opened(ledger):
        stated["privacy.record_cohort"] = (config.record_cohort, first.cohort)
    for name, (asked, charged) in stated.items():
        if asked != charged:
            raise RunFolderError(
                f"config.toml and the signed ledger disagree on {name}: {asked} and {charged}; "
                "the card would describe another run"
            )


def _opened(ledger: LedgerReport) -> bool:
    """Whether a sum of noisy moments was opened over all clients."""
    return ledger.settings.get("record_release") == "summed"


def _privacy(history: RunHistory, ledger: LedgerReport, mask: str) -> Privacy:
    first, last = ledger.entries[0], ledger.entries[-1]
    record, view = history.record_guarantee, history.image_view
    guaranteed = Epsilons.of({cell: _guaranteed(last.spent(*cell)) for cell in CELLS})
    try:
        return Privacy(
            delta=last.delta,
            sum_zero_out=json_safe(guaranteed.sum_zero_out),
            sum_replace_one=json_safe(guaranteed.sum_replace_one),
            upload_zero_out=json_safe(guaranteed.upload_zero_out),
            upload_replace_one=json_safe(guaranteed.upload_replace_one),
            stopped_early=bool(last.metrics.get("ended")),
            cohort=first.cohort if _opened(ledger) else last.cohort,
            known_coins=history.test_coins,
            sum_not_run=ledger.sum_not_run,
            record=None if record is None else json_safe(record.epsilon),
            record_of=ledger.one_record,
            record_adjacency="" if record is None else ADJACENCY_WORDS[record.adjacency],
            record_cohort=first.cohort if _opened(ledger) else 0,
            measured_cohort=0 if record is None or record.spent is None else record.cohort or 0,
            record_weaker=() if view is None else tuple((who, json_safe(left)) for who, left in view.weaker),
            unbounded=tuple(map(str, history.unbounded)),
            ledger_head=ledger.head,
            ledger_key=ledger.public_key,
            ledger_mask=mask,
        )
    except ValueError as error:
        raise RunFolderError(f"{ledger.path} contradicts itself: {error}") from None


def _guaranteed(cell: Spent) -> float:
    """What was planned, also where a look at the metrics ended the run before its plan did."""
    return max(cell.to_date, cell.planned or 0.0)


def _measured(history: RunHistory) -> QualityCard | None:
    last = next((record for record in reversed(history.records) if record.quality is not None), None)
    if last is None or last.quality is None:
        return None
    found, metrics = last.quality, history.config.metrics
    # The classifier knows articles of clothing: of other images its verdict means nothing.
    known = found.label_accuracy if data_set(history.config.data) == "fashion_mnist" else None
    return QualityCard(
        round=last.round,
        features=extractor_words(metrics.features, found.features),
        samples=metrics.samples,
        fid=json_safe(found.fid, nan=True),
        kid=json_safe(found.kid, nan=True),
        precision=json_safe(found.precision, nan=True),
        recall=json_safe(found.recall, nan=True),
        density=json_safe(found.density, nan=True),
        coverage=json_safe(found.coverage, nan=True),
        label_accuracy=json_safe(known, nan=True),
        sliced_wasserstein=json_safe(found.sliced_wasserstein, nan=True),
        gen2real=json_safe(found.gen2real, nan=True),
        gen2real_ceiling=json_safe(found.gen2real_ceiling, nan=True),
        warning=features_caveat(history.config),
    )


def _making(history: RunHistory) -> Making:
    packages = history.environment.get("packages", {})
    return Making(
        rounds=len(history.rounds),
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
