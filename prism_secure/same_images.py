"""Which declared data are the same images, as far as a declaration can say."""

from __future__ import annotations

from pathlib import Path

from prism_secure.config import Data

_PUBLISHED = {
    "fashion_mnist_12k": "fashion_mnist",
    "fashion_mnist": "fashion_mnist",
    "mnist": "mnist",
    "cifar10": "cifar10",
    "celeba": "celeba",
}
"""Sources whose images are the same wherever their files lie; the bundled ones are some of Fashion-MNIST."""


def data_set(data: Data) -> str:
    """The data set that runs with this declaration are about: equal for all that may share an image.

    >>> data_set(Data()), data_set(Data(source="fashion_mnist", folder="anywhere"))
    ('fashion_mnist', 'fashion_mnist')
    >>> data_set(Data(source="images", folder="/a/scans"))
    'images in /a/scans'
    """
    if data.source in _PUBLISHED or data.folder is None:
        return data_set_named(data.source)
    return f"{data.source} in {Path(data.folder).expanduser().resolve()}"


def data_set_named(name: str) -> str:
    """The data set that somebody calls so.

    >>> data_set_named("fashion_mnist_12k"), data_set_named("hospital-a")
    ('fashion_mnist', 'hospital-a')
    """
    return _PUBLISHED.get(name, name)
