"""Bugs of measured rounds, each planted from outside into the code that runs; and what must find it."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from prism_privacy import CoinSecret, HadamardEmbedding, MeasuredRelease, RowDirections, Unit
from prism_privacy.ledger import order
from prism_privacy.measured import public_round
from prism_privacy.measured.integers import (
    ANSWER_BITS,
    DIRECTION_BITS,
    RESPONSE_BITS,
    clip_rows,
    sums_by,
    toward_zero,
)
from prism_secure.accounting.spending import Spending
from prism_secure.config.whole import Config
from prism_secure.rounds import client as clients
from prism_secure.rounds.behaviours import measure
from prism_secure.rounds.broadcast import Broadcast
from prism_secure.rounds.components import Components

Ints = NDArray[np.int64]
Plant = Callable[[pytest.MonkeyPatch], None]


@dataclass(frozen=True)
class Planted:
    """A bug, and the checks that must find it, in `audit measured` or in `audit run`."""

    plant: Plant
    found_by: tuple[str, ...]


def no_record_clip(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(public_round, "clip_responses", _only_scaled)


def _only_scaled(responses: Ints, gain: float) -> Ints:
    return np.trunc(responses * gain).astype(np.int64)


def clip_after_averaging(patch: pytest.MonkeyPatch) -> None:
    def averaged(release: MeasuredRelease, rows: Ints, owners: Ints, count: int) -> Ints:
        means = sums_by(rows, owners, count) // release.records
        return clip_rows(
            clip_rows(means, 1.0, RESPONSE_BITS) * release.records, release.answer_gain, ANSWER_BITS
        )

    no_record_clip(patch)
    patch.setattr(public_round, "client_answers", averaged)


def clip_per_class(patch: pytest.MonkeyPatch) -> None:
    real = public_round.record_responses

    def of_classes(directions: Any, features: Any, labels: Any) -> Ints:
        responses = real(directions, features, labels)
        summed = np.zeros_like(responses)
        for label in np.unique(labels):
            rows = np.flatnonzero(np.asarray(labels) == label)
            summed[rows[0]] = responses[rows].sum(axis=0)
        return summed

    patch.setattr(public_round, "record_responses", of_classes)


def images_of_a_person_clipped_apart(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(public_round, "sum_persons", lambda responses, owners, persons: (responses, owners))


def persons_not_read(patch: pytest.MonkeyPatch) -> None:
    """Each image for itself, whatever `data.person` says."""
    real = measure.MeasuringClient.records
    patch.setattr(measure.MeasuringClient, "records", lambda self: real(self)._replace(persons=None))


def own_count_for_the_public_one(patch: pytest.MonkeyPatch) -> None:
    real = public_round.client_answers

    def divided(release: MeasuredRelease, rows: Ints, owners: Ints, count: int) -> Ints:
        found = np.zeros((count, rows.shape[1]), np.int64)
        for owner in np.unique(owners):
            mine = rows[owners == owner]
            own = replace(release, records=len(mine))
            found[owner] = real(own, mine, np.zeros(len(mine), np.int64), 1)[0]
        return found

    patch.setattr(public_round, "client_answers", divided)


def embedding_unchecked(patch: pytest.MonkeyPatch) -> None:
    """E with singular values of 3, as a server might send it."""
    real = HadamardEmbedding.signs.func
    patch.setattr(HadamardEmbedding, "signs", property(lambda self: 3 * real(self)))


def one_column_for_all(patch: pytest.MonkeyPatch) -> None:
    """E whose columns are no k different ones: its largest singular value is sqrt(k)."""
    real = HadamardEmbedding.signs.func
    patch.setattr(
        HadamardEmbedding, "signs", property(lambda self: np.repeat(real(self)[:1], self.directions, axis=0))
    )


def float32_product(patch: pytest.MonkeyPatch) -> None:
    def rounded(self: RowDirections, inside: Ints, label: int) -> Ints:
        residual = (inside - self.reference[label]).astype(np.float32)
        product = (residual @ self.basis.T.astype(np.float32)).astype(np.int64)
        along = toward_zero(product, 40 - RESPONSE_BITS)[:, self.rows]
        return toward_zero(along * self.by_class[label], DIRECTION_BITS)

    patch.setattr(RowDirections, "responses", rounded)


def randomized_twice(patch: pytest.MonkeyPatch) -> None:
    """f + (1 - 2f) p of a p that is in the box already."""
    real, flip = clients.release_bits, 0.25

    def twice(p: Any, coins: Any) -> NDArray[np.uint8]:
        return real(np.rint(flip * 2**24 + (1 - 2 * flip) * p).astype(np.uint32), coins)

    patch.setattr(clients, "release_bits", twice)


def wrong_centre(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(measure, "HALF", round(0.45 * 2**24))


def reference_forgotten(patch: pytest.MonkeyPatch) -> None:
    """Answers around 0 in place of m."""
    real = public_round.record_responses

    def around_zero(directions: Any, features: Any, labels: Any) -> Ints:
        return real(replace(directions, reference=0 * directions.reference), features, labels)

    patch.setattr(public_round, "record_responses", around_zero)


def clips_from_private_norms(patch: pytest.MonkeyPatch) -> None:
    real = public_round.clip_responses

    def by_the_median(responses: Ints, gain: float) -> Ints:
        norms = np.linalg.norm(responses.astype(np.float64), axis=1)
        scale = np.median(norms) * 2.0**-RESPONSE_BITS if len(norms) else 0.0
        return real(responses, 1 / scale if scale else gain)

    patch.setattr(public_round, "clip_responses", by_the_median)


def length_from_private_norms(patch: pytest.MonkeyPatch) -> None:
    """A, which the server says, by the images of a client."""
    real = measure.MeasuringServer._length

    def fitted(self: Any, *asked: Any) -> float:
        features, _ = self._behaviour.components.features(0, alike=True)
        return float(f"{real(self, *asked) * np.linalg.norm(features[:, :10]):.6g}")

    patch.setattr(measure.MeasuringServer, "_length", fitted)


_DIRECTIONS = ("basis", "unit", "rows", "by_class")


def directions_missing_from_the_digest(patch: pytest.MonkeyPatch) -> None:
    real = Broadcast.digest.func

    def without(self: Broadcast) -> bytes:
        bound = {name: array for name, array in self.public.items() if name not in _DIRECTIONS}
        return real(Broadcast(self.federation, self.round, self.theta, bound))

    patch.setattr(Broadcast, "digest", property(without))


def theta_missing_from_the_digest(patch: pytest.MonkeyPatch) -> None:
    real = Broadcast.digest.func

    def without(self: Broadcast) -> bytes:
        return real(Broadcast(self.federation, self.round, np.zeros(1), self.public))

    patch.setattr(Broadcast, "digest", property(without))


def coins_reused_in_all_rounds(patch: pytest.MonkeyPatch) -> None:
    def same(self: clients.Client, broadcast: Broadcast) -> Any:
        return self._coins(broadcast.federation).stream(broadcast.federation, 0, bytes(32), "mask")

    patch.setattr(clients.Client, "_stream", same)


def coins_reused_by_all_clients(patch: pytest.MonkeyPatch) -> None:
    def public(self: clients.Client, federation: str) -> CoinSecret:
        return CoinSecret.for_test(hashlib.sha256(federation.encode()).digest())

    patch.setattr(clients.Client, "_coins", public)


def directions_from_private_images(patch: pytest.MonkeyPatch) -> None:
    def private(self: Components) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        features, _ = self.features(0, alike=True)
        centred = features.astype(np.float64) - features.mean(0)
        _, sizes, rows = np.linalg.svd(centred, full_matrices=False)
        return rows[: len(rows) - 1], np.square(sizes[:-1]) / len(centred)

    patch.setattr(Components, "public_basis", property(private))


def reference_from_private_images(patch: pytest.MonkeyPatch) -> None:
    real = measure.MeasuringServer._public

    def centred(self: Any, round_number: int) -> Any:
        asked = dict(real(self, round_number))
        features, _ = self._behaviour.components.features(0, alike=True)
        return asked | {"reference": asked["reference"] + np.float32(1e-3) * features.mean(0)}

    patch.setattr(measure.MeasuringServer, "_public", centred)


def norms_printed(patch: pytest.MonkeyPatch) -> None:
    _spoken(patch, print)


def norms_logged(patch: pytest.MonkeyPatch) -> None:
    _spoken(patch, logging.getLogger("client").debug)


def _spoken(patch: pytest.MonkeyPatch, say: Callable[[str], None]) -> None:
    real = measure.MeasuringClient.answer

    def loud(self: Any, *args: Any) -> Any:
        answer = real(self, *args)
        say(f"client {self.index}: |a| = {np.linalg.norm(answer.answers):.3e}")
        return answer

    patch.setattr(measure.MeasuringClient, "answer", loud)


IN_THE_CLIENT = {
    each.__name__: Planted(each, found_by)
    for each, found_by in [
        (no_record_clip, ("answers", "moves", "bits")),
        (clip_after_averaging, ("answers", "moves", "bits")),
        (clip_per_class, ("answers", "bits")),
        (images_of_a_person_clipped_apart, ("moves",)),
        (persons_not_read, ("moves",)),
        (own_count_for_the_public_one, ("answers", "moves", "bits")),
        (embedding_unchecked, ("answers", "moves", "bits")),
        (one_column_for_all, ("answers", "bits")),
        (float32_product, ("answers",)),
        (randomized_twice, ("bits",)),
        (wrong_centre, ("answers", "bits")),
        (reference_forgotten, ("answers", "bits")),
        (clips_from_private_norms, ("answers", "bits")),
        (length_from_private_norms, ("public",)),
        (directions_missing_from_the_digest, ("coins",)),
        (theta_missing_from_the_digest, ("coins",)),
        (coins_reused_in_all_rounds, ("coins",)),
        (coins_reused_by_all_clients, ("coins",)),
        (directions_from_private_images, ("public",)),
        (reference_from_private_images, ("public",)),
        (norms_printed, ("public",)),
        (norms_logged, ("public",)),
    ]
}
"""Found by `audit measured`, each by the checks that are named and maybe by others."""


def half_the_radius_of_an_image(patch: pytest.MonkeyPatch) -> None:
    real = MeasuredRelease.record_radius
    patch.setattr(MeasuredRelease, "record_radius", lambda self, *rest: real(self, *rest) / 2)


def half_the_radius_of_a_client(patch: pytest.MonkeyPatch) -> None:
    real = MeasuredRelease.release

    def halved(self: MeasuredRelease, unit: Unit, *rest: Any) -> Any:
        return real(self.scaled(0.5) if unit is Unit.CLIENT else self, unit, *rest)

    patch.setattr(MeasuredRelease, "release", halved)


def half_the_rounds_accounted(patch: pytest.MonkeyPatch) -> None:
    real = Spending._spend

    def every_other(self: Spending, number: int, asked: int) -> int:
        return real(self, number, asked) if number % 2 else self._accountant_rounds

    patch.setattr(Spending, "_spend", every_other)


def cohort_with_colluders(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Config, "cohort", property(lambda self: self.min_survivors))


def cohort_with_dropouts(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Config, "cohort", property(lambda self: self.invited - self.privacy.colluders))


IN_THE_BOOKS = {
    each.__name__: Planted(each, found_by)
    for each, found_by in [
        (half_the_radius_of_an_image, ("record epsilon",)),
        (half_the_radius_of_a_client, ("client epsilon",)),
        (half_the_rounds_accounted, ("client epsilon", "record epsilon")),
        (cohort_with_colluders, ("cohort",)),
        (cohort_with_dropouts, ("cohort",)),
    ]
}
"""Found in the run folder, by `audit run`."""


def unchecked_ledger(patch: pytest.MonkeyPatch) -> None:
    """A ledger that takes what it is given, where this package's own refuses some of these entries."""
    patch.setattr(order.EntryOrder, "check", lambda self, entry: None)
