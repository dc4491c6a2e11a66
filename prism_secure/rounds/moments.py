"""What one client trains from: the moments of its images, exact or released once with noise.

With a record-level claim the images are read once, before the first round, for one noisy release of their
moments (`prism_secure.accounting.record_release`). It is stored before anything is computed from it, and from
then on it is all there is: a client whose release is gone draws no other, but stops.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save

from prism_privacy import NoisySums, moments_once
from prism_privacy.durable_files import locked_directory
from prism_privacy.moments.store import load_moments
from prism_secure.accounting.record_release import RecordRelease
from prism_secure.data.features import WithProducts
from prism_secure.errors import ConfigError, RunFolderError
from prism_secure.learning.discriminant import Discriminant
from prism_secure.learning.moment_matching import FeatureMoments
from prism_secure.rounds.arrays import read_arrays
from prism_secure.rounds.components import Components
from prism_secure.storage import as_storage_error, make_private_folder, write_atomic


def discriminant_of(components: Components, folder: Path) -> Discriminant:
    """Labels by the moments that a run opened; `folder` is the run's.

    Raises:
        ConfigError: it opened no moments, or none of products, or has no classes to tell apart.
        prism_privacy.PrivacyError: what it opened is damaged, or that of another run.
    """
    config, release = components.config, components.record_release
    if not (config.opens_moments and config.features.products and components.architecture.classes > 1):
        raise ConfigError(
            "labels by a release need a run of several classes with features.products above 0, "
            'privacy.record_release = "summed" and a finite privacy.record_epsilon, '
            f"got {components.architecture.classes} classes, features.products = {config.features.products}, "
            f'privacy.record_release = "{config.privacy.record_release}", '
            f"privacy.record_epsilon = {config.privacy.record_epsilon}"
        )
    assert release is not None
    assert isinstance(components.extractor, WithProducts)
    path = release.opened_file(folder / "checkpoint")
    opened = load_moments(path, release.plan.release, release.context(None))
    if opened is None:
        raise ConfigError(f"labels by a release need what the run opened, and {path} does not exist")
    return Discriminant.of(release.as_opened(opened), components.extractor)


class ClientMoments:
    """What one client may know of its images, and keeps in its own folder.

    Args:
        folder: the client's private folder.
        index: the client's id, 0 to n - 1.
        components: the objects of the configuration; its `record_release` says what is released, if anything.
    """

    def __init__(self, folder: Path, index: int, components: Components) -> None:
        self._folder = folder
        self._index = index
        self._components = components

    def prepare(self, *, answered: bool) -> None:
        """Before round 1: read from the images all that training needs of them; safe to repeat.

        Args:
            answered: whether the client has answered a round, and so has had a release.

        Raises:
            RunFolderError: what was read is gone, though this client has answered a round.
            prism_privacy.PrivacyError: the release is damaged, or another one is stored in its place.
        """
        release = self._components.record_release
        if release is None:
            self._exact_moments()
        elif self._released(release) is not None:
            self._mark_drawn(release)
        else:
            if answered:
                raise RunFolderError(self._gone(release))
            if release.summed:
                self._make_share(release)
            else:
                self._draw(release)

    def require(self) -> None:
        """Refuse unless this client has what it trains from. Exact moments that are gone can be made again.

        Raises:
            RunFolderError: it is gone, or damaged.
            prism_privacy.PrivacyError: the release is damaged, or another one is stored in its place.
        """
        release = self._components.record_release
        if release is not None:
            if self._released(release) is None:
                raise RunFolderError(self._gone(release))
        elif self._exact_path.exists():
            read_arrays(self._exact_path)

    @property
    def has_share(self) -> bool:
        """Whether its share of a summed release is drawn and kept, as it is until the sum has come back."""
        return self._share_path.exists()

    def share(self) -> NDArray[np.int64]:
        """With a summed release: what this client adds to it, int64 (size,). **Private** until summed."""
        if not self._share_path.exists():
            raise RunFolderError(
                f"client {self._index} gave its share of the noisy moments before, and a second one would "
                "cost epsilon on top; put checkpoint/release.moments, the sum of the first, back"
            )
        return np.asarray(read_arrays(self._share_path)["share"])

    def receive(self, opened: NoisySums) -> None:
        """Keep the opened sum of all clients' shares as what this client trains from; its share can go."""
        release = self._components.record_release
        assert release is not None
        self._keep(release, lambda: opened)
        self._share_path.unlink(missing_ok=True)

    def targets(self) -> FeatureMoments:
        """What this client's images should look like, as far as its training may know."""
        release = self._components.record_release
        if release is None:
            return self._exact_moments()
        released = self._released(release)
        if released is None:
            raise RunFolderError(self._gone(release))
        return FeatureMoments.of_release(release.as_opened(released))

    def _exact_moments(self) -> FeatureMoments:
        """The moments of this client's images, computed once and kept in its folder."""
        path = self._exact_path
        if not path.exists():
            found = self._components.targets(self._index)
            write_atomic(path, save({name: value.numpy() for name, value in vars(found).items()}), mode=0o600)
        return FeatureMoments(**{name: torch.from_numpy(value) for name, value in read_arrays(path).items()})

    @property
    def _exact_path(self) -> Path:
        return self._folder / "moments.safetensors"

    def _released(self, release: RecordRelease) -> NoisySums | None:
        """The release that was kept, or None."""
        path = release.file(self._index, self._folder)
        return load_moments(path, release.of(self._index), release.context(self._whose(release)))

    def _keep(self, release: RecordRelease, make: Callable[[], NoisySums]) -> None:
        path = release.file(self._index, self._folder)
        make_private_folder(path.parent)
        with as_storage_error(path):
            moments_once(path, release.of(self._index), release.context(self._whose(release)), make)

    def _draw(self, release: RecordRelease) -> None:
        """Make this client's own release, once: a mark beside it stays where somebody deletes it."""

        def first() -> NoisySums:
            if self._drawn_mark(release).exists():
                raise RunFolderError(self._gone(release))
            return release.make(self._index, *self._components.features(self._index))

        self._keep(release, first)
        self._mark_drawn(release)

    def _drawn_mark(self, release: RecordRelease) -> Path:
        path = release.file(self._index, self._folder)
        return path.with_name(f".{path.stem}.drawn")

    def _mark_drawn(self, release: RecordRelease) -> None:
        """Also for a release that a kill, or an earlier version, left without its mark."""
        if not release.summed and not self._drawn_mark(release).exists():
            write_atomic(self._drawn_mark(release), b"", mode=0o600)

    def _whose(self, release: RecordRelease) -> int | None:
        return None if release.summed else self._index

    def _make_share(self, release: RecordRelease) -> None:
        """Draw the share of a summed release, once: two shares of the same images would be two releases.

        Runs that share a store share it, too: whichever of them gets to open the sum opens the same.
        """
        path, opened = self._share_path, release.opened_file(self._folder)
        make_private_folder(path.parent)
        with as_storage_error(path), locked_directory(path.parent):
            if not path.exists() and not opened.exists():
                share = release.share(*self._components.features(self._index))
                write_atomic(path, save({"share": share}), mode=0o600)

    @property
    def _share_path(self) -> Path:
        release = self._components.record_release
        assert release is not None
        return release.share_file(self._index, self._folder)

    def _gone(self, release: RecordRelease) -> str:
        path = release.file(self._index, self._folder)
        return (
            f"{path} is gone: client {self._index} trains from this release "
            "of its images alone, and a second one would cost epsilon on top of the first; put it back"
        )
