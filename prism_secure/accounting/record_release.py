"""The record-level release of a run: what each client learns of its images, once, and what that costs.

With `privacy.record_epsilon` a client's training never meets its images. Before the first round the moments
of their features are released once, with noise (`prism_privacy.MomentRelease`); the client keeps that release
and trains from nothing else in every round. So masks, rounds, images and reports are post-processing of it,
and epsilon for one image does not grow with them.

    client   each client draws its own noise, and its release stays in its folder: nothing to trust
    summed   each client draws a share of the noise, and only the sum over all clients opens, through the
             secure sum. Less noise, but the opened moments leave the clients, and so cost epsilon at client
             level, too. With `privacy.record_cohort = 1` each share holds all of the noise: there is more of
             it, and a single image is protected even from an observer of its client's share

Worlds are compared under *swap*: one image of one client is replaced by any other, its label included. How
many images a client has, and how many classes there are, is public.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import secrets
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from prism_privacy import (
    Adjacency,
    MomentRelease,
    NoisySums,
    RecordGuarantee,
    SummedMoments,
    View,
    release_moments,
)
from prism_privacy.durable_files import locked_directory
from prism_secure.config import Config
from prism_secure.storage import as_storage_error, make_private_folder, write_atomic
from prism_secure.wording import SEEN, format_epsilon

__all__ = ["RecordRelease"]

NORM = 1.0
"""Of bounded features: an image's are never longer."""
SECOND_WEIGHT = math.sqrt(0.5)
"""Of the second moments, where the loss wants them. With v^2 + w^2 = 1, w the weight of the counts, one image
moves the release by at most 2: second moments cost nothing but exactness of the counts."""


@dataclass(frozen=True)
class RecordRelease:
    """What one configuration releases.

    Args:
        config: its `privacy.record_epsilon` is finite.
        sizes: images of each client; public under swap.
        classes: labels that are told apart; 1 where the generator does without.
        dimension: D, the number of features.
    """

    config: Config
    sizes: tuple[int, ...]
    classes: int
    dimension: int

    @property
    def summed(self) -> bool:
        """Whether one release over all clients opens in a secure sum."""
        return self.config.privacy.record_release == "summed"

    def of(self, client: int) -> MomentRelease:
        """What this client trains from: its own release, or the one over all clients."""
        return self._calibrated(sum(self.sizes) if self.summed else self.sizes[client])

    def make(self, client: int, features: NDArray[np.floating], labels: NDArray[np.integer]) -> NoisySums:
        """Draw a client's own release of features (N, D) with labels (N,): once, and keep it."""
        return release_moments(features, labels if self.classes > 1 else None, self.of(client))

    def share(self, features: NDArray[np.floating], labels: NDArray[np.integer]) -> NDArray[np.int64]:
        """Draw a client's share of a summed release, (size,): once, and show it to nobody."""
        return self.plan.share(features, labels if self.classes > 1 else np.zeros_like(labels))

    @cached_property
    def plan(self) -> SummedMoments:
        """How clients share the noise of a summed release, so that any `record_cohort` carry all of it."""
        return SummedMoments(
            self._calibrated(sum(self.sizes)),
            cohort=self.config.record_cohort,
            dimension=self.dimension,
            most_records=max(self.sizes),
            most_shares=len(self.sizes),
        )

    def as_opened(self, sums: NoisySums) -> NoisySums:
        """The sums of this recipe's classes, with the noise that is in them: that of all survivors."""
        if not self.summed:
            return sums
        assert sums.counts is not None
        more = math.sqrt(self.config.moments_survivors / self.plan.cohort)
        return replace(
            sums,
            release=replace(sums.release, sigma=sums.release.sigma * more),
            first=sums.first[: self.classes],
            second=None if sums.second is None else sums.second[: self.classes],
            counts=sums.counts[: self.classes],
        )

    @cached_property
    def guarantee(self) -> RecordGuarantee:
        """Epsilon for one image of any client: the largest over the clients, as each image is with one."""
        delta = self.config.privacy.delta
        if self.summed:
            release, shares = self.plan.release, self.plan.cohort
            found = RecordGuarantee(release.adjacency, self.plan.epsilon(delta), delta, release.as_dict())
            return (
                replace(found, view=View.SUM, cohort=shares)
                if shares > 1
                else replace(found, view=View.UPLOAD)
            )
        releases = {size: self._calibrated(size) for size in self.sizes}
        worst = max(releases, key=lambda size: (releases[size].epsilon(delta), size))
        return replace(RecordGuarantee.of(releases[worst], delta), view=View.UPLOAD)

    def client_epsilon(self, view: View, adjacency: Adjacency) -> float:
        """What the release itself tells about everything that one client has.

        A client's own release stays at home: 0. A summed one is opened; see `opened_epsilon`.
        """
        if not self.summed:
            return 0.0
        images, cohort, delta = max(self.sizes), self.plan.cohort, self.config.privacy.delta
        return opened_epsilon(self.plan.release, images, cohort, view, adjacency, delta)

    def at(self, epsilon: float) -> RecordRelease:
        """This release with another `privacy.record_epsilon`."""
        privacy = msgspec.structs.replace(self.config.privacy, record_epsilon=epsilon)
        return replace(self, config=msgspec.structs.replace(self.config, privacy=privacy))

    @property
    def drowned(self) -> str:
        """Words for noise that is longer than the images' features can add up to; "" where it is not.

        Features have norm 1, so those of a class of N/K images add up to a vector of length N/K at most (N,
        K, and the noise's deviation on each of the D features are public). Noise on it is sqrt(D) deviations
        long. That is all clients' together: summed, or each with noise of its own and averaged by training.
        """
        images, noise = sum(self.sizes), self._noise_length
        if (signal := images / self.classes) >= noise:
            return ""
        enough = math.ceil(noise * self.classes)
        text = (
            f"noise will drown the images: over the {self.dimension:,} features of a class its norm is "
            f"{noise:,.0f}, and the class's share of {images:,} images has norm {signal:,.0f} at most; "
            f"{enough:,} images would be enough"
        )
        grid = (digit * 10.0**power for power in range(-3, 3) for digit in (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9))
        for epsilon in grid:
            if (
                self.config.privacy.record_epsilon < epsilon <= 100
                and self.at(epsilon)._noise_length <= signal
            ):
                return f"{text}, or privacy.record_epsilon={epsilon:g}"
        return text

    @property
    def _noise_length(self) -> float:
        """Of the noise on all clients' features of one class, in units of the largest image."""
        shares = self.config.moments_survivors / self.plan.cohort if self.summed else len(self.sizes)
        return self.of(0).noise * math.sqrt(shares * self.dimension)

    @property
    def view(self) -> ImageView:
        """Whom an image is protected from."""
        return image_view(self.config, self.of(0), self.plan.cohort if self.summed else None)

    def context(self, client: int | None) -> str:
        """Public words for what the features are and whose: stored with the release, and compared.

        Images are named by what the configuration declares of them, not by their content, of which nothing
        may be read again. `client` None: all clients'.
        """
        return json.dumps(self._images | self._features | {"client": client}, sort_keys=True)

    def file(self, client: int, folder: str | os.PathLike[str]) -> Path:
        """Where a client keeps what it trains from: in its own folder, or in the store that runs share."""
        store = None if self.summed else self._store
        return Path(folder) / "release.moments" if store is None else store / f"client-{client:02d}.moments"

    def share_file(self, client: int, folder: str | os.PathLike[str]) -> Path:
        """Where a client keeps its share of a summed release until the sum is open."""
        name = "share.safetensors" if self._store is None else f"share-{client:02d}.safetensors"
        return (self._store or Path(folder)) / name

    def opened_file(self, folder: str | os.PathLike[str]) -> Path:
        """Where an opened sum of all clients is kept: in a folder of the run, or in the store."""
        return Path(folder) / "release.moments" if self._store is None else self._store / "all.moments"

    def id(self, *, draw: bool) -> str | None:
        """What tells a release that runs share from every other: 128 random bits, in hexadecimal.

        It is drawn before the release is, and lies beside it, so that a ledger can name what it charges for
        before anything is drawn; runs that find the release find its id. It depends on no data. Whoever
        deletes a store deletes the id with it, and what is drawn there next has another.

        Args:
            draw: whether to draw one if there is none; else that is None.

        Returns:
            None for a run that shares no release: it has one of its own.
        """
        if self._store is None:
            return None
        path = self._store / "release.id"
        if draw:
            make_private_folder(self._store)
            with as_storage_error(path), locked_directory(self._store):
                if not path.exists():
                    write_atomic(path, secrets.token_hex(16).encode() + b"\n", mode=0o600)
        return path.read_text("ascii").strip() if path.exists() else None

    @cached_property
    def _store(self) -> Path | None:
        """`record_store`/images/release: releases of the same images lie side by side."""
        store = self.config.privacy.record_store
        if store is None:
            return None
        release = self._features | {
            "releases": [self.of(client).as_dict() for client in range(len(self.sizes))]
        }
        if self.summed and self.config.secure_sum.simulate:
            release["secure sum"] = "not run"  # what a run opens without one, no run with one may take
        return Path(store).expanduser() / _digest(self._images) / _digest(release)

    @property
    def _images(self) -> dict[str, Any]:
        config = self.config
        folder = config.data.folder and str(Path(config.data.folder).expanduser().resolve())
        data = msgspec.to_builtins(msgspec.structs.replace(config.data, folder=folder, download=False))
        del data["person_file"]  # nobody is known by name where moments are released
        if config.data.source != "celeba":
            del data["attribute"]  # it says nothing there, and older releases do not name it
        federation = {"clients": config.federation.clients, "seed": config.federation.seed}
        return {"data": data, "federation": federation}

    @property
    def _features(self) -> dict[str, Any]:
        config = self.config
        features = msgspec.to_builtins(config.features)
        return {
            # What came later is named only where it is set: older releases stay readable.
            "features": {key: x for key, x in features.items() if key not in ("vgg_layers", "products") or x},
            "image_size": config.model.image_size,
            "classes": self.classes,
            "summed over": self.config.record_cohort if self.summed else None,
            "second moments": self._second_weight,
        }

    def _calibrated(self, records: int) -> MomentRelease:
        privacy = self.config.privacy
        # Clients may drop out of a sum, so it holds noisy counts, which releases of one class have none of:
        # where labels are not told apart there is a second class, without images.
        classes = max(2, self.classes) if self.summed else self.classes
        return _calibrated(privacy.record_epsilon, privacy.delta, records, classes, self._second_weight)

    @property
    def _second_weight(self) -> float:
        return SECOND_WEIGHT if self.config.training.variance_weight else 0.0


@cache
def _calibrated(
    epsilon: float, delta: float, records: int, classes: int, second_weight: float
) -> MomentRelease:
    """The least noise for this epsilon; asked for once per number of images, not once per client."""
    return MomentRelease.calibrated(
        epsilon=epsilon,
        delta=delta,
        records=records,
        norm=NORM,
        adjacency="swap",
        classes=classes,
        second_weight=second_weight,
        count_weight=math.sqrt(1.0 - second_weight**2),
    )


def group_epsilon(release: MomentRelease, records: int, delta: float) -> float:
    """Epsilon for `records` images that change together: as for one under so many times less noise.

    The sums move by at most so many times the sensitivity of one (the triangle inequality), and the guarantee
    depends on nothing but the noise in units of that move.

    >>> release = MomentRelease.calibrated(epsilon=1.0, delta=1e-5, records=1000)
    >>> [round(group_epsilon(release, k, 1e-5), 2) for k in (1, 2, 5)]
    [1.0, 2.15, 6.17]
    """
    return replace(release, sigma=release.sigma / records).epsilon(delta)


def opened_epsilon(
    release: MomentRelease, images: int, cohort: int, view: View, adjacency: Adjacency, delta: float
) -> float:
    """Epsilon for `images` images together, from a summed release: what it tells about whoever has them all.

    ZERO_OUT: whoever it is adds noise alone; REPLACE_ONE: it has other images. Under UPLOAD a share is seen,
    which carries 1/sqrt(cohort) of the noise. Noise of shares is cut off at 24 standard deviations, so that
    above 100 nothing is proved (`prism_privacy.SummedMoments`): `inf`.
    """
    if adjacency is Adjacency.ZERO_OUT:
        release = replace(release, adjacency="add_remove")
    if view is View.UPLOAD:
        release = replace(release, sigma=release.sigma / math.sqrt(cohort))
    epsilon = group_epsilon(release, images, delta)
    return epsilon if epsilon <= 100.0 else math.inf


@dataclass(frozen=True)
class ImageView:
    """Against whom epsilon of one image holds, and what is left of it where fewer are honest.

    Attributes:
        who: whom it holds against.
        short: the same in a word or two.
        condition: on whose honesty it counts; "" where on nobody's.
        weaker: epsilon by who else sides with the server; empty where nobody's honesty counts.
    """

    who: str
    short: str
    condition: str = ""
    weaker: tuple[tuple[str, float], ...] = ()

    @property
    def words(self) -> str:
        """Against whom, and on which condition."""
        return f"against {self.who}" + (f", {self.condition}" if self.condition else "")

    def __str__(self) -> str:
        """
        >>> print(ImageView("somebody", "SUM", "while two are honest", (("1 colluder", 2.115),)))
        against somebody, while two are honest (1 colluder: 2.12)
        """
        left = "; ".join(f"{who}: {format_epsilon(epsilon)}" for who, epsilon in self.weaker)
        return self.words + (f" ({left})" if left else "")


def image_view(config: Config, release: MomentRelease, shares: int | None) -> ImageView:
    """Whom an image is protected from, as a release is noised.

    With k of the h honest clients that it counts on siding with the server, 1 - k/h of the noise's variance
    is left. A share seen by itself has 1/h of it. Shares are hidden while the secure sum is: from a server
    that follows the protocol and fewer colluders than its threshold t, and in active mode from one that
    deviates and fewer than 2t - n.

    Args:
        shares: how many honest clients' shares make up the noise of an opened sum; None for releases that
            each client noises and keeps.
    """
    if shares is None or shares == 1:
        return ImageView("anybody, whoever else is honest", "UPLOAD")
    n, least = config.federation.clients, config.moments_survivors
    already = least - shares
    withstood = 2 * config.moments_threshold - n if config.secure_sum.mode == "active" else 0
    weaker = []
    for more in sorted({1, round(0.3 * shares), shares // 2} - {0}):
        colluders = already + more
        if more >= shares or colluders >= config.moments_threshold:
            break
        left = replace(release, sigma=release.sigma * math.sqrt(1 - more / shares))
        who = f"{colluders:,} colluder{'' if colluders == 1 else 's'}"
        if colluders >= withstood and config.secure_sum.mode == "active":
            who += " and an honest-but-curious server"
        at = View.SUM, Adjacency.REPLACE_ONE
        weaker.append((who, opened_epsilon(left, 1, 1, *at, config.privacy.delta)))
    seen = opened_epsilon(release, 1, shares, View.UPLOAD, Adjacency.REPLACE_ONE, config.privacy.delta)
    weaker.append((f"its client's share {SEEN}", seen))
    return ImageView("an observer of the opened sums", *honest_words(shares, n, least), tuple(weaker))


def honest_words(honest: int, invited: int, survivors: int, whose: str = "clients") -> tuple[str, str]:
    """How many honest clients an epsilon counts on in every opened sum: a view's short name, and a condition.

    Where some may drop out it is no number of the invited: those who drop out may be the honest ones.

    >>> honest_words(9, 10, 10)
    ('SUM, 9 of 10 honest', 'while 9 of the 10 clients are honest')
    >>> honest_words(9, 10, 9)
    ('SUM, 9 honest stay', 'while 9 honest clients stay in every opened sum')
    """
    if survivors < invited:
        return f"SUM, {honest:,} honest stay", f"while {honest:,} honest {whose} stay in every opened sum"
    who = "all" if honest == invited else f"{honest:,} of the"
    return f"SUM, {honest:,} of {invited:,} honest", f"while {who} {invited:,} {whose} are honest"


def _digest(value: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
