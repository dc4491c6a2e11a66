"""The client of measured rounds as a black box: this program's own, asked what only an auditor would ask.

The auditor is the server, and has made the data up: records far outside every clip, too many, too few, of one
class, alone. It asks the real client (its files, clips, coins and outbox), and holds what comes back against
the definition, computed by other code (`prism_secure.audit.measured_law`). No run is needed, nobody's images
are read. All statistical tests together blame a correct client with probability at most 1%: each p-value is
Bernstein's bound on a sum of independent bits, which holds at any size.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from prism_privacy import CoinSecret, MeasuredRelease
from prism_privacy.masks.fixed_point import SCALE
from prism_privacy.measured.integers import ANSWER_BITS
from prism_secure.audit.findings import Answer, Notebook
from prism_secure.audit.measured_law import Question, answer, probabilities
from prism_secure.audit.oracle import Measured
from prism_secure.audit.played_rounds import (
    FEDERATION,
    Planted,
    PlayedRounds,
    Records,
    lightly_trained,
    scratch,
)
from prism_secure.config import load_config
from prism_secure.data.public_images import dead_leaves
from prism_secure.rounds.behaviours.behaviour import MeasuredAnswer
from prism_secure.rounds.behaviours.choice import behaviour_of
from prism_secure.rounds.behaviours.measure import Measure, in_features, terms
from prism_secure.rounds.broadcast import Broadcast
from prism_secure.rounds.client import Client
from prism_secure.rounds.components import Components
from prism_secure.rounds.server import Server
from prism_secure.rounds.threads import one_thread

Array = NDArray[np.float64]

ERROR = 0.01
"""Probability that a correct client is blamed, all statistical tests together."""
ROUNDS = 24
"""In which each made-up client is asked."""
RECORDS = 4
"""N, the public number of images."""
LENGTH = 0.25
"""A, in units of features."""
_ROUNDS_OF_TWO_WORLDS = 3
"""Rounds in which two worlds are compared."""

_SETTINGS = [
    "federation.behaviour=measure", "federation.workers=1", "federation.clients=3",
    f"federation.rounds={ROUNDS}", "privacy.record_epsilon=inf", "privacy.flip=0.25",
    "measured.epsilon=inf", "measured.radius=4", "measured.first_round=1", "measured.growth=1",
    "measured.directions=16", "measured.coordinates=1024", f"measured.records={RECORDS}",
    "model.width=4", "model.latent=8", "model.image_size=8", "training.batch_size=20",
    'features.extractors=["fourier"]', "data.source=idx",
]  # fmt: skip


def audit_measured_client() -> list[Answer]:
    """Every check, in order; see `CHECKS`."""
    found = []
    with scratch() as folder, one_thread("cpu"):
        subject = Subject(Path(folder))
        for name, check in CHECKS:
            notes = Notebook()
            check(subject, notes)
            found.append(notes.answer(name, (check.__doc__ or "").partition("\n")[0]))
    return found


class Subject:
    """The client under audit, in small: a recipe over made-up images, and a client with made-up features.

    Args:
        folder: for its files.
        person: whether all images of a client are one person's, whom one clip protects with all of them.
    """

    def __init__(self, folder: Path, *, person: bool = False) -> None:
        self.folder, self._person = folder, person
        self._given: Records | None = None
        data = write_images(folder / "images")
        settings = ["data.person=file", f"measured.record_clip={RECORDS**0.5}"] if person else []
        self.config = load_config(None, [*_SETTINGS, f"data.folder={data}", *settings])

    @cached_property
    def components(self) -> Components:
        """The recipe's parts; its clients have what is given at the time."""

        def give(index: int) -> Records:
            assert self._given is not None
            return self._given

        def whose(index: int) -> NDArray[np.int64]:
            return np.zeros(len(give(index)[1]), np.int64)

        return Planted(self.config, give, whose if self._person else None)

    @cached_property
    def question(self) -> Question:
        """One that tells mistakes apart: dense directions, other ones for each class, a reference off 0."""
        draw = np.random.default_rng(0)
        k, classes = self.config.measured.directions, len(self.components.dataset.classes)
        dimension = self.components.extractor.dimension
        basis = np.linalg.qr(draw.standard_normal((dimension, k)))[0].T
        size = draw.uniform(0.5, 1.0, (classes, k)) * draw.choice([-1.0, 1.0], (classes, k))
        return Question(
            basis=np.rint(basis * 2**16).astype(np.int16),
            unit=np.array([2.0**-16]),
            rows=draw.permutation(k).astype(np.uint16),
            by_class=(8 * self.released(1).record_clip * size).astype(np.float32),
            reference=draw.uniform(-0.2, 0.2, (classes, dimension)).astype(np.float32),
            embedding=np.frombuffer(hashlib.sha256(b"audit").digest(), np.uint8),
        )

    @cached_property
    def probes(self) -> Mapping[str, Records]:
        """What clients have, by name."""
        draw = np.random.default_rng(1)
        one, other, third = (self._direction(draw) for _ in range(3))
        near, far = 0.5, 12.0
        return {
            "no image": self._records(),
            "one image, within the clip": self._records((0, near * one)),
            "one image, far outside it": self._records((1, far * one)),
            "one far outside, three within": self._records(
                (0, far * one), *((label, near * other) for label in (1, 2, 3))
            ),
            "twelve times N images, all alike": self._records(*[(2, one)] * (12 * RECORDS)),
            "N images of one class": self._records(*[(3, 0.8 * other)] * RECORDS),
            "two far ones that cancel, one within": self._records(
                (0, far * one), (0, -0.9 * far * one), (4, near * third)
            ),
            "one image, far in what is not asked": self._aside(self._records((6, 0.1 * third)), draw),
        }

    def _aside(self, has: Records, draw: np.random.Generator) -> Records:
        """The same answers from images that are far in directions that the products cancel."""
        axes = self.question.axes
        noise = draw.uniform(-0.6, 0.6, has[0].shape)
        return (has[0] + noise - noise @ axes.T @ axes).astype(np.float32), has[1]

    def _direction(self, draw: np.random.Generator) -> Array:
        found = draw.standard_normal(self.config.measured.directions)
        unit: Array = found / np.linalg.norm(found)
        return unit

    def _records(self, *wanted: tuple[int, Array]) -> Records:
        """Images of these classes that answer so, in units of the clip of one image."""
        asked, clip = self.question, self.released(1).record_clip
        axes = asked.axes
        rows = [asked.reference[label] + (clip * r / asked.by_class[label]) @ axes for label, r in wanted]
        features = np.array(rows, np.float32).reshape(len(rows), axes.shape[1])
        assert not features.size or np.abs(features).max() <= 1
        return features, np.array([label for label, _ in wanted], np.int64)

    def released(self, number: int) -> MeasuredRelease:
        """What round `number` releases, by the recipe's plan; the server, here the auditor, says A."""
        return in_features(self.components.plan.measured[number - 1], LENGTH)

    def broadcast(self, number: int = 1) -> Broadcast:
        """The auditor's question, in the form of the server's own."""
        public = {**vars(self.question), "terms": terms(self.released(number))}
        return Broadcast(FEDERATION, number, self._form.theta, public)

    @cached_property
    def _form(self) -> Broadcast:
        return Server.of(self.components, FEDERATION).broadcast()

    def client(self, has: Records, folder: str, coins: str = "its own") -> Client:
        """A client that has these images, in a new folder."""
        self._given = has
        secret = CoinSecret.for_test(hashlib.sha256(coins.encode()).digest())
        client = Client(0, self.folder / folder, self.components, coins=secret, may_miss=True)
        client.prepare(FEDERATION)
        return client

    def law(self, has: Records, number: int = 1) -> Array:
        """What the bits of such a client in a round should be drawn with, (m,)."""
        return probabilities(self.released(number), self.question, *has)

    def before_coins(self, has: Records, folder: str) -> tuple[Array, Array]:
        """What a client makes of its images in round 1: answer (k,), as a share of A; probabilities (m,)."""
        behaviour, broadcast = behaviour_of(self.components), self.broadcast()
        assert isinstance(behaviour, Measure)
        said = self.client(has, folder).side.answer(broadcast, None)
        assert isinstance(said, MeasuredAnswer)
        drawn = behaviour.checked_round(broadcast).probabilities(said.answers[None])[0]
        return said.answers.astype(np.float64) * 2.0**-ANSWER_BITS, drawn / SCALE

    @cached_property
    def bits(self) -> Mapping[str, NDArray[np.int64]]:
        """What each probe sends, (T, m), in T rounds with the same question."""
        found = {}
        for number, (name, has) in enumerate(self.probes.items()):
            client, rows = self.client(has, f"bits-{number}", coins=name), []
            for asked in range(1, ROUNDS + 1):
                broadcast = self.broadcast(asked)
                client.answer(broadcast)
                rows.append(client.bits(broadcast).astype(np.int64))
            found[name] = np.stack(rows)
        return found


def answers(subject: Subject, notes: Notebook) -> None:
    """Is what a client makes of its images what the definition makes of them?"""
    release = subject.released(1)
    for number, (name, has) in enumerate(subject.probes.items()):
        found, law = (
            subject.before_coins(has, f"answers-{number}"),
            (answer(release, subject.question, *has), subject.law(has)),
        )
        # Four roundings to 2^-30 for each image, of which by_class multiplies one; and one of 2^-40.
        share = len(has[1]) * release.record_clip / (release.records * release.client_clip)
        for what, mine, theirs, slack in zip(
            ("answer", "probabilities"), found, law, (2.0**-26 * share + 2.0**-38, 2.0**-22), strict=True
        ):
            off = float(np.abs(mine - theirs).max(initial=0.0))
            if off > slack:
                notes.finding(
                    f"A client with {name}: its {what} {'is' if what == 'answer' else 'are'} up to {off:.2g} "
                    "off what the definition gives.",
                    off=off,
                    roundings=slack,
                )
    if not notes.findings:
        notes.fact(
            f"{len(subject.probes)} made-up clients, answers and probabilities as the definition has them"
        )


def moves(subject: Subject, notes: Notebook) -> None:
    """Does one image, or one person, replaced by any other, move bits no further than its epsilon says?"""
    release = subject.released(1)
    limit = Measured.of(release.as_dict()).record("swap").clip
    assert limit is not None
    draw, most = np.random.default_rng(2), 0.0
    for number, (name, (features, labels)) in enumerate(subject.probes.items()):
        if not len(labels):
            continue
        before = subject.before_coins((features, labels), f"before-{number}")[1]
        far = subject._records((5, -12.0 * subject._direction(draw)))
        swapped = np.concatenate([far[0], features[1:]]), np.concatenate([far[1], labels[1:]])
        after = subject.before_coins(swapped, f"after-{number}")[1]
        moved, whole = float(np.linalg.norm(after - before)), float(np.linalg.norm(before - 0.5))
        most = max(most, moved / limit, whole / release.clip)
        if moved > limit or whole > release.clip:
            notes.finding(
                f"A client with {name}: one image moves its bits by {moved:.3g}, all of them by {whole:.3g}; "
                f"epsilon is for {limit:.3g} and {release.clip:.3g}.",
                image=moved,
                client=whole,
            )
    of_persons = Subject(subject.folder / "person", person=True)
    for number, (name, has) in enumerate(subject.probes.items()):
        others = of_persons._records(*[(5, -12.0 * subject._direction(draw))] * len(has[1]))
        one, other = (
            of_persons.before_coins(images, f"{world}-{number}")[1]
            for world, images in (("before", has), ("after", others))
        )
        moved = float(np.linalg.norm(other - one))
        most = max(most, moved / limit)
        if moved > limit:
            notes.finding(
                f"A client with {name}, all of one person: the person moves its bits by {moved:.3g}; epsilon "
                f"is for {limit:.3g}.",
                person=moved,
            )
    if not notes.findings:
        notes.fact(f"at most {most:.1%} of what epsilon is for")


def bits(subject: Subject, notes: Notebook) -> None:
    """Are a client's bits drawn with the probabilities of the definition?"""
    tests = []
    half = ROUNDS // 2
    for name, sent in subject.bits.items():
        law = np.stack([subject.law(subject.probes[name], number) for number in range(1, ROUNDS + 1)])
        off, spread = sent - law, law * (1 - law)
        columns = subject.question.columns(law.shape[1])
        seen = off[:half].mean(axis=0)
        # The last two follow what the first half of the rounds shows, and are tried on the second half.
        for what, weights, rows in (
            ("how far they move", law - 0.5, slice(None)),
            ("how many are 1", np.ones_like(law), slice(None)),
            ("where they are", np.broadcast_to(seen, law.shape), slice(half, None)),
            ("what they answer", np.broadcast_to(columns @ (columns.T @ seen), law.shape), slice(half, None)),
        ):
            log_p = bernstein(off[rows], weights[rows], spread[rows])
            tests.append((log_p, f"A client with {name}: its bits differ from the definition in {what}."))
    _blame(tests, notes, f"{len(tests)} tests on {ROUNDS} uploads of each of {len(subject.bits)} clients")


def coins(subject: Subject, notes: Notebook) -> None:
    """Are coins new in each round, for each client, and for each question?"""
    tests = []
    names = list(subject.bits)
    laws = {
        name: np.stack([subject.law(subject.probes[name], number) for number in range(1, ROUNDS + 1)])
        for name in names
    }
    for name, sent in subject.bits.items():
        off, spread = sent - laws[name], laws[name] * (1 - laws[name])
        log_p = bernstein(off[0::2] * off[1::2], np.ones_like(off[0::2]), spread[0::2] * spread[1::2])
        tests.append((log_p, f"A client with {name}: two rounds have the same coins."))
    for one, other in zip(names[0::2], names[1::2], strict=False):
        offs = [subject.bits[name] - laws[name] for name in (one, other)]
        spreads = [laws[name] * (1 - laws[name]) for name in (one, other)]
        log_p = bernstein(offs[0] * offs[1], np.ones_like(offs[0]), spreads[0] * spreads[1])
        tests.append((log_p, "Two clients have the same coins."))
    tests += [
        (log_p, f"Another {name} has the same coins: what a bit says differs, its coin does not.")
        for name, log_p in _other_questions(subject)
    ]
    _blame(tests, notes, f"{len(tests)} pairs of uploads, none alike")


def _other_questions(subject: Subject) -> Iterator[tuple[str, float]]:
    """One secret, one round, two questions that differ in one number: log p that the bits are independent."""
    has = subject.probes["no image"]  # p = 1/2, whatever is asked
    first = subject.broadcast()
    sent = _sent(subject.client(has, "asked"), first)
    longer = terms(in_features(subject.components.plan.measured[0], 2 * LENGTH))
    for name in sorted({*first.public, "theta"}):
        changed: NDArray[Any] = np.array(first.theta if name == "theta" else first.public[name])
        if name == "terms":  # A, and with it c, is all that a server may change of them
            changed = longer
        elif changed.dtype.kind in "iu":
            changed.flat[0] += 1
        else:
            changed.flat[0] *= 1 - 2.0**-10
        theta = changed if name == "theta" else first.theta
        other = {} if name == "theta" else {name: changed}
        broadcast = Broadcast(first.federation, first.round, theta, {**first.public, **other})
        again = _sent(subject.client(has, f"asked-{name}"), broadcast)
        product = (sent - 0.5) * (again - 0.5)
        yield name, bernstein(product, np.ones_like(product), np.full_like(product, 1 / 16))


def _sent(client: Client, broadcast: Broadcast) -> NDArray[np.int64]:
    client.answer(broadcast)
    return client.bits(broadcast).astype(np.int64)


def public(subject: Subject, notes: Notebook) -> None:
    """Does anything but opened sums depend on images: what is asked next, what is printed, the model?"""
    seen = []
    held: list[NDArray[np.int64]] = []
    for world in range(2):
        folder = subject.folder / f"world-{world}"
        images = write_images(folder / "images", world=world)
        data = msgspec.structs.replace(subject.config.data, folder=str(images))
        components = Components(lightly_trained(msgspec.structs.replace(subject.config, data=data)))
        with _listening() as said:
            rounds = PlayedRounds(components, folder, b"the same in both worlds")
            asked: list[Broadcast] = []
            for number in range(_ROUNDS_OF_TWO_WORLDS):
                found = rounds.next(held[number] if world else None)
                asked.append(found.broadcast)
                if not world:
                    held.append(found.counts)
        rounds.server.save(folder / "server")
        seen.append((asked, said.getvalue(), (folder / "server").read_bytes()))
    (first, spoken, kept), (second, spoken_too, kept_too) = seen
    for one, other in zip(first, second, strict=True):
        for name in sorted({*one.public, *other.public, "theta"}):
            here, there = ({**each.public, "theta": each.theta}.get(name) for each in (one, other))
            if here is None or there is None or here.tobytes() != there.tobytes():
                notes.finding(
                    f"Round {one.round}: {name}, which the server sends, follows from images beside the "
                    "opened sums."
                )
    if spoken != spoken_too:
        notes.finding("What is printed or logged in a round follows from images.")
    if kept != kept_too:
        notes.finding("What the server keeps follows from images beside the opened sums.")
    if not notes.findings:
        notes.fact(
            f"two worlds with other images and the same sums: {_ROUNDS_OF_TWO_WORLDS} questions, everything "
            "printed and logged, and the server's checkpoint are the same to the byte"
        )


Check = Callable[[Subject, Notebook], None]

CHECKS: tuple[tuple[str, Check], ...] = (
    ("answers", answers),
    ("moves", moves),
    ("bits", bits),
    ("coins", coins),
    ("public", public),
)
"""In the order of the report; a check's question is the first line of its docstring."""


def bernstein(off: Array, weights: Array, spread: Array) -> float:
    """log p, two-sided, of sum w x for independent x of mean 0, variances `spread` and |x| <= 1.

    P(|sum| >= t) <= 2 exp(-t^2 / (2 (v + b t / 3))), v the variance and b the largest |w| (Bernstein 1924;
    Boucheron, Lugosi and Massart 2013, corollary 2.11).
    """
    total = abs(float(np.sum(weights * off)))
    variance, largest = float(np.sum(weights**2 * spread)), float(np.abs(weights).max(initial=0.0))
    if not total:
        return 0.0
    return min(0.0, math.log(2.0) - total**2 / (2 * (variance + largest * total / 3)))


def _blame(tests: list[tuple[float, str]], notes: Notebook, well: str) -> None:
    """A finding for each p-value below its part of this check's part of the error."""
    limit = math.log(ERROR / 2 / len(tests))  # two checks are statistical
    for log_p, text in tests:
        if log_p < limit:
            notes.finding(text, "computed", log10_p=log_p / math.log(10))
    if not notes.findings:
        notes.fact(well)


@contextlib.contextmanager
def _listening() -> Iterator[io.StringIO]:
    """What is printed, and logged at any level."""
    said = io.StringIO()
    handler = logging.StreamHandler(said)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            yield said
    finally:
        root.removeHandler(handler)
        root.setLevel(level)


def write_images(folder: Path, *, world: int = 0) -> Path:
    """Made-up images of ten classes as idx files, in a new folder; another world has others to train on."""
    count, side = 40, 8
    train, held_out = (
        np.rint((dead_leaves(count, side=side, seed=seed)[:, 0].numpy() + 1) * 127.5).astype(np.uint8)
        for seed in (1 + world, 0)
    )
    labels = np.arange(count, dtype=np.uint8)
    parts = {"train": (train, (labels + world) % 10), "t10k": (held_out, labels % 10)}
    folder.mkdir(parents=True)
    (folder / "train-persons.txt").write_text("".join(f"{number}\n" for number in range(count)))
    for prefix, arrays in parts.items():
        for array, kind in zip(arrays, ("images-idx3", "labels-idx1"), strict=True):
            sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
            (folder / f"{prefix}-{kind}-ubyte").write_bytes(
                bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()
            )
    return folder
