"""What is known of each source of images: what readers call it, under which licence, and whose images it has.

No image is read here, so that a report needs no torch; `prism_secure.data` loads them.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Generic, NamedTuple, TypeVar

import msgspec

from prism_secure.config import Config, Data
from prism_secure.config.plugged import is_reference
from prism_secure.config.sections import Source
from prism_secure.errors import RunFolderError

T = TypeVar("T")


class About(NamedTuple):
    """Of one source.

    Attributes:
        name: what readers call it.
        data_set: whose images it has, the same wherever its files lie; "" if only its folder says that.
        licence: of the images; "" if only whoever has them can say.
    """

    name: str
    data_set: str = ""
    licence: str = ""


_FASHION = About("Fashion-MNIST", "fashion_mnist", "MIT (Fashion-MNIST, Copyright 2017 Zalando SE)")
ABOUT: dict[Source, About] = {
    "fashion_mnist_12k": _FASHION,
    "fashion_mnist": _FASHION,
    "mnist": About("MNIST", "mnist", "CC BY-SA 3.0 (MNIST, Copyright Yann LeCun and Corinna Cortes)"),
    "cifar10": About("CIFAR-10", "cifar10", "none stated by its authors (CIFAR-10, Krizhevsky 2009)"),
    "celeba": About("CelebA", "celeba", "non-commercial research only (CelebA, Liu et al. 2015)"),
    "idx": About("images from idx files"),
    "images": About("images from a folder"),
}
"""The bundled images are some of Fashion-MNIST."""


def data_set(data: Data) -> str:
    """The published data set that a run declares; "" where images come from files of one's own.

    >>> data_set(Data()), data_set(Data(source="images", folder="/a/scans"))
    ('fashion_mnist', '')
    """
    return ABOUT[data.source].data_set


def features_caveat(config: Config) -> str:
    """What keeps figures in the metrics' features from meaning what they seem to; "" where nothing does.

    The network was trained on other images than the run's, or the run's own training matched its features.

    >>> features_caveat(Config(data=Data(source="mnist", folder="/a"))).partition(":")[0]
    "the metrics' features come from a classifier of clothes (Fashion-MNIST)"
    """
    features, matched = config.metrics.features, config.features.extractors
    if features == "efficientnet_lite0" and {features, f"{features}_pooled"} & set(matched):
        return (
            "the metrics' features come from the network whose features training matched "
            "(features.extractors): FID on them is what training aimed at, so it flatters; gen2real does not "
            "use these features"
        )
    if is_reference(features):
        return (
            f"the metrics' features come from {features}, a network of your own: where that "
            "was trained on other images than these, FID, recall and their companions may miss what matters; "
            "gen2real does not use these features"
        )
    if features != "classifier" or data_set(config.data) == "fashion_mnist":
        return ""
    return (
        "the metrics' features come from a classifier of clothes (Fashion-MNIST): in other images FID, "
        "recall and their companions may miss what matters; metrics.features = 'efficientnet_lite0' has "
        "features of photographs of all kinds, and needs no download; gen2real does not use these features"
    )


def data_set_named(name: str) -> str:
    """The data set that somebody calls so.

    >>> data_set_named("fashion_mnist_12k"), data_set_named("hospital-a")
    ('fashion_mnist', 'hospital-a')
    """
    known = ABOUT.get(name)  # type: ignore[call-overload]
    return known.data_set or name if known else name


class DataFingerprint(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a run resolved its data to, in its private part (`prism_secure.data.fingerprint`); never shown.

    Attributes:
        source: of the configuration.
        folder: where the files lay, absolute.
        key: names the secret key that lies with the data, and the data by it; "" where none can lie there.
        own_key: then the key itself, in hexadecimal: nobody else's HMACs compare with these.
        training: HMAC-SHA256 of the training images and labels, in hexadecimal.
        held_out: of the held-out ones.
    """

    source: Source
    folder: str
    key: str = ""
    own_key: str = ""
    training: str
    held_out: str


FINGERPRINTS = msgspec.json.Decoder(DataFingerprint)


FINGERPRINT_FILE = "data.json"


def read_fingerprint(folder: Path) -> DataFingerprint | None:
    """What the private part of a run folder, or the folder of one enrolled client, says of its data.

    Raises:
        RunFolderError: it is damaged.
    """
    for path in (folder / "clients" / FINGERPRINT_FILE, folder / FINGERPRINT_FILE):
        try:
            return FINGERPRINTS.decode(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, UnicodeDecodeError, msgspec.MsgspecError) as error:
            raise RunFolderError(f"{path} is damaged: {error}; put it back") from None
    return None


@dataclass(frozen=True)
class Whose:
    """Whose images something is about, as far as it says so.

    Attributes:
        label: for readers; holds no path.
        name: of a published data set, or what a data owner calls the data; "" where neither is known.
        declared: `data.folder` as a configuration has it.
        folder: the same, absolute; "" where only an earlier run knew what it was relative to.
        key: see `DataFingerprint`.
        source: of the configuration.
    """

    label: str
    name: str = ""
    declared: str = ""
    folder: str = ""
    key: str = ""
    source: str = ""

    @classmethod
    def of(cls, data: Data, identity: DataFingerprint | None) -> Whose:
        """By a run's configuration and, where its private part is there, what it resolved.

        >>> Whose.of(Data(), None).name, Whose.of(Data(source="images", folder="/a/scans"), None).label
        ('fashion_mnist', 'images in scans')
        """
        name, declared = data_set(data), data.folder or ""
        if name:
            return cls(name, name, source=data.source)
        folder = declared if PurePath(declared).is_absolute() else ""
        if identity is not None:
            folder = identity.folder
        folder = folder and os.path.normpath(folder)
        label = f"{data.source} in {PurePath(folder or declared).name or 'a folder'}"
        return cls(label, "", declared, folder, identity.key if identity else "", data.source)

    @classmethod
    def kept(cls, identity: DataFingerprint) -> Whose:
        """By what was resolved alone, as beside the ledger of a client on its own machine."""
        return cls.of(Data(source=identity.source, folder=identity.folder), identity)

    @property
    def published(self) -> bool:
        """Whether it names a published data set."""
        return any(self.name == about.data_set for about in ABOUT.values() if about.data_set)

    def is_called(self, name: str) -> bool:
        """Whether a data owner means this by `name`: a data set, or a folder, with its kind or without."""
        folders = [folder for folder in (self.folder, self.declared) if folder]
        known = [self.name or self.label, *folders, *(f"{self.source} in {folder}" for folder in folders)]
        return data_set_named(name) in known

    def same(self, other: Whose) -> bool | None:
        """Whether both may be about the same images; None: what is known cannot decide it.

        Files of one's own are the same where they lay under one key, or in one folder, or in one that holds
        the other. Two keys in two folders decide nothing: the images may have been copied. They are not
        those of a published data set.
        """
        if self.name and other.name:
            return self.name == other.name
        if (self.published and other.source) or (other.published and self.source):
            return False
        if self.name or other.name:
            return None
        if self.key and self.key == other.key:
            return True
        if self.declared == other.declared and (not self.declared or PurePath(self.declared).is_absolute()):
            return True
        if self.folder and other.folder:
            one, two = PurePath(self.folder), PurePath(other.folder)
            return True if one.is_relative_to(two) or two.is_relative_to(one) else None
        return True if self.declared == other.declared else None


@dataclass(frozen=True)
class SameData(Generic[T]):
    """What is about the same images.

    Attributes:
        label: for readers, another one for each group.
        members: in the order in which they were given.
        undecided: what may be about the same images, too, and may not.
        whose: what members say.
    """

    label: str
    members: tuple[T, ...]
    undecided: tuple[T, ...]
    whose: tuple[Whose, ...]

    def is_called(self, name: str) -> bool:
        """Whether a data owner means this by `name`."""
        return name == self.label or any(said.is_called(name) for said in self.whose)


def by_data(items: Iterable[T], whose: Callable[[T], Whose], name: Callable[[T], str]) -> list[SameData[T]]:
    """Group what is about the same images; where a chain of equal ones connects two, they are together.

    Args:
        items: what is to be grouped.
        whose: what an item says of its images.
        name: an item's name: tells groups apart whose folders have the same name.
    """
    told = [(item, whose(item)) for item in items]
    groups: list[list[Whose]] = []
    for new in dict.fromkeys(said for _, said in told):
        joined = [group for group in groups if any(new.same(old) for old in group)]
        groups = [group for group in groups if group not in joined]
        groups.append([old for group in joined for old in group] + [new])
    first = {said: number for number, (_, said) in reversed(list(enumerate(told)))}
    groups.sort(key=lambda group: min(first[said] for said in group))
    labels = Counter(group[0].label for group in groups)
    found = []
    for group in groups:
        members = tuple(item for item, said in told if said in group)
        label = group[0].label if labels[group[0].label] == 1 else f"{group[0].label} ({name(members[0])})"
        undecided = tuple(
            item for item, said in told if said not in group and any(said.same(own) is None for own in group)
        )
        found.append(SameData(label, members, undecided, tuple(group)))
    return found
