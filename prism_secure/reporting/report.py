"""One self-contained page about one run: what it made, what left the clients, what epsilon says of it.

The page is read from the run folder alone, so it can be written again at any time, also while the run goes
on. It needs no network, no script and no other file.
"""

from __future__ import annotations

import base64
import contextlib
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from prism_privacy import Accountant, LedgerError, MomentRelease
from prism_privacy.ledger import attacker
from prism_privacy.ledger.composition import charging_one_client, mask_releases
from prism_privacy.moments.release import ADJACENCY_WORDS
from prism_privacy.units import Adjacency, Unit, View
from prism_secure import wording
from prism_secure.accounting.epsilons import CELLS, Epsilons, own_cost
from prism_secure.accounting.measured import coordinates
from prism_secure.accounting.record_release import group_epsilon, opened_epsilon
from prism_secure.config import Config, load_config, nearest_recipe
from prism_secure.config.reading import PATHS, command_to_show
from prism_secure.config.recipes import ABOUT as ABOUT_RECIPES
from prism_secure.config.toml_words import NONE
from prism_secure.config.unread import NEVER_READ
from prism_secure.data.sources import ABOUT, features_caveat
from prism_secure.quality.samples import Grid, encode_png, read_grid
from prism_secure.reporting import pages
from prism_secure.reporting.plots import Curve, curves_plot
from prism_secure.run_folder.folder import SWEEP_RECIPE
from prism_secure.run_folder.history import LowerBound, RunHistory, read_history
from prism_secure.run_folder.records import RoundRecord
from prism_secure.storage import write_atomic

__all__ = ["write_report"]

_ROWS = 150
"""Longer tables show so many rounds, evenly spaced; the files keep all."""
_PIXELS = 800_000
"""Bytes of uncompressed pixels that one figure of samples may have: the page stays under 3 MB."""
_EMERGENCE = 8
"""Rounds shown in the figure of how the images emerged."""


def write_report(folder: str | os.PathLike[str]) -> Path:
    """Write `report.html` into a run folder and return its path; an old one is replaced at once.

    Raises:
        RunFolderError: the folder is not a run's, or a file in it is damaged.
        StorageError: the disk refused.
    """
    folder = Path(folder)
    in_sweep = (folder.resolve().parent.parent / SWEEP_RECIPE).exists()
    page = _render(read_history(folder), in_sweep=in_sweep)
    path = folder / "report.html"
    write_atomic(path, page.encode())
    return path


def _image_rows(rows: Sequence[tuple[str, NDArray[np.uint8]]]) -> list[dict[str, Any]]:
    """Each row of tiles as one PNG with clear gaps, all rows equally wide, within `_PIXELS` together."""
    columns = max((len(tiles) for _, tiles in rows), default=0)
    shown = []
    for name, tiles in rows:
        height, width = tiles.shape[1:3]
        shrink = math.sqrt(min(1.0, _PIXELS / (len(rows) * columns * tiles[0].size)))
        size = (max(8, int(width * shrink)), max(8, int(height * shrink)))
        gap = max(1, size[0] // 16)
        strip = Image.new("RGBA" if tiles.ndim == 4 else "LA", (columns * (size[0] + gap) - gap, size[1]))
        for column, tile in enumerate(tiles):
            small = Image.fromarray(tile).resize(size, Image.Resampling.LANCZOS) if shrink < 1 else tile
            opaque = (small if isinstance(small, Image.Image) else Image.fromarray(tile)).convert(strip.mode)
            strip.paste(opaque, (column * (size[0] + gap), 0))
        data = base64.b64encode(encode_png(strip)).decode()
        shown.append(
            {"name": name, "count": len(tiles), "width": strip.width, "height": strip.height, "data": data}
        )
    return shown


AGAINST = {
    "active": "against a server that lies, and clients that collude with it",
    "semi_honest": "against a server that follows the protocol and keeps what it sees",
}
"""Against whom a mode of the secure sum protects."""


def _emergence(samples: Sequence[tuple[int, Grid]]) -> list[dict[str, Any]]:
    """One row a round: the first image of each class, or the first images where there are no classes."""
    rows = []
    for number, grid in samples:
        first = grid.rows[0] if len(grid.rows) == 1 or not any(grid.names) else None
        tiles = first if first is not None else np.stack([row[0] for row in grid.rows])
        rows.append((f"Round {number}", tiles[:10]))
    return _image_rows(rows)


def _newest(grids: Sequence[tuple[int, Path]]) -> Grid | None:
    return read_grid(grids[-1][1]) if grids else None


def _settings(config: Config, recipe: str) -> list[dict[str, Any]]:
    """Each setting that is read, by section: its value, and that of the recipe where it differs."""
    unread, base = NEVER_READ.get(config.federation.behaviour, {}), load_config(recipe=recipe)

    def shown(config: Config, section: str, key: str) -> str:
        value = getattr(getattr(config, section), key)
        if value is None or (value == math.inf and config.measures):
            return _resolved(config).get((section, key), NONE)
        if (section, key) in PATHS:
            return "…"
        if (section, key) == ("secure_sum", "mode"):
            return f"{value}: {AGAINST[value]}"
        if isinstance(value, float):
            return str(value).replace("e-0", "e-")
        if isinstance(value, bool):
            return str(value).lower()
        return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)

    groups = []
    for section, values in msgspec.structs.asdict(config).items():
        its = msgspec.structs.asdict(getattr(base, section))
        if all((section, key) in unread for key in its):
            continue
        groups.append(
            {
                "section": section,
                "purpose": re.split(r"[.;](?:\s|$)", type(values).__doc__ or "")[0],
                "rows": [
                    {
                        "key": key,
                        "value": shown(config, section, key),
                        "recipe": None if value == its[key] else shown(base, section, key),
                    }
                    for key, value in msgspec.structs.asdict(values).items()
                    if (section, key) not in unread
                ],
            }
        )
    return groups


def _resolved(config: Config) -> dict[tuple[str, str], str]:
    """What a setting without a value comes to, by section and key."""
    invited = "clients" if config.everybody else "that a round invites"
    return {
        ("secure_sum", "threshold"): "that of the sparse graph"
        if config.sparse
        else f"{config.threshold} (by rule)",
        ("secure_sum", "min_survivors"): f"{config.min_survivors} (all {invited})",
        ("privacy", "clip"): "unclipped",
        ("privacy", "record_epsilon"): "none: no moments are released",
        ("privacy", "record_store"): "the run folder",
        ("budget", "epsilon"): "no limit",
        ("budget", "image_epsilon"): "no limit",
    }


def _verdict(run: RunHistory, certified: list[attacker.Certified]) -> wording.Verdict:
    if run.test_coins:
        return wording.Verdict(
            "none",
            "This run claims no ε: its coins were known.",
            "Its clients drew their bits from a test key, so that whoever knows the key can undo the noise. "
            "Every ε on this page is therefore inf; a run whose clients draw secret coins, as they do unless "
            "told otherwise, claims one.",
        )
    assert run.to_date is not None
    opened, delta = run.opened is not None, run.config.privacy.delta
    epsilon = run.to_date.sum_zero_out
    rate = _true_alarms(certified, Unit.CLIENT, epsilon)
    return wording.verdict(epsilon, delta, certified=rate, moments_opened=opened)


def _certified(run: RunHistory) -> list[attacker.Certified]:
    """What the ledger certifies, as the disclosure has it.

    Empty where nothing is signed, or the releases cannot be composed again (`audit run` says what is wrong
    with such a ledger).
    """
    if run.ledger is not None:
        with contextlib.suppress(LedgerError):
            return attacker.certified(run.ledger)
    return []


def _true_alarms(certified: list[attacker.Certified], unit: Unit, epsilon: float) -> float | None:
    """The rate of true alarms beside this epsilon.

    None where epsilon and delta alone say it: nothing is certified, or the plan is unfinished.
    """
    for each in certified:
        central = each.view is not View.UPLOAD and each.adjacency != Adjacency.REPLACE_ONE.value
        if each.unit is unit and central and each.epsilon == each.to_date == epsilon:
            return each.rates[attacker.FALSE_POSITIVE_RATES.index(wording.FALSE_ALARMS)]
    return None


def _release_words(release: Mapping[str, Any]) -> str:
    """A release of the ledger in one short line; an unknown kind is written out, not guessed."""
    if {"records", "norm", "sigma", "classes"} <= set(release):
        noise = release["sigma"] * release["records"] / release["norm"]
        return f"moments by class, noise {noise:.3g} × the largest image on each sum"
    if "client_clip" in release:
        return (
            f"flip {release['flip']:g}, {release['directions']:,} numbers in {release['coordinates']:,} "
            f"bits, C {release['clip']:g}, c/A {release['record_clip'] / release['client_clip']:g}, "
            f"N {release['records']:,}"
        )
    if "flip" not in release or "clip" not in release:
        return ", ".join(f"{key} {value}" for key, value in release.items())
    clip = "unclipped" if release["clip"] is None else f"clip {release['clip']:g} ({release.get('space')})"
    bits = f", {release['dim']:,} bits" if release.get("dim") else ""
    return f"flip {release['flip']:g}, {clip}{bits}"


def _one_release(run: RunHistory) -> str | None:
    """The release of every round, where all are the same."""
    kinds = {_release_words(entry.release) for entry in run.rounds}
    return kinds.pop() if len(kinds) == 1 else None


def _planned(run: RunHistory) -> Epsilons | None:
    """The epsilons that were planned before the first round, if the ledger says so."""
    if run.ledger is None or not run.ledger.entries:
        return None
    last = run.ledger.entries[-1]
    planned = {cell: cost for cell in CELLS if (cost := last.spent(*cell).planned) is not None}
    return Epsilons.of(planned) if len(planned) == len(CELLS) else None


def _sent_bits(run: RunHistory) -> int | None:
    """How many bits a client has summed in a round: all of a mask, or those that carry measured answers."""
    dimension, config = run.facts.parameters, run.config
    return coordinates(config.measured, dimension) if dimension and config.measures else dimension


def _wire(run: RunHistory) -> dict[str, Any] | None:
    """Messages, measured (or of a secure sum that was not run), beside other encodings of the same round.

    What others would need follows from their definition.
    Averages are over rounds that opened a sum; None where none did.
    """
    config, records = run.config, run.records
    opened = [record for record in records if not record.lost]
    if not opened:
        return None
    n, d, bits = config.invited, run.facts.parameters, _sent_bits(run)
    measured = float(np.mean([record.bits_per_parameter for record in opened]))
    up, down = (
        float(np.mean([getattr(record, way) for record in opened])) / n
        for way in ("uplink_bytes", "downlink_bytes")
    )
    upload = bits and measured * bits / 8
    in_the_clear = f"The {bits:,} bits" if config.measures and bits else "One mask"
    how = "as it would be" if run.sum_not_run else "measured"
    broadcast = "θ and the round’s questions" if config.measures else "θ"
    sizes = [
        (
            "A masked upload of this run" if run.sum_not_run else "This run’s masked upload",
            measured,
            upload,
            how,
        ),
        (
            f"Least for any secure sum of {n:,} clients’ bits: log₂({n:,}+1)",
            math.log2(n + 1),
            None,
            "computed",
        ),
        (f"{in_the_clear} in the clear (nothing hidden)", 1.0, None, "computed"),
        ("The same in 64-bit words, as secure sums of int64 vectors send it", 64.0, None, "computed"),
        ("Float32 weights of the same network, as FedAvg sends them", None, d and 4 * d, "computed"),
        (f"What a client receives: {broadcast}, messages of the secure sum", None, down, how),
    ]
    rows = []
    for name, each, size, how in sizes:
        if size is None and each is not None and bits is not None:
            size = each * bits / 8
        ratio = each / measured if each else size / upload if size and upload else None
        rows.append({"name": name, "bits": each, "bytes": size, "ratio": ratio, "how": how})
    return {
        "measured": measured,
        "upload": upload,
        "broadcast": broadcast,
        "sizes": rows,
        "up": wording.format_bytes(up),
        "down": wording.format_bytes(down),
        "up_all": wording.format_bytes(sum(r.uplink_bytes for r in records)),
        "down_all": wording.format_bytes(sum(r.downlink_bytes for r in records)),
    }


def _time(records: Sequence[RoundRecord]) -> dict[str, Any]:
    total = sum(record.seconds for record in records)
    secure = sum(record.secure_sum_seconds for record in records)
    return {
        "total": wording.format_seconds(total),
        "round": wording.format_seconds(total / len(records)),
        "secure": wording.format_seconds(secure / len(records)),
        "share": secure / total if total > 0 else 0.0,
    }


def _what_is_revealed(run: RunHistory, certified: list[attacker.Certified], image: float | None) -> str:
    """What taking part can reveal, and first what an image can where that is what is protected first."""
    if run.to_date is None:
        return ""
    config, told = run.config, []
    if image is not None and run.record_guarantee is not None and not _client_first(config):
        rate = _true_alarms(certified, Unit.RECORD, image)
        delta = run.record_guarantee.delta
        told.append(wording.what_is_revealed(image, delta, record=config.record, certified=rate))
    client = run.to_date.sum_zero_out
    rate = _true_alarms(certified, Unit.CLIENT, client)
    return " ".join([*told, wording.what_is_revealed(client, config.privacy.delta, certified=rate)])


def _client_first(config: Config) -> bool:
    return config.measures and config.measured.unit == "client"


def _curves(run: RunHistory, planned: Epsilons | None) -> list[Curve]:
    """Every epsilon, round by round: a client's in both views, and an image's."""
    config, records, guarantee = run.config, run.records, run.record_guarantee
    plans = {} if planned is None else msgspec.structs.asdict(planned)
    curves = []
    for view in ("sum", "upload"):
        names = f"{view}_zero_out", f"{view}_replace_one"
        lines = [[getattr(record.epsilon, name) for record in records] for name in names]
        curves.append(Curve(f"ε({view.upper()})", view, lines[0], plans.get(names[0])))
        if lines[0] != lines[1]:
            curves.append(
                Curve(f"ε({view.upper()}) replaced", view, lines[1], plans.get(names[1]), stricter=True)
            )
    images = [record.record for record in records if record.record is not None]
    spent = guarantee.spent if guarantee else None
    of_image = {view: spent[view].planned if spent else None for view in View}
    curves.append(
        Curve(f"ε(one {config.record})", "image", [image.epsilon for image in images], of_image[View.SUM])
    )
    uploads = [image.upload for image in images if image.upload is not None]
    curves.append(Curve(f"{config.record}, UPLOAD", "image upload", uploads, of_image[View.UPLOAD]))
    return curves


def _losses(records: Sequence[RoundRecord]) -> list[tuple[int, float]]:
    """Rounds after which the server trained, each with its mean loss on what had opened."""
    return [(record.round, record.server_loss) for record in records if record.server_loss is not None]


def _budgets(config: Config) -> dict[str, float]:
    """What all rounds together may cost a client, and a record, where a setting says so."""
    limits = {"one client": [config.budget.epsilon], f"one {config.record}": [config.budget.image_epsilon]}
    if config.measures:
        limits[f"one {config.calibrated_for}"].append(config.measured.epsilon)
    least = {whose: min(value for value in (*values, math.inf) if value) for whose, values in limits.items()}
    return {whose: value for whose, value in least.items() if value < math.inf}


def _groups(run: RunHistory) -> list[dict[str, Any]]:
    """What k clients, and k images of one client, have together: computed from what the ledger charged."""
    record, release = run.record_guarantee, _moment_release(run)
    rows = []
    for size in (size for size in (1, 2, 5, 10) if size <= run.config.federation.clients):
        rows.append(
            {
                "size": size,
                "clients": _clients_together(run, release, size),
                "images": group_epsilon(release, size, record.delta) if release and record else None,
            }
        )
    return rows


def _clients_together(run: RunHistory, release: MomentRelease | None, size: int) -> Epsilons:
    delta, opened = run.config.privacy.delta, run.opened
    if run.ledger is None or run.test_coins or (opened is not None and not opened.images):
        return Epsilons.of(dict.fromkeys(CELLS, math.inf))
    if release is not None and opened is not None and opened.images:
        together = size * opened.images, opened.shares
        return Epsilons.of({cell: opened_epsilon(release, *together, *cell, delta) for cell in CELLS})
    accountant = Accountant(delta=delta)
    for mask in mask_releases(charging_one_client(run.rounds))[0]:
        accountant.spend(mask)
    return Epsilons.of({cell: accountant.group(size, *cell) for cell in CELLS})


def _moment_release(run: RunHistory) -> MomentRelease | None:
    record = run.record_guarantee
    if record is None or record.spent is not None or run.test_coins:
        return None
    return MomentRelease(**record.release)  # type: ignore[arg-type]


def _floors(run: RunHistory) -> dict[str, LowerBound]:
    """What an audit found epsilon to be at least, by the cell of the table that it belongs beside."""
    floors: dict[str, LowerBound] = {}
    for bound in run.lower_bounds:
        cell = "image" if bound.unit == "record" else f"{bound.view}_{bound.adjacency}"
        if cell not in floors or bound.epsilon > floors[cell].epsilon:
            floors[cell] = bound
    return floors


def _one_run_words(run: RunHistory) -> str:
    """What canaries showed, in one sentence; "" where nobody asked."""
    if run.one_run is None:
        return ""
    record = run.config.record
    names = {"client": ("client", "a client left out"), "record": (record, f"one {record} replaced")}
    found = run.one_run.found
    canaries = " and ".join(
        f"{each.canaries:,} canary {names[each.unit][0]}{'' if each.canaries == 1 else 's'}" for each in found
    )
    shown = " and ".join(
        f"{wording.format_floor(each.epsilon)} for {names[each.unit][1]}, where "
        f"{wording.format_epsilon(each.claimed)} was claimed,"
        for each in found
    )
    rounds = f"{run.one_run.rounds} round{'' if run.one_run.rounds == 1 else 's'}"
    return (
        f"An audit sent {canaries}, each in or out by a fair coin, through {rounds} of these settings: "
        f"guesses from the opened sums show that ε is at least {shown} each with confidence "
        f"{run.one_run.confidence:.0%} (δ = {wording.format_delta(run.one_run.delta)})."
    )


def _render(run: RunHistory, *, in_sweep: bool) -> str:
    config, records = run.config, run.records
    samples = [(number, read_grid(path)) for number, path in pages.thin(run.samples, _EMERGENCE)]
    judged = [record for record in records if record.quality is not None]
    last, planned = records[-1] if records else None, _planned(run)
    guarantee, certified = run.record_guarantee, _certified(run)
    spent = guarantee.spent if guarantee else None
    image = guarantee.epsilon if guarantee else None
    if spent:
        image = spent[View.SUM].to_date
    curves, losses = _curves(run, planned), _losses(records)
    filters = {"thousands": lambda count: f"{count:,}", "release": _release_words}
    return pages.render(
        "prism_secure.reporting",
        "report.html.jinja",
        filters,
        config=config,
        evaluated_rounds=len(judged),
        as_before=[record.round for record in records if record.changed == 0],
        records=pages.thin(records, _ROWS),
        judged=pages.thin(judged, _ROWS),
        useful=next((r for r in reversed(judged) if r.quality and r.quality.gen2real is not None), None),
        features_caveat=features_caveat(config),
        rounds_done=len(records),
        last=last,
        final=judged[-1] if judged else None,
        best=min(judged, key=lambda record: record.quality.fid if record.quality else math.inf, default=None),
        to_date=run.to_date,
        charged=run.rounds[-1].round if run.rounds else len(records),
        unfinished=run.charged_unfinished,
        verdict=_verdict(run, certified) if run.to_date else None,
        client_first=_client_first(config),
        image_verdict=wording.image_verdict(
            image,
            run.record_guarantee.delta,
            config.record,
            certified=_true_alarms(certified, Unit.RECORD, image),
        )
        if run.record_guarantee and image is not None
        else None,
        image_epsilon=image,
        image_view=run.image_view,
        unbounded=run.unbounded,
        moments=run.moments,
        groups=_groups(run) if run.to_date else [],
        floors=_floors(run),
        one_run_words=_one_run_words(run),
        adjacency_words=ADJACENCY_WORDS,
        status=run.status,
        source=ABOUT[config.data.source].name,
        extractor=wording.extractor_words(
            config.metrics.features, judged[-1].quality.features if judged and judged[-1].quality else None
        ),
        curves=curves_plot(
            [(record.round, record.quality.fid) for record in judged if record.quality],
            curves,
            last=config.federation.rounds,
            budgets=_budgets(config),
            losses=losses,
        ),
        infinite=any(math.isinf(value) for curve in curves for value in curve.values),
        revealed=_what_is_revealed(run, certified, image),
        losses=losses,
        samples_round=samples[-1][0] if samples else None,
        sample_rows=_image_rows(list(zip(samples[-1][1].names, samples[-1][1].rows, strict=True)))
        if samples
        else [],
        emergence=_emergence(samples) if len(samples) > 1 else [],
        neighbours=_image_rows(list(zip(near.names, near.rows, strict=True)))
        if (near := _newest(run.neighbours)) and config.public_images
        else [],
        sent_bits=_sent_bits(run),
        wire=_wire(run),
        run_in_the_clear=run.sum_not_run,
        time=_time(records) if records else None,
        ledger=run.ledger,
        one_release=_one_release(run),
        planned=planned,
        adjacencies_differ=any(
            record.epsilon.sum_zero_out != record.epsilon.sum_replace_one
            or record.epsilon.upload_zero_out != record.epsilon.upload_replace_one
            for record in records
        ),
        entries=pages.thin([entry for entry in run.ledger.entries if entry.kind != "end"], _ROWS)
        if run.ledger
        else [],
        own_cost=own_cost,
        record_guarantee=run.record_guarantee,
        opened=run.opened,
        in_sweep=in_sweep,
        disagreement=run.disagreement,
        scale=wording.SCALE,
        recipe=(recipe := nearest_recipe(config)),
        recipe_words=ABOUT_RECIPES[recipe],
        settings=_settings(config, recipe),
        environment=run.environment,
        command=command_to_show(run.environment.get("command", ""), config),
        facts=run.facts,
    )
