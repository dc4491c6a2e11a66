"""What is known of each source of images: what readers call it, under which licence, and whose images it has.

Nothing is read here, so that a report needs no torch; `prism_secure.data` loads the images.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from prism_secure.config import Data
from prism_secure.config.sections import Source


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
    """The data set that runs with this declaration are about: equal for all that may share an image.

    >>> data_set(Data()), data_set(Data(source="fashion_mnist", folder="anywhere"))
    ('fashion_mnist', 'fashion_mnist')
    >>> data_set(Data(source="images", folder="/a/scans"))
    'images in /a/scans'
    """
    if ABOUT[data.source].data_set or data.folder is None:
        return data_set_named(data.source)
    return f"{data.source} in {Path(data.folder).expanduser().resolve()}"


def data_set_named(name: str) -> str:
    """The data set that somebody calls so.

    >>> data_set_named("fashion_mnist_12k"), data_set_named("hospital-a")
    ('fashion_mnist', 'hospital-a')
    """
    known = ABOUT.get(name)  # type: ignore[call-overload]
    return known.data_set or name if known else name
