"""What several runs cost together those whose data they used, and which runs those are.

Each run's epsilon speaks of that run alone. Whoever sees all of them learns more, so a page that shows many
shows the composed one beside them: `prism_privacy.ledger.composition`. For finished runs, and for measured
rounds of unfinished ones, it is what `prism-secure audit budget` says.

**Which runs belong together.** Those over the same data set, whatever their partition and seed:
an owner may then be another client in another run, and no run is left out.

**What kind of statement.** Rounds count as charged, and as planned where an ended run might have gone on: who
looks at results to decide about later rounds keeps the plan's epsilon. Measured rounds differ, so no bound on
those to come is known from the ones there were: of an unfinished run what is charged counts
(`Composed.open`), and one that results stopped has no bound. Where the *choice* of runs depended on earlier
results (tpe, nsga2), the figure says what was spent, and is no guarantee that was fixed beforehand.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from prism_privacy import MaskRelease
from prism_privacy.errors import InvalidParameter
from prism_privacy.ledger.composition import (
    Charged,
    ClientTotal,
    ImageTotal,
    Opened,
    charging_one_client,
    mask_releases,
    release_key,
)
from prism_privacy.ledger.entry import LedgerEntry
from prism_privacy.ledger.line import decode_line, parse
from prism_secure.accounting.epsilons import CELLS, Epsilons
from prism_secure.config.invitations import most_participations
from prism_secure.data.sources import Whose, by_data, read_fingerprint
from prism_secure.errors import RunFolderError
from prism_secure.run_folder.run import Run
from prism_secure.storage import whole_lines

__all__ = ["Composed", "compose"]

_GOES_ON = ("unfinished", "failed")


@dataclass(frozen=True)
class Owners:
    """Runs that touched the same owners' data."""

    source: str
    """The data set: see `prism_secure.data.sources`."""
    runs: tuple[Run, ...]
    undecided: bool = False
    """Whether other runs may have touched them, too: their images lay elsewhere."""

    @property
    def words(self) -> str:
        """The data set, and whether it may be another one's."""
        undecided = " (perhaps the images of others here, too: nothing decides)"
        return self.source + undecided * self.undecided


@dataclass(frozen=True)
class Composed:
    """What several runs together tell about one client, and about one image.

    Attributes:
        runs: how many have charged anything.
        epsilon: of one client, by view and adjacency.
        delta: of that epsilon.
        record_epsilon: of one image; `inf` if a run claims nothing for it.
        record_delta: of that epsilon.
        record_releases: how many distinct releases of the images there are.
        open: how many count with what they have charged so far, and add to it if they go on.
    """

    runs: int
    epsilon: Epsilons
    delta: float
    record_epsilon: float
    record_delta: float
    record_releases: int
    open: int = 0


def owners(runs: Iterable[Run]) -> list[Owners]:
    """Runs by whose data they used.

    Raises:
        RunFolderError: what a run keeps of its data is damaged.
    """
    groups = by_data(
        runs, lambda run: Whose.of(run.config.data, read_fingerprint(run.folder)), lambda run: run.name
    )
    return [Owners(group.label, group.members, bool(group.undecided)) for group in groups]


def compose(runs: Sequence[Run]) -> Composed:
    """Epsilon over all runs together, as if each touched the same client and the same image.

    Raises:
        RunFolderError: a ledger is damaged.
    """
    charged = [_charged(run) for run in runs if run.charged is not None]
    delta = max((run.config.privacy.delta for run in runs if run.charged is not None), default=0.0)
    clients = {cell: ClientTotal(*cell) for cell in CELLS}
    adjacencies = [each.record.adjacency for each in charged if each.record is not None]
    image = ImageTotal(adjacencies[0] if adjacencies else "swap")
    for each in charged:
        image.add(each)
        for total in clients.values():
            total.add(each)
    at = delta + image.delta_of_others
    return Composed(
        runs=len(charged),
        epsilon=Epsilons.of({cell: total.epsilon(delta) for cell, total in clients.items()}),
        delta=delta,
        record_epsilon=image.epsilon(at) if charged else 0.0,
        record_delta=at,
        record_releases=image.releases,
        open=sum(run.state in _GOES_ON and _measures(run.charged) for run in runs),
    )


def _charged(run: Run) -> Charged:
    """What a run charged, and was going to, by its ledger's first lines and its last one.

    Of measured rounds all lines count, as charged; of a run that results stopped they bound nothing.
    Signatures are checked, the chain between them is not: a page of many runs would take long.
    """
    last = run.charged
    assert last is not None
    path = run.folder / "ledger.jsonl"
    lines = whole_lines(path)
    masks: tuple[MaskRelease, ...] = ()
    images: tuple[MaskRelease, ...] = ()
    opened = None
    try:
        key = bytes.fromhex(parse(lines[0])["body"]["public_key"])
        header, first = decode_line(lines[0], key), LedgerEntry.from_line(decode_line(lines[1], key))
        settings = header["settings"]
        if last.record is not None and settings.get("record_release") == "summed":
            opened = Opened(header["records"], shares=first.cohort)
        if _measures(last):
            entries = [LedgerEntry.from_line(decode_line(line, key)) for line in lines[1:]]
            masks, images = mask_releases(charging_one_client(entries))
        elif run.charged_rounds:
            planned = most_participations(run.config, run.planned_rounds)
            masks = (MaskRelease(**last.release),) * planned  # type: ignore[arg-type]
    except (InvalidParameter, LookupError, AttributeError, TypeError, ValueError) as error:
        raise RunFolderError(f"{path}: {error}") from None
    return Charged(
        name=run.name,
        masks=masks,
        claims=last.epsilon is not None and not (_measures(last) and run.state == "stopped"),
        record=last.record,
        release=release_key(last.record, settings.get("record_id"), str(run.folder.resolve())),
        opened=opened,
        images=images,
        lines=(last,),
    )


def _measures(last: LedgerEntry | None) -> bool:
    return last is not None and "client_clip" in last.release
